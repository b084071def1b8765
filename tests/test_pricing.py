"""Prices: arithmetic written out by hand, conditions, dates, providers, and genai-prices itself as the judge."""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.pricing import billed_model, cost_of, cost_of_call, price_table
from llmnb.pricing.book import timeline
from llmnb.pricing.rates import band, rates
from llmnb.records import Call, Cost, Usage
from llmnb.settings import PriceOverride

VERSION = f"genai-prices {genai_prices.__version__}"
MIXED = Usage(
    input_tokens=1_000,
    cache_read_tokens=2_000,
    cache_write_5m_tokens=300,
    cache_write_1h_tokens=40,
    output_tokens=500,
)


def at(year: int, month: int, day: int) -> int:
    """Midnight UTC in microseconds since 1970."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000


NOV_2026 = at(2026, 11, 21)


# By hand --------------------------------------------------------------------------------------------------------------


def test_sonnet_by_hand() -> None:
    """$2 in, $0.10 read, $2.50 and $4 written, $10 out per million: 2,000 + 200 + 750 + 160 + 5,000 micro-dollars."""
    expected = 1_000 * 2_000 + 2_000 * 100 + 300 * 2_500 + 40 * 4_000 + 500 * 10_000
    assert expected == 8_110_000
    assert cost_of(MIXED, "claude-sonnet-5-5", ts=NOV_2026) == Cost(8_110_000, f"{VERSION}:anthropic/claude-sonnet-5-5")


def test_opus_by_hand() -> None:
    """$4 in, $0.20 read, $5 and $8 written, $20 out per million."""
    expected = 1_000 * 4_000 + 2_000 * 200 + 300 * 5_000 + 40 * 8_000 + 500 * 20_000
    assert expected == 16_220_000
    assert cost_of(MIXED, "claude-opus-5-5", ts=NOV_2026).nanousd == expected


def test_haiku_by_hand_on_both_sides_of_its_tier() -> None:
    """$0.10/$0.50 up to 100,000 input tokens of any kind, five times that for the whole call beyond."""
    at_bound = Usage(input_tokens=60_000, cache_read_tokens=39_000, cache_write_5m_tokens=1_000, output_tokens=100)
    expected = 60_000 * 100 + 39_000 * 10 + 1_000 * 125 + 100 * 500
    assert expected == 6_565_000
    assert cost_of(at_bound, "claude-haiku-5-5", ts=NOV_2026).nanousd == expected
    beyond = Usage(input_tokens=60_000, cache_read_tokens=39_001, cache_write_5m_tokens=1_000, output_tokens=100)
    expected = 60_000 * 500 + 39_001 * 50 + 1_000 * 625 + 100 * 2_500
    assert expected == 32_825_050
    assert cost_of(beyond, "claude-haiku-5-5", ts=NOV_2026).nanousd == expected


def test_a_million_tokens_of_fable() -> None:
    """$8 in and $40 out; a read costs 0.025 of the input, not the usual tenth."""
    million = Usage(input_tokens=1_000_000, cache_read_tokens=1_000_000, output_tokens=1_000_000)
    assert cost_of(million, "claude-fable-5-2", ts=NOV_2026).usd == Decimal("48.2")


def test_web_searches_cost_a_cent_and_fetches_nothing() -> None:
    """$10 per thousand searches; a fetch is paid by its tokens."""
    searched = Usage(output_tokens=1, web_search_requests=3, web_fetch_requests=7)
    assert cost_of(searched, "claude-sonnet-5-5", ts=NOV_2026).nanousd == 3 * 10_000_000 + 10_000


def test_thinking_is_inside_output() -> None:
    """Thinking tokens are not paid twice."""
    assert cost_of(Usage(output_tokens=100, thinking_tokens=90), "claude-sonnet-5-5").nanousd == 1_000_000


def test_writes_of_unknown_ttl_cost_what_five_minute_writes_do() -> None:
    """2,500 nano-dollars each on Sonnet, as the API's default TTL."""
    assert cost_of(Usage(cache_write_unsplit_tokens=4), "claude-sonnet-5-5").nanousd == 10_000


def test_no_usage_costs_nothing_and_an_unknown_model_is_unpriced() -> None:
    """0 and None are different answers."""
    assert cost_of(Usage(), "claude-sonnet-5-5").nanousd == 0
    assert cost_of(Usage(input_tokens=1), "gpt-of-the-neighbour", provider="anthropic") == Cost(None)
    assert cost_of(Usage(input_tokens=1), "llama-9", provider="localhost") == Cost(None)


# Rounding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "nanousd"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (4_000_001, 1_000_000)])
def test_a_cost_is_rounded_once_half_up(tokens: int, nanousd: int) -> None:
    """At a quarter nano-dollar a token, 2 tokens are half a nano-dollar and round up."""
    price = rates("test", {0: {"input": Decimal("0.00025")}})
    assert price.cost(Usage(input_tokens=tokens)).nanousd == nanousd


def test_a_rate_keeps_every_digit() -> None:
    """A price of many digits is an integer of a finer unit, not a float."""
    fine = band({"input": Decimal("0.123456789012345")})
    assert (fine.input, fine.scale) == (123_456_789_012_345, 10**12)


# Conditions -----------------------------------------------------------------------------------------------------------


def test_batch_is_half() -> None:
    """All token classes are halved, web searches are not (Anthropic publishes no batch rate for them)."""
    usage = Usage(input_tokens=1_000, cache_read_tokens=1_000, output_tokens=1_000, web_search_requests=1)
    found = cost_of(usage, "claude-sonnet-5-5", ts=NOV_2026, service_tier="batch")
    assert found.nanousd == 1_000 * 1_000 + 1_000 * 50 + 1_000 * 5_000 + 10_000_000
    assert found.price_id == f"{VERSION}:anthropic/claude-sonnet-5-5:batch"


def test_batch_before_its_price_is_known_is_unpriced() -> None:
    """genai-prices knows batch prices from 2026-10-14 on; before, the plain price would be wrong."""
    assert cost_of(MIXED, "claude-sonnet-5-5", ts=at(2026, 10, 14) - 1, service_tier="batch") == Cost(None)
    assert cost_of(MIXED, "claude-sonnet-5-5", ts=at(2026, 10, 14), service_tier="batch").nanousd == 4_055_000


def test_fast_mode_has_its_own_price_or_none() -> None:
    """Opus pays double; Sonnet has no fast price, so a fast call of it is unpriced and not cheap."""
    fast = cost_of(MIXED, "claude-opus-5-5", ts=NOV_2026, speed="fast")
    assert fast == Cost(2 * 16_220_000, f"{VERSION}:anthropic/claude-opus-5-5:fast")
    assert cost_of(MIXED, "claude-sonnet-5-5", ts=NOV_2026, speed="fast") == Cost(None)
    assert cost_of(MIXED, "claude-opus-5-5", ts=NOV_2026, speed="fast", service_tier="batch") == Cost(None)


@pytest.mark.parametrize("surcharge", [{"service_tier": "priority"}, {"inference_geo": "us"}, {"speed": "ludicrous"}])
def test_a_surcharge_without_a_price_is_unpriced(surcharge: dict[str, str]) -> None:
    """Priority capacity and inference bound to a place cost more, and genai-prices does not say how much."""
    assert cost_of(MIXED, "claude-opus-5-5", ts=NOV_2026, **surcharge) == Cost(None)


@pytest.mark.parametrize("tier", [None, "standard", "standard_only", "auto", "default"])
@pytest.mark.parametrize("geo", [None, "global", "not_available"])
@pytest.mark.parametrize("speed", [None, "standard"])
def test_ordinary_conditions_pay_the_plain_price(tier: str | None, geo: str | None, speed: str | None) -> None:
    """What the API says of an ordinary call changes nothing."""
    found = cost_of(MIXED, "claude-sonnet-5-5", service_tier=tier, inference_geo=geo, speed=speed)
    assert found.nanousd == 8_110_000


def test_a_reseller_does_not_inherit_its_makers_batch_price() -> None:
    """Azure's Claude is priced as Anthropic's, but not its batches."""
    assert cost_of(MIXED, "claude-sonnet-5-5", ts=NOV_2026, provider="azure.ai.inference").nanousd == 8_110_000
    batch = cost_of(MIXED, "claude-sonnet-5-5", ts=NOV_2026, provider="azure.ai.inference", service_tier="batch")
    assert batch == Cost(None)


def test_a_class_without_a_price_is_unpriced() -> None:
    """Vertex publishes no one-hour price for this model: the five-minute rate would be too low."""
    both = Usage(cache_write_5m_tokens=10)
    assert cost_of(both, "claude-3-5-haiku", provider="gcp.vertex_ai").nanousd == 10_000
    assert cost_of(Usage(cache_write_1h_tokens=10), "claude-3-5-haiku", provider="gcp.vertex_ai") == Cost(None)
    assert cost_of(Usage(web_search_requests=1), "claude-3-5-haiku", provider="gcp.vertex_ai") == Cost(None)


# Dates ----------------------------------------------------------------------------------------------------------------


def test_the_price_is_that_of_the_day() -> None:
    """Opus 4.6 charged double beyond 200,000 input tokens until 2026-03-13, midnight UTC."""
    long = Usage(input_tokens=200_001)
    assert cost_of(long, "claude-opus-4-6", ts=at(2026, 3, 13) - 1).nanousd == 200_001 * 10_000
    assert cost_of(long, "claude-opus-4-6", ts=at(2026, 3, 13)).nanousd == 200_001 * 5_000


def test_prices_that_change_within_the_day_are_followed() -> None:
    """DeepSeek has off-peak hours: each hour costs what genai-prices says for it."""
    for hour in range(24):
        ts = at(2025, 6, 1) + hour * 3_600_000_000
        when = datetime.fromtimestamp(ts / 1e6, UTC)
        theirs = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1_000_000),
            "deepseek-chat",
            provider_id="deepseek",
            genai_request_timestamp=when,
        )
        ours = cost_of(Usage(input_tokens=1_000_000), "deepseek-chat", provider="deepseek", ts=ts)
        assert ours.usd == theirs.total_price


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "price_id", "nanousd"),
    [
        ("anthropic", "claude-sonnet-5-5-20260901", "anthropic/claude-sonnet-5-5", 8_110_000),
        ("aws.bedrock", "us.anthropic.claude-sonnet-5-5-v1:0", "aws/regional.anthropic.claude-sonnet-5-5", 8_921_000),
        ("aws.bedrock", "anthropic.claude-sonnet-5-5", "aws/regional.anthropic.claude-sonnet-5-5", 8_921_000),
        ("aws.bedrock", "global.anthropic.claude-sonnet-5-5", "aws/global.anthropic.claude-sonnet-5-5", 8_110_000),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-sonnet-5-5",
            "aws/global.anthropic.claude-sonnet-5-5",
            8_110_000,
        ),
        ("gcp.vertex_ai", "claude-sonnet-5-5@20260901", "google/claude-sonnet-5-5", 8_110_000),
        ("azure.ai.inference", "claude-sonnet-5-5", "azure/claude-sonnet-5-5", 8_110_000),
        ("api.anthropic.com", "claude-sonnet-5-5", "anthropic/claude-sonnet-5-5", 8_110_000),
        ("127.0.0.1", "claude-sonnet-5-5", "anthropic/claude-sonnet-5-5", 8_110_000),
        ("llm-gateway.example.org", "claude-sonnet-5-5", "anthropic/claude-sonnet-5-5", 8_110_000),
    ],
)
def test_provider_and_model_names(provider: str, model: str, price_id: str, nanousd: int) -> None:
    """OpenTelemetry's names, Bedrock ids, Vertex ids, dated ids and hosts find the price of who serves."""
    found = cost_of(MIXED, model, provider=provider, ts=NOV_2026)
    assert found == Cost(nanousd, f"{VERSION}:{price_id}")


@pytest.mark.parametrize("host", ["127.0.0.1", "llm-gateway.example.org"])
@pytest.mark.parametrize("model", ["deepseek-chat", "llama-3.3-70b", "gpt-5", "my-claude"])
def test_open_models_on_an_unknown_host_are_unpriced(host: str, model: str) -> None:
    """Who serves them sets the price: on one's own machine it is none of the published ones."""
    assert cost_of(MIXED, model, provider=host) == Cost(None)


def test_the_model_that_served_is_billed() -> None:
    """But on Bedrock, whose answers lack the endpoint, the id that was asked for."""
    assert billed_model("anthropic", "claude-opus-5-5", "claude-sonnet-5-5") == "claude-sonnet-5-5"
    assert billed_model("anthropic", "claude-opus-5-5", None) == "claude-opus-5-5"
    profile = "us.anthropic.claude-sonnet-5-5-v1:0"
    assert billed_model("aws.bedrock", profile, "claude-sonnet-5-5") == profile
    assert billed_model("aws.bedrock", profile, "claude-haiku-5-5") == "claude-haiku-5-5"


def test_the_cost_of_a_row_uses_what_is_on_the_row() -> None:
    """Model that served, its time and its conditions."""
    row = Call(
        uid="a",
        ts=NOV_2026,
        model_requested="auto",
        model="claude-opus-5-5",
        speed="fast",
        input_tokens=1_000,
        output_tokens=1,
    )
    assert cost_of_call(row).nanousd == 1_000 * 8_000 + 40_000


# Prices of one's own --------------------------------------------------------------------------------------------------

OWN = {"claude-sonnet-5-5": PriceOverride(input=Decimal(1), output=Decimal("2.5"), cache_read=Decimal("0.5"))}


def test_a_price_of_ones_own_wins() -> None:
    """Caching that it does not mention costs what plain input does; the dated name finds it, too."""
    expected = 1_000 * 1_000 + 2_000 * 500 + 340 * 1_000 + 500 * 2_500
    for model in ("claude-sonnet-5-5", "claude-sonnet-5-5-20260901"):
        assert cost_of(MIXED, model, overrides=OWN) == Cost(expected, "settings:claude-sonnet-5-5")
    assert cost_of(MIXED, "claude-opus-5-5", ts=NOV_2026, overrides=OWN).nanousd == 16_220_000


def test_a_price_of_ones_own_is_not_taken_for_a_batch() -> None:
    """Batch, fast and the like have names of their own; without one they are unpriced."""
    assert cost_of(MIXED, "claude-sonnet-5-5", service_tier="batch", overrides=OWN) == Cost(None)
    both = {**OWN, "claude-sonnet-5-5:batch": PriceOverride(input=Decimal("0.5"), output=Decimal(1))}
    found = cost_of(Usage(input_tokens=2), "claude-sonnet-5-5", service_tier="batch", overrides=both)
    assert found == Cost(1_000, "settings:claude-sonnet-5-5:batch")


def test_a_model_nobody_knows_can_be_priced() -> None:
    """Also at 0, which is a price."""
    free = {"my-model": PriceOverride(input=Decimal(0), output=Decimal(0))}
    assert cost_of(MIXED, "my-model", provider="localhost", overrides=free) == Cost(0, "settings:my-model")


# genai-prices as the judge --------------------------------------------------------------------------------------------

MODELS = [row.model for row in price_table(match="claude-") if row.over_tokens == 0 and row.write_1h is not None]
few = st.integers(0, 300_000)


@given(st.sampled_from(MODELS), few, few, few, few, few, st.integers(at(2025, 1, 1), NOV_2026))
def test_costs_equal_those_of_genai_prices(m: str, i: int, r: int, w5: int, w1: int, o: int, ts: int) -> None:
    """For every Claude model, any tokens and any time, our dot product is its sum, rounded to the nano-dollar."""
    usage = Usage(i, r, w5, w1, 0, o)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=i + r + w5 + w1,
                cache_read_tokens=r,
                cache_write_tokens=w5 + w1,
                cache_write_1h_tokens=w1,
                output_tokens=o,
            ),
            m,
            provider_id="anthropic",
            genai_request_timestamp=datetime.fromtimestamp(ts // 1_000_000, UTC),
        ).total_price
    ours = cost_of(usage, m, ts=ts // 1_000_000 * 1_000_000)
    assert ours.nanousd == int((theirs * 10**9).quantize(Decimal(1), ROUND_HALF_UP))


# Table, speed, imports ------------------------------------------------------------------------------------------------


def test_the_table_lists_own_prices_first_and_a_row_for_each_tier() -> None:
    """Dollars per million tokens, as published."""
    rows = price_table(match="5-5", overrides=OWN, ts=NOV_2026)
    assert [(row.model, row.source, row.over_tokens) for row in rows] == [
        ("claude-sonnet-5-5", "settings", 0),
        ("claude-haiku-5-5", VERSION, 0),
        ("claude-haiku-5-5", VERSION, 100_000),
        ("claude-opus-5-5", VERSION, 0),
        ("claude-sonnet-5-5", VERSION, 0),
    ]
    opus = rows[3]
    prices = (opus.input, opus.output, opus.cache_read, opus.write_5m, opus.write_1h)
    assert prices == (Decimal(4), Decimal(20), Decimal("0.2"), Decimal(5), Decimal(8))
    assert price_table(provider="nobody") == []


def test_rates_are_looked_up_once() -> None:
    """A warm price asks genai-prices nothing: same model, conditions and span of time, same rates."""
    prices = timeline("anthropic", "claude-opus-4-6", ())
    assert prices is not None
    assert prices.at(at(2026, 3, 12)) is prices.at(at(2026, 3, 12) + 1)
    assert prices.at(at(2026, 3, 12)) is not prices.at(at(2026, 3, 13))
    misses = timeline.cache_info().misses
    cost_of(MIXED, "claude-opus-4-6")
    assert timeline.cache_info().misses == misses


def test_prices_are_loaded_on_first_use() -> None:
    """Importing the room does not load the price data."""
    names = "('genai_prices', 'pandas')"
    program = f"import sys, llmnb.pricing, llmnb.ledger; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_runs_on_a_machine_of_ones_own_costs_nothing() -> None:
    """Nobody bills what ollama runs; its cloud does, at a price nobody knows, and so may whoever serves gpt-oss."""
    assert cost_of(MIXED, "llama3.2:3b", provider="ollama") == Cost(0, "local")
    assert cost_of(MIXED, "gpt-oss:120b-cloud", provider="ollama").nanousd is None
    assert cost_of(MIXED, "llama3.2", provider="ollama.com").nanousd is None
    assert cost_of(MIXED, "gpt-oss-20b", provider="openai").nanousd is None
    assert cost_of(MIXED, "llama-3.3-70b-versatile", provider="groq").nanousd is not None
