"""What the pages ask of the ledger, and what they say when it cannot answer. Reads only."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import streamlit as st
from filters import Filters

from llmnb import ledger, settings
from llmnb.errors import LlmnbError
from llmnb.ledger import migrations
from llmnb.ledger.connection import reading

TOKEN_CLASSES = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
    "output_tokens",
)
"""Disjoint, so that their sum counts every token once (thinking is inside output)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a usage() frame, exact integers; `cost_nanousd` is None when nothing in it is priced."""

    calls: int
    errors: int
    tokens: int
    cost_nanousd: int | None
    unpriced_calls: int
    estimated_calls: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything the overview draws; totals are the sums of `models`, so that the page agrees with itself."""

    totals: Totals
    before: Totals | None
    models: pd.DataFrame
    steps: pd.DataFrame


def location() -> Path:
    """The file of the ledger being shown."""
    return settings.load().ledger_path


def is_empty() -> bool:
    """Whether there is no ledger yet, or none with a call in it."""
    return ledger.calls(limit=1).empty


def is_newer() -> bool:
    """Whether a newer llmnb writes the ledger."""
    with reading(location()) as connection:
        return connection is not None and migrations.version(connection) > migrations.LATEST


@st.cache_data(ttl=30, show_spinner=False)
def _choices(path: Path, newest: str) -> dict[str, list[str | None]]:
    return {name: _values(ledger.usage(by=[name], percentiles=False, path=path)[name]) for name in ("project", "model")}


def choices() -> dict[str, list[str | None]]:
    """The projects and models there are in the whole ledger, for the filter bar; looked up again when there is news."""
    return _choices(location(), ledger.calls(limit=1)["uid"].str.cat())


def first_call() -> datetime | None:
    """The day of the oldest call in the ledger."""
    days = ledger.usage(by=["day"], percentiles=False)["day"]
    return None if days.empty else days.min().to_pydatetime()


def overview(filters: Filters) -> Overview:
    """The figures of the overview page for what the filter bar chose."""
    period, where = filters.period, filters.where
    models = ledger.usage(period.since, period.until, by=["model"], where=where)
    steps = ledger.usage(period.since, period.until, by=[period.step, "model"], where=where, percentiles=False)
    before = totals(ledger.usage(*period.before, by=[], where=where, percentiles=False)) if period.before else None
    return Overview(totals(models), before, models, steps.rename(columns={period.step: "at"}))


def recent(filters: Filters, limit: int) -> pd.DataFrame:
    """The newest calls of the period, newest first."""
    return ledger.calls(filters.period.since, filters.period.until, where=filters.where, limit=limit)


def totals(usage: pd.DataFrame) -> Totals:
    """The sums of all rows of a usage() frame."""
    cost = usage["cost_nanousd"].sum(min_count=1)
    return Totals(
        calls=int(usage["calls"].sum()),
        errors=int(usage["errors"].sum()),
        tokens=int(usage[list(TOKEN_CLASSES)].sum().sum()),
        cost_nanousd=None if cost is pd.NA else int(cost),
        unpriced_calls=int(usage["unpriced_calls"].sum()),
        estimated_calls=int(usage["estimated_calls"].sum()),
    )


@contextmanager
def in_plain_words() -> Generator[None]:
    """What goes wrong with the ledger or the settings is told in a sentence, and what is drawn already stays.

    Every page and every fragment needs it: Streamlit shows what comes out of them as a traceback.
    """
    try:
        yield
    except LlmnbError as error:
        st.error(str(error), icon=":material/database_off:")
        st.button("Try again", icon=":material/refresh:")


def _values(column: pd.Series) -> list[str | None]:
    """The values by alphabet, none at the end."""
    named: list[str | None] = sorted(str(value) for value in column.dropna())
    return [*named, None] if column.isna().any() else named
