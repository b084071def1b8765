"""The prices llmnb knows, as rows for a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from llmnb.pricing.book import PROVIDERS, models_of, source, timeline
from llmnb.pricing.rates import Dollars, override_rates
from llmnb.settings import PriceOverride


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The price of a model: dollars per million tokens, for prompts of more than `over_tokens` input tokens.

    A model whose price depends on the length of the prompt has a row for each length. None: not known.
    """

    model: str
    provider: str
    over_tokens: int
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    write_5m: Decimal | None
    write_1h: Decimal | None
    source: str


def price_table(
    *,
    match: str | None = None,
    provider: str = "anthropic",
    overrides: Mapping[str, PriceOverride] | None = None,
    ts: int | None = None,
) -> list[PriceRow]:
    """Prices in force at `ts` (microseconds since 1970; unset: now): first the user's own, then those of a provider.

    `match` keeps the models whose name contains it. `provider` is OpenTelemetry's name or that of genai-prices.
    """
    now_us = time.time_ns() // 1000 if ts is None else ts
    rows = [row for name, price in sorted((overrides or {}).items()) for row in _own(name, price)]
    rows += [row for model in models_of(provider) for row in _published(provider, model, now_us)]
    return [row for row in rows if match is None or match.lower() in row.model.lower()]


def _own(name: str, price: PriceOverride) -> list[PriceRow]:
    return [_row(name, "settings", over, dollars, "settings") for over, dollars in override_rates(name, price).dollars]


def _published(provider: str, model: str, ts: int) -> list[PriceRow]:
    prices = timeline(provider, model, ())
    rates = None if prices is None else prices.at(ts)
    shown = PROVIDERS.get(provider, provider)
    return [] if rates is None else [_row(model, shown, over, dollars, source()) for over, dollars in rates.dollars]


def _row(model: str, provider: str, over: int, dollars: Dollars, source: str) -> PriceRow:
    return PriceRow(
        model,
        provider,
        over,
        dollars.get("input"),
        dollars.get("output"),
        dollars.get("cache_read"),
        dollars.get("cache_write_5m"),
        dollars.get("cache_write_1h"),
        source,
    )
