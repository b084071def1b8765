"""What the same tokens cost on another model, and what cached tokens save, worked out by hand."""

from __future__ import annotations

from decimal import Decimal

from llmnb.pricing import CacheBill, cache_bill, same_tokens_on
from llmnb.records import Usage
from llmnb.settings import PriceOverride

USED = Usage(1_000, 2_000, 100, 50, 10, 500, web_search_requests=0)


def test_same_tokens_on_another_model() -> None:
    """Every class at the other model's price: sonnet 5.5 at $2 and $10 a million, writes at 1.25 and 2 times."""
    reads = cache_bill("claude-sonnet-5-5", Usage(cache_read_tokens=1_000_000))
    assert reads is not None
    read_nanousd = 2_000_000_000 - reads.reads_saved  # for a million tokens
    found = same_tokens_on("claude-sonnet-5-5", USED)
    by_hand = 1_000 * 2_000 + 2_000 * read_nanousd // 1_000_000 + 110 * 2_500 + 50 * 4_000 + 500 * 10_000
    assert (found.nanousd, found.is_tiered) == (by_hand, False)


def test_models_without_a_price_and_with_tiers() -> None:
    """An unknown model has no sum, one with tiers says so, and a price of one's own counts."""
    assert same_tokens_on("nobody-knows-this", USED).nanousd is None
    assert same_tokens_on("claude-haiku-5-5", USED).is_tiered
    own = {"mine": PriceOverride(input=Decimal(1), output=Decimal("0.0005"))}
    assert same_tokens_on("mine", USED, overrides=own).nanousd == 3_160 * 1_000 + 250


def test_cache_bill() -> None:
    """Reads save what they cost less than input, writes cost what they cost more, halves rounded up."""
    own = {
        "mine": PriceOverride(
            input=Decimal(2), output=Decimal(1), cache_read=Decimal("0.2"), cache_write_5m=Decimal("2.5"),
            cache_write_1h=Decimal(4),
        )
    }  # fmt: skip
    bill = cache_bill("mine", USED, overrides=own)
    assert bill == CacheBill(reads_saved=2_000 * 1_800, writes_5m_cost=110 * 500, writes_1h_cost=50 * 2_000)
    assert bill.net == 3_600_000 - 55_000 - 100_000
    assert cache_bill("nobody-knows-this", USED) is None
