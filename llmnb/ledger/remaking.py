"""Makes the roll-ups anew: on the side that does not answer, and from one transaction to the next it does.

What is read meanwhile comes from the side that was there before, to the last call, and as quickly. Folds fill both
sides (`fold`), each with a watermark of its own; a kill leaves the one that answers, and the next fold goes on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import tzinfo

from llmnb.ledger.cover import FEW_ROWS
from llmnb.ledger.measures import KEPT
from llmnb.ledger.rollups import ROLLUPS, SKETCHES, State, state
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import zone_name

MOST_CHANGES = 1_000
"""With more changes than that waiting, the sides do not change places: the lock is held while they are taken along."""
_EMPTIED = 1_500
_KEPT = ", ".join(KEPT)
_TABLES = (*ROLLUPS, SKETCHES)


def make_anew(connection: Connection, zone: tzinfo, *, few_rows: int = FEW_ROWS) -> None:
    """Has all rows added up anew, in days of `zone`, by the folds that follow.

    Up to `few_rows`, which are read as quickly as they are, and where calls were pruned, whose sums are in the side
    that answers and nowhere else, that side is emptied and filled again.
    """
    found = state(connection)
    if found is None:
        return
    if found.watermark <= few_rows or found.pruned_before_us is not None:
        recut(connection, zone)
        return
    give_up(connection)
    while empty_some(connection):
        pass
    with transaction(connection):
        now = state(connection)
        if now is None or now.pruned_before_us is not None or now.making is not None:
            return  # another process was first
        if now.side == found.side and not _is_filled(connection, now):
            sql = "UPDATE rollup_making SET watermark = 0, zone = ?, folds = folds + 1"
            connection.execute(sql, (zone_name(zone),))


def give_up(connection: Connection) -> None:
    """Goes no further with what is made anew, if anything is. Also inside a transaction."""
    found = state(connection)
    if found is None or found.making is None:
        return
    if connection.in_transaction:
        connection.execute(_GIVEN_UP)
    else:
        with transaction(connection):
            connection.execute(_GIVEN_UP)


def take_over(connection: Connection) -> None:
    """Has the side that was made anew answer, if it holds all that the other does. Inside a transaction."""
    found = state(connection)
    if found is None or found.making is None:
        return
    made, folded = found.making.watermark, found.watermark
    missing = connection.execute("SELECT 1 FROM calls WHERE id > ? AND id <= ? LIMIT 1", (made, folded)).fetchone()
    if missing is not None or any(_count(connection, table) > MOST_CHANGES for table in _CHANGES):
        return
    connection.execute(
        "UPDATE rollup_state SET watermark = ?, zone = ?, folds = folds + 1", (max(made, folded), found.making.zone)
    )
    connection.execute("DELETE FROM rollup_changes")
    connection.execute(_CHANGES_TAKEN_ALONG)
    connection.execute("DELETE FROM rollup_making_changes")
    connection.execute(f"{_GIVEN_UP}, side = 1 - side")


def empty_some(connection: Connection) -> bool:
    """Deletes some of what a side holds that neither answers nor is made anew; False when nothing is left of it."""
    found = state(connection)
    if found is None or found.making is not None or not _is_filled(connection, found):
        return False
    with transaction(connection):
        now = state(connection)
        if now is None or now.side != found.side or now.making is not None:
            return False
        for rollup in _TABLES:
            table, time = rollup.at(1 - now.side).table, rollup.time
            sql = f"SELECT {time} FROM {table} ORDER BY {time} LIMIT 1 OFFSET ?"  # noqa: S608 - our own names
            end = connection.execute(sql, (_EMPTIED,)).fetchone()
            some = "" if end is None else f" WHERE {time} <= {end[0]:d}"
            if connection.execute(f"DELETE FROM {table}{some}").rowcount:  # noqa: S608
                return True
        connection.execute(_FORGOTTEN, (_EMPTIED,))
    return True


def recut(connection: Connection, zone: tzinfo) -> None:
    """Empties the side that answers, so that all rows are folded anew, in days of `zone`.

    What was pruned is kept as it is: its rows are gone. Until the folds have come through again, all is read from rows.
    """
    with transaction(connection):
        found = state(connection)
        if found is None:
            return
        kept = found.pruned_before_us
        since = "" if kept is None else f" WHERE {{}} >= {kept:d}"
        for rollup in _TABLES:
            connection.execute(f"DELETE FROM {rollup.at(found.side).table}{since.format(rollup.time)}")  # noqa: S608
        connection.execute(f"DELETE FROM rollup_changes{since.format('ts')}")  # noqa: S608
        if kept is not None:  # late rows that are in what is kept, and come through again: taken out of it
            connection.execute(_TAKEN_OUT, (kept, found.watermark))
        connection.execute("UPDATE rollup_state SET watermark = 0, folds = folds + 1, zone = ?", (zone_name(zone),))
        connection.execute(_GIVEN_UP)


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


_CHANGES = ("rollup_changes", "rollup_making_changes")
_GIVEN_UP = "UPDATE rollup_making SET watermark = NULL, zone = NULL, folds = folds + 1"
_CHANGES_TAKEN_ALONG = f"""
    INSERT INTO rollup_changes (sign, {_KEPT}) SELECT sign, {_KEPT} FROM rollup_making_changes ORDER BY id
"""  # noqa: S608 - our own names
_FORGOTTEN = "DELETE FROM rollup_making_changes WHERE id IN (SELECT id FROM rollup_making_changes LIMIT ?)"
_TAKEN_OUT = f"""
    INSERT INTO rollup_changes (sign, {_KEPT}) SELECT -1, {_KEPT} FROM calls WHERE ts < ? AND id <= ?
"""  # noqa: S608


def _is_filled(connection: Connection, found: State) -> bool:
    """Whether the other side holds anything."""
    tables = [*(rollup.at(1 - found.side).table for rollup in _TABLES), "rollup_making_changes"]
    return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608


def _count(connection: Connection, table: str) -> int:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {MOST_CHANGES + 1})"  # noqa: S608
    return int(connection.execute(sql).fetchone()[0])
