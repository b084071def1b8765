"""`show_usage()`: what was used and what it cost, a row a group with the course of its cost, as a cell's output.

What is shown is static: it needs no kernel, runs no script, and stays in the notebook file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from decimal import Decimal
from functools import cache
from typing import Any, cast

from llmnb.display import style
from llmnb.display.cells import escaped, marked
from llmnb.display.footer import dollars, shortened
from llmnb.display.where import where as front_end
from llmnb.errors import InvalidRequest
from llmnb.ledger import usage
from llmnb.ledger.filters import grouping, time_range_us
from llmnb.ledger.zones import TIME_UNITS, Moment, cuts_us, from_us, reporting_zone, to_us, zone_name
from llmnb.records import NANO
from llmnb.settings import load

MOST_ROWS = 12
"""Groups that have a row of their own; the rest are added up in one."""
NAME_CHARS = 40
_STEPS = (("hour", 2), ("day", 62), ("week", 371))
"""What the course is cut into, up to so many days; months beyond."""
_DAY_US = 86_400_000_000
_INPUTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
)
_COUNTS = ("calls", "cache_read_tokens", "output_tokens", "unpriced_calls", "estimated_calls")
_BLOCKS = "▁▂▃▄▅▆▇█"


def show_usage(
    since: Moment = "30d",
    until: Moment = None,
    by: str | Iterable[str] = ("model",),
    *,
    where: Mapping[str, object] | None = None,
) -> None:
    """Shows what was used and what it cost, with a sparkline of the cost of every group.

    In a notebook a table that stays in the file, elsewhere text. The figures are those of `usage()`, which gives them
    as a frame to go on with.

    Args:
        since: the first moment: a datetime, a date or ISO text (its midnight), or "7d", "24h", "30m" back from now;
            None: from the first call.
        until: the first moment after the range, given likewise.
        by: the dimensions that make a group, as for `usage()`, but no unit of time: that is what sparklines show. An
            empty list shows the total alone.
        where: the value, or list of values, that a column must have; None stands for a missing value.

    Raises:
        InvalidRequest: a name or a moment is not understood.
        StoreError: the ledger cannot be read.
    """
    _show(table(since, until, by, where=where))


@dataclass(slots=True)
class Line:
    """A row: sums of some calls, and what they cost in each step of the range, in nano-dollars."""

    names: tuple[str, ...]
    course: list[int]
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_COUNTS, "read", "cost_nanousd"), 0))
    is_priced: bool = False

    def add(self, other: Line) -> None:
        """Counts what another row counts, too."""
        self.sums = {name: number + other.sums[name] for name, number in self.sums.items()}
        self.course = list(map(int.__add__, self.course, other.course))
        self.is_priced |= other.is_priced

    @property
    def cost(self) -> str:
        """The cost in words."""
        if not self.is_priced and self.sums["calls"]:
            return "unpriced"
        about = "≈ " if self.sums["estimated_calls"] else ""
        more = f" + {self.sums['unpriced_calls']:,} unpriced" if self.sums["unpriced_calls"] else ""
        return f"{about}{dollars(Decimal(self.sums['cost_nanousd']) / NANO)}{more}"

    @property
    def numbers(self) -> tuple[str, ...]:
        """The figures as texts: calls, tokens in, of them cached, tokens out, cost."""
        counted = (self.sums[name] for name in ("calls", "read", "cache_read_tokens", "output_tokens"))
        return (*(f"{number:,}" for number in counted), self.cost)


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown: `lines` are the groups, the most expensive first, `total` all of them together."""

    by: tuple[str, ...]
    step: str
    about: str
    lines: tuple[Line, ...]
    total: Line

    @property
    def titles(self) -> tuple[str, ...]:
        """What stands above the columns."""
        return (*(self.by or ("",)), "calls", "tokens in", "of it cached", "tokens out", "cost", f"per {self.step}")


def table(since: Moment, until: Moment, by: str | Iterable[str], *, where: Mapping[str, object] | None = None) -> Table:
    """The table of a range; see `show_usage`."""
    names, zone = grouping(by), reporting_zone(load())
    if units := [name for name in names if name in TIME_UNITS]:
        raise InvalidRequest(
            f"by={list(names)}: sparklines show time; leave out {units[0]!r}, or ask usage() for a frame."
        )
    span = time_range_us(since, until, zone)
    start_us, end_us = _ends(span, where, zone)
    step = next((unit for unit, days in _STEPS if end_us - start_us <= days * _DAY_US), "month")
    cuts = cuts_us(step, start_us, max(start_us, end_us - 1), zone)[:-1]
    ends = [None if end is None else from_us(end, zone) for end in span]
    frame = usage(*ends, by=[step, *names], where=where, percentiles=False)
    groups: dict[tuple[str, ...], Line] = {}
    for row in frame.to_dict("records"):
        found = _line(cast("dict[str, Any]", row), names, step, cuts)
        groups.setdefault(found.names, Line(found.names, [0] * len(cuts))).add(found)
    lines = sorted(groups.values(), key=lambda line: (-line.sums["cost_nanousd"], -line.sums["calls"], line.names))
    return Table(names, step, _about(start_us, end_us, zone), *_shortened(lines, len(cuts), len(names) or 1))


def _ends(span: tuple[int | None, int | None], where: Mapping[str, object] | None, zone: tzinfo) -> tuple[int, int]:
    """The range that is drawn: an open end is where the calls begin, and now."""
    now_us = time.time_ns() // 1000
    end = now_us if span[1] is None else span[1]
    if span[0] is not None:
        return span[0], max(end, span[0] + 1)
    months = usage(None, from_us(end, zone), by=["month"], where=where, percentiles=False)["month"]
    return (end - 1 if months.empty else to_us(months.min().to_pydatetime())), end


def _line(row: dict[str, Any], names: Sequence[str], step: str, cuts: Sequence[int]) -> Line:
    """What a group used in one step."""
    line = Line(tuple(_name(name, row[name]) for name in names), [0] * len(cuts))
    line.sums |= {name: int(row[name]) for name in _COUNTS} | {"read": sum(int(row[name]) for name in _INPUTS)}
    line.is_priced = isinstance(row["cost_nanousd"], int)  # a missing value is pandas' NA
    line.sums["cost_nanousd"] = int(row["cost_nanousd"]) if line.is_priced else 0
    at = to_us(row[step].to_pydatetime())
    if at in cuts:
        line.course[cuts.index(at)] = line.sums["cost_nanousd"]
    return line


def _name(dimension: str, value: Any) -> str:
    return shortened(value, NAME_CHARS) if isinstance(value, str) else f"(no {dimension.replace('_', ' ')})"


def _shortened(lines: Sequence[Line], steps: int, columns: int) -> tuple[tuple[Line, ...], Line]:
    """The rows there is room for, and the total."""
    total = Line(("total", *[""] * (columns - 1)), [0] * steps)
    for line in lines:
        total.add(line)
    if len(lines) <= MOST_ROWS:
        return tuple(lines), total
    rest = Line((f"{len(lines) - MOST_ROWS + 1:,} more", *[""] * (columns - 1)), [0] * steps)
    for line in lines[MOST_ROWS - 1 :]:
        rest.add(line)
    return (*lines[: MOST_ROWS - 1], rest), total


def _about(start_us: int, end_us: int, zone: tzinfo) -> str:
    first, last = (from_us(at, zone) for at in (start_us, end_us - 1))
    days = (
        f"{first.day} {first:%b %Y} – {last.day} {last:%b %Y}" if first.date() != last.date() else f"{first:%d %b %Y}"
    )
    return f"{days} · {zone_name(zone)}"


# How it is shown ------------------------------------------------------------------------------------------------------


def _show(shown: Table) -> None:
    place = front_end()
    if place in ("script", "terminal", "console"):
        _print(plain(shown))
        return
    bundle = {"text/html": html(shown), "text/markdown": markdown(shown), "text/plain": plain(shown)}
    if place == "marimo":
        marimo: Any = sys.modules["marimo"]
        marimo.output.append(marimo.Html(bundle["text/html"]))
        return
    from IPython import display

    cast(Any, display).display(bundle, raw=True)


def _print(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")  # an old Windows console has no blocks


def html(shown: Table) -> str:
    """As one HTML element that brings its own style."""
    width = len(shown.by) or 1
    heads = [f'<th scope="col"{_kind(at - width)}>{escaped(title)}</th>' for at, title in enumerate(shown.titles)]
    body = "".join(f"<tr>{_cells(line, shown.step)}</tr>" for line in shown.lines)
    foot = f"<tfoot><tr>{_cells(shown.total, shown.step)}</tr></tfoot>" if len(shown.lines) != 1 else ""
    content = (
        f"<table><caption>{escaped(shown.about)}</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{body}</tbody>{foot}</table>"
    )
    page = f'<div class="llmnb llmnb-usage">{content}</div>'
    return page.replace(">", f">{style.tag(usage_css(), page)}", 1)


def _kind(place: int) -> str:
    """The class of a column, counted from the figures: of a name, or of figures a narrow screen can do without."""
    return ' class="llmnb-name"' if place < 0 else ' class="llmnb-wide"' if 1 <= place <= 3 else ""


def _cells(line: Line, step: str) -> str:
    names = "".join(f'<th scope="row">{escaped(name)}</th>' for name in line.names or ("total",))
    *counts, cost = line.numbers
    numbers = "".join(f"<td{_kind(at)}>{escaped(text)}</td>" for at, text in enumerate(counts))
    priced, plus, unpriced = cost.partition(" + ")
    more = f' <span class="llmnb-more">{plus.strip()} {escaped(unpriced)}</span>' if plus else ""
    return f"{names}{numbers}<td>{escaped(priced)}{more}</td><td>{_sparkline(line, step)}</td>"


def _sparkline(line: Line, step: str) -> str:
    """Bars; where a viewer takes out drawings and styles the characters of a terminal are left."""
    most = max(line.course, default=0)
    if most <= 0:
        return '<span aria-label="no cost">–</span>'
    label = f"cost per {step}, at most {dollars(Decimal(most) / NANO)}"
    bars = "".join(
        f'<rect x="{at * 4}" y="{20 - height:.4g}" width="3" height="{height:.4g}"/>'
        for at, amount in enumerate(line.course)
        if (height := max(1, 20 * amount / most) if amount > 0 else 0)
    )
    drawing = f'<svg role="img" viewBox="0 0 {len(line.course) * 4} 20" preserveAspectRatio="none">'
    title = f"<title>{escaped(label)}</title>".replace("<span>$</span>", "$")  # a title holds text only
    return (
        f'<span class="llmnb-spark">{drawing}{title}{bars}</svg><span class="llmnb-blocks">{blocks(line)}</span></span>'
    )


def blocks(line: Line, most_chars: int = 31) -> str:
    """The course of a row in characters; neighbours share one where there are too many."""
    wide = -(-len(line.course) // most_chars) or 1
    course = [sum(line.course[at : at + wide]) for at in range(0, len(line.course), wide)]
    most = max(course, default=0)
    if most <= 0:
        return "–"
    return "".join(_BLOCKS[min(7, 8 * amount // most)] if amount > 0 else " " for amount in course)


def markdown(shown: Table) -> str:
    """As Markdown, for where no HTML is kept."""
    rule = [*["---"] * (len(shown.by) or 1), *["---:"] * 5, "---"]
    rows = [shown.titles, rule, *([marked(cell) for cell in cells] for cells in _texts(shown))]
    return "\n".join([f"{marked(shown.about)}\n", *(f"| {' | '.join(row)} |" for row in rows)])


def plain(shown: Table) -> str:
    """As text."""
    rows = [shown.titles, *_texts(shown)]
    names, last = len(shown.by) or 1, len(shown.titles) - 1
    widths = [max(len(row[column]) for row in rows) for column in range(last + 1)]
    lines = [
        "  ".join(
            cell.ljust(width) if at < names or at == last else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([shown.about, *lines])


def _texts(shown: Table) -> Iterator[tuple[str, ...]]:
    every = shown.lines if len(shown.lines) == 1 else (*shown.lines, shown.total)
    for line in every:
        yield (*(line.names or ("total",)), *line.numbers, blocks(line))


@cache
def usage_css() -> str:
    """The style sheet of the table."""
    return style.squeezed("usage_table.css")
