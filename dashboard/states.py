"""What a page says when there is nothing to draw, and the badges for numbers that are not whole."""

from __future__ import annotations

import books
import figures
import filters
import streamlit as st

FIRST_CALL = """import llmnb

llm = llmnb.LLM("claude-sonnet-5-5", project="thesis")
llm("Explain WAL in SQLite")"""


def no_calls() -> None:
    """There is no ledger, or it is empty: what to type. The page fills by itself with the first call."""
    with st.container(border=True, key="empty", width=760):
        st.subheader("No calls yet", anchor=False)
        st.write("Every call made through llmnb appears here with its tokens and its cost. In a notebook:")
        st.code(FIRST_CALL, language="python")
        st.write("Without an API key, look around in a notebook and a dashboard filled by a local simulator:")
        st.code("llmnb demo", language="bash")
        st.page_link("views/prices.py", label="Or load a month of invented calls here", icon=":material/science:")
        st.caption(f"Ledger: `{books.location()}`. This page fills by itself.")
    _fill_by_itself(None)


@st.fragment(run_every="2s")
def _fill_by_itself(chosen: filters.Filters | None) -> None:
    """Draw the page anew once there is a call (that the filters let through)."""
    with books.in_plain_words():
        if not (books.recent(chosen, 1).empty if chosen else books.is_empty()):
            st.rerun()


def no_match(chosen: filters.Filters) -> None:
    """There are calls, but none that the filter bar lets through."""
    with st.container(border=True, key="no-match", width=760):
        st.subheader("No calls match", anchor=False)
        narrowed = " and ".join(_spoken(dimension, values) for dimension, values in chosen.where.items())
        when = f"called in {chosen.period.name}" if chosen.period.since else "ever called"
        st.write(figures.plain(f"Nothing was {when}" + (f" with {narrowed}." if narrowed else ".")))
        st.button("Reset filters", icon=":material/filter_alt_off:", on_click=filters.reset)
    if chosen.period.goes_on:
        _fill_by_itself(chosen)


def _spoken(dimension: str, values: list[str | None]) -> str:
    return f"{dimension.replace('_', ' ')} {' or '.join(value or filters.NOBODY[dimension] for value in values)}"


def about_the_books() -> None:
    """What to know about the ledger as such: a newer llmnb writes it, or its calls are invented."""
    if books.shows_demo():
        st.badge("demo data", icon=":material/science:", color="violet", help="Invented calls, in a file of their own.")
    if found := books.remaking():
        until = f"Days are cut in {found.zone} until the sums in {found.into} are whole. " * (found.zone != found.into)
        st.badge(
            f"sums made anew: {100 * found.share:.0f}%",
            icon=":material/autorenew:",
            color="blue",
            help=f"{until}What is shown is whole, from the sums that were there before. It goes on with each call, "
            "or at once: llmnb ledger rebuild",
        )
    if books.is_newer():
        st.badge(
            "newer ledger",
            icon=":material/upgrade:",
            color="orange",
            help="A newer llmnb writes this ledger; this one shows what it understands of it: pip install -U llmnb",
        )


def badges(totals: books.Totals) -> None:
    """What to know about the totals: how many calls they leave out, how many they only estimate."""
    if totals.unpriced_calls:
        st.badge(
            f"{figures.plural(totals.unpriced_calls, 'call')} unpriced",
            icon=":material/money_off:",
            color="orange",
            help="No price is known for their model, so the spend shown leaves them out. "
            "Give their model a price on the page Prices & data.",
        )
    if totals.estimated_calls:
        st.badge(
            f"{figures.plural(totals.estimated_calls, 'call')} estimated",
            icon=":material/straighten:",
            color="gray",
            help="They ended before the API reported all their tokens (stopped, cut off, killed), so some of their "
            "counts are bounds.",
        )
