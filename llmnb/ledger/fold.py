"""Folds calls into the roll-ups, some thousand at a time, by whoever writes: short locks, and exact between them.

A fold reads the next rows and adds them up outside of any transaction, and then takes the write lock only to add the
sums and move the watermark. If one of those rows changed in between, or another process was first, nothing is written;
after that a smaller fold does all of it under the lock. A kill at any moment leaves the fold before or the one after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from functools import cache

from llmnb.ledger.additions import Additions, Key, additions, columns, merged_sketches
from llmnb.ledger.cover import FEW_ROWS
from llmnb.ledger.measures import NAMES
from llmnb.ledger.remaking import empty_some, give_up, make_anew, take_over, transaction
from llmnb.ledger.rollups import MISSING, ROLLUPS, SKETCHES, Rollup, State, state
from llmnb.ledger.sql import BEGIN_SETTLED, Connection
from llmnb.ledger.zones import SLOT_US, start_of_day_us, zone_name, zone_named

ROWS = 8_000
"""Rows of one fold; measured: 7 ms of the write lock with 12 projects, 8 users and 9 models."""
FEWEST_ROWS, MOST_ROWS = 1_000, 24_000
ROWS_UNDER_LOCK = 400
LOCK_S = 0.012
"""Two folds in a row that held the lock for longer are followed by a smaller one."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two of every table; `is_made`: it is made anew, and does not answer."""

    number: int
    is_made: bool

    @property
    def changes(self) -> str:
        """The table of changes of rows that are in it."""
        return "rollup_making_changes" if self.is_made else "rollup_changes"

    @property
    def progress(self) -> str:
        """The table that says how far it is."""
        return "rollup_making" if self.is_made else "rollup_state"


@dataclass(frozen=True, slots=True)
class Begun:
    """How far a side is, and all that must be the same still for a fold to be written."""

    side: Side
    watermark: int
    zone: str
    folds: int
    edits: int


def _begun(found: State) -> dict[bool, Begun]:
    """The side that answers, and under True the one that is made anew, if one is."""
    sides = {False: Begun(Side(found.side, False), found.watermark, found.zone, found.folds, found.edits)}
    if (making := found.making) is not None:
        sides[True] = Begun(Side(1 - found.side, True), making.watermark, making.zone, making.folds, found.edits)
    return sides


@dataclass(slots=True)
class Folded:
    """What some rows and changes add to the roll-ups, and which they were."""

    rows: int
    last_id: int
    last_change: int
    added: Additions
    sketched: list[Key]


class Folder:
    """Folds on a connection of its own, into the side of the roll-ups that answers and into one that is made anew.

    `zone` is the timezone they get when they have none yet. When it is another, they are made anew if it `insists`.
    """

    def __init__(
        self,
        connection: Connection,
        zone: tzinfo,
        *,
        insists: bool = False,
        few_rows: int = FEW_ROWS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self.rows = ROWS
        self.longest_lock_s = 0.0
        self.is_done = False
        """Whether there was nothing left to do at the last look."""
        self._was_slow = False
        self._turn = 0
        self._days: dict[str, Days] = {zone_name(zone): Days(zone)}
        self._settle(zone, insists=insists, few_rows=few_rows)

    def _settle(self, zone: tzinfo, *, insists: bool, few_rows: int) -> None:
        found, name = state(self._connection), zone_name(zone)
        if found is None or name == (found.making.zone if found.making else found.zone):
            return
        if not found.zone or insists or zone_named(found.zone) is None:
            if name == found.zone:  # back to what it was
                give_up(self._connection)
            else:
                make_anew(self._connection, zone, few_rows=few_rows)

    def pending(self) -> int:
        """How many rows and changes wait to be folded, about."""
        found = state(self._connection)
        if found is None:
            return 0
        newest = self._connection.execute("SELECT max(id) FROM calls").fetchone()[0] or 0
        return sum(
            max(0, newest - begun.watermark) + self._changes(begun.side.changes) for begun in _begun(found).values()
        )

    def _changes(self, table: str) -> int:
        found = self._connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 10000)")  # noqa: S608
        return int(found.fetchone()[0])

    @property
    def is_making(self) -> bool:
        """Whether a side is being made anew."""
        found = state(self._connection)
        return found is not None and found.making is not None

    def fold_all(self, until_s: float | None = None) -> int:
        """Folds all there is, or for `until_s` seconds; the number of rows."""
        begun, rows = self._clock(), 0
        while (folded := self.fold()) is not None:
            rows += folded
            if until_s is not None and self._clock() - begun > until_s:
                break
        return rows

    def fold(self) -> int | None:
        """Folds the next rows and changes; how many rows, or None when there was nothing to do.

        While a side is made anew both have their turn: calls that keep coming in must not hold up either.
        """
        self._turn += 1
        sides = (False, True) if self._turn % 2 else (True, False)
        for making in sides:
            if (rows := self._fold(making=making)) is not None:
                self.is_done = False
                return rows
        self.is_done = not empty_some(self._connection)
        return None if self.is_done else 0

    def _fold(self, *, making: bool) -> int | None:
        with _reading(self._connection):
            begun = self._begun(making=making)
            if begun is None:
                return None
            folded = self._added_up(begun, self.rows)
        if not folded.added.sums and folded.last_id == begun.watermark:
            if making:
                with self._locked():
                    take_over(self._connection)
            return None
        return folded.rows if self._written(begun, folded) else self._fold_under_lock(making=making)

    def _begun(self, *, making: bool) -> Begun | None:
        """Where to go on with a side; None where it is not there, or its days are of a timezone not known here."""
        found = state(self._connection)
        begun = None if found is None else _begun(found).get(making)
        return None if begun is None or self._days_of(begun.zone) is None else begun

    def _days_of(self, name: str) -> Days | None:
        if name not in self._days and (zone := zone_named(name)) is not None:
            self._days[name] = Days(zone)
        return self._days.get(name)

    def _fold_under_lock(self, *, making: bool) -> int:
        with self._locked():
            begun = self._begun(making=making)
            if begun is None:
                return 0
            folded = self._added_up(begun, ROWS_UNDER_LOCK)
            _write(self._connection, begun.side, folded)
            return folded.rows

    def _written(self, begun: Begun, folded: Folded) -> bool:
        with self._locked():
            if self._begun(making=begun.side.is_made) != begun:
                return False
            _write(self._connection, begun.side, folded)
            if begun.side.is_made:
                take_over(self._connection)
        return True

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        begun = self._clock()
        with transaction(self._connection, begun=True):
            yield
        held_s = self._clock() - begun
        self.longest_lock_s = max(self.longest_lock_s, held_s)
        if held_s > LOCK_S:
            if self._was_slow:  # once, and another process may have had the processor meanwhile
                self.rows = max(FEWEST_ROWS, self.rows * 2 // 3)
            self._was_slow = not self._was_slow
            return
        self._was_slow = False
        if held_s < LOCK_S * 2 / 3:
            self.rows = min(MOST_ROWS, self.rows * 5 // 4)

    # Adding up --------------------------------------------------------------------------------------------------------

    def _added_up(self, begun: Begun, rows: int) -> Folded:
        connection, side = self._connection, begun.side
        last_id = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM calls WHERE id > ? ORDER BY id LIMIT ?)", (begun.watermark, rows)
        ).fetchone()[0]
        # some at a time, too: a new price changes millions of rows at once
        last_change = connection.execute(
            f"SELECT max(id) FROM (SELECT id FROM {side.changes} ORDER BY id LIMIT ?)",  # noqa: S608 - our own name
            (rows,),
        ).fetchone()[0]
        found: list[Key] = []
        if last_id is not None:
            found += connection.execute(_ROWS, (begun.watermark, last_id)).fetchall()
        rows_found = len(found)
        if last_change is not None:
            found += connection.execute(_CHANGES.format(side.changes), (last_change,)).fetchall()
        days = self._days_of(begun.zone)
        assert days is not None
        added = additions(found, days.start)
        sketched = merged_sketches(added, lambda key: self._stored_sketches(side, key))
        watermark = begun.watermark if last_id is None else last_id
        return Folded(rows_found, watermark, last_change or 0, added, sketched)

    def _stored_sketches(self, side: Side, key: Key) -> tuple[bytes, bytes] | None:
        """As they are now: only folds change them, and of two at the same time one is not written."""
        table = SKETCHES.at(side.number).table
        sql = f"SELECT latency, ttft FROM {table} WHERE {_SAME}"  # noqa: S608 - our own names
        return self._connection.execute(sql, key).fetchone()


_ROWS = f"SELECT {columns()} FROM calls NOT INDEXED WHERE id > ? AND id <= ?"  # noqa: S608
_CHANGES = f"SELECT {columns('sign', MISSING)} FROM {{}} WHERE id <= ?"  # noqa: S608
_SAME = " AND ".join(f"{name} = ?" for name in SKETCHES.key)


class Days:
    """Where the day of a moment begins in a timezone, looked up once a quarter of an hour."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self.zone = zone_name(zone)
        self._known: dict[int, int] = {}

    def start(self, ts: int) -> int:
        """Microseconds since 1970 of the midnight before."""
        slot = ts // SLOT_US
        if slot not in self._known:
            self._known[slot] = start_of_day_us(slot * SLOT_US, self._zone)
        return self._known[slot]


# Writing --------------------------------------------------------------------------------------------------------------


def _write(connection: Connection, side: Side, folded: Folded) -> None:
    for rollup in ROLLUPS:
        connection.executemany(_upsert(rollup.at(side.number)), folded.added.sums.get(rollup.table, ()))
    connection.executemany(_upsert_sketch(SKETCHES.at(side.number).table), folded.sketched)
    values = sorted(folded.added.values, key=repr)
    connection.executemany("INSERT INTO rollup_values VALUES (?, ?) ON CONFLICT DO NOTHING", values)
    connection.execute(f"DELETE FROM {side.changes} WHERE id <= ?", (folded.last_change,))  # noqa: S608 - our own names
    connection.execute(f"UPDATE {side.progress} SET watermark = ?, folds = folds + 1", (folded.last_id,))  # noqa: S608


@cache
def _upsert(rollup: Rollup) -> str:
    columns = (*rollup.key, *NAMES)
    sums = ", ".join(f"{name} = {rollup.table}.{name} + excluded.{name}" for name in NAMES)
    return (
        f"INSERT INTO {rollup.table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(rollup.key)}) DO UPDATE SET {sums}"
    )


def _upsert_sketch(table: str) -> str:
    return f"""
        INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT ({", ".join(SKETCHES.key)}) DO UPDATE SET latency = excluded.latency, ttft = excluded.ttft
    """  # noqa: S608


# Pruning --------------------------------------------------------------------------------------------------------------

_PRUNED = """
    DELETE FROM calls WHERE id IN (
        SELECT id FROM calls
        WHERE ts < ? AND id <= (SELECT watermark FROM rollup_state) AND status <> 'running' ORDER BY ts LIMIT ?
    )
"""


def prune(connection: Connection, before_us: int, *, rows: int = 2_000) -> Iterator[int]:
    """Deletes the calls from before a midnight of the roll-ups' timezone that are in them, some at a time.

    Gives the number of rows deleted so far, after each transaction. Their sums stay.
    """
    done, deleted = 0, rows
    while deleted == rows:
        with transaction(connection):
            give_up(connection)  # the sums of what is deleted are on the side only that answers
            connection.execute(
                "UPDATE rollup_state SET is_pruning = 1, pruned_before_us = max(coalesce(pruned_before_us, ?), ?)",
                (before_us, before_us),
            )
            deleted = connection.execute(_PRUNED, (before_us, rows)).rowcount
            connection.execute("UPDATE rollup_state SET is_pruning = 0")
        done += deleted
        yield done


@contextmanager
def _reading(connection: Connection) -> Generator[None]:
    connection.execute(BEGIN_SETTLED)
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
