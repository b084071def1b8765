"""What the prompt cache saves: arithmetic written out by hand, and against any other way to add it up."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from llmnb.pricing import Terms, cache_prices, cost_of, cost_of_call, cost_of_prompts, saved_by_caching, saved_of_call
from llmnb.pricing.caching import uncached
from llmnb.records import UNPRICED, Call, Cost, Usage
from llmnb.settings import PriceOverride
from llmnb.simulator.tariff import PRICES, Quantity, charge_nanousd

counts = st.integers(0, 50_000)  # four of them together within the smallest context window there is
usages = st.builds(
    Usage,
    input_tokens=counts,
    cache_read_tokens=counts,
    cache_write_5m_tokens=counts,
    cache_write_1h_tokens=counts,
    output_tokens=counts,
)


def saved(usage: Usage, model: str = "claude-sonnet-5-5") -> int | None:
    """What the cache saved of a usage."""
    return saved_by_caching([usage], cost_of(usage, model), Terms(model))


def test_by_hand() -> None:
    """1,000 tokens of claude-sonnet-5-5 at $2: a read saves $0.0019, a write costs $0.0005 or $0.002 more."""
    assert saved(Usage(cache_read_tokens=1_000)) == 1_900_000
    assert saved(Usage(cache_write_5m_tokens=1_000)) == -500_000
    assert saved(Usage(cache_write_1h_tokens=1_000)) == -2_000_000
    assert (
        saved(Usage(input_tokens=7, cache_read_tokens=1_000, cache_write_5m_tokens=1_000, output_tokens=9)) == 1_400_000
    )


def test_a_read_saves_by_each_models_own_price() -> None:
    """0.95 of $4 on Opus 5.5, 0.975 of $8 on Fable 5.2, 0.9 of $5 on Opus 4.6, per million."""
    million = Usage(cache_read_tokens=1_000_000)
    assert saved(million, "claude-opus-5-5") == 3_800_000_000
    assert saved(million, "claude-fable-5-2") == 7_800_000_000
    assert saved(million, "claude-opus-4-6") == 4_500_000_000


def test_a_long_prompt_is_long_without_the_cache_too() -> None:
    """Haiku 5.5 costs five times as much above 100,000 tokens of prompt, cached or not: 0.9 x $0.5 per million."""
    assert saved(Usage(input_tokens=1, cache_read_tokens=100_000), "claude-haiku-5-5") == 100_000 * 450
    assert saved(Usage(cache_read_tokens=100_000), "claude-haiku-5-5") == 100_000 * 90


@given(usages, st.sampled_from(sorted(model for model in PRICES if model.startswith("claude"))))
def test_against_the_simulators_own_tariff(usage: Usage, model: str) -> None:
    """The difference of two bills that another program makes out, to the nano-dollar of their roundings."""
    quantity = Quantity(
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.output_tokens,
    )
    plain = Quantity(input_tokens=usage.total_input_tokens, output_tokens=usage.output_tokens)
    bills = charge_nanousd(plain, model), charge_nanousd(quantity, model)
    assert bills[0] is not None
    assert bills[1] is not None
    found = saved(usage, model)
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    assert (found is None) == (cached == 0)
    assert found is None or abs(found - (bills[0] - bills[1])) <= 1


@given(st.lists(usages, min_size=1, max_size=3))
def test_several_prompts_keep_their_own_tiers(prompts: list[Usage]) -> None:
    """Each prompt of an answer has its own length, with the cache and without."""
    model = "claude-haiku-5-5"
    cost = cost_of_prompts(prompts, Terms(model))
    found = saved_by_caching(prompts, cost, Terms(model))
    plain = cost_of_prompts([uncached(usage) for usage in prompts], Terms(model))
    assert plain.nanousd is not None
    assert cost.nanousd is not None
    assert (found or 0) == (plain.nanousd - cost.nanousd if found is not None else 0)


def test_what_is_not_known() -> None:
    """Nothing cached is nothing to say; without a price it is unknown, not 0."""
    assert saved(Usage(input_tokens=10)) is None
    assert saved_by_caching([Usage(cache_read_tokens=1)], UNPRICED, Terms("mystery")) is None
    assert saved_by_caching([Usage(cache_read_tokens=1)], Cost(5), Terms("mystery")) is None


def test_of_a_row() -> None:
    """A ledger row at the prices of when it was made, with prices of the user's own."""
    call = Call("u", 1_795_608_000_000_000, "claude-sonnet-5-5", cache_read_tokens=1_000, model="claude-sonnet-5-5")
    assert saved_of_call(call, cost_of_call(call)) == 1_900_000
    own = {"claude-sonnet-5-5": PriceOverride(input=Decimal(3), output=Decimal(1), cache_read=Decimal(1))}
    assert saved_of_call(call, cost_of_call(call, own), own) == 2_000_000
    assert saved_of_call(call, UNPRICED) is None


def test_multiples_of_the_input_price() -> None:
    """Taken from the price list, never from a constant; none where there is no price, or none for the cache."""
    known = cache_prices("claude-sonnet-5-5")
    assert known is not None
    assert (known.read, known.write_5m, known.write_1h) == (0.05, 1.25, 2.0)
    assert cache_prices("mystery") is None
    own = {"mystery": PriceOverride(input=Decimal(4), output=Decimal(1), cache_read=Decimal(1))}
    found = cache_prices("mystery", overrides=own)
    assert found is not None
    assert (found.read, found.write_5m, found.write_1h) == (0.25, 1.0, 1.0)
