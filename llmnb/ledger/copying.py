"""Copies a ledger into another, of either kind: rows, what was pruned, and budgets; exact, and as often as one likes.

Rows go some thousand at a time and are told by their uids. Each portion is added up on both sides: where all sums are
equal already nothing is written, so that a copy that was interrupted goes on, and one that is done again only looks.
All is of one moment of the source, which may be in use meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmnb.errors import InvalidRequest, StoreError
from llmnb.ledger import migrations
from llmnb.ledger.connection import reading
from llmnb.ledger.measures import KEPT, NAMES, summed
from llmnb.ledger.remaking import recut, transaction
from llmnb.ledger.rollups import ROLLUPS, SKETCHES, SLOTS, State, state
from llmnb.ledger.rows import stored_columns
from llmnb.ledger.schema import COLUMNS, TRUTHS, call_from
from llmnb.ledger.shelf import settle
from llmnb.ledger.sql import Connection, Store
from llmnb.ledger.writer import new_ledger
from llmnb.ledger.zones import zone_named
from llmnb.places import Place
from llmnb.records import Call

ROWS = 2_000
"""Rows of one portion."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was looked at so far: rows, those of them that had to be written, and the cost of all in nano-dollars.

    Of `newer` rows the target has a later word than the source, and keeps it.
    """

    rows: int = 0
    written: int = 0
    newer: int = 0
    cost_nanousd: int = 0
    pruned: int = 0
    """Calls of which the source has only the sums, that were taken over."""
    budgets: int = 0


def copy(source: Place, target: Place) -> Iterator[Copied]:
    """Copies the ledger at `source` into that at `target`, which is made where there is none; tells how far it is.

    What the target has beside it stays. Sums of both are compared to the nano-dollar and the token for every portion.

    Raises:
        InvalidRequest: there is nothing to copy, or both are the same.
        StoreError: one of them cannot be read or written, or what was written does not add up to what was read.
    """
    if source == target:
        raise InvalidRequest(f"{source} cannot be copied into itself.")
    settle(source)
    ledger = new_ledger(target)
    try:
        with reading(source) as connection:
            if connection is None:
                raise InvalidRequest(f"there is no ledger at {source}.")
            connection.execute("BEGIN")
            yield from _copied(connection, ledger)
    finally:
        ledger.close()


def _copied(source: Connection, ledger: Store) -> Generator[Copied]:
    if migrations.version(source) > migrations.LATEST:
        raise StoreError("the source was written by a newer llmnb, which has to copy it: pip install -U llmnb")
    found = state(source)
    done = Copied()
    if found is not None and found.pruned_before_us is not None:
        done = replace(done, pruned=_take_over_pruned(source, found, ledger))
        yield done
    columns = ", ".join(["id", *stored_columns(source, COLUMNS)])
    portion = f"SELECT {columns} FROM calls WHERE id > ? ORDER BY id LIMIT {ROWS}"  # noqa: S608 - our own names
    last_id = 0
    while rows := source.execute(portion, (last_id,)).fetchall():
        first_id, last_id = last_id, rows[-1][0]
        calls = [call_from(row[1:]) for row in rows]
        wanted = _sums(source, "id > ? AND id <= ?", (first_id, last_id))
        written, newer = _portion(calls, wanted, ledger)
        done = replace(
            done,
            rows=done.rows + len(calls),
            written=done.written + written,
            newer=done.newer + newer,
            cost_nanousd=done.cost_nanousd + wanted[_COST],
        )
        yield done
    yield replace(done, budgets=_copy_budgets(source, ledger))


# Rows -----------------------------------------------------------------------------------------------------------------

_COST = NAMES.index("cost_nanousd")
Sums = tuple[int, ...]


def _portion(calls: Sequence[Call], wanted: Sums, ledger: Store) -> tuple[int, int]:
    """Writes what is missing of some calls; how many rows that were, and of how many the target knows more."""
    uids = json.dumps([call.uid for call in calls])
    if _target_sums(ledger, uids) == wanted:
        return 0, 0
    before = _target_calls(ledger, uids)
    missing = [call for call in calls if before.get(call.uid) != call]
    ledger.write_all([(call, ()) for call in missing])
    if _target_sums(ledger, uids) == wanted:
        return len(missing), 0
    after = _target_calls(ledger, uids)
    newer = [call.uid for call in calls if _is_newer(after.get(call.uid), call)]
    wrong = [call.uid for call in calls if after.get(call.uid) != _storable(call) and call.uid not in newer]
    if wrong:
        raise StoreError(
            f"{len(wrong)} rows, such as {wrong[0]}, are not in {ledger.path} as they were read. Nothing was deleted; "
            "copy it again, and tell us if that does not help.",
            path=str(ledger.path),
        )
    return len(missing) - len(newer), len(newer)


def _is_newer(there: Call | None, call: Call) -> bool:
    if there is None or there == call:
        return False
    return there.attempts > call.attempts or (call.status == "running" and there.status != "running")


def _storable(call: Call) -> Call:
    """The call as PostgreSQL can hold it (see its ledger)."""
    texts = {name: value for name, value in vars(call).items() if isinstance(value, str) and "\0" in value}
    return replace(call, **{name: value.replace("\0", "\N{SYMBOL FOR NULL}") for name, value in texts.items()})


def _sums(connection: Connection, condition: str, parameters: Sequence[Any]) -> Sums:
    return tuple(connection.execute(f"SELECT {summed()} FROM calls WHERE {condition}", parameters).fetchone())  # noqa: S608


_THESE = "uid IN (SELECT value FROM json_each(?))"


def _target_sums(ledger: Store, uids: str) -> Sums:
    with ledger.transaction(reading=True) as connection:
        return _sums(connection, _THESE, (uids,))


def _target_calls(ledger: Store, uids: str) -> dict[str, Call]:
    with ledger.transaction(reading=True) as connection:
        rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM calls WHERE {_THESE}", (uids,))  # noqa: S608
        return {row[0]: call_from(row) for row in rows}


# What was pruned ------------------------------------------------------------------------------------------------------


def _take_over_pruned(source: Connection, found: State, ledger: Store) -> int:
    """Takes over the sums of calls whose rows are gone; how many calls that are.

    As in `recut`: of the rows that are still there and in these sums, what they added is taken out again, since they
    come through anew. The target then folds all of its own rows anew, in the days of the source.
    """
    before = found.pruned_before_us
    with ledger.upkeep() as target:
        there = state(target)
        assert there is not None
        if there.pruned_before_us is not None:
            if there.pruned_before_us == before:
                return 0  # taken over by an earlier copy
            raise InvalidRequest(
                f"{ledger.path} was pruned at another moment than the source: their sums cannot be told apart. Copy "
                "into a new ledger."
            )
        zone = zone_named(found.zone)
        if zone is None:
            raise InvalidRequest(f"the source's days are of the timezone {found.zone!r}, which is not known here.")
        recut(target, zone)
        with transaction(target):
            for rollup in (*ROLLUPS, SKETCHES):
                here, into = rollup.at(found.side).table, rollup.at(there.side).table
                rows = source.execute(f"SELECT * FROM {here} WHERE {rollup.time} < ?", (before,)).fetchall()  # noqa: S608
                places = ", ".join("?" * len(rows[0])) if rows else ""
                target.executemany(f"INSERT INTO {into} VALUES ({places})", rows)  # noqa: S608
            changes = [*source.execute(_STILL_THERE, (before, found.watermark)), *source.execute(_CHANGES, (before,))]
            changes = [tuple(map(_plain, ("sign", *KEPT), change)) for change in changes]
            target.executemany(_NOTE, changes)
            values = source.execute("SELECT dimension, value FROM rollup_values").fetchall()
            target.executemany("INSERT INTO rollup_values VALUES (?, ?) ON CONFLICT DO NOTHING", values)
            pruned = target.execute(f"SELECT coalesce(sum(calls), 0) FROM {SLOTS.at(there.side).table}").fetchone()[0]  # noqa: S608
            pruned += sum(change[0] * bool(change[1 + KEPT.index("is_call")]) for change in changes)
            target.execute("UPDATE rollup_state SET pruned_before_us = ?", (before,))
    return pruned


def _plain(name: str, value: Any) -> Any:
    return bool(value) if name in TRUTHS else value


_COLUMNS = ", ".join(KEPT)
_STILL_THERE = f"SELECT -1, {_COLUMNS} FROM calls WHERE ts < ? AND id <= ?"  # noqa: S608
_CHANGES = f"SELECT sign, {_COLUMNS} FROM rollup_changes WHERE ts < ?"  # noqa: S608
_NOTE = f"INSERT INTO rollup_changes (sign, {_COLUMNS}) VALUES (?, {', '.join('?' * len(KEPT))})"  # noqa: S608


# Budgets --------------------------------------------------------------------------------------------------------------

_BUDGET = "per, unit, project, user, model, notebook, allowance, action, timezone, unpriced"


def _copy_budgets(source: Connection, ledger: Store) -> int:
    """Takes over the budgets whose like the target has none of, with what was spent of each; how many."""
    if migrations.version(source) < _BUDGETS_SINCE:
        return 0
    budgets = source.execute(f"SELECT id, {_BUDGET} FROM budgets ORDER BY id").fetchall()  # noqa: S608
    count = 0
    with ledger.transaction() as target:
        for number, *values in budgets:
            places = ", ".join("?" * len(values))
            sql = f"INSERT INTO budgets ({_BUDGET}) VALUES ({places}) ON CONFLICT DO NOTHING RETURNING id"  # noqa: S608
            made = target.execute(sql, values).fetchall()
            if made:
                count += 1
                spent = source.execute(_SPENT, (number,))
                target.executemany(_SPEND, [(made[0][0], *amounts) for amounts in spent])
    return count


_BUDGETS_SINCE = 4
_SPENT = "SELECT slot, amount, calls, unpriced FROM budget_spent WHERE budget_id = ?"
_SPEND = "INSERT INTO budget_spent (budget_id, slot, amount, calls, unpriced) VALUES (?, ?, ?, ?, ?)"
