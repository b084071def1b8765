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

from llmnb.ledger.additions import Additions, Key, additions, columns, merged_sketches
from llmnb.ledger.measures import KEPT, NAMES
from llmnb.ledger.rollups import MISSING, ROLLUPS, SKETCHES, Rollup, State, state
from llmnb.ledger.sql import BEGIN_SETTLED, Connection
from llmnb.ledger.zones import SLOT_US, start_of_day_us, zone_name, zone_named

ROWS = 8_000
"""Rows of one fold; measured: 7 ms of the write lock with 12 projects, 8 users and 9 models."""
FEWEST_ROWS, MOST_ROWS = 1_000, 24_000
ROWS_UNDER_LOCK = 400
LOCK_S = 0.012
"""Two folds in a row that held the lock for longer are followed by a smaller one."""


@dataclass(slots=True)
class Folded:
    """What some rows and changes add to the roll-ups, and which they were."""

    rows: int
    last_id: int
    last_change: int
    added: Additions
    sketched: list[Key]


class Folder:
    """Folds on a connection of its own, in the days of the roll-ups' timezone.

    `zone` is the timezone they get when they have none yet. When it is another, they are cut anew if it `insists`.
    """

    def __init__(
        self,
        connection: Connection,
        zone: tzinfo,
        *,
        insists: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self.rows = ROWS
        self.longest_lock_s = 0.0
        self._was_slow = False
        self._days = Days(self._settled(zone, insists=insists))

    def _settled(self, zone: tzinfo, *, insists: bool) -> tzinfo:
        found = state(self._connection)
        if found is None or found.zone == zone_name(zone):
            return zone
        known = zone_named(found.zone) if found.zone and not insists else None
        if known is None:
            recut(self._connection, zone)
        return known or zone

    def pending(self) -> int:
        """How many rows and changes wait to be folded, about."""
        found = state(self._connection)
        if found is None:
            return 0
        newest = self._connection.execute("SELECT max(id) FROM calls").fetchone()[0] or 0
        changes = self._connection.execute("SELECT count(*) FROM (SELECT 1 FROM rollup_changes LIMIT 10000)")
        return max(0, newest - found.watermark) + int(changes.fetchone()[0])

    def fold_all(self, until_s: float | None = None) -> int:
        """Folds all there is, or for `until_s` seconds; the number of rows."""
        begun, rows = self._clock(), 0
        while (folded := self.fold()) is not None:
            rows += folded
            if until_s is not None and self._clock() - begun > until_s:
                break
        return rows

    def fold(self) -> int | None:
        """Folds the next rows and changes; how many rows, or None when there was nothing to do."""
        with _reading(self._connection):
            begun = state(self._connection)
            if begun is None or begun.zone != self._days.zone:
                return None
            folded = self._added_up(begun, self.rows)
        if not folded.added.sums and folded.last_id == begun.watermark:
            return None
        return folded.rows if self._written(begun, folded) else self._fold_under_lock()

    def _fold_under_lock(self) -> int:
        with self._locked():
            begun = state(self._connection)
            if begun is None or begun.zone != self._days.zone:
                return 0
            folded = self._added_up(begun, ROWS_UNDER_LOCK)
            _write(self._connection, folded)
            return folded.rows

    def _written(self, begun: State, folded: Folded) -> bool:
        with self._locked():
            if state(self._connection) != begun:
                return False
            _write(self._connection, folded)
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

    def _added_up(self, begun: State, rows: int) -> Folded:
        connection = self._connection
        last_id = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM calls WHERE id > ? ORDER BY id LIMIT ?)", (begun.watermark, rows)
        ).fetchone()[0]
        # some at a time, too: a new price changes millions of rows at once
        last_change = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM rollup_changes ORDER BY id LIMIT ?)", (rows,)
        ).fetchone()[0]
        found: list[Key] = []
        if last_id is not None:
            found += connection.execute(_ROWS, (begun.watermark, last_id)).fetchall()
        rows_found = len(found)
        if last_change is not None:
            found += connection.execute(_CHANGES, (last_change,)).fetchall()
        added = additions(found, self._days.start)
        sketched = merged_sketches(added, self._stored_sketches)
        watermark = begun.watermark if last_id is None else last_id
        return Folded(rows_found, watermark, last_change or 0, added, sketched)

    def _stored_sketches(self, key: Key) -> tuple[bytes, bytes] | None:
        """As they are now: only folds change them, and of two at the same time one is not written."""
        return self._connection.execute(_STORED_SKETCHES, key).fetchone()


_KEPT = ", ".join(KEPT)
_ROWS = f"SELECT {columns()} FROM calls NOT INDEXED WHERE id > ? AND id <= ?"  # noqa: S608
_CHANGES = f"SELECT {columns('sign', MISSING)} FROM rollup_changes WHERE id <= ?"  # noqa: S608
_SAME = " AND ".join(f"{name} = ?" for name in SKETCHES.key)
_STORED_SKETCHES = f"SELECT latency, ttft FROM rollup_sketches WHERE {_SAME}"  # noqa: S608


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


def _write(connection: Connection, folded: Folded) -> None:
    for rollup in ROLLUPS:
        connection.executemany(_UPSERTS[rollup.table], folded.added.sums.get(rollup.table, ()))
    connection.executemany(_UPSERT_SKETCH, folded.sketched)
    values = sorted(folded.added.values, key=repr)
    connection.executemany("INSERT INTO rollup_values VALUES (?, ?) ON CONFLICT DO NOTHING", values)
    connection.execute("DELETE FROM rollup_changes WHERE id <= ?", (folded.last_change,))
    connection.execute("UPDATE rollup_state SET watermark = ?, folds = folds + 1", (folded.last_id,))


def _upsert(rollup: Rollup) -> str:
    columns = (*rollup.key, *NAMES)
    sums = ", ".join(f"{name} = {rollup.table}.{name} + excluded.{name}" for name in NAMES)
    return (
        f"INSERT INTO {rollup.table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(rollup.key)}) DO UPDATE SET {sums}"
    )


_UPSERT_SKETCH = f"""
    INSERT INTO rollup_sketches VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT ({", ".join(SKETCHES.key)}) DO UPDATE SET latency = excluded.latency, ttft = excluded.ttft
"""  # noqa: S608
_UPSERTS = {rollup.table: _upsert(rollup) for rollup in ROLLUPS}

# Beginning anew -------------------------------------------------------------------------------------------------------


def recut(connection: Connection, zone: tzinfo) -> None:
    """Empties the roll-ups, so that all rows are folded anew, in days of `zone`.

    What was pruned is kept as it is: its rows are gone. Until the folds have come through again, all is read from rows.
    """
    with transaction(connection):
        found = state(connection)
        if found is None:
            return
        kept = found.pruned_before_us
        since = "" if kept is None else f" WHERE {{}} >= {kept:d}"
        for rollup in (*ROLLUPS, SKETCHES):
            connection.execute(f"DELETE FROM {rollup.table}{since.format(rollup.time)}")  # noqa: S608 - our own names
        connection.execute(f"DELETE FROM rollup_changes{since.format('ts')}")  # noqa: S608
        if kept is not None:  # late rows that are in what is kept, and come through again: taken out of it
            connection.execute(_TAKEN_OUT, (kept, found.watermark))
        connection.execute("UPDATE rollup_state SET watermark = 0, folds = folds + 1, zone = ?", (zone_name(zone),))


_TAKEN_OUT = f"""
    INSERT INTO rollup_changes (sign, {_KEPT}) SELECT -1, {_KEPT} FROM calls WHERE ts < ? AND id <= ?
"""  # noqa: S608
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
            connection.execute(
                "UPDATE rollup_state SET is_pruning = 1, pruned_before_us = max(coalesce(pruned_before_us, ?), ?)",
                (before_us, before_us),
            )
            deleted = connection.execute(_PRUNED, (before_us, rows)).rowcount
            connection.execute("UPDATE rollup_state SET is_pruning = 0")
        done += deleted
        yield done


@contextmanager
def transaction(connection: Connection, *, begun: bool = False) -> Generator[None]:
    """One that holds the write lock from its beginning; `begun`: it holds it already."""
    if not begun:
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _reading(connection: Connection) -> Generator[None]:
    connection.execute(BEGIN_SETTLED)
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
