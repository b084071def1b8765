"""The tables: numbers stay numbers underneath, so that a click on a heading sorts by amount and not by letter."""

from __future__ import annotations

from typing import Any

import figures
import pandas as pd
import streamlit as st
from books import TOKEN_CLASSES
from filters import NOBODY

_NUMBER = st.column_config.NumberColumn
_TROUBLE = "color: #E5484D"
_MUTED = "color: #8A93A6"
_STATUS = {"ok": "", "running": "color: #3FA7E0", "cancelled": _MUTED}
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
        rows.style.format(_money, subset=["cost"]).format(_duration, subset=["p50", "p95", "ttft"]),
        hide_index=True,
        width="stretch",
        height="content",
        placeholder=figures.NOT_KNOWN,
        column_config={
            "model": st.column_config.TextColumn("Model", width="medium", pinned=True),
            "cost": _NUMBER("Spend", help="Of the calls with a price."),
            "share": st.column_config.ProgressColumn("Share", format="%.0f%%", min_value=0, max_value=100),
            "calls": _NUMBER("Calls", format="localized"),
            "errors": _NUMBER("Errors", format="localized"),
            "input": _NUMBER("Input tokens", format="localized", help="Uncached, read from cache and written to it."),
            "output": _NUMBER("Output tokens", format="localized", help="Thinking included."),
            "p50": _NUMBER("p50", help="Half of the calls took at most this long."),
            "p95": _NUMBER("p95", help="95% of the calls took at most this long."),
            "ttft": _NUMBER("First token", help="Median time to the first token of streamed calls."),
        },
    )


def calls(rows: pd.DataFrame) -> None:
    """The given calls, one a row, in the order given."""
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
    styled = shown.style.format(_money, subset=["cost"])
    st.dataframe(
        styled.map(lambda text: _STATUS.get(str(text), _TROUBLE), subset=["status"]),
        hide_index=True,
        width="stretch",
        height="content",
        placeholder=figures.UNPRICED,
        column_config={
            "time": st.column_config.DatetimeColumn("Time", format="D MMM HH:mm:ss"),
            "status": st.column_config.TextColumn("Status"),
            "model": st.column_config.TextColumn("Model"),
            "project": st.column_config.TextColumn("Project"),
            "notebook": st.column_config.TextColumn("Notebook"),
            "input": _NUMBER("Input", format="localized"),
            "output": _NUMBER("Output", format="localized"),
            "cost": _NUMBER("Cost"),
            "latency": st.column_config.TextColumn("Latency", alignment="right"),
            "ttft": st.column_config.TextColumn("First token", alignment="right"),
        },
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


def _money(nanousd: object) -> str:
    return figures.money(None if pd.isna(nanousd) else int(nanousd))


def _duration(ms: object) -> str:
    return figures.duration(None if pd.isna(ms) else float(ms))
