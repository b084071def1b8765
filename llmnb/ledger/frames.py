"""Rows of the ledger as pandas frames whose columns have the same types whether there are rows or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "int", "float", "bool", "usd", "time"]
"""`usd` holds integer nano-dollars and becomes dollars; `time` holds microseconds since 1970."""

_NANO = 1_000_000_000


def frame(kinds: Mapping[str, Kind], rows: Sequence[Sequence[Any]], zone: tzinfo) -> pd.DataFrame:
    """A frame with a column for each of `kinds`, from rows in the same order."""
    import pandas as pd

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    return pd.DataFrame(
        {name: _column(kind, values, zone) for (name, kind), values in zip(kinds.items(), columns, strict=True)}
    )


def _column(kind: Kind, values: Sequence[Any], zone: tzinfo) -> Any:
    """The values as one of pandas' arrays, made without guessing: a page asks for hundreds of columns."""
    import numpy as np
    import pandas as pd

    if kind == "text":
        return pd.array(list(values), dtype="string")
    missing = np.array([value is None for value in values], dtype=bool)
    if kind == "usd":  # an int divided by an int is the nearest double; a float sum would not be
        values = [None if value is None else value / _NANO for value in values]
    if kind in ("usd", "float"):
        numbers = np.array(values, dtype=np.float64)  # None is NaN in it
        return pd.arrays.FloatingArray(numbers, np.isnan(numbers))
    integers = np.array([0 if value is None else value for value in values], dtype=np.int64)
    if kind == "bool":
        return pd.arrays.BooleanArray(integers != 0, missing)
    if kind == "int":
        return pd.arrays.IntegerArray(integers, missing)
    moments = integers.view("M8[us]")
    moments[missing] = np.datetime64("NaT")
    return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone)
