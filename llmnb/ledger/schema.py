"""Calls as rows: which columns there are, and a call from and to the values of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from llmnb.records import Call

COLUMNS = tuple(f.name for f in fields(Call))
"""The columns of `calls` that a call fills, in their order."""

values_of: Callable[[Call], tuple[object, ...]] = attrgetter(*COLUMNS)
"""The values of a call in the order of `COLUMNS`."""

TRUTHS = tuple(f.name for f in fields(Call) if f.type == "bool")
"""The columns that hold a truth value."""
_TRUTHS = [COLUMNS.index(name) for name in TRUTHS]


def call_from(values: Sequence[Any]) -> Call:
    """The call whose columns hold these values."""
    row = list(values)
    for index in _TRUTHS:
        row[index] = bool(row[index])
    return Call(**dict(zip(COLUMNS, row, strict=True)))


def mended(call: Call) -> Call:
    """The call with every text that is no valid Unicode escaped, so that it can be stored."""
    broken = {
        name: value.encode("utf-8", "backslashreplace").decode()
        for name, value in zip(COLUMNS, values_of(call), strict=True)
        if isinstance(value, str) and not _is_unicode(value)
    }
    return replace(call, **broken)  # pyright: ignore[reportArgumentType]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
