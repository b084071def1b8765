"""Keeps the roll-ups up to date while calls are written, and what `llmnb ledger` does: rebuild, prune, status."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from llmnb.errors import InvalidRequest
from llmnb.ledger import migrations
from llmnb.ledger.connection import reading
from llmnb.ledger.fold import Folder, prune
from llmnb.ledger.remaking import make_anew
from llmnb.ledger.rollups import state
from llmnb.ledger.sql import Connection, Store
from llmnb.ledger.zones import Moment, from_us, instant_us, reporting_zone, start_of_day_us, zone_name, zone_named
from llmnb.places import Place
from llmnb.settings import Settings

FOLD_AT = 4_000
"""Rows that wait before they are folded; until then a reader adds them up, in about 5 ms."""
LOOK_EVERY_ROWS = 500
LOOK_EVERY_S = 60.0
MAKE_EVERY_S = 2.0
"""How often a writing process goes on with sums that are made anew: a twentieth of its time."""
FOLD_FOR_S = 0.1
"""How long a writing process folds at once; what is left waits for the next writes, or for `rebuild`."""
_DAY_US = 86_400_000_000
_TURN_S = 0.2


class Upkeep:
    """Folds for a process that writes: now and then it looks whether enough has come together, of all processes."""

    def __init__(
        self, opened: Callable[[], Store], settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._opened = opened
        self._settings = settings
        self._clock = clock
        self._rows = LOOK_EVERY_ROWS  # the first write looks
        self._looked_s = clock()
        self._has_insisted = False
        self._is_making = False

    def wrote(self, rows: int) -> None:
        """So many rows were written; folds what waits, when it is time to look and enough waits.

        Raises:
            StoreError: the store cannot be read or written.
        """
        self._rows += rows
        every_s = MAKE_EVERY_S if self._is_making else LOOK_EVERY_S
        if self._rows < LOOK_EVERY_ROWS and self._clock() - self._looked_s < every_s:
            return
        self._rows, self._looked_s = 0, self._clock()
        with self._opened().upkeep() as connection:
            # a timezone that was set counts, once a process: two that differ must not cut the days anew in turn
            insists = self._settings.timezone is not None and not self._has_insisted
            folder = Folder(connection, reporting_zone(self._settings), insists=insists)
            self._has_insisted = True
            if folder.is_making or folder.pending() >= FOLD_AT:
                folder.fold_all(FOLD_FOR_S)
            self._is_making = folder.is_making


def fold(ledger: Store, settings: Settings) -> int:
    """Folds all that waits, in days of the settings' timezone; the number of rows.

    Raises:
        StoreError: the store cannot be read or written.
    """
    return sum(_folding(ledger, settings))


def rebuild(ledger: Store, settings: Settings) -> Iterator[int]:
    """Makes all roll-ups anew from the rows; gives the number of rows folded so far, again and again.

    May be ended at any moment: what is read in between is exact, from the sums that were there before, and the next
    writes, or a fold, go on. What was pruned is kept.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with ledger.upkeep() as connection:
        make_anew(connection, reporting_zone(settings))
    done = 0
    for rows in _folding(ledger, settings):
        done += rows
        yield done


def _folding(ledger: Store, settings: Settings) -> Iterator[int]:
    """Folds in turns, between which a fork can happen."""
    rows_a_fold = None
    while True:
        with ledger.upkeep() as connection:
            folder = Folder(connection, reporting_zone(settings), insists=True)
            folder.rows = rows_a_fold or folder.rows
            rows = folder.fold_all(_TURN_S)
            rows_a_fold = folder.rows
            if folder.is_done:
                yield rows
                return
        yield rows


def prune_older(ledger: Store, settings: Settings, older: str, *, vacuum: bool = False) -> Iterator[int]:
    """Deletes the rows of calls from before the midnight `older` ago ("400d"), after folding; their sums stay.

    Gives the number of rows deleted so far. Of pruned calls no more is known than the roll-ups hold: by day, project,
    user, provider, model and tag. `vacuum` also gives the disk space back, for which the file is locked for a while.

    Raises:
        InvalidRequest: `older` is no span, or under a day.
        StoreError: the store cannot be read or written.
    """
    before_us = cutoff_us(settings, older)
    fold(ledger, settings)
    done = 0
    with ledger.upkeep() as connection:
        for done in prune(connection, before_us):
            yield done
        if vacuum:
            connection.execute("VACUUM")
    yield done


def cutoff_us(settings: Settings, older: Moment, now_us: int | None = None) -> int:
    """The midnight before which calls are older than `older`.

    Raises:
        InvalidRequest: it is no span or moment, or of the last 24 hours.
    """
    zone, now = reporting_zone(settings), time.time_ns() // 1000 if now_us is None else now_us
    moment = instant_us(older, zone, now)
    if moment is None or moment > now - _DAY_US:
        raise InvalidRequest(f"{older!r} is not old enough to prune: give at least a day, such as '400d'.")
    return start_of_day_us(moment, zone)


def midnight(settings: Settings, older: Moment) -> datetime:
    """`cutoff_us` as a datetime of the reporting timezone."""
    return from_us(cutoff_us(settings, older), reporting_zone(settings))


@dataclass(frozen=True, slots=True)
class Status:
    """How the ledger and its roll-ups are; `waiting` rows are not folded yet, days are cut in `zone`.

    While the roll-ups are made anew, `making_zone` is the timezone of their days, and `made` how many rows are in them.
    """

    path: str
    schema: int
    size_bytes: int
    calls: int | None
    first_call: str | None
    last_call: str | None
    folded: int
    waiting: int
    changes_waiting: int
    zone: str
    pruned_before: str | None
    making_zone: str | None
    made: int | None


def status(path: Place, settings: Settings, *, count: bool = True) -> Status | None:
    """How the ledger at `path` is; None when there is none.

    Without `count` the calls are not counted, which at ten million takes longer than all the rest.

    Raises:
        StoreError: the ledger cannot be read.
    """
    zone = reporting_zone(settings)

    def told(ts: int | None) -> str | None:
        return None if ts is None else from_us(ts, zone).isoformat(timespec="seconds")

    with reading(path) as connection:
        if connection is None:
            return None

        def one(sql: str) -> Any:
            return connection.execute(sql).fetchone()[0]

        found, newest = state(connection), one("SELECT max(id) FROM calls") or 0
        watermark = found.watermark if found else 0
        return Status(
            path=str(path),
            schema=migrations.version(connection),
            size_bytes=_size_bytes(path, connection),
            calls=one("SELECT count(*) FROM calls") if count else None,
            first_call=told(one("SELECT min(ts) FROM calls")),
            last_call=told(one("SELECT max(ts) FROM calls")),
            folded=watermark,
            waiting=max(0, newest - watermark),
            changes_waiting=one("SELECT count(*) FROM rollup_changes") if found else 0,
            zone=found.zone if found else "",
            pruned_before=told(found.pruned_before_us) if found else None,
            making_zone=found.making.zone if found and found.making else None,
            made=found.making.watermark if found and found.making else None,
        )


@dataclass(frozen=True, slots=True)
class Remaking:
    """The sums are being made anew: those that answer are cut in `zone`, the new ones in `into`; `share` is there."""

    zone: str
    into: str
    share: float

    def shown_in(self, settings: Settings) -> tzinfo | None:
        """The timezone to ask in until the sums in the one of the settings are whole; None: in that one.

        In another one than theirs the sums by day would have to be read from rows.
        """
        if self.zone == self.into or self.into != zone_name(reporting_zone(settings)):
            return None
        return zone_named(self.zone)


def remaking(path: Place) -> Remaking | None:
    """How far the sums are that are made anew, if that is under way.

    Raises:
        StoreError: the ledger cannot be read.
    """
    with reading(path) as connection:
        found = None if connection is None else state(connection)
        if connection is None or found is None or found.making is None:
            return None
        newest = connection.execute("SELECT max(id) FROM calls").fetchone()[0] or 1
        return Remaking(found.zone, found.making.zone, min(1.0, found.making.watermark / newest))


def _size_bytes(path: Place, connection: Connection) -> int:
    if not isinstance(path, Path):
        return connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]
    files = (path, Path(f"{path}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
