"""`latencies()`: how long calls took, as a distribution, from the sketches of the roll-ups and rows together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmnb.ledger import sketch
from llmnb.ledger.connection import reading
from llmnb.ledger.filters import grouping, time_range_us, where_condition
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.shelf import settle
from llmnb.ledger.sums import Group, Question, buckets
from llmnb.ledger.zones import TIME_UNITS, Moment, reading_zone
from llmnb.places import Place
from llmnb.settings import load

if TYPE_CHECKING:
    import pandas as pd

LATENCY_COLUMNS: dict[str, Kind] = {"measure": "text", "from_ms": "float", "to_ms": "float", "calls": "int"}
"""The columns of `latencies()` after the dimensions, in their order."""
MEASURES = ("latency", "ttft")
BARS_PER_BUCKETS = 6
"""So many buckets of a sketch, each 4 % wider than the one before, make one row: ten of them are a power of ten."""


def latencies(
    since: Moment = None,
    until: Moment = None,
    by: str | Iterable[str] = ("model",),
    *,
    where: Mapping[str, object] | None = None,
    path: Place | None = None,
) -> pd.DataFrame:
    """How many calls took how long, by group.

    Args:
        since, until, by, where, path: as for `usage()`. By provider, model and project, years are read in milliseconds;
            every other name is read from the rows of the range.

    Returns:
        A frame with the columns of `by`, and `measure` ("latency": to the end, of live calls that ended ok; "ttft": to
        the first token, of live calls), `from_ms` and `to_ms` (milliseconds, each 1.27 times the one before) and
        `calls`, whose time lay between them, within 2 %. Ranges without a call are left out.

    Raises:
        InvalidRequest: a name or a moment is not understood.
        StoreError: the ledger cannot be read.
    """
    settings, names = load(), grouping(by)
    where_condition(where)
    zone = reading_zone(settings)
    question = Question(names, time_range_us(since, until, zone), where or {}, zone, percentiles=False)
    where_from = path or settings.ledger_path
    settle(where_from)
    with reading(where_from) as connection:
        found = None if connection is None else buckets(connection, question)
    kinds: dict[str, Kind] = {name: "time" if name in TIME_UNITS else "text" for name in names}
    by_measure = () if found is None else zip(MEASURES, found, strict=True)
    rows = [row for measure, groups in by_measure for row in _rows(measure, groups)]
    return frame({**kinds, **LATENCY_COLUMNS}, rows, zone)


def _rows(measure: str, groups: Mapping[Group, Mapping[int, int]]) -> Iterator[tuple[Any, ...]]:
    for group, counts in sorted(groups.items(), key=lambda item: str(item[0])):
        bars: dict[int, int] = {}
        for number, count in counts.items():
            bars[number // BARS_PER_BUCKETS] = bars.get(number // BARS_PER_BUCKETS, 0) + count
        for bar, count in sorted(bars.items()):
            if count > 0:
                ends = (sketch.lower_end(bar * BARS_PER_BUCKETS), sketch.lower_end((bar + 1) * BARS_PER_BUCKETS))
                yield (*group, measure, *ends, count)
