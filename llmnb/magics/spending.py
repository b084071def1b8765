"""What was spent by the last cell that asked, in this notebook, in this session and today: exact sums of the ledger."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import Any

from llmnb import origin, settings
from llmnb.cost_table import exact_dollars
from llmnb.ledger import calls, usage
from llmnb.ledger.zones import from_us, reporting_zone, to_us
from llmnb.records import NANO


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over some calls; `cost_usd` is exact, None when there were calls and none has a price."""

    what: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    unpriced_calls: int
    estimated_calls: int


class Spending(tuple[Spent, ...]):
    """Lines of `Spent`; shown as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [_TITLES, *map(_cells, self)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
        lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
        return "\n".join("  ".join(line) for line in lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # else IPython draws it as a tuple

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{_html_cells('td', _cells(line))}</tr>" for line in self)
        return f"<table><thead><tr>{_html_cells('th', _TITLES)}</tr></thead><tbody>{rows}</tbody></table>"


_TITLES = ("", "calls", "input", "of it cached", "output", "cost")


def spending(cell_starts_us: Sequence[int]) -> Spending:
    """What this kernel's person wants to know; `cell_starts_us` are the starts of cells, in microseconds since 1970."""
    here, session = settings.load(), {"session": origin.session()}
    notebook = origin.notebook(here)
    lines = [_last_cell(session, cell_starts_us, here)]
    if notebook is not None:
        lines.append(_spent(f"this notebook ({notebook})", where={"notebook": notebook}))
    lines.append(_spent("this session", where=session))
    today = datetime.now(reporting_zone(here)).date()
    lines.append(_spent("today, everywhere", since=today))
    return Spending(lines)


def _last_cell(session: dict[str, str], starts_us: Sequence[int], here: settings.Settings) -> Spent:
    zone, what = reporting_zone(here), "last cell that asked"
    newest = calls(where=session, limit=1)
    if newest.empty:
        return _spent(what, where=session)
    ts = to_us(newest["ts"].iloc[0].to_pydatetime())
    run = bisect_right(starts_us, ts)
    if run == 0:  # before the extension was loaded nobody noted when cells began
        return _spent(what, where={**session, "cell": newest["cell"].iloc[0]})
    end = from_us(starts_us[run], zone) if run < len(starts_us) else None
    return _spent(what, where=session, since=from_us(starts_us[run - 1], zone), until=end)


def _spent(what: str, **range_: Any) -> Spent:
    (row,) = usage(by=[], **range_).to_dict("records")
    cached = int(row["cache_read_tokens"])
    written = sum(int(row[f"cache_write_{kind}_tokens"]) for kind in ("5m", "1h", "unsplit"))
    nanousd = row["cost_nanousd"]
    known = isinstance(nanousd, int)  # a missing value is pandas' NA
    cost = Decimal(int(nanousd)) / NANO if known else None if row["unpriced_calls"] else Decimal(0)
    return Spent(
        what=what,
        calls=int(row["calls"]),
        input_tokens=int(row["input_tokens"]) + cached + written,
        cached_tokens=cached,
        output_tokens=int(row["output_tokens"]),
        cost_usd=cost,
        unpriced_calls=int(row["unpriced_calls"]),
        estimated_calls=int(row["estimated_calls"]),
    )


def _cells(spent: Spent) -> tuple[str, ...]:
    numbers = (spent.calls, spent.input_tokens, spent.cached_tokens, spent.output_tokens)
    return (spent.what, *(f"{number:,}" for number in numbers), _cost(spent))


def _cost(spent: Spent) -> str:
    if spent.cost_usd is None:
        return "unpriced"
    about = "≈ " if spent.estimated_calls else ""
    missing = f" + {spent.unpriced_calls} unpriced" if spent.unpriced_calls else ""
    return about + exact_dollars(spent.cost_usd) + missing


def _html_cells(tag: str, cells: Sequence[str]) -> str:
    # an element of its own for a dollar sign: a page-wide typesetter takes text between two of them for math
    return "".join(f"<{tag}>{escape(cell).replace('$', '<span>$</span>')}</{tag}>" for cell in cells)
