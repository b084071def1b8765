"""Rows of the ledger as pandas frames whose columns have the same types whether there are rows or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "int", "float", "bool", "usd", "time"]
"""`usd` holds integer nano-dollars and becomes dollars; `time` holds microseconds since 1970."""

_DTYPES = {"text": "string", "int": "Int64", "float": "Float64", "bool": "boolean", "usd": "Float64"}
_NANO = 1_000_000_000


def frame(kinds: Mapping[str, Kind], rows: Sequence[Sequence[Any]], zone: tzinfo) -> pd.DataFrame:
    """A frame with a column for each of `kinds`, from rows in the same order."""
    import pandas as pd

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    return pd.DataFrame(
        {name: _column(kind, values, zone) for (name, kind), values in zip(kinds.items(), columns, strict=True)}
    )


def _column(kind: Kind, values: Sequence[Any], zone: tzinfo) -> pd.Series[Any]:
    import pandas as pd

    if kind == "time":
        moments = pd.Series(list(values), dtype="Int64").astype("datetime64[us]")
        return moments.dt.tz_localize("UTC").dt.tz_convert(zone)
    if kind == "bool":
        values = [None if value is None else bool(value) for value in values]
    if kind == "usd":  # an int divided by an int is the nearest double; a float sum would not be
        values = [None if value is None else value / _NANO for value in values]
    return pd.Series(list(values), dtype=_DTYPES[kind])
