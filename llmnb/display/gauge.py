"""What the meter shows: tokens and dollars of this kernel, its project and the day, and the budgets they count against.

`read` asks the ledger, and `html`, `markdown` and `plain` draw what it said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from llmnb import origin
from llmnb.budgeting import BudgetStatus
from llmnb.budgeting.status import statuses_in
from llmnb.budgeting.texts import in_words
from llmnb.display.cells import escaped, marked
from llmnb.display.footer import dollars
from llmnb.errors import StoreError
from llmnb.ledger.connection import reading
from llmnb.ledger.sums import Question, Sums, sums
from llmnb.ledger.zones import cuts_us, reporting_zone
from llmnb.records import NANO
from llmnb.settings import Settings

_INPUTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
)


@dataclass(frozen=True, slots=True)
class Line:
    """Sums over some calls; `cost_nanousd` is None when there were calls and none has a price."""

    what: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int | None = 0
    unpriced_calls: int = 0
    is_estimated: bool = False

    @property
    def cost(self) -> str:
        """The cost in words."""
        if self.cost_nanousd is None:
            return "unpriced"
        about = "≈ " if self.is_estimated else ""
        more = f" + {self.unpriced_calls:,} unpriced" if self.unpriced_calls else ""
        return f"{about}{dollars(Decimal(self.cost_nanousd) / NANO)}{more}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as texts."""
        return self.what, f"{self.calls:,}", f"{self.input_tokens:,}", f"{self.output_tokens:,}", self.cost


@dataclass(frozen=True, slots=True)
class Gauge:
    """What the ledger says at a moment; `trouble` is why it says nothing."""

    lines: tuple[Line, ...]
    budgets: tuple[BudgetStatus, ...] = ()
    trouble: str = ""


TITLES = ("", "calls", "tokens in", "tokens out", "cost")


def read(settings: Settings, project: str | None) -> Gauge:
    """What there is to show. Never raises for what is wrong with the ledger."""
    named = [("this kernel", {"session": origin.session()})]
    named += [(f"project {project}", {"project": project})] if project else []
    labels = [*(what for what, _ in named), "today, everywhere"]
    try:
        with reading(settings.ledger_path) as connection:
            if connection is None:
                return Gauge(tuple(map(Line, labels)))
            spans = [_session_start_us(), *[None] * (len(named) - 1), _midnight_us(settings)]
            filters: list[Mapping[str, object]] = [*(where for _, where in named), {}]
            zone = reporting_zone(settings)
            lines = [
                _line(what, sums(connection, Question((), (since, None), where, zone, percentiles=False))[()])
                for what, since, where in zip(labels, spans, filters, strict=True)
            ]
            budgets = [status for status in statuses_in(connection) if _is_here(status, settings, project)]
    except StoreError as trouble:
        return Gauge((), trouble=str(trouble))
    return Gauge(tuple(lines), tuple(budgets))


def _line(what: str, found: Sums) -> Line:
    priced = found["entries"] > found["unpriced_calls"]
    return Line(
        what,
        found["calls"],
        sum(found[name] for name in _INPUTS),
        found["output_tokens"],
        found["cost_nanousd"] if priced or not found["entries"] else None,
        found["unpriced_calls"],
        found["estimated_calls"] > 0,
    )


def _session_start_us() -> int:
    """When this process began, so that only what is younger need be looked at."""
    started = origin.session().rsplit(":", 2)[1]
    return int(started) * 1_000_000


def _midnight_us(settings: Settings) -> int:
    now_us = time.time_ns() // 1000
    return cuts_us("day", now_us, now_us, reporting_zone(settings))[0]


def _is_here(status: BudgetStatus, settings: Settings, project: str | None) -> bool:
    """Whether calls of this kernel may count against a budget."""
    here = {"project": project, "user": origin.user(settings), "notebook": origin.notebook(settings)}
    wanted = {name: getattr(status.budget, name) for name in here}
    return all(value is None or value == here[name] for name, value in wanted.items())


# How it is drawn ------------------------------------------------------------------------------------------------------


def html(gauge: Gauge) -> str:
    """As one HTML element, without its style."""
    if gauge.trouble:
        return _framed(f'<p class="llmnb-error" role="alert">{escaped(gauge.trouble)}</p>')
    head = "".join(f'<th scope="col">{title}</th>' for title in TITLES)
    rows = "".join(f"<tr>{_row(line)}</tr>" for line in gauge.lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return _framed(table + "".join(map(_budget, gauge.budgets)))


def markdown(gauge: Gauge) -> str:
    """As Markdown, for where no HTML is kept."""
    if gauge.trouble:
        return marked(gauge.trouble)
    rows = [TITLES, ("---", *["---:"] * (len(TITLES) - 1)), *(tuple(map(marked, line.cells)) for line in gauge.lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, *(marked(_sentence(status)) for status in gauge.budgets)])


def plain(gauge: Gauge) -> str:
    """As text."""
    if gauge.trouble:
        return gauge.trouble
    rows = [TITLES, *(line.cells for line in gauge.lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, *map(_sentence, gauge.budgets)])


def _framed(content: str) -> str:
    return f'<div class="llmnb llmnb-meter">{content}</div>'


def _row(line: Line) -> str:
    what, *numbers = map(escaped, line.cells)
    return f'<th scope="row">{what}</th>' + "".join(f"<td>{number}</td>" for number in numbers)


def _budget(status: BudgetStatus) -> str:
    percent = min(100.0, status.share * 100)
    held = min(100.0 - percent, _share(status.held_amount, status) * 100)
    level = "full" if status.share >= 1 else "high" if status.share >= 0.8 else "half" if status.share >= 0.5 else "low"
    bar = (
        f'<div class="llmnb-bar" role="img" aria-label="{percent:.0f} % spent">'
        f'<span class="llmnb-spent" style="width:{percent:.2f}%"></span>'
        f'<span class="llmnb-held" style="width:{held:.2f}%"></span></div>'
    )
    return f'<div class="llmnb-budget llmnb-{level}">{bar}<span>{escaped(_sentence(status))}</span></div>'


def _sentence(status: BudgetStatus) -> str:
    budget = status.budget
    text = f"{budget.amount(status.spent_amount)} of {budget}"
    if status.held_amount:
        text += f", {budget.amount(status.held_amount)} held"
    end = budget.period(status.at_us).end_us
    return text if end is None else f"{text}, begins anew{in_words(end - status.at_us).replace(',', '')}"


def _share(amount: int, status: BudgetStatus) -> float:
    return amount / status.budget.allowance if status.budget.allowance else 0.0
