"""The roll-ups: sums of calls by time and a few dimensions, beside the rows, so that years are read in milliseconds.

`rollup_slots` is cut into quarters of an hour in UTC, of which the hours and days of every timezone are made. The
others are cut into days of the reporting timezone (`rollup_state.zone`), each with more dimensions than the one before.
A missing value is an empty blob in them, since a primary key takes no NULL.

At every moment, for the rows with `id <= watermark`:

    roll-ups + changes (of rows that were folded and have changed since) + rows after the watermark = all rows

Triggers note a change of a folded row in `rollup_changes`, with what it was (sign -1) and what it is (+1).

Every table is there twice. One side answers; when the sums are made anew (in days of another timezone, say) that is
done on the other one, which has a watermark of its own and its changes in `rollup_making_changes`, and then answers
from one transaction to the next. Until then everything is read, and as quickly, from the side that was there before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def at(self, side: int) -> Rollup:
        """The table of the same sums on that side."""
        return replace(self, table=f"{self.table}_b") if side else self


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
class Making:
    """How far the side is that is made anew: rows up to `watermark` are in it, days are cut in `zone`."""

    watermark: int
    zone: str
    folds: int


@dataclass(frozen=True, slots=True)
class State:
    """How far the roll-ups are: rows up to `watermark` are in them, days are cut in `zone`.

    `folds` counts the folds that were written, and `edits` the changes of rows after the watermark: a fold that was
    added up at another state may not be written. Calls from before `pruned_before_us` are in the roll-ups only.
    `side` says which tables answer, and `making` how far the others are, where they are made anew.
    """

    watermark: int = 0
    zone: str = ""
    folds: int = 0
    edits: int = 0
    pruned_before_us: int | None = None
    side: int = 0
    making: Making | None = None


def state(connection: Connection) -> State | None:
    """The state of the roll-ups; None in a ledger that is older than they are."""
    there = {name for (name,) in connection.execute(_THERE)}
    if "rollup_state" not in there:
        return None
    found = State(*connection.execute(_STATE).fetchone())
    if "rollup_making" not in there:
        return found
    side, watermark, zone, folds = connection.execute(_MAKING).fetchone()
    return replace(found, side=side, making=None if watermark is None else Making(watermark, zone, folds))


_THERE = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('rollup_state', 'rollup_making')"
_STATE = "SELECT watermark, zone, folds, edits, pruned_before_us FROM rollup_state"
_MAKING = "SELECT side, watermark, zone, folds FROM rollup_making"


def slot_of(ts: int) -> int:
    """The slot a moment is in."""
    return ts // SLOT_US * SLOT_US
