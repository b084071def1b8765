"""The tables of the prompt cache: reads and writes by model, writes for nothing, reasons of misses."""

from __future__ import annotations

import figures
import pandas as pd
import streamlit as st
from tables import NUMBER, money, table


def cache_by_model(rows: pd.DataFrame) -> None:
    """Tokens read and written by model, and what they save and cost against plain input."""
    dollars = ["reads_saved", "cost_5m", "cost_1h", "net"]
    for name in dollars:
        rows[name] = pd.array(rows[name].tolist(), dtype="Int64")
    table(
        rows.style.format(money, subset=dollars),
        {
            "model": st.column_config.TextColumn("Model", width="medium", pinned=True),
            "share": st.column_config.ProgressColumn("Input read", format="%.0f%%", min_value=0, max_value=100),
            "read": NUMBER("Read", format="localized", help="Tokens."),
            "written_5m": NUMBER("Written, 5 min", format="localized", help="Tokens, also of unknown lifetime."),
            "written_1h": NUMBER("Written, 1 h", format="localized", help="Tokens."),
            "reads_saved": NUMBER("Reads saved"),
            "cost_5m": NUMBER("5 min premium", help="What writing cost more than plain input."),
            "cost_1h": NUMBER("1 h premium", help="What writing cost more than plain input."),
            "net": NUMBER("Net"),
        },
        placeholder=figures.UNPRICED,
    )


def unread_writes(rows: pd.DataFrame) -> None:
    """Writes that nobody read, by model and lifetime."""
    rows["premium"] = pd.array(rows["premium"].tolist(), dtype="Int64")
    table(
        rows.style.format(money, subset=["premium"]),
        {
            "model": st.column_config.TextColumn("Model", width="medium"),
            "life": st.column_config.TextColumn("For"),
            "writes": NUMBER("Calls that wrote", format="localized"),
            "unread": NUMBER("Never read", format="localized"),
            "share": st.column_config.ProgressColumn("Share", format="%.0f%%", min_value=0, max_value=100),
            "tokens": NUMBER("Tokens never read", format="localized"),
            "premium": NUMBER("Premium lost", help="What writing them cost more than plain input, at today's price."),
        },
        placeholder=figures.UNPRICED,
    )


def reasons(rows: pd.DataFrame) -> None:
    """Why the prompt cache was missed."""
    texts = {"reason": "Reason", "why": "What it means"}
    table(rows, {**texts, "calls": NUMBER("Calls", format="localized")})
