"""Which tables answer a question about a span of time: days in the middle, quarters of an hour and rows at its ends.

Whatever the cover, the parts of it never overlap and miss nothing, so that sums over them are exact. Rows after the
watermark are always read as they are, and changes of folded rows are added where roll-ups were read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from datetime import tzinfo

from llmnb.ledger.rollups import BY_DAY, SKETCHES, SLOTS, Rollup, State
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import SLOT_US, cuts_us, zone_name

FEW_ROWS = 20_000
"""Up to so many rows a question is answered from the rows alone: that is as quick, and percentiles are exact."""


Span = tuple[int | None, int | None]
"""From and until, in microseconds since 1970; None where it is open."""


@dataclass(frozen=True, slots=True)
class Part:
    """A table (None: the rows that were folded) from `start_us` to before `end_us`."""

    rollup: Rollup | None
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Cover:
    """The parts of a range, and the state of the roll-ups they were chosen for.

    `sketched` is the span whose percentiles are in sketches; None when they must come from rows.
    """

    parts: tuple[Part, ...]
    state: State
    sketched: Part | None = None


def cover(
    connection: Connection,
    found: State | None,
    wanted: frozenset[str],
    unit: str | None,
    span: Span,
    zone: tzinfo,
) -> Cover | None:
    """How to answer for the dimensions `wanted`, with time cut into `unit`s; None: from the rows alone."""
    if found is None or _is_small(connection, found):
        return None
    days = next((rollup for rollup in BY_DAY if wanted <= set(rollup.dimensions)), None)
    if unit == "hour" or zone_name(zone) != found.zone:
        days = None
    slots = SLOTS if wanted <= set(SLOTS.dimensions) else None
    if days is None and slots is None:
        return None
    ends = ends_of(connection, found, span)
    if ends is None:
        return Cover((), found)
    # with slots at hand the ends of a closed range are cut as finely as slots are
    by_day = days is not None and (slots is None or None in span)
    parts = _parts(_widened(ends, span, found, by_day=by_day, zone=zone), days, slots, zone)
    middle = next((part for part in parts if part.rollup is not None and part.rollup in BY_DAY), None)
    if all(part.rollup is None for part in parts):
        return None
    sketched = None
    if middle is not None and wanted <= set(SKETCHES.dimensions):
        sketched = Part(SKETCHES.at(found.side), middle.start_us, middle.end_us)
    return Cover(tuple(_on(found.side, part) for part in parts if part.start_us < part.end_us), found, sketched)


def _on(side: int, part: Part) -> Part:
    return part if part.rollup is None else replace(part, rollup=part.rollup.at(side))


def _is_small(connection: Connection, found: State) -> bool:
    if found.pruned_before_us is not None:
        return False
    first, last = (connection.execute(f"SELECT {end}(id) FROM calls").fetchone()[0] for end in ("min", "max"))  # noqa: S608
    return first is None or last - first < FEW_ROWS


def ends_of(connection: Connection, found: State | None, span: Span) -> tuple[int, int] | None:
    """The range with its open ends where the first call began and after the last; None when there is none in it."""
    start = _outermost(connection, found, "min") if span[0] is None else span[0]
    end = span[1]
    if end is None:
        last = _outermost(connection, found, "max")
        end = None if last is None else last + SLOT_US
    return None if start is None or end is None or start >= end else (start, end)


def _outermost(connection: Connection, found: State | None, end: str) -> int | None:
    # two questions, since SQLite answers one min or one max from the index, but not both together
    moments = [connection.execute(f"SELECT {end}(ts) FROM calls").fetchone()[0]]  # noqa: S608
    if found is not None:
        moments.append(connection.execute(f"SELECT {end}(slot) FROM {SLOTS.at(found.side).table}").fetchone()[0])  # noqa: S608
    known = [moment for moment in moments if moment is not None]
    return (min(known) if end == "min" else max(known)) if known else None


def _widened(ends: tuple[int, int], span: Span, found: State, *, by_day: bool, zone: tzinfo) -> tuple[int, int]:
    """The range with an end that is open, or lies where rows were pruned, moved out to where a roll-up begins."""
    start, end = ends
    pruned = found.pruned_before_us or 0
    if span[0] is None or start < pruned:
        start = cuts_us("day", start, start, zone)[0] if by_day else start // SLOT_US * SLOT_US
    if span[1] is None or end < pruned:
        end = cuts_us("day", end - 1, end - 1, zone)[-1] if by_day else -(-end // SLOT_US) * SLOT_US
    return start, end


def _parts(ends: tuple[int, int], days: Rollup | None, slots: Rollup | None, zone: tzinfo) -> list[Part]:
    start, end = ends
    parts: list[Part] = []
    day_start, day_end = _whole_days(start, end, zone) if days is not None else (end, end)
    if days is not None and day_start < day_end:
        parts.append(Part(days, day_start, day_end))
        edges = [(start, day_start), (day_end, end)]
    else:
        edges = [(start, end)]
    for first, last in edges:
        parts += _edge(first, last, slots)
    return parts


def _edge(start: int, end: int, slots: Rollup | None) -> list[Part]:
    first, last = -(-start // SLOT_US) * SLOT_US, end // SLOT_US * SLOT_US
    if slots is None or first >= last:
        return [Part(None, start, end)]
    return [Part(None, start, first), Part(slots, first, last), Part(None, last, end)]


def _whole_days(start: int, end: int, zone: tzinfo) -> tuple[int, int]:
    cuts = cuts_us("day", start, end, zone)
    first, last = bisect_left(cuts, start), bisect_right(cuts, end) - 1
    return (cuts[first], cuts[last]) if first <= last < len(cuts) else (end, end)
