"""What a call cost, line by line: tokens of each class × their rate, exact and before the one rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from llmnb.pricing.rates import Class, Dollars, Rates
from llmnb.pricing.terms import Overrides, terms_of
from llmnb.records import Call, Usage

_MILLION, _THOUSAND = Decimal(1_000_000), Decimal(1_000)


@dataclass(frozen=True, slots=True)
class CostLine:
    """`count` tokens of one class at `usd_per_unit` each make `usd`, unrounded; both are None without a price.

    `unit` is how many the published rate is for: a million tokens, a thousand searches, one call; `usd_per_unit` is the
    price of that many.
    """

    name: str
    count: int
    unit: int
    usd_per_unit: Decimal | None
    usd: Decimal | None


_CLASSES: tuple[tuple[str, str, Class], ...] = (
    ("input", "input_tokens", "input"),
    ("cache read", "cache_read_tokens", "cache_read"),
    ("cache write, 5 min", "cache_write_5m_tokens", "cache_write_5m"),
    ("cache write, 1 h", "cache_write_1h_tokens", "cache_write_1h"),
    ("cache write, time unknown", "cache_write_unsplit_tokens", "cache_write_5m"),
    ("output", "output_tokens", "output"),
)


def cost_lines(call: Call, overrides: Overrides | None = None) -> list[CostLine]:
    """The lines of a ledger row at the prices of when it was made; classes without a token are left out.

    Their sum, rounded to the nearest nano-dollar, is what `cost_of_call` says.
    """
    rates = terms_of(call, overrides).rates
    return list(_lines(call.usage, None if rates is None else _dollars(rates, call.usage)))


def _dollars(rates: Rates, usage: Usage) -> Dollars:
    """The rates of the prompt's length; a longer prompt pays its band's rates for all its tokens."""
    total = usage.total_input_tokens
    reached = [dollars for over, dollars in rates.dollars if total > over or over == 0]
    return reached[-1]


def _lines(usage: Usage, dollars: Dollars | None) -> Iterator[CostLine]:
    for name, attribute, kind in _CLASSES:
        if count := getattr(usage, attribute):
            yield _line(name, count, _MILLION, _rate(dollars, kind))
    if usage.web_search_requests:
        yield _line("web searches", usage.web_search_requests, _THOUSAND, _rate(dollars, "web_search"))
    if per_call := _rate(dollars, "call"):
        yield _line("the call itself", 1, _THOUSAND, per_call)


def _rate(dollars: Dollars | None, kind: Class) -> Decimal | None:
    return None if dollars is None else dollars.get(kind)


def _line(name: str, count: int, unit: Decimal, rate: Decimal | None) -> CostLine:
    return CostLine(name, count, int(unit), rate, None if rate is None else count * rate / unit)
