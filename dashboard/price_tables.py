"""The tables of prices: what has none, the user's own, versions on the books, published ones, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import figures
import pandas as pd
import streamlit as st
from books import TOKEN_CLASSES
from filters import NOBODY
from tables import NUMBER, money, table

from llmnb.pricing import OnModel, PriceRow
from llmnb.settings import PriceOverride


def elsewhere(found: Sequence[OnModel], paid: int | None) -> None:
    """What the same tokens cost on other models, against what was paid; the cheapest first."""
    ordered = sorted(found, key=lambda one: (one.nanousd is None, one.nanousd or 0))
    rows = pd.DataFrame(
        {
            "model": [one.model + (" *" if one.is_tiered else "") for one in ordered],
            "cost": pd.array([one.nanousd for one in ordered], dtype="Int64"),
            "change": [figures.change(one.nanousd, paid) or "" for one in ordered],
        }
    )
    st.dataframe(
        rows.style.format(money, subset=["cost"]),
        hide_index=True,
        width="stretch",
        height="content",
        placeholder=figures.UNPRICED,
        column_config={
            "model": st.column_config.TextColumn("Model", width="medium"),
            "cost": NUMBER("Would cost"),
            "change": st.column_config.TextColumn(
                f"Against {figures.money(paid)} paid", help="What the books say was paid.", alignment="right"
            ),
        },
    )


def unpriced(usage: pd.DataFrame) -> None:
    """Models with calls that have no price."""
    rows = pd.DataFrame(
        {
            "model": usage["model"].fillna(NOBODY["model"]),
            "provider": usage["provider"],
            "calls": usage["unpriced_calls"],
            "input": usage[[name for name in TOKEN_CLASSES if name != "output_tokens"]].sum(axis="columns"),
            "output": usage["output_tokens"],
        }
    )
    tokens = {"help": "Of all calls of the model, priced ones included.", "format": "localized"}
    table(
        rows,
        {
            "model": st.column_config.TextColumn("Model", width="medium"),
            "provider": st.column_config.TextColumn("Provider"),
            "calls": NUMBER("Without a price", format="localized"),
            "input": NUMBER("Input tokens", **tokens),
            "output": NUMBER("Output tokens", **tokens),
        },
    )


def own_prices(prices: Mapping[str, PriceOverride], kept: Mapping[str, PriceOverride]) -> None:
    """The user's own prices, and where each is set."""
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    rows = pd.DataFrame(
        [
            {
                "model": model,
                **{name: _dollars(getattr(price, name)) or "as input" for name in names},
                "set": "here" if kept.get(model) == price else "in the settings",
            }
            for model, price in sorted(prices.items())
        ]
    )
    table(rows, {"model": "Model", **_PRICES, "set": "Set"})


def price_versions(usage: pd.DataFrame) -> None:
    """Which version of a price how many calls were booked at."""
    rows = pd.DataFrame({"price": usage["price_id"], "calls": usage["calls"], "cost": usage["cost_nanousd"]})
    columns = {"price": st.column_config.TextColumn("Price", width="large"), "cost": NUMBER("Spend")}
    numbers = {"calls": NUMBER("Calls", format="localized")}
    table(rows.style.format(money, subset=["cost"]), {**columns, **numbers})


def prices(rows: Sequence[PriceRow]) -> None:
    """Prices as they are now, in dollars per million tokens."""
    shown = pd.DataFrame(
        [
            {
                "model": row.model + (f", over {figures.compact(row.over_tokens)}" if row.over_tokens else ""),
                "input": _dollars(row.input),
                "output": _dollars(row.output),
                "cache_read": _dollars(row.cache_read),
                "cache_write_5m": _dollars(row.write_5m),
                "cache_write_1h": _dollars(row.write_1h),
                "source": row.source,
            }
            for row in rows
        ]
    )
    table(shown, {"model": "Model", **_PRICES, "source": "Source"}, height="auto")


_PRICES = {
    name: st.column_config.TextColumn(label, alignment="right", help="Dollars per million tokens.")
    for name, label in {
        "input": "Input",
        "output": "Output",
        "cache_read": "Cache read",
        "cache_write_5m": "Write, 5 min",
        "cache_write_1h": "Write, 1 h",
    }.items()
}


def _dollars(usd: Decimal | None) -> str:
    return "" if usd is None else f"${usd.normalize():f}"
