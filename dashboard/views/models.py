"""Models: what a call and its output cost on each, how fast they are, how answers end, and what others would cost."""

from __future__ import annotations

import books
import charts
import figures
import filters
import frame
import pandas as pd
import price_tables
import states
import streamlit as st
import tables

from llmnb import ledger, settings
from llmnb.pricing import price_table, same_tokens_on

NO_MODEL = filters.NOBODY["model"]
# how answers end; what the API adds to them later is among the others
STOP_COLORS = {
    "end_turn": "#18B6A4",
    "stop_sequence": "#3FA7E0",
    "tool_use": "#5B7FFF",
    "max_tokens": "#F2994A",
    "refusal": "#E5608F",
    "other": "#B06CF0",
    "none": "#8A93A6",
}


def page() -> None:
    """The models side by side."""
    chosen = frame.view().chosen
    usage = books.with_percentiles(chosen, ["model"])
    totals = books.totals(usage)
    with frame.view().head:
        states.badges(totals)
    if not totals.calls:
        states.no_match(chosen)
        return
    st.subheader("Cost and speed", anchor=False)
    tables.model_figures(usage)
    known = usage[usage["model"].notna()]
    names = known["model"].tolist()[: charts.MODELS_SHOWN]
    colors = charts.model_colors([name for name in books.choices()["model"] if name], names)
    distributions(chosen, colors)
    endings(chosen, names)
    elsewhere(chosen, usage)


def distributions(chosen: filters.Filters, colors: dict[str, str]) -> None:
    """How long the first token and the whole answer took."""
    quick, note = (chosen, "") if set(chosen.where) <= {"project", "model"} else books.quick(chosen)
    period = quick.period
    found = ledger.latencies(period.since, period.until, by=["model"], where=quick.where, path=books.location())
    found = found[found["model"].isin(list(colors))]
    titles = {"ttft": ("Time to the first token", "streamed"), "latency": ("Time to the end", "finished")}
    for column, (measure, (title, which)) in zip(st.columns(2, gap="medium"), titles.items(), strict=True):
        rows = found[found["measure"] == measure]
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{title}**")
            if rows.empty:
                st.caption(f"No {which} call in this period.")
                continue
            drawn = {name: color for name, color in colors.items() if name in set(rows["model"])}
            spec = charts.distribution(rows, drawn)
            st.vega_lite_chart(spec=spec, width="stretch", key=measure, alt=f"{title}, share of calls by model")
    if note:
        st.caption(note)


def endings(chosen: filters.Filters, names: list[str]) -> None:
    """How the answers of each model ended."""
    quick, note = books.quick(chosen)
    found = books.usage(quick, ["model", "stop_reason"], ["calls"], source=["live"])
    found = found[found["model"].isin(names) & (found["calls"] > 0)]
    with st.container(border=True):
        st.markdown("**How answers ended**")
        if found.empty:
            st.caption("No answer of a model in this period.")
            return
        reasons = found["stop_reason"].fillna("none")
        rows = pd.DataFrame(
            {
                "group": found["model"],
                "name": reasons.where(reasons.isin(list(STOP_COLORS)), "other"),
                "number": found["calls"],
            }
        )
        rows = rows.groupby(["group", "name"], as_index=False, sort=False).sum()
        shown = {name: color for name, color in STOP_COLORS.items() if name in set(rows["name"])}
        st.vega_lite_chart(
            spec=charts.shares(rows, shown, "Ended by"), width="stretch", key="endings", alt="Stop reasons by model"
        )
        cut = int(rows[rows["name"] == "max_tokens"]["number"].sum())
        if cut:
            st.caption(
                f"{figures.plural(cut, 'answer')} hit `max_tokens` and ended in the middle: raise it to get the rest."
            )
        if note:
            st.caption(note)


def elsewhere(chosen: filters.Filters, usage: pd.DataFrame) -> None:
    """What the same tokens would have cost on other models."""
    st.subheader("The same tokens on another model", anchor=False)
    own = list(usage["model"].dropna())
    prices = settings.load().prices
    listed = [row.model for row in price_table(overrides=prices)]
    left, right = st.columns(2)
    source = left.selectbox("Tokens of", ["All models", *own], key="tokens-of")
    defaults = [name for name in dict.fromkeys([*own, *CURRENT]) if name in listed][:6]
    others = right.multiselect("On", sorted({*listed, *own}), default=defaults, key="on-models")
    rows = usage if source == "All models" else usage[usage["model"] == source]
    tokens = books.tokens_of(rows)
    paid = books.totals(rows).cost_nanousd
    found = [same_tokens_on(name, tokens, overrides=prices) for name in others]
    price_tables.elsewhere(found, paid)
    notes = ["Tokens of each class at today's prices."]
    if any(one.is_tiered for one in found):
        notes.append("Models marked * charge more for long prompts; sums do not tell how long each was.")
    if rows["unpriced_calls"].sum():
        notes.append("What was paid leaves out calls without a price.")
    st.caption(" ".join(notes) + " Another model counts and writes other tokens: this compares prices, not models.")


# offered beside the models that were used
CURRENT = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2")

page()
