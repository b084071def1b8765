"""The roll-ups: sums of calls by time and a few dimensions, beside the rows, so that years are read in milliseconds.

`rollup_slots` is cut into quarters of an hour in UTC, of which the hours and days of every timezone are made. The
others are cut into days of the reporting timezone (`rollup_state.zone`), each with more dimensions than the one before.
A missing value is an empty blob in them, since a primary key takes no NULL.

At every moment, for the rows with `id <= watermark`:

    roll-ups + changes (of rows that were folded and have changed since) + rows after the watermark = all rows

Triggers note a change of a folded row in `rollup_changes`, with what it was (sign -1) and what it is (+1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import SLOT_US

MISSING = "x''"
"""How a missing value is written in a roll-up: no text equals a blob."""
MISSING_VALUE = b""
"""The same as a parameter."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of sums: `time` is its column of time, in microseconds since 1970."""

    table: str
    time: str
    dimensions: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of its primary key."""
        return (self.time, *self.dimensions)


SLOTS = Rollup("rollup_slots", "slot", ("provider", "model"))
DAYS = Rollup("rollup_days", "day", ("provider", "model"))
PROJECTS = Rollup("rollup_projects", "day", ("project", "provider", "model"))
PEOPLE = Rollup("rollup_people", "day", ("project", "user", "provider", "model", "tag"))
BY_DAY = (DAYS, PROJECTS, PEOPLE)
"""The coarsest first."""
ROLLUPS = (SLOTS, *BY_DAY)
SKETCHES = Rollup("rollup_sketches", "day", PROJECTS.dimensions)

NOTED = ("project", "user", "notebook", "tag", "provider", "model")
"""The dimensions whose values are noted in `rollup_values`, for lists to choose from."""


@dataclass(frozen=True, slots=True)
class State:
    """How far the roll-ups are: rows up to `watermark` are in them, days are cut in `zone`.

    `folds` counts the folds that were written, and `edits` the changes of rows after the watermark: a fold that was
    added up at another state may not be written. Calls from before `pruned_before_us` are in the roll-ups only.
    """

    watermark: int = 0
    zone: str = ""
    folds: int = 0
    edits: int = 0
    pruned_before_us: int | None = None


def state(connection: Connection) -> State | None:
    """The state of the roll-ups; None in a ledger that is older than they are."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'rollup_state'").fetchone() is None:
        return None
    columns = ", ".join(field.name for field in fields(State))
    return State(*connection.execute(f"SELECT {columns} FROM rollup_state").fetchone())  # noqa: S608 - our own names


def slot_of(ts: int) -> int:
    """The slot a moment is in."""
    return ts // SLOT_US * SLOT_US
