"""What an answer cost as a table: tokens × rate = dollars, line by line, and the exact total of the books."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb import settings
from llmnb.pricing.breakdown import CostLine, cost_lines
from llmnb.records import NANO, USAGE_FIELDS, Call

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.reply import Reply

_COLUMNS = ("", "count", "rate", "dollars")


@dataclass(frozen=True, slots=True)
class CostTable:
    """The lines of a cost. `total_usd` is what the ledger has, rounded to the nano-dollar; None when unpriced.

    Where the lines do not make up the total (other models worked on the answer, it came from disk, prices have changed
    since), a last line without a rate says what is missing and why.
    """

    model: str
    lines: tuple[CostLine, ...]
    total_usd: Decimal | None
    estimated: bool = False

    @classmethod
    def of(cls, reply: Reply) -> CostTable:
        """The table of a reply."""
        call = reply.call or _row_without_books(reply)
        if call.source != "live" or len(reply.turns) > 1:
            # what was billed for an answer from disk is nothing, and a loop has a row a turn: the table shows what for
            call = replace(call, **_counts(reply))
        lines = cost_lines(call, settings.load().prices)
        total = reply.cost_usd
        return cls(reply.model, (*lines, *_difference(lines, total, call)), total, reply.usage.estimated)

    def frame(self) -> pd.DataFrame:
        """The lines as a data frame: class, count, unit, usd_per_unit and usd, the last two as exact Decimals."""
        import pandas as pd

        names = ("name", "count", "unit", "usd_per_unit", "usd")
        return pd.DataFrame([[getattr(line, name) for name in names] for line in self.lines], columns=list(names))

    def __repr__(self) -> str:
        rows = [_COLUMNS, *self._rows(), self._last_row()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
        return "\n".join([self.model, *("  ".join(line).rstrip() for line in lines)])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        del include, exclude  # IPython filters the bundle itself
        return {"text/plain": repr(self), "text/markdown": self._markdown(), "text/html": self._html()}

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (line.name, f"{line.count:,}" if line.count else "", _rate(line), exact_dollars(line.usd))
            for line in self.lines
        ]

    def _last_row(self) -> tuple[str, ...]:
        about = "≈ " if self.estimated and self.total_usd else ""
        return ("total", "", "", about + exact_dollars(self.total_usd))

    def _markdown(self) -> str:
        rows = [_COLUMNS, ("---", "---:", "---:", "---:"), *self._rows(), self._last_row()]
        return "\n".join("| " + " | ".join(cell.replace("$", r"\$") for cell in row) + " |" for row in rows)

    def _html(self) -> str:
        head = _tr("th", _COLUMNS)
        body = "".join(_tr("td", row) for row in self._rows())
        caption = f'<caption style="text-align: left">{escape(self.model)}</caption>'
        foot = f"<tfoot>{_tr('th', self._last_row())}</tfoot>"
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody>{foot}</table>"


def _tr(tag: str, cells: tuple[str, ...]) -> str:
    # one element per dollar sign: a page-wide typesetter would take the text between two of them for math
    shown = [escape(cell).replace("$", "<span>$</span>") for cell in cells]
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in shown)}</tr>"


def _row_without_books(reply: Reply) -> Call:
    """The row the ledger would have, when it could not be kept."""
    import time

    return Call(uid="", ts=time.time_ns() // 1000, model_requested=reply.model, model=reply.model, **_counts(reply))


def _counts(reply: Reply) -> dict[str, Any]:
    return {name: getattr(reply.usage, name) for name in USAGE_FIELDS}


def _difference(lines: list[CostLine], total: Decimal | None, call: Call) -> list[CostLine]:
    known = [line.usd for line in lines if line.usd is not None]
    if total is None or len(known) < len(lines):
        return []
    difference = total - sum(known, Decimal(0))
    if abs(difference) * NANO <= 1:  # the one rounding
        return []
    why = "other models and prompts of this call" if difference > 0 else "prices have changed since"
    return [CostLine("answered from disk" if call.source != "live" else why, 0, 1, None, difference)]


def _rate(line: CostLine) -> str:
    if line.usd_per_unit is None:
        return "" if not line.count else "unpriced"
    return f"{exact_dollars(line.usd_per_unit)} / {'1M' if line.unit == 1_000_000 else f'{line.unit:,}'}"


def exact_dollars(usd: Decimal | None) -> str:
    """Exact dollars: every digit there is, and at least cents."""
    if usd is None:
        return "unpriced"
    places = max(2, -int(usd.normalize().as_tuple().exponent)) if usd else 2
    return f"{'-' if usd < 0 else ''}${abs(usd):,.{places}f}"
