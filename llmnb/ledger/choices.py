"""What there is to choose from: the values of a dimension in the whole ledger, without a look at its rows."""

from __future__ import annotations

from collections.abc import Iterable

from llmnb.ledger.connection import reading
from llmnb.ledger.filters import known
from llmnb.ledger.rollups import MISSING_VALUE, NOTED, State, state
from llmnb.ledger.shelf import settle
from llmnb.ledger.sql import Connection
from llmnb.places import Place
from llmnb.settings import load

MOST_ROWS = 50_000
"""How many of the newest rows are looked at, however many are not folded yet."""


def choices(names: Iterable[str] = NOTED, *, path: Place | None = None) -> dict[str, list[str | None]]:
    """The values that calls have had in these dimensions, by alphabet, and None at the end where some had none.

    They are noted when calls are folded, so this takes about a millisecond at any size. A value stays in the list when
    its last call is pruned or changed.

    Args:
        names: of project, user, notebook, tag, provider and model.
        path: the ledger; unset: the one of the settings.

    Raises:
        InvalidRequest: a name is not one of these.
        StoreError: the ledger cannot be read.
    """
    wanted = tuple(names)
    for name in wanted:
        known(name, NOTED, "choices")
    where = path or load().ledger_path
    settle(where)
    with reading(where) as connection:
        if connection is None:
            return {name: [] for name in wanted}
        found = state(connection)
        return {name: _ordered(_values(connection, found, name)) for name in wanted}


def is_empty(path: Place | None = None) -> bool:
    """Whether there is no ledger yet, or none that ever held a call.

    Raises:
        StoreError: the ledger cannot be read.
    """
    where = path or load().ledger_path
    settle(where)
    with reading(where) as connection:
        if connection is None:
            return True
        if connection.execute("SELECT 1 FROM calls LIMIT 1").fetchone() is not None:
            return False
        found = state(connection)
        return found is None or found.pruned_before_us is None


def _values(connection: Connection, found: State | None, name: str) -> set[str | None]:
    """The values noted, and those of what is not folded yet."""
    newest = connection.execute("SELECT max(id) FROM calls").fetchone()[0] or 0
    # in the middle of a rebuild nearly all rows wait, but their values were noted before
    begin = max(0 if found is None else found.watermark, newest - MOST_ROWS)
    # NOT INDEXED: only the newest rows are read, which no index but the id's finds
    sources = [f"SELECT DISTINCT {name} FROM calls NOT INDEXED WHERE id > {begin}"]  # noqa: S608 - `known` checked it
    if found is not None:
        sources.append(f"SELECT value FROM rollup_values WHERE dimension = '{name}'")  # noqa: S608
    if found is not None and name != "notebook":  # which changes do not tell
        sources.append(f"SELECT DISTINCT {name} FROM rollup_changes WHERE sign = 1")  # noqa: S608
    values = {value for sql in sources for (value,) in connection.execute(sql)}
    return {None if value == MISSING_VALUE else value for value in values}


def _ordered(values: set[str | None]) -> list[str | None]:
    named = sorted(value for value in values if value is not None)
    return [*named, None] if None in values else [*named]
