"""Finds the price of a model in genai-prices; the only importer of it.

genai-prices says what a token costs, from when, and under which conditions (`price_variants`: batch, fast mode, other
tiers). This module adds one rule: where a call ran under a condition that is billed differently and genai-prices has no
price for it, there is no price. The plain price would be wrong without anybody noticing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from llmnb.pricing.rates import Class, Dollars, Rates, rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

PROVIDERS = {
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "openai": "openai",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "groq": "groq",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "perplexity": "perplexity",
}
"""OpenTelemetry's `gen_ai.provider.name` → the provider's id in genai-prices."""

DAY_US = 24 * 3600 * 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Conditions = tuple[tuple[str, str], ...]
"""Conditions of a call that are billed differently, such as (("processing", "batch"),)."""

_STANDARD_TIERS = (None, "", "standard", "standard_only", "auto", "default")
_STANDARD_SPEEDS = (None, "", "standard")
_STANDARD_PLACES = (None, "", "global", "not_available")
"""`not_available` is what the API says of models that have no choice of place."""


def conditions(service_tier: str | None, speed: str | None, inference_geo: str | None) -> Conditions:
    """What is billed differently about a call, in the words of genai-prices' `price_variants`.

    Anthropic bills half for `batch`, a multiple for `fast`, by contract for `priority`, and more for inference that is
    bound to a place (https://platform.claude.com/docs/en/about-claude/pricing).
    """
    found: list[tuple[str, str]] = []
    if service_tier == "batch":
        found.append(("processing", "batch"))
    elif service_tier not in _STANDARD_TIERS:
        found.append(("service_tier", str(service_tier)))
    if speed not in _STANDARD_SPEEDS:
        found.append(("speed", speed))
    if inference_geo not in _STANDARD_PLACES:
        found.append(("inference_geo", inference_geo))
    return tuple(found)


def suffix(wanted: Conditions) -> str:
    """How conditions are written in a `price_id` and in the name of a price of one's own: `:batch`."""
    return "".join(f":{value}" for _, value in wanted)


def source() -> str:
    """The price source with its version, as it is written on every row."""
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"


# Models ---------------------------------------------------------------------------------------------------------------


@cache
def find(provider: str, model: str) -> tuple[Provider, ModelInfo] | None:
    """The provider and model in genai-prices for OpenTelemetry's provider name and a model id as the API writes it."""
    from genai_prices.data_snapshot import get_snapshot

    providers = get_snapshot().providers
    wanted = _provider_id(provider, model, providers)
    found = next((entry for entry in providers if entry.id == wanted), None)
    if found is None:
        return None
    # inference profiles of Bedrock come as ARNs that end in the model id
    name = model.rpartition("/")[2] if model.startswith("arn:") else model
    match = found.find_model(name, all_providers=providers)
    return None if match is None else (found, match)


def _provider_id(provider: str, model: str, providers: Iterable[Provider]) -> str | None:
    if provider == "openai" and model.startswith("gpt-oss"):
        return None  # it has a price there, but is not served there: somebody else answers at OPENAI_BASE_URL
    if provider in PROVIDERS:
        return PROVIDERS[provider]
    for entry in providers:
        if entry.id == provider or re.match(entry.api_pattern, f"https://{provider}"):
            return entry.id
    # a gateway or proxy nobody knows: Claude can only come from Anthropic in the end, so its list price is taken; open
    # models are served by anyone at any price, so theirs is not
    return "anthropic" if model.startswith("claude-") else None


# Prices in time -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Timeline:
    """The prices of a model under given conditions: for every span in which they do not change, one `Rates`."""

    provider: Provider
    model: ModelInfo
    wanted: Conditions
    days_us: list[int]
    """When prices start, from midnight UTC."""
    times_us: list[int]
    """When prices change within a day (off-peak prices)."""
    known: dict[tuple[int, int], Rates | None] = field(default_factory=dict[tuple[int, int], "Rates | None"])

    def at(self, ts: int) -> Rates | None:
        """The rates in force at `ts`, microseconds since 1970; None when there is no price."""
        span = (bisect_right(self.days_us, ts), bisect_right(self.times_us, ts % DAY_US) if self.times_us else 0)
        try:
            return self.known[span]
        except KeyError:
            self.known[span] = found = _rates(self.provider, self.model, self.wanted, ts)
            return found


@cache
def timeline(provider: str, model: str, wanted: Conditions) -> Timeline | None:
    """The prices of a model at a provider; None when it is unknown."""
    found = find(provider, model)
    if found is None:
        return None
    constraints = [entry.constraint for entry in _constrained(found[1]) if entry.constraint is not None]
    days = {datetime(day.year, day.month, day.day, tzinfo=UTC) for c in constraints if (day := _start_date(c))}
    times = {_time_us(value) for c in constraints for value in _times(c)}
    days_us = sorted((day - _EPOCH) // timedelta(microseconds=1) for day in days)
    return Timeline(*found, wanted, days_us, sorted(times))


def _constrained(model: ModelInfo) -> list[Any]:
    prices = model.prices if isinstance(model.prices, list) else []
    return [*prices, *(model.price_variants or [])]


def _start_date(constraint: Any) -> Any:
    return getattr(constraint, "start_date", None)


def _times(constraint: Any) -> list[time]:
    return [constraint.start_time, constraint.end_time] if hasattr(constraint, "start_time") else []


def _time_us(value: time) -> int:
    moment = datetime.combine(_EPOCH.date(), value, tzinfo=value.tzinfo or UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) % DAY_US


def _rates(provider: Provider, model: ModelInfo, wanted: Conditions, ts: int) -> Rates | None:
    when = _EPOCH + timedelta(microseconds=ts)
    own = any(model is entry for entry in provider.models)
    # variants of a model that a provider only resells are its maker's, not its own
    if wanted and not (own and _has_variant(model, wanted, when)):
        return None
    price = model.get_prices(when, dict(wanted) or None)
    return rates(f"{source()}:{provider.id}/{model.id}{suffix(wanted)}", _tiers(price))


def _has_variant(model: ModelInfo, wanted: Conditions, when: datetime) -> bool:
    """Whether one variant covers all the conditions: a price for batch is none for fast batch."""
    return any(
        set(wanted) <= set(variant.when.items()) and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


# Price tables ---------------------------------------------------------------------------------------------------------

_KEYS: Mapping[Class, tuple[str, ...]] = {
    "input": ("input_mtok",),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "output": ("output_mtok",),
    "web_search": ("web_searches_kcount",),
    "call": ("requests_kcount",),
}
"""Where the price of each class stands, the most particular first, as genai-prices itself reads them; but a one-hour
write is never priced at the five-minute rate, since it always costs more."""


def _tiers(price: ModelPrice) -> dict[int, Dollars]:
    starts = {0}
    for keys in _KEYS.values():
        for key in keys:
            starts |= {tier.start for tier in getattr(getattr(price, key), "tiers", ())}
    return {start: _dollars(price, start) for start in starts}


def _dollars(price: ModelPrice, start: int) -> Dollars:
    found: dict[Class, Decimal | None] = {name: _first(price, keys, start) for name, keys in _KEYS.items()}
    if found["cache_write_1h"] is None and price.cache_write_mtok is None and price.cache_write_5m_mtok is None:
        found["cache_write_1h"] = found["input"]  # no price for writing at all: it is plain input
    return found


def _first(price: ModelPrice, keys: Iterable[str], start: int) -> Decimal | None:
    for key in keys:
        value = getattr(price, key)
        if value is not None:
            return value if isinstance(value, Decimal) else _in_tier(value, start)
    return None


def _in_tier(value: Any, start: int) -> Decimal:
    """The price of prompts longer than `start` tokens."""
    reached = [tier.price for tier in value.tiers if tier.start <= start and start > 0]
    return cast(Decimal, reached[-1] if reached else value.base)


def models_of(provider: str) -> list[str]:
    """The ids of all models a provider has prices for, in the order of their names."""
    from genai_prices.data_snapshot import get_snapshot

    wanted = PROVIDERS.get(provider, provider)
    return sorted(model.id for entry in get_snapshot().providers if entry.id == wanted for model in entry.models)
