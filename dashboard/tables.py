"""The tables: numbers stay numbers underneath, so that a click on a heading sorts by amount and not by letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import figures
import pandas as pd
import streamlit as st
from books import TOKEN_CLASSES, nano
from filters import NOBODY

NUMBER = st.column_config.NumberColumn
_TROUBLE = "color: #E5484D"
_MUTED = "color: #8A93A6"
_FREE = "color: #18B6A4"
_STATUS = {"ok": "", "running": "color: #3FA7E0", "cancelled": _MUTED, "cache": _FREE, "replay": _FREE}
"""Colours by status; every other one is trouble."""


def models(usage: pd.DataFrame) -> None:
    """One row a model, the dearest first: calls, tokens, cost, latency."""
    total = int(usage["cost_nanousd"].fillna(0).sum())
    rows = pd.DataFrame(
        {
            "model": [_labelled(row) for row in usage.itertuples()],
            "cost": usage["cost_nanousd"],
            "share": usage["cost_nanousd"].fillna(0).astype(float) * 100 / total if total else 0.0,
            "calls": usage["calls"],
            "errors": usage["errors"],
            "input": usage[[name for name in TOKEN_CLASSES if name != "output_tokens"]].sum(axis="columns"),
            "output": usage["output_tokens"],
            "p50": usage["latency_p50_ms"],
            "p95": usage["latency_p95_ms"],
            "ttft": usage["ttft_p50_ms"],
        }
    ).sort_values(["cost", "calls"], ascending=False, na_position="last")
    st.dataframe(
        rows.style.format(money, subset=["cost"]).format(_duration, subset=["p50", "p95", "ttft"]),
        hide_index=True,
        width="stretch",
        height="content",
        placeholder=figures.NOT_KNOWN,
        column_config={
            "model": st.column_config.TextColumn("Model", width="medium", pinned=True),
            "cost": NUMBER("Spend", help="Of the calls with a price."),
            "share": st.column_config.ProgressColumn("Share", format="%.0f%%", min_value=0, max_value=100),
            "calls": NUMBER("Calls", format="localized"),
            "errors": NUMBER("Errors", format="localized"),
            "input": NUMBER("Input tokens", format="localized", help="Uncached, read from cache and written to it."),
            "output": NUMBER("Output tokens", format="localized", help="Thinking included."),
            "p50": NUMBER("p50", help="Half of the calls took at most this long."),
            "p95": NUMBER("p95", help="95% of the calls took at most this long."),
            "ttft": NUMBER("First token", help="Median time to the first token of streamed calls."),
        },
    )


def model_figures(usage: pd.DataFrame) -> None:
    """One row a model: what a call and a thousand tokens of output cost, how fast it writes, how long calls take."""
    live = (usage["calls"] - usage["cached_calls"]).clip(lower=0)
    whole = usage["cost_nanousd"].where(usage["unpriced_calls"] == 0)  # a part of the cost by all calls is no price
    rows = pd.DataFrame(
        {
            "model": [_labelled(row) for row in usage.itertuples()],
            "calls": usage["calls"],
            "cost": usage["cost_nanousd"],
            "per_call": _ratio(whole, live),
            "per_output": _ratio(whole * 1_000, usage["output_tokens"]),
            "speed": usage["output_tokens_per_s"],
            "ttft": usage["ttft_p50_ms"],
            "ttft95": usage["ttft_p95_ms"],
            "p50": usage["latency_p50_ms"],
            "p95": usage["latency_p95_ms"],
        }
    ).sort_values(["cost", "calls"], ascending=False, na_position="last")
    times, dollars = ["ttft", "ttft95", "p50", "p95"], ["cost", "per_call", "per_output"]
    st.dataframe(
        rows.style.format(_money_or_dash, subset=dollars).format(_duration, subset=times),
        hide_index=True,
        width="stretch",
        height="content",
        placeholder=figures.NOT_KNOWN,
        column_config={
            "model": st.column_config.TextColumn("Model", width="medium", pinned=True),
            "calls": NUMBER("Calls", format="localized", help="Those answered from disk included."),
            "cost": NUMBER("Spend"),
            "per_call": NUMBER("A call", help="Spend by calls that the API answered or refused."),
            "per_output": NUMBER("1k output", help="All that was spent, by a thousand tokens of output."),
            "speed": NUMBER("Tokens/s", format="%.0f", help="Output after the first token, by the time it took."),
            "ttft": NUMBER("First token", help="Half of the streamed calls had it by then."),
            "ttft95": NUMBER("p95", help="95% of the streamed calls had their first token by then."),
            "p50": NUMBER("Whole answer", help="Half of the calls took at most this long."),
            "p95": NUMBER("p95 ", help="95% of the calls took at most this long."),
        },
    )


def by_name(usage: pd.DataFrame, title: str) -> None:
    """One row a name: spend and its share, calls, tokens; the dearest first."""
    total = int(usage["cost_nanousd"].fillna(0).sum())
    rows = pd.DataFrame(
        {
            "name": usage["name"],
            "cost": usage["cost_nanousd"],
            "share": usage["cost_nanousd"].fillna(0).astype(float) * 100 / total if total else 0.0,
            "calls": usage["calls"],
            "errors": usage["errors"],
            "tokens": usage[list(TOKEN_CLASSES)].sum(axis="columns"),
            "saved": pd.array([nano(usd) for usd in usage["saved_usd"]], dtype="Int64"),
        }
    )
    table(
        rows.style.format(money, subset=["cost", "saved"]),
        {
            "name": st.column_config.TextColumn(title, width="medium", pinned=True),
            "cost": NUMBER("Spend"),
            "share": st.column_config.ProgressColumn("Share", format="%.0f%%", min_value=0, max_value=100),
            "calls": NUMBER("Calls", format="localized"),
            "errors": NUMBER("Errors", format="localized"),
            "tokens": NUMBER("Tokens", format="localized"),
            "saved": NUMBER("Saved", help="By both caches, less what writing cost more."),
        },
        height="auto",
        placeholder=figures.UNPRICED,
    )


DEAREST = ("cost_nanousd", "calls")
"""What `dearest` shows of a usage() frame."""


def dearest(where: pd.DataFrame, usage: pd.DataFrame) -> None:
    """Spend and calls by the names in `where`."""
    rows = where.assign(
        cost=usage["cost_nanousd"], calls=usage["calls"], each=_ratio(usage["cost_nanousd"], usage["calls"])
    )
    columns = {name: st.column_config.TextColumn(name.capitalize()) for name in where}
    numbers = {"cost": NUMBER("Spend"), "calls": NUMBER("Calls", format="localized"), "each": NUMBER("A call")}
    table(rows.style.format(money, subset=["cost", "each"]), {**columns, **numbers}, placeholder=figures.UNPRICED)


def endings(rows: pd.DataFrame) -> None:
    """Ways in which calls ended other than well."""
    shown = rows[["kind", "type", "calls", "cost", "output_tokens", "retries", "wait_ms", "why"]]
    table(
        shown.style.format(money, subset=["cost"]).format(_duration, subset=["wait_ms"]),
        {
            "kind": st.column_config.TextColumn("Ended by"),
            "type": st.column_config.TextColumn("Error"),
            "calls": NUMBER("Calls", format="localized"),
            "cost": NUMBER("Spent"),
            "output_tokens": NUMBER("Output tokens", format="localized"),
            "retries": NUMBER("Retries", format="localized"),
            "wait_ms": NUMBER("Waited", help="Slept between attempts."),
            "why": st.column_config.TextColumn("What it means", width="large"),
        },
    )


def facts(said: Mapping[str, object]) -> None:
    """Names and what they are."""
    table(pd.DataFrame({"": list(said), "Value": [str(value) for value in said.values()]}), {"Value": " "})


def table(rows: Any, columns: dict[str, Any], *, height: str = "content", placeholder: str | None = None) -> None:
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        height=height,
        column_config=columns,
        placeholder=figures.NOT_KNOWN if placeholder is None else placeholder,
    )


def calls(rows: pd.DataFrame, *, key: str | None = None, on_select: Callable[[], None] | None = None) -> None:
    """The given calls, one a row, in the order given; with `on_select` one can be chosen."""
    choose = {"on_select": on_select, "selection_mode": "single-row"} if on_select else {}
    shown = pd.DataFrame(
        {
            "time": rows["ts"].dt.tz_localize(None),  # the wall clock as it is: the browser's zone has no say
            "status": _outcome(rows),
            "model": rows["model"].fillna(rows["model_requested"]),
            "project": rows["project"].fillna("–"),
            "notebook": rows["notebook"].map(lambda name: "–" if pd.isna(name) else str(name).rsplit("/", 1)[-1]),
            "input": rows[[name for name in TOKEN_CLASSES if name != "output_tokens"]].sum(axis="columns"),
            "output": rows["output_tokens"],
            "cost": rows["cost_nanousd"],
            # text, so that what is missing in a row can only be its price
            "latency": [_duration(ms) for ms in rows["latency_ms"]],
            "ttft": [_duration(ms) for ms in rows["ttft_ms"]],
        }
    )
    styled = shown.style.format(money, subset=["cost"])
    st.dataframe(
        styled.map(lambda text: _STATUS.get(str(text), _TROUBLE), subset=["status"]),
        hide_index=True,
        width="stretch",
        height="content",
        key=key,
        placeholder=figures.UNPRICED,
        column_config={
            "time": st.column_config.DatetimeColumn("Time", format="D MMM HH:mm:ss"),
            "status": st.column_config.TextColumn("Status"),
            "model": st.column_config.TextColumn("Model"),
            "project": st.column_config.TextColumn("Project"),
            "notebook": st.column_config.TextColumn("Notebook"),
            "input": NUMBER("Input", format="localized"),
            "output": NUMBER("Output", format="localized"),
            "cost": NUMBER("Cost"),
            "latency": st.column_config.TextColumn("Latency", alignment="right"),
            "ttft": st.column_config.TextColumn("First token", alignment="right"),
        },
        **choose,
    )


def _labelled(row: Any) -> str:
    """The model's name, and how many of its calls the spend beside it leaves out."""
    name = NOBODY["model"] if pd.isna(row.model) else row.model
    if not row.unpriced_calls:
        return name
    return f"{name} ({'unpriced' if pd.isna(row.cost_nanousd) else f'{row.unpriced_calls:,} unpriced'})"


def _outcome(rows: pd.DataFrame) -> pd.Series:
    """How a call ended: its status, the error type where there is one, what stopped it where that was no plain end."""
    said = rows["error_type"].where(rows["error_type"].notna() & (rows["status"] == "error"), rows["status"])
    cut = rows["stop_reason"].isin(["max_tokens", "refusal"]) & (rows["status"] == "ok")
    said = said.where(~cut, rows["stop_reason"])
    return said.where(rows["source"] == "live", rows["source"])


def _ratio(part: pd.Series, whole: pd.Series) -> pd.Series:
    """`part` by `whole`, to the nearest nano-dollar; missing where there is nothing to divide by."""
    return (part / whole.where(whole > 0)).round().astype("Int64")


def _money_or_dash(nanousd: object) -> str:
    return figures.NOT_KNOWN if pd.isna(nanousd) else figures.money(int(nanousd))


def money(nanousd: object) -> str:
    return figures.money(None if pd.isna(nanousd) else int(nanousd))


def _duration(ms: object) -> str:
    return figures.duration(None if pd.isna(ms) else float(ms))
