"""Overview: what was spent, on what, and the calls as they come in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import books
import budget_view
import charts
import figures
import filters
import frame
import pandas as pd
import states
import streamlit as st
import tables
from period import buckets

from llmnb import ledger
from llmnb.budgeting import statuses

RECENT = 12
REDRAW_S = 2.5
BUDGETS = 3


def page() -> None:
    """Everything on the page, from the top."""
    here = frame.view()
    chosen, now = here.chosen, here.now
    view = books.overview(chosen)
    with here.head:
        states.badges(view.totals)
    if not view.totals.calls:
        states.no_match(chosen)
        return
    first = view.steps["at"].min().to_pydatetime()
    grid = buckets(chosen.period, now=now, first=first)
    metrics(view, chosen, grid)
    outlook(view, chosen)
    drawings(view, chosen, grid)
    st.subheader("Models", anchor=False)
    tables.models(view.models)
    st.subheader("Recent calls", anchor=False)
    if chosen.period.goes_on:
        recent_calls(chosen, (_fingerprint(books.recent(chosen, RECENT)), time.monotonic()))
    else:
        tables.calls(books.recent(chosen, RECENT))
    st.caption(f"Ledger: `{books.location()}`")


def metrics(view: books.Overview, chosen: filters.Filters, grid: list[datetime]) -> None:
    """Spend, calls, tokens and error rate, each with its course and its change against the period before."""
    now, before, step = view.totals, view.before, chosen.period.step
    nothing = "no change" if before and before.calls else "nothing before" if before else chosen.period.name

    def course(*columns: str) -> list[int]:
        return charts.sparkline(view.steps, grid, step, columns)

    def metric(label: str, value: str, change: str | None, course: Sequence[float], help: str, color: str) -> None:
        arrow, color = ("auto", color) if change else ("off", "blue")
        look = {"border": True, "chart_type": "area", "delta_arrow": arrow, "delta_color": color}
        st.metric(label, value, change or nothing, help=help, chart_data=course, **look)

    with st.container(horizontal=True, key="metrics"):
        change = figures.change(now.cost_nanousd, before and before.cost_nanousd)
        exact = f"Exactly {figures.exact_money(now.cost_nanousd)}."
        dollars = [value / 1e9 for value in course("cost_nanousd")]
        metric("Spend", figures.money(now.cost_nanousd), change, dollars, exact, "blue")
        change, calls = figures.change(now.calls, before and before.calls), course("calls")
        metric("Calls", figures.count(now.calls), change, calls, "Retries of a call are one call.", "blue")
        change = figures.change(now.tokens, before and before.tokens)
        exact = f"Exactly {figures.count(now.tokens)}: uncached input, cache reads and writes, output."
        metric("Tokens", figures.compact(now.tokens), change, course(*books.TOKEN_CLASSES), exact, "blue")
        change = before and figures.change_of_rate((now.errors, now.calls), (before.errors, before.calls))
        rates = [100 * bad / tried if tried else 0 for bad, tried in zip(course("errors"), calls, strict=True)]
        exact = f"{figures.count(now.errors)} of {figures.plural(now.calls, 'call')} failed."
        metric("Error rate", figures.percent(now.errors, now.calls), change, rates, exact, "inverse")


def outlook(view: books.Overview, chosen: filters.Filters) -> None:
    """Where the month is going, what caching saved, and what is left of the budgets; each where there is something."""
    ahead = ledger.month_end(where=chosen.where, path=books.location())
    saved = [books.nano(usd) for usd in view.models["saved_usd"].dropna()]
    found = [] if books.shows_demo() else budget_view.concerned(statuses(), chosen)
    if not (ahead or saved or found):
        return
    row = st.container(horizontal=True, key="outlook")
    with row:
        if ahead:
            low, high = figures.money(ahead.low_nanousd), figures.money(ahead.high_nanousd)
            help = (
                f"What {ahead.ends_at - timedelta(days=1):%B} will have cost, if it goes on like the last {ahead.days} "
                f"days: eight of ten such months end in this range. {figures.money(ahead.spent_nanousd)} is spent."
            )
            look = {"delta_color": "blue", "delta_arrow": "off", "help": help, "border": True}
            st.metric("Month-end forecast", figures.money(ahead.expected_nanousd), f"{low} – {high}", **look)
        if saved:
            spent = view.totals.cost_nanousd or 0
            share = figures.percent(max(sum(saved), 0), max(sum(saved), 0) + spent)
            help = f"Exactly {figures.exact_money(sum(saved))}, by both caches, less what writing to them cost more."
            look = {"delta_color": "blue", "delta_arrow": "off", "help": help, "border": True}
            st.metric("Net savings", figures.money(sum(saved)), f"{share} of the full price", **look)
    if found:
        nearest = sorted(found, key=lambda one: one.share, reverse=True)[:BUDGETS]
        with st.container(border=True, key="budget-bars"):
            for column, status in zip(st.columns(len(nearest), gap="medium"), nearest, strict=True):
                with column:
                    budget_view.bar(status)
            if len(found) > BUDGETS:
                st.caption(f"The {BUDGETS} most spent of {len(found)} budgets.")


def drawings(view: books.Overview, chosen: filters.Filters, grid: list[datetime]) -> None:
    """Spend over time by model, and which kinds of tokens there were."""
    left, right = st.columns([3, 2], gap="medium")
    step = chosen.period.step
    with left.container(border=True, height="stretch"):
        st.markdown(f"**Spend per {step}**")
        if not view.totals.cost_nanousd:
            unpriced = view.totals.cost_nanousd is None
            st.caption("None of these calls has a price." if unpriced else "These calls cost nothing.")
        else:
            models = [name or filters.NOBODY["model"] for name in books.choices()["model"]]
            chart = charts.spend(view.steps, grid, step, models)
            st.vega_lite_chart(spec=chart, width="stretch", key="spend", alt=f"Spend per {step}, stacked by model")
    with right.container(border=True, height="stretch"):
        st.markdown("**Tokens by class**")
        sums = {name: int(view.models[name].sum()) for name in books.TOKEN_CLASSES}
        thinking = int(view.models["thinking_tokens"].fillna(0).sum())
        ink = "#E6E9F2" if st.context.theme.type == "dark" else "#1B2130"
        st.vega_lite_chart(
            spec=charts.tokens(sums, thinking, ink), width="stretch", key="tokens", alt="Tokens by class"
        )
        read = sum(sums.values()) - sums["output_tokens"]
        thought = f" {figures.compact(thinking)} tokens of the output were thinking." if thinking else ""
        share = figures.percent(sums["cache_read_tokens"], read)
        st.caption(f"{share} of the input was read from the prompt cache.{thought}")


@st.fragment(run_every="3s")
def recent_calls(chosen: filters.Filters, drawn: tuple[int, float]) -> None:
    """The newest calls, read again every few seconds; news redraws the whole page, lest it contradict itself.

    `drawn` is what the page knew when it was drawn, and when that was: a burst of calls must not redraw it.
    """
    with books.in_plain_words():
        rows = books.recent(chosen, RECENT)
        tables.calls(rows)
        known, at_s = drawn
        if _fingerprint(rows) != known and time.monotonic() - at_s > REDRAW_S:
            st.rerun()


def _fingerprint(rows: pd.DataFrame) -> int:
    return hash(tuple(zip(rows["uid"], rows["status"], strict=True)))


page()
