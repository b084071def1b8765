"""Errors & limits: what failed and how, when limits were hit, what retries cost, and answers that ended early."""

from __future__ import annotations

import books
import charts
import figures
import filters
import frame
import pandas as pd
import states
import streamlit as st
import tables
from period import buckets

ENDED = ("calls", "cost_nanousd", "output_tokens", "retries", "wait_ms")
UNFINISHED = ("error", "truncated", "interrupted", "cancelled")
ENDINGS = {
    "error": "The API or the network refused it.",
    "truncated": "The stream ended before the answer was whole.",
    "interrupted": "The process died in the middle of it.",
    "cancelled": "You stopped it.",
    "max_tokens": "The answer reached max_tokens and ended in the middle.",
    "refusal": "The model declined to answer.",
}
LIMITS = {"rate_limit_error": "429 rate limit", "overloaded_error": "529 overloaded"}
COLORS = ("#E5608F", "#F2994A", "#B06CF0", "#3FA7E0", "#C98A5B", "#8FB339", "#5B7FFF", "#18B6A4", "#8A93A6")


def page() -> None:
    """What went wrong, and what that cost."""
    chosen = frame.view().chosen
    step = chosen.period.step
    steps = books.usage(chosen, [step]).rename(columns={step: "at"})
    totals = books.totals(steps)
    with frame.view().head:
        states.badges(totals)
    if not totals.calls:
        states.no_match(chosen)
        return
    quick, note = books.quick(chosen)
    ended = books.usage(quick, ["status", "stop_reason", "error_type"], ENDED, source=["live"])
    metrics(totals, steps, ended)
    grid = buckets(chosen.period, now=frame.view().now, first=steps["at"].min().to_pydatetime())
    left, right = st.columns(2, gap="medium")
    with left.container(border=True, height="stretch"):
        st.markdown(f"**Failed calls per {step}, by error**")
        by_error(quick, grid)
    with right.container(border=True, height="stretch"):
        st.markdown(f"**Retries per {step}**")
        retries(steps, grid, chosen)
        st.caption("A call that went well after a retry counts here, and not among the failed ones.")
    table(ended)
    if note:
        st.caption(note)


def metrics(totals: books.Totals, steps: pd.DataFrame, ended: pd.DataFrame) -> None:
    """How many failed, how often it was tried again, how long that took, and what unfinished answers cost."""
    repeated, waited_ms = int(steps["retries"].sum()), float(steps["wait_ms"].sum())
    unfinished = ended[ended["status"].isin(UNFINISHED)]
    lost, calls = int(unfinished["cost_nanousd"].fillna(0).sum()), int(unfinished["calls"].sum())
    with st.container(horizontal=True, key="metrics"):
        help = f"{figures.count(totals.errors)} of {figures.plural(totals.calls, 'call')} failed after all retries."
        st.metric("Error rate", figures.percent(totals.errors, totals.calls), help=help, border=True)
        st.metric("Retries", figures.count(repeated), help="Attempts beyond the first of a call.", border=True)
        help = "Slept between attempts, all calls together. What an attempt itself took comes on top."
        st.metric("Retry waits", figures.duration(waited_ms), help=help, border=True)
        help = (
            f"Exactly {figures.exact_money(lost)}: {figures.plural(calls, 'call')} that failed, were cut off or "
            "stopped, as far as their tokens were billed. The API bills no attempt that it refused."
        )
        st.metric("Unfinished", figures.money(lost), help=help, border=True)


def by_error(quick: filters.Filters, grid: list) -> None:
    """Failures over time, stacked by their type."""
    step = quick.period.step
    bad = ["error", "truncated", "interrupted"]
    found = books.usage(quick, [step, "status", "error_type"], ["calls"], status=bad)
    if found.empty:
        st.caption("No call failed. When one does, its kind and time are here.")
        return
    kinds = found["error_type"].fillna(found["status"])
    rows = pd.DataFrame({"at": found[step], "name": kinds.map(lambda kind: LIMITS.get(kind, kind))})
    rows["number"] = found["calls"]
    rows = rows.groupby(["at", "name"], as_index=False).sum()
    biggest = rows.groupby("name")["number"].sum().sort_values(ascending=False).index.tolist()
    kept = biggest[: len(COLORS) - 1]
    rows["name"] = rows["name"].where(rows["name"].isin(kept), "others")
    names = [*kept, "others"] if len(biggest) > len(kept) else kept
    spec = charts.counts(rows, grid, step, dict(zip(names, COLORS, strict=False)), "Error")
    st.vega_lite_chart(spec=spec, width="stretch", key="failures", alt="Failed calls over time, by error")


def retries(steps: pd.DataFrame, grid: list, chosen: filters.Filters) -> None:
    """Retries over time."""
    tried = steps[steps["retries"] > 0]
    if tried.empty:
        st.caption("No call had to be tried again.")
        return
    rows = pd.DataFrame({"at": tried["at"], "name": "retries", "number": tried["retries"]})
    spec = charts.counts(rows, grid, chosen.period.step, {"retries": "#F2994A"}, "Retries")
    st.vega_lite_chart(spec=spec, width="stretch", key="retries", alt="Retries over time")


def table(ended: pd.DataFrame) -> None:
    """Every way in which calls ended other than well."""
    st.subheader("How calls ended, other than well", anchor=False)
    cut = ended["stop_reason"].isin(["max_tokens", "refusal"]) & (ended["status"] == "ok")
    kind = ended["status"].where(~cut, ended["stop_reason"])
    rows = ended.assign(kind=kind, type=ended["error_type"].fillna(""))[kind.isin(list(ENDINGS))]
    if rows.empty:
        st.caption("Every call ended well.")
        return
    sums = ["calls", "output_tokens", "retries", "wait_ms"]
    rows = rows.assign(cost=rows["cost_nanousd"].fillna(0))
    rows = rows.groupby(["kind", "type"], as_index=False)[[*sums, "cost"]].sum()
    tables.endings(rows.sort_values("calls", ascending=False).assign(why=rows["kind"].map(ENDINGS)))
    st.page_link("views/calls.py", label="See these calls", icon=":material/list_alt:", query_params=_failed())


def _failed() -> list[tuple[str, str]]:
    """The filters as they are, and the calls that failed."""
    kept = [(name, value) for name in st.query_params for value in st.query_params.get_all(name)]
    return [*(pair for pair in kept if pair[0] != "status"), *(("status", status) for status in UNFINISHED)]


page()
