"""Numbers as people read them: money, tokens, durations, shares and changes. Pure; what is missing says so."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal

NANO = Decimal(1_000_000_000)
UNPRICED = "unpriced"
NOT_KNOWN = "–"
_SCALES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def money(nanousd: int | None) -> str:
    """Nano-dollars as dollars: $12.30, $0.0042, $0.000000031; never $0.00 for what is not zero."""
    if nanousd is None:
        return UNPRICED
    usd = Decimal(abs(nanousd)) / NANO
    return f"{'-' if nanousd < 0 else ''}${_rounded(usd, _decimals(usd)):,f}"


def exact_money(nanousd: int | None) -> str:
    """Nano-dollars as dollars with all nine decimals: nothing is rounded away."""
    return UNPRICED if nanousd is None else f"{'-' if nanousd < 0 else ''}${Decimal(abs(nanousd)) / NANO:,.9f}"


def _decimals(usd: Decimal) -> int:
    """Cents from a dollar on, four decimals below it, two significant digits below a tenth of a cent."""
    if usd == 0 or usd >= Decimal("0.99995"):  # what four decimals would round up to a dollar is a dollar
        return 2
    return max(4, 1 - usd.adjusted())


def _rounded(value: Decimal, decimals: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-min(decimals, 9)), rounding=ROUND_HALF_UP)


def count(number: int) -> str:
    """A whole number with separators: 1,234,567."""
    return f"{number:,}"


def compact(number: int) -> str:
    """A count in four characters or so: 950, 12.3k, 4.56M, 1.20B."""
    for size, letter in _SCALES:
        if abs(number) >= size * 0.9995:  # what would be rounded up to the next unit is written in it
            value = Decimal(number) / size
            return f"{_rounded(value, min(2, 2 - value.adjusted())):f}{letter}"
    return f"{number:,}"


def duration(ms: float | None) -> str:
    """Milliseconds as 340 ms, 2.31 s, 3 min 05 s."""
    if ms is None or ms != ms:  # NaN: pandas' missing
        return NOT_KNOWN
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1_000:.2f} s" if ms < 10_000 else f"{ms / 1_000:.1f} s"
    minutes, seconds = divmod(round(ms / 1_000), 60)
    return f"{minutes} min {seconds:02d} s"


def percent(part: int, whole: int) -> str:
    """`part` of `whole` as 12.3%; <0.1% for what is not zero; nothing of nothing is not known."""
    if not whole:
        return NOT_KNOWN
    share = 100 * part / whole
    return "<0.1%" if 0 < share < 0.1 else f"{share:.1f}%"


def change(now: int | None, before: int | None) -> str | None:
    """How `now` compares to `before`: +12%, -3.4%, ×18; None if nothing changed or can be compared."""
    if now is None or not before or now == before:
        return None
    if now >= 10 * before:
        return f"×{now / before:,.0f}"
    shift = 100 * (now - before) / before
    return f"{shift:+.0f}%" if abs(shift) >= 10 else f"{shift:+.1f}%"


def change_of_rate(now: tuple[int, int], before: tuple[int, int]) -> str | None:
    """How a rate (part, whole) moved, in percentage points: +1.2 pp; None if nothing changed or can be compared."""
    if not now[1] or not before[1] or now[0] * before[1] == before[0] * now[1]:
        return None
    return f"{100 * (now[0] / now[1] - before[0] / before[1]):+.1f} pp"


def plain(text: object) -> str:
    """Text of a user or a model so that Markdown shows it as it is: a project's name must not become an image."""
    return _MARKS.sub(r"\\\1", str(text))


_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def plural(number: int, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 call, 12 calls."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
