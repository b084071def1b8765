"""What the prompt cache costs and saves: its prices against plain input, and a call's cost against one without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmnb.pricing.costs import cost_of_prompts
from llmnb.pricing.terms import Overrides, Terms, terms_of
from llmnb.records import Call, Cost, Usage


@dataclass(frozen=True, slots=True)
class CachePrices:
    """What a cached token costs as a multiple of an uncached input token; None where no price is known."""

    read: float
    write_5m: float
    write_1h: float | None


def cache_prices(model: str, *, provider: str = "anthropic", overrides: Overrides | None = None) -> CachePrices | None:
    """The cache's prices for a model now; None where the model has no price, or none for reading or writing.

    For deciding, not for the books: conditions of a call (batch, fast, tiers) multiply all of a model's prices alike.
    """
    rates = Terms(model, provider, overrides=overrides).rates
    band = None if rates is None else rates.bands[0]
    if band is None or not band.input or band.cache_read is None or band.cache_write_5m is None:
        return None
    hour = None if band.cache_write_1h is None else band.cache_write_1h / band.input
    return CachePrices(band.cache_read / band.input, band.cache_write_5m / band.input, hour)


def uncached(usage: Usage) -> Usage:
    """The same prompt and answer with nothing read from the prompt cache and nothing written to it."""
    return replace(
        usage,
        input_tokens=usage.total_input_tokens,
        cache_read_tokens=0,
        cache_write_5m_tokens=0,
        cache_write_1h_tokens=0,
        cache_write_unsplit_tokens=0,
    )


def saved_by_caching(prompts: Sequence[Usage], cost: Cost, terms: Terms) -> int | None:
    """Nano-dollars that the prompt cache saved of an answer that cost `cost`; negative where writing cost more.

    Exact: the cost of the same tokens as plain input (see `cost_of_prompts`) less `cost`. None where nothing was read
    or written, and where either has no price.
    """
    if cost.nanousd is None or not any(_is_cached(usage) for usage in prompts):
        return None
    plain = cost_of_prompts([uncached(usage) for usage in prompts], terms).nanousd
    return None if plain is None else plain - cost.nanousd


def saved_of_call(call: Call, cost: Cost, overrides: Overrides | None = None) -> int | None:
    """The same for a ledger row that costs `cost`, at the prices of when it was made."""
    return saved_by_caching([call.usage], cost, terms_of(call, overrides))


def _is_cached(usage: Usage) -> bool:
    return bool(usage.cache_read_tokens or usage.cache_write_tokens)
