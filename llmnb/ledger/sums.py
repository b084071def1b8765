"""Sums of calls by group, from roll-ups and rows together, on one snapshot of the ledger."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from itertools import pairwise
from typing import Any

from llmnb.ledger import sketch
from llmnb.ledger.cover import Cover, Part, Span, cover, ends_of
from llmnb.ledger.filters import Condition, time_condition, where_condition
from llmnb.ledger.measures import LATENCY, NAMES, TTFT, added, summed
from llmnb.ledger.rollups import MISSING, Rollup, State, state
from llmnb.ledger.sql import Connection, define_steps
from llmnb.ledger.zones import TIME_UNITS, cuts_us
from llmnb.trouble import warn_once

Group = tuple[Any, ...]
SHARES = (0.5, 0.95)
"""Which percentiles of latency and of the time to the first token."""


@dataclass(slots=True)
class Sums:
    """The measures of a group, in the order that was asked for, and percentiles of latency and time to first token."""

    names: tuple[str, ...] = NAMES
    measures: list[int] = field(default_factory=list[int])
    percentiles: list[float | None] = field(default_factory=lambda: [None] * (2 * len(SHARES)))

    def __post_init__(self) -> None:
        self.measures = self.measures or [0] * len(self.names)

    def __getitem__(self, name: str) -> int:
        return self.measures[self.names.index(name)]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: groups by dimensions and at most one unit of time, of the calls in a span that fit `where`.

    `measures` are those to be added up, "entries" among them; the fewer, the quicker where rows are read.
    """

    names: tuple[str, ...]
    span: Span
    where: Mapping[str, object]
    zone: tzinfo
    percentiles: bool = True
    measures: tuple[str, ...] = NAMES

    @property
    def unit(self) -> str | None:
        """The unit of time that groups are cut by."""
        return next((name for name in self.names if name in TIME_UNITS), None)

    @property
    def dimensions(self) -> frozenset[str]:
        """All names of columns that are needed but time."""
        return frozenset(self.names) - set(TIME_UNITS) | set(self.where)


def sums(connection: Connection, question: Question) -> dict[Group, Sums]:
    """The sums of every group there is, on one snapshot; without names there is one group, also if it is empty."""
    connection.execute("BEGIN")
    try:
        return sums_in_transaction(connection, question)
    finally:
        connection.execute("ROLLBACK")


def sums_in_transaction(connection: Connection, question: Question) -> dict[Group, Sums]:
    """The same, on the snapshot that the transaction has."""
    found = state(connection)
    covered = cover(connection, found, question.dimensions, question.unit, question.span, question.zone)
    if covered is None and found is not None and (found.pruned_before_us or 0) > (question.span[0] or 0):
        warn_once(
            "pruned",
            "calls that were pruned are missing in this table: of them only sums by day, project, user, provider, "
            "model and tag are kept (days of the timezone they were cut in).",
        )
    asked = _Asked(connection, question, found, covered)
    groups = asked.groups()
    if question.percentiles:
        asked.add_percentiles(groups)
    return groups


def buckets(
    connection: Connection, question: Question
) -> tuple[dict[Group, dict[int, int]], dict[Group, dict[int, int]]]:
    """The buckets (see `sketch`) of latency and of the time to the first token, by group; on one snapshot."""
    connection.execute("BEGIN")
    try:
        found = state(connection)
        covered = cover(connection, found, question.dimensions, question.unit, question.span, question.zone)
        asked = _Asked(connection, question, found, covered)
        return asked.buckets(0), asked.buckets(1)
    finally:
        connection.execute("ROLLBACK")


class _Asked:
    """A question that is being answered."""

    def __init__(self, connection: Connection, question: Question, found: State | None, covered: Cover | None) -> None:
        self._connection = connection
        self._question = question
        self._cover = covered
        self._cuts = self._cuts_of_time(found)
        define_steps(connection, "span_of", self._span_of, lambda: self._cuts)

    def _cuts_of_time(self, found: State | None) -> list[int]:
        unit = self._question.unit
        ends = ends_of(self._connection, found, self._question.span) if unit is not None else None
        if unit is None or ends is None:
            return []
        # where calls were pruned a whole day counts, though only a part of it was asked for
        first = min([ends[0], *(part.start_us for part in self._parts)])
        last = max([ends[1], *(part.end_us for part in self._parts)])
        return cuts_us(unit, first, last, self._question.zone)

    @property
    def _parts(self) -> tuple[Part, ...]:
        return () if self._cover is None else self._cover.parts

    def _span_of(self, ts: int) -> int | None:
        place = bisect_right(self._cuts, ts) - 1
        return self._cuts[place] if 0 <= place < len(self._cuts) - 1 else None

    # Sums -------------------------------------------------------------------------------------------------------------

    def groups(self) -> dict[Group, Sums]:
        """All groups with their sums."""
        groups: dict[Group, Sums] = defaultdict(lambda: Sums(self._question.measures))
        for row in self._rows():
            width = len(self._question.names)
            group = tuple(None if value == b"" else value for value in row[:width])
            into = groups[group].measures
            into[:] = map(int.__add__, into, row[width:])
        if not self._question.names:
            groups[()]  # the total is there, also of nothing
            return dict(groups)
        return {group: found for group, found in groups.items() if found["entries"]}

    def _rows(self) -> Iterator[Group]:
        if self._cover is None:
            yield from self._of_rows(*self._question.span, "TRUE")
            return
        watermark = self._cover.state.watermark
        for part in self._parts:
            if part.rollup is None:
                yield from self._of_rows(part.start_us, part.end_us, _folded(watermark).sql)
            else:
                yield from self._of_rollup(part.rollup, part)
                yield from self._of_changes(part)
        yield from self._of_tail(watermark)

    def _of_rollup(self, rollup: Rollup, part: Part) -> Iterator[Group]:
        where = where_condition(self._question.where, missing_is=f"= {MISSING}")
        in_time = time_condition(part.start_us, part.end_us, rollup.time)
        # `span_of` and no join: SQLite would unpack the spans again and again, and the rows are few
        time = rollup.time if self._question.unit == rollup.time else f"span_of({rollup.time})"
        return self._grouped(rollup.table, time, added(self._question.measures), (in_time, where))

    def _of_rows(self, start_us: int | None, end_us: int | None, extra: str) -> Iterator[Group]:
        conditions = (time_condition(start_us, end_us), where_condition(self._question.where), Condition(extra, ()))
        return self._grouped("calls", "ts", summed(self._question.measures), conditions, self._spans(start_us, end_us))

    def _of_tail(self, watermark: int) -> Iterator[Group]:
        conditions = (Condition(f"id > {watermark}", ()), time_condition(*self._tail_span()), self._where)
        # NOT INDEXED: the planner would take the index on ts, and look at every call of the span
        return self._grouped("calls NOT INDEXED", "span_of(ts)", summed(self._question.measures), conditions)

    def _of_changes(self, part: Part) -> Iterator[Group]:
        conditions = (time_condition(part.start_us, part.end_us), self._where)
        return self._grouped("rollup_changes", "span_of(ts)", summed(self._question.measures, "sign"), conditions)

    def _tail_span(self) -> Span:
        """As wide as the parts: the end of an open range is moved out to a day, and so must be this one's."""
        start, end = self._question.span
        starts, ends = [part.start_us for part in self._parts], [part.end_us for part in self._parts]
        return (
            None if start is None else min([start, *starts]),
            None if end is None else max([end, *ends]),
        )

    @property
    def _where(self) -> Condition:
        return where_condition(self._question.where)

    def _spans(self, start_us: int | None, end_us: int | None) -> list[tuple[int, int]]:
        """The spans of the unit of time that have a part in a range."""
        return [
            (start, end)
            for start, end in pairwise(self._cuts)
            if (end_us is None or start < end_us) and (start_us is None or end > start_us)
        ]

    def _grouped(
        self,
        table: str,
        time: str,
        what: str,
        conditions: Sequence[Condition],
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[Group]:
        """Rows of the names asked for and sums, from a table whose column (or expression) of time is `time`.

        With `spans` it is a moment, which is in one of them; else the beginning of a span as it stands.
        """
        unit, names = self._question.unit, self._question.names
        if unit is not None and spans is not None:
            # CROSS JOIN: one search of the index per span, and never spans x rows comparisons
            table = f"spans CROSS JOIN {table} ON {time} >= span_start AND {time} < span_end"
        columns = [(time if spans is None else "span_start") if name == unit else name for name in names]
        sql = f"SELECT {', '.join([*columns, what])} FROM {table} WHERE {_both(conditions)}"  # noqa: S608
        parameters = [value for condition in conditions for value in condition.parameters]
        if unit is not None and spans is not None:
            sql = f"WITH spans (span_start, span_end) AS ({_SPANS}) {sql}"
            parameters.insert(0, json.dumps(spans))
        if columns:
            sql += f" GROUP BY {', '.join(str(place + 1) for place in range(len(columns)))}"
        return self._connection.execute(sql, parameters)

    # Percentiles ------------------------------------------------------------------------------------------------------

    def add_percentiles(self, groups: dict[Group, Sums]) -> None:
        """Fills in percentiles: exact where they are read from rows, within 2 % where they are read from sketches."""
        sketched = None if self._cover is None else self._cover.sketched
        sketches = None if sketched is None else self._sketches(sketched)
        for column in range(2):
            places = slice(column * len(SHARES), (column + 1) * len(SHARES))
            if sketched is None or sketches is None:
                found = self._of_values(column)
            else:
                found = self._of_sketches(sketches[column], self._values(column, sketched))
            for group, percentiles in found.items():
                if group in groups:
                    groups[group].percentiles[places] = percentiles

    def buckets(self, column: int) -> dict[Group, dict[int, int]]:
        """How many values fell into each bucket, by group."""
        sketched = None if self._cover is None else self._cover.sketched
        if sketched is None:
            value = (LATENCY, TTFT)[column]
            start, end = self._question.span if self._cover is None else self._tail_span()
            found: dict[Group, dict[int, int]] = defaultdict(lambda: defaultdict(int))
            for *group, counts, number in self._valued("1", "calls", value, (time_condition(start, end),)):
                found[tuple(group)][sketch.bucket(number)] += counts
            return found
        found = self._values(column, sketched)
        for group, sketches in self._sketches(sketched)[column].items():
            for number, count in sketch.counts(sketches).items():
                found[group][number] = found[group].get(number, 0) + count
        return found

    def _of_values(self, column: int) -> dict[Group, list[float | None]]:
        """From the rows alone."""
        value = (LATENCY, TTFT)[column]
        start, end = self._question.span if self._cover is None else self._tail_span()
        conditions = (time_condition(start, end), self._where, Condition(f"{value} IS NOT NULL", ()))
        width, found = len(self._question.names), dict[Group, list[float | None]]()
        for row in self._grouped("calls", "ts", f"json_group_array({value})", conditions, self._spans(start, end)):
            ordered = sorted(json.loads(row[width]))
            found[row[:width]] = [quantile(ordered, share) for share in SHARES]
        return found

    def _of_sketches(
        self, sketches: Mapping[Group, list[bytes]], values: Mapping[Group, dict[int, int]]
    ) -> dict[Group, list[float | None]]:
        """From sketches for the whole days, and from values for the rest of the span and what is not folded yet."""
        return {
            group: sketch.percentiles(sketches.get(group, ()), values.get(group, {}), SHARES)
            for group in {*sketches, *values}
        }

    def _sketches(self, sketched: Part) -> tuple[dict[Group, list[bytes]], dict[Group, list[bytes]]]:
        """The sketches of latency and of time to first token, by group."""
        assert sketched.rollup is not None
        where = where_condition(self._question.where, missing_is=f"= {MISSING}")
        in_time = time_condition(sketched.start_us, sketched.end_us, sketched.rollup.time)
        unit = self._question.unit
        columns = [f"span_of({sketched.rollup.time})" if name == unit else name for name in self._question.names]
        sql = f"SELECT {', '.join([*columns, 'latency', 'ttft'])} FROM {sketched.rollup.table}"  # noqa: S608
        latencies, ttfts = defaultdict[Group, list[bytes]](list), defaultdict[Group, list[bytes]](list)
        parameters = (*in_time.parameters, *where.parameters)
        for *key, latency, ttft in self._connection.execute(f"{sql} WHERE {_both((in_time, where))}", parameters):
            group = tuple([None if value == b"" else value for value in key])
            latencies[group].append(latency)
            ttfts[group].append(ttft)
        return latencies, ttfts

    def _values(self, column: int, sketched: Part) -> dict[Group, dict[int, int]]:
        assert self._cover is not None
        watermark, value = self._cover.state.watermark, (LATENCY, TTFT)[column]
        start, end = self._tail_span()
        outside = Condition("(ts < ? OR ts >= ?)", (sketched.start_us, sketched.end_us))
        folded, tail = _folded(watermark), Condition(f"id > {watermark}", ())
        edges = [(start, sketched.start_us), (sketched.end_us, end)]
        sources: list[tuple[str, str, Sequence[Condition]]] = [
            *(("1", "calls", (folded, outside, time_condition(*edge))) for edge in edges if edge[0] != edge[1]),
            ("1", "calls NOT INDEXED", (tail, time_condition(start, end))),
            ("sign", "rollup_changes", (time_condition(sketched.start_us, sketched.end_us),)),
        ]
        found: dict[Group, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for sign, table, conditions in sources:
            for *group, counts, number in self._valued(sign, table, value, conditions):
                found[tuple(group)][sketch.bucket(number)] += counts
        return found

    def _valued(self, sign: str, table: str, value: str, conditions: Sequence[Condition]) -> Iterator[Group]:
        unit = self._question.unit
        columns = ["span_of(ts)" if name == unit else name for name in self._question.names]
        every = (*conditions, self._where, Condition(f"{value} IS NOT NULL", ()))
        sql = f"SELECT {', '.join([*columns, sign, value])} FROM {table} WHERE {_both(every)}"  # noqa: S608
        return self._connection.execute(sql, [value for condition in every for value in condition.parameters])


_SPANS = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"


def _folded(watermark: int) -> Condition:
    # the plus keeps the planner from reading all rows up to there, instead of those of the span by the index on ts
    return Condition(f"+id <= {watermark}", ())


def _both(conditions: Sequence[Condition]) -> str:
    return " AND ".join(condition.sql for condition in conditions)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which `share` of the ordered values lie, interpolated linearly; None without values."""
    if not ordered:
        return None
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
