"""Numbers as they are given, NumPy's among them, as Python's own, which JSON and the SDK take; booleans are none."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

from llmnb.errors import InvalidRequest


def whole(value: Any) -> int | None:
    """A whole number; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return int(operator.index(value))
    except TypeError:
        return None


def count(value: Any, name: str, least: int = 1) -> int:
    """A whole number from `least` on; `name` is what was to be set.

    Raises:
        InvalidRequest: it is none.
    """
    number = whole(value)
    if number is None or number < least:
        raise InvalidRequest(f"{name} must be a whole number from {least}, not {value!r}")
    return number


def real(value: Any) -> int | float | None:
    """A finite number, whole where it is of a whole kind; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
