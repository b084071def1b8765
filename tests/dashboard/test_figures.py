"""Numbers as people read them."""

from __future__ import annotations

import html
from decimal import Decimal

import figures
import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("nanousd", "shown"),
    [
        (None, "unpriced"),
        (0, "$0.00"),
        (1, "$0.000000001"),
        (31, "$0.000000031"),
        (456_700, "$0.00046"),
        (4_200_000, "$0.0042"),
        (45_670_000, "$0.0457"),
        (999_949_999, "$0.9999"),
        (999_950_000, "$1.00"),
        (12_300_000_000, "$12.30"),
        (12_305_000_000, "$12.31"),
        (1_234_567_890_000, "$1,234.57"),
        (-4_200_000, "-$0.0042"),
    ],
)
def test_money(nanousd: int | None, shown: str) -> None:
    """Dollars have cents from a dollar on, more decimals below, and a missing price says so."""
    assert figures.money(nanousd) == shown


@given(st.integers(min_value=1, max_value=10**18))
def test_money_is_never_nothing(nanousd: int) -> None:
    """What is not zero is never shown as zero, and never further off than half of its last digit."""
    shown = Decimal(figures.money(nanousd).lstrip("$").replace(",", ""))
    assert shown > 0
    assert abs(shown - Decimal(nanousd) / 10**9) <= Decimal(1).scaleb(shown.as_tuple().exponent) / 2


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_exact_money_loses_nothing(nanousd: int) -> None:
    """The exact form gives back the nano-dollars."""
    text = figures.exact_money(nanousd).replace("$", "").replace(",", "")
    assert Decimal(text) * 10**9 == nanousd


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1_000, "1.00k"),
        (12_345, "12.3k"),
        (456_000, "456k"),
        (999_499, "999k"),
        (999_950, "1.00M"),
        (4_560_000, "4.56M"),
        (1_200_000_000, "1.20B"),
    ],
)
def test_compact(number: int, shown: str) -> None:
    """Counts keep three digits and a letter for their size, and never read 1000k."""
    assert figures.compact(number) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.4, "0 ms"),
        (340.0, "340 ms"),
        (999.7, "1.00 s"),
        (2_310.0, "2.31 s"),
        (42_000.0, "42.0 s"),
        (59_970.0, "1 min 00 s"),
        (185_000.0, "3 min 05 s"),
    ],
)
def test_duration(ms: float | None, shown: str) -> None:
    """Durations have the unit that fits."""
    assert figures.duration(ms) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(0, 0, "–"), (0, 5, "0.0%"), (1, 3, "33.3%"), (1, 5_000, "<0.1%"), (5, 5, "100.0%")]
)
def test_percent(part: int, whole: int, shown: str) -> None:
    """A share of nothing is not known, and a small share is not zero."""
    assert figures.percent(part, whole) == shown


@pytest.mark.parametrize(
    ("now", "before", "shown"),
    [
        (5, 0, None),
        (5, None, None),
        (None, 5, None),
        (110, 100, "+10%"),
        (103, 100, "+3.0%"),
        (90, 100, "-10%"),
        (0, 100, "-100%"),
        (100, 100, None),
        (1_800, 100, "×18"),
    ],
)
def test_change(now: int | None, before: int | None, shown: str | None) -> None:
    """A change is a percentage, a factor when it is huge, and nothing when there was nothing before."""
    assert figures.change(now, before) == shown


def test_change_of_rate() -> None:
    """Rates move in percentage points: 3 of 100 after 1 of 50 is one point more."""
    assert figures.change_of_rate((3, 100), (1, 50)) == "+1.0 pp"
    assert figures.change_of_rate((3, 100), (0, 0)) is None
    assert figures.change_of_rate((0, 0), (1, 50)) is None
    assert figures.change_of_rate((1, 50), (2, 100)) is None


def test_plural() -> None:
    """One call, two calls."""
    assert [figures.plural(n, "call") for n in (0, 1, 1_200)] == ["0 calls", "1 call", "1,200 calls"]


@pytest.mark.parametrize("text", ["![x](http://evil/a.png)", "**a** _b_ `c` $d$", "<img src=x>", ":material/x:", "# h"])
def test_plain_text_stays_plain(text: str) -> None:
    """Whatever Markdown reads, what it shows is the text as it was."""
    from markdown_it import MarkdownIt

    shown = MarkdownIt("commonmark").renderInline(figures.plain(text))
    assert html.unescape(shown) == text
