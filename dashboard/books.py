"""What the pages ask of the ledger, and what they say when it cannot answer. Reads only.

All questions go through the public functions of `llmnb.ledger`, so that a notebook can ask the same.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from pathlib import Path

import pandas as pd
import streamlit as st
from filters import DIMENSIONS, Filters

from llmnb import ledger, settings
from llmnb.errors import LlmnbError
from llmnb.ledger import migrations, upkeep
from llmnb.ledger.connection import reading
from llmnb.ledger.upkeep import Remaking
from llmnb.ledger.zones import shown_in
from llmnb.records import Usage

TOKEN_CLASSES = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
    "output_tokens",
)
"""Disjoint, so that their sum counts every token once (thinking is inside output)."""
SUMMED = (*TOKEN_CLASSES, "web_search_requests")
"""What a price is asked for the sum of."""


TOTALLED = ("calls", "errors", *TOKEN_CLASSES, "cost_nanousd", "unpriced_calls", "estimated_calls")
"""What `Totals` are made of."""


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


DEMO_FILE = "demo.db"
ROWS = 50_000
"""What no roll-up holds is read from so many of the newest rows, in a few tenths of a second; pages say so."""


def location() -> Path:
    """The file of the ledger being shown."""
    own = settings.load()
    return own.home / DEMO_FILE if shows_demo() else own.ledger_path


def shows_demo() -> bool:
    """Whether this visitor looks at the invented calls, which are in a file of their own."""
    return bool(st.session_state.get("demo"))


def is_empty() -> bool:
    """Whether there is no ledger yet, or none with a call in it."""
    return ledger.is_empty(location())


def is_newer() -> bool:
    """Whether a newer llmnb writes the ledger."""
    with reading(location()) as connection:
        return connection is not None and migrations.version(connection) > migrations.LATEST


def choices() -> dict[str, list[str | None]]:
    """What there is to choose from in the whole ledger, for the filter bar."""
    return ledger.choices(DIMENSIONS, path=location())


def first_call() -> datetime | None:
    """The day of the oldest call in the ledger."""
    days = ledger.usage(by=["day"], columns=["calls"], path=location())["day"]
    return None if days.empty else days.min().to_pydatetime()


def usage(
    filters: Filters,
    by: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    *,
    percentiles: bool = False,
    **where: object,
) -> pd.DataFrame:
    """The sums by these names of what the filter bar chose, narrowed further by `where`; `columns`: all, or these."""
    period, both, at = filters.period, {**filters.where, **where}, location()
    found = {"by": by, "where": both, "percentiles": percentiles, "columns": columns}
    return ledger.usage(period.since, period.until, path=at, **found)


def quick(filters: Filters) -> tuple[Filters, str]:
    """The same, of the newest `ROWS` calls at most, for what only rows tell; and a note where that leaves some out."""
    begin = ledger.newest_from(filters.period.since, filters.period.until, ROWS, path=location())
    if begin is None:
        return filters, ""
    note = f"Of the newest {ROWS:,} calls, since {begin:%d %b %Y, %H:%M}: older ones are summed up elsewhere."
    return replace(filters, period=replace(filters.period, since=begin, before=None)), note


def with_percentiles(filters: Filters, by: Sequence[str]) -> pd.DataFrame:
    """The sums with percentiles, where these can be had quickly."""
    sketched = set(filters.where) <= {"project", "model"}
    return usage(filters, by, percentiles=sketched or not quick(filters)[1])


def overview(filters: Filters) -> Overview:
    """The figures of the overview page for what the filter bar chose."""
    period = filters.period
    models = with_percentiles(filters, ["model"])
    steps = usage(filters, [period.step, "model"], TOTALLED)
    before = None
    if period.before:
        since, until = period.before
        before = totals(ledger.usage(since, until, by=[], where=filters.where, columns=TOTALLED, path=location()))
    return Overview(totals(models), before, models, steps.rename(columns={period.step: "at"}))


def recent(filters: Filters, limit: int) -> pd.DataFrame:
    """The newest calls of the period, newest first."""
    period = filters.period
    return ledger.calls(period.since, period.until, where=filters.where, limit=limit, path=location())


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


def nano(usd: object) -> int:
    """Dollars of a frame as integer nano-dollars, exact up to nine million dollars; what is missing is nothing."""
    return 0 if pd.isna(usd) else round(float(usd) * 1e9)


def tokens_of(usage: pd.DataFrame) -> Usage:
    """The tokens of a usage() frame, added up."""
    return Usage(**{name: int(usage[name].sum()) for name in SUMMED})


def remaking() -> Remaking | None:
    """How far sums are that are made anew, if that is under way."""
    return upkeep.remaking(location())


@contextmanager
def in_plain_words() -> Generator[None]:
    """What goes wrong with the ledger or the settings is told in a sentence, and what is drawn already stays.

    Every page and every fragment needs it: Streamlit shows what comes out of them as a traceback. Until sums in a new
    timezone are whole, they speak in the one before, in which all is there.
    """
    try:
        with shown_in(_zone_of_the_sums()):
            yield
    except LlmnbError as error:
        st.error(str(error), icon=":material/database_off:")
        st.button("Try again", icon=":material/refresh:")


def _zone_of_the_sums() -> tzinfo | None:
    """None where there is no other than the one of the settings, or it cannot be told, which whoever asks next says."""
    with suppress(LlmnbError):
        found = remaking()
        return None if found is None else found.shown_in(settings.load())
    return None
