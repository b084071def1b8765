"""What one token costs: rates as integers, so that a cost is an exact dot product and is rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from llmnb.records import Cost, Usage
from llmnb.settings import PriceOverride

Class = Literal["input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "web_search", "call"]
CLASSES: tuple[Class, ...] = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "web_search", "call")

_NANO_PER_MTOK_DOLLAR = Decimal(1_000)
"""$1 per million tokens is 1,000 nano-dollars a token: 1e9 / 1e6."""
_NANO_PER_THOUSAND_DOLLAR = Decimal(1_000_000)
"""$1 per thousand requests is 1,000,000 nano-dollars each."""

Dollars = Mapping[Class, Decimal | None]
"""Dollars per million tokens, per thousand searches and per thousand calls; None: not known, though not free."""


@dataclass(frozen=True, slots=True)
class Band:
    """Rates of prompts longer than `over_tokens` input tokens, in units of 1/`scale` nano-dollar; None: not known."""

    over_tokens: int
    scale: int
    input: int | None
    cache_read: int | None
    cache_write_5m: int | None
    cache_write_1h: int | None
    output: int | None
    web_search: int | None
    call: int

    def nanousd(self, usage: Usage) -> int | None:
        """The cost in nano-dollars, rounded once to the nearest, half up; None when a rate it needs is not known."""
        total = self.call
        for count, rate in (
            (usage.input_tokens, self.input),
            (usage.cache_read_tokens, self.cache_read),
            (usage.cache_write_5m_tokens + usage.cache_write_unsplit_tokens, self.cache_write_5m),
            (usage.cache_write_1h_tokens, self.cache_write_1h),
            (usage.output_tokens, self.output),
            (usage.web_search_requests, self.web_search),
        ):
            if count:
                if rate is None:
                    return None
                total += count * rate
        return (2 * total + self.scale) // (2 * self.scale)


def band(dollars: Dollars, over_tokens: int = 0) -> Band:
    """Rates from dollars, without rounding: `scale` is as fine as the finest price needs."""
    nano = {name: _nano(name, dollars.get(name)) for name in CLASSES}
    places = max((_places(value) for value in nano.values() if value is not None), default=0)
    scale = 10**places
    units = {name: None if value is None else int(value * scale) for name, value in nano.items()}
    return Band(over_tokens, scale, **{**units, "call": units["call"] or 0})  # pyright: ignore[reportArgumentType]


def _nano(name: Class, dollars: Decimal | None) -> Decimal | None:
    if dollars is None:
        return None
    return dollars * (_NANO_PER_THOUSAND_DOLLAR if name in ("web_search", "call") else _NANO_PER_MTOK_DOLLAR)


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "prices are finite"
    return max(0, -exponent)


@dataclass(frozen=True, slots=True)
class Rates:
    """The price of a model: a band for every prompt length, shortest first, and what to write as `price_id`.

    A prompt longer than a band's bound pays that band's rates for all its tokens, output too.
    """

    price_id: str
    bands: tuple[Band, ...]
    dollars: tuple[tuple[int, Dollars], ...]

    def cost(self, usage: Usage) -> Cost:
        """What the usage costs; unpriced when it used something without a known price."""
        chosen = self.bands[0]
        if len(self.bands) > 1:
            total = usage.total_input_tokens
            for longer in self.bands[1:]:
                if total > longer.over_tokens:
                    chosen = longer
        nanousd = chosen.nanousd(usage)
        return Cost(nanousd, None if nanousd is None else self.price_id)


def rates(price_id: str, tiers: Mapping[int, Dollars]) -> Rates:
    """Rates from dollars by the prompt length that must be exceeded; 0 is the first tier."""
    ordered = tuple(sorted(tiers.items()))
    return Rates(price_id, tuple(band(dollars, over) for over, dollars in ordered), ordered)


LOCAL = rates("local", {0: dict.fromkeys(CLASSES, Decimal(0))})
"""What a model costs that runs on a machine of the user's: nothing, to anybody."""


def override_rates(name: str, price: PriceOverride) -> Rates:
    """Rates from a price of the user's own; what caching costs defaults to the input price."""
    cached = (price.cache_read, price.cache_write_5m, price.cache_write_1h)
    return _own_rates(name, price.input, price.output, price.web_search, *cached)


@lru_cache(maxsize=256)
def _own_rates(
    name: str,
    per_input: Decimal,
    per_output: Decimal,
    web_search: Decimal,
    cache_read: Decimal | None,
    cache_write_5m: Decimal | None,
    cache_write_1h: Decimal | None,
) -> Rates:
    dollars: Dollars = {
        "input": per_input,
        "cache_read": per_input if cache_read is None else cache_read,
        "cache_write_5m": per_input if cache_write_5m is None else cache_write_5m,
        "cache_write_1h": per_input if cache_write_1h is None else cache_write_1h,
        "output": per_output,
        "web_search": web_search,
    }
    return rates(f"settings:{name}", {0: dollars})
