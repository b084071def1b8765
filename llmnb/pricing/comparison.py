"""What the same tokens would have cost on another model, and what each class of cached tokens adds or saves."""

from __future__ import annotations

from dataclasses import dataclass

from llmnb.pricing.terms import Overrides, Terms
from llmnb.records import Usage


@dataclass(frozen=True, slots=True)
class OnModel:
    """What tokens cost on a model at today's prices; `nanousd` is None where a price is not known.

    `is_tiered`: longer prompts cost more on this model. Sums do not tell the length of the prompts, so the prices of
    the shortest ones stand.
    """

    model: str
    nanousd: int | None
    is_tiered: bool = False


def same_tokens_on(
    model: str, usage: Usage, *, provider: str = "anthropic", overrides: Overrides | None = None
) -> OnModel:
    """What `usage`, summed over any number of calls, costs on `model` now.

    Another model would have written another number of tokens, and counted the prompt's in another way: this compares
    prices, not models.
    """
    rates = Terms(model, provider, overrides=overrides).rates
    if rates is None:
        return OnModel(model, None)
    return OnModel(model, rates.bands[0].nanousd(usage), is_tiered=len(rates.bands) > 1)


@dataclass(frozen=True, slots=True)
class CacheBill:
    """What the prompt cache saved and cost against plain input, in nano-dollars at today's prices of short prompts."""

    reads_saved: int
    writes_5m_cost: int
    writes_1h_cost: int

    @property
    def net(self) -> int:
        """What was saved less what writing cost more."""
        return self.reads_saved - self.writes_5m_cost - self.writes_1h_cost


def cache_bill(
    model: str, usage: Usage, *, provider: str = "anthropic", overrides: Overrides | None = None
) -> CacheBill | None:
    """How the cached tokens of `usage` compare with the same tokens as plain input; None where a price is not known.

    Writes of unknown lifetime count as five-minute ones, as everywhere.
    """
    rates = Terms(model, provider, overrides=overrides).rates
    if rates is None:
        return None
    band = rates.bands[0]
    written_5m = usage.cache_write_5m_tokens + usage.cache_write_unsplit_tokens
    if band.input is None or band.cache_read is None or band.cache_write_5m is None:
        return None
    hour = band.cache_write_1h
    if hour is None and usage.cache_write_1h_tokens:
        return None
    return CacheBill(
        _rounded(usage.cache_read_tokens * (band.input - band.cache_read), band.scale),
        _rounded(written_5m * (band.cache_write_5m - band.input), band.scale),
        _rounded(usage.cache_write_1h_tokens * ((hour or 0) - band.input), band.scale),
    )


def _rounded(amount: int, scale: int) -> int:
    """To the nearest nano-dollar, half up, as costs are."""
    return (2 * amount + scale) // (2 * scale)
