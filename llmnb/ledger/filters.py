"""Turns what a user asks for (`since`, `until`, `where`, `by`) into SQL, and refuses names it does not know."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import cast

from llmnb.errors import InvalidRequest
from llmnb.ledger.zones import TIME_UNITS, Moment, instant_us

DIMENSIONS = (
    "project", "session", "user", "notebook", "cell", "chat", "run_id", "batch_id", "template", "tag", "provider",
    "model_requested", "model", "status", "source", "stop_reason", "error_type", "service_tier", "cache_miss_reason",
    "price_id",
)  # fmt: skip
"""What calls can be grouped and filtered by."""

FILTERS = (
    *DIMENSIONS, "uid", "parent_uid", "request_id", "speed", "inference_geo", "is_call", "stream", "estimated",
)  # fmt: skip
"""What calls can be filtered by."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The text after WHERE and its parameters, without the time."""

    sql: str
    parameters: tuple[object, ...]


def where_condition(where: Mapping[str, object] | None, *, missing_is: str = "IS NULL") -> Condition:
    """Rows that have the value, or one of the values, of every name; None is a missing value.

    `missing_is` says what a missing value looks like in the table.

    Raises:
        InvalidRequest: a name is unknown.
    """
    if where is not None and not isinstance(where, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f'where={where!r}: give a dict of names and values, such as {{"project": "thesis"}}.')
    parts, parameters = ["TRUE"], list[object]()
    for name, wanted in (where or {}).items():
        known(name, FILTERS, "where")
        values = _values(wanted)
        present = [value for value in values if value is not None]
        missing = f" OR {name} {missing_is}" if len(present) < len(values) else ""
        # one parameter however long the list: SQLite limits their number
        parts.append(f"({name} IN (SELECT value FROM json_each(?)){missing})")  # noqa: S608 - `known` checked it
        parameters.append(json.dumps(present, default=str))
    return Condition(" AND ".join(parts), tuple(parameters))


def time_range_us(since: Moment, until: Moment, zone: tzinfo) -> tuple[int | None, int | None]:
    """`since` and `until` in microseconds since 1970; the range holds its begin and not its end."""
    now_us = time.time_ns() // 1000
    return instant_us(since, zone, now_us), instant_us(until, zone, now_us)


def time_condition(since_us: int | None, until_us: int | None, column: str = "ts") -> Condition:
    """Rows that started in the range."""
    bounds = [(f"{column} >= ?", since_us), (f"{column} < ?", until_us)]
    given = [(sql, value) for sql, value in bounds if value is not None]
    return Condition(" AND ".join(["TRUE", *(sql for sql, _ in given)]), tuple(value for _, value in given))


def grouping(by: str | Iterable[str]) -> tuple[str, ...]:
    """The names to group by, checked.

    Raises:
        InvalidRequest: a name is unknown or given twice, or time is cut in two ways.
    """
    if not isinstance(by, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"by={by!r}: give a name or a list of names, such as ['model', 'day']; [] is one sum.")
    names = (by,) if isinstance(by, str) else tuple(by)
    for name in names:
        known(name, (*DIMENSIONS, *TIME_UNITS), "by")
    if len(set(names)) < len(names):
        raise InvalidRequest(f"by={list(names)} names something twice.")
    if len([name for name in names if name in TIME_UNITS]) > 1:
        raise InvalidRequest(f"by={list(names)} cuts time twice: give one of {', '.join(TIME_UNITS)}.")
    return names


def known(name: object, names: Iterable[str], argument: str) -> None:
    """Refuses a name that is not one of `names`, with the nearest that is."""
    choices = sorted(names)
    if name in choices:
        return
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices)}."
    raise InvalidRequest(f"unknown name {name!r} in {argument}: {hint}")


def _values(wanted: object) -> list[object]:
    if isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes)):
        return list(cast(Iterable[object], wanted))
    return [wanted]
