"""`llmnb.cache.entries()`: the answers that are kept, as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmnb.cache import browse
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.zones import reporting_zone
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.durations import Duration

COLUMNS: dict[str, Kind] = {
    "key": "text", "created": "time", "expires": "time", "model": "text", "stop_reason": "text",
    "input_tokens": "int", "output_tokens": "int", "streamed": "bool", "question": "text", "sample": "int",
}  # fmt: skip


def entries(
    *, model: str | None = None, older: Duration | None = None, settings: Settings | None = None
) -> pd.DataFrame:
    """The answers in the response cache, newest first, one row each.

    Args:
        model: only answers of this model.
        older: only answers older than that: seconds, or "30d", "12h".
        settings: settings to use instead of those in force here and now.

    Returns:
        A frame with the columns of `COLUMNS`: `created` is when the answer came and `expires` until when it is used, in
        the reporting timezone; tokens are those it was billed for when it came, `input_tokens` all that the model read;
        `question` is the beginning of the last text that was asked.

    Raises:
        StoreError: the cache cannot be read.
    """
    found = browse.entries(model=model, older=older, settings=settings)
    rows = [[_value(entry, name) for name in COLUMNS] for entry in found]
    return frame(COLUMNS, rows, reporting_zone(settings or load()))


def _value(entry: browse.Entry, name: str) -> object:
    value = getattr(entry, name)
    return value if value is None or COLUMNS[name] != "time" else round(value.timestamp() * 1e6)
