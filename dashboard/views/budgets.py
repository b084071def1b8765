"""Budgets: how much may be spent, what is left of it, and at what pace it goes. Set, edit and remove them here."""

from __future__ import annotations

import books
import budget_view
import figures
import frame
import streamlit as st

from llmnb.budgeting import statuses


def page() -> None:
    """Every budget of the ledger, and the form of a new one."""
    if books.shows_demo():
        st.info("Budgets are of your own ledger, also while you look at demo data.", icon=":material/science:")
    chosen = frame.view().chosen
    if said := st.session_state.pop("budget-said", None):
        st.toast(said.replace("$", "\\$"), icon=":material/check:")
    found = statuses()
    shown = budget_view.concerned(found, chosen)
    if not found:
        st.write(
            "No budget is set. One holds across every kernel and script on this ledger: a call that does not fit is "
            "not sent, a stream is cut off at the line, and 50, 80 and 100 % are warned of."
        )
    elif len(shown) < len(found):
        st.caption(
            f"{figures.plural(len(found) - len(shown), 'budget')} for other projects, users or models not shown."
        )
    for status in shown:
        budget = status.budget
        with st.container(border=True, key=f"budget-{budget.id}"):
            budget_view.bar(status)
            told = [f"{figures.plural(status.calls, 'call')} on the books"]
            if status.unpriced_calls:
                told.append(f"{figures.count(status.unpriced_calls)} without a price, which took nothing")
            told.append("it stops calls" if budget.action == "stop" else "it only warns")
            st.caption(f"Budget {budget.id}: {', '.join(told)}. {budget_view.clock_of(budget)}")
            budget_view.burn_down(status)
            with st.container(horizontal=True):
                with st.popover("Edit", type="tertiary", icon=":material/edit:"), books.in_plain_words():
                    budget_view.edit_form(budget)
                budget_view.remove_button(budget)
    with st.expander("New budget", expanded=not found, icon=":material/add:"), books.in_plain_words():
        budget_view.new_form({} if books.is_empty() else books.choices())
    st.caption("In Python: `llmnb.set_budget(usd=5, per='day', project='thesis')`; in a shell: `llmnb budget`.")


page()
