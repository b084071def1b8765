"""The terms of a call: the facts of it that decide what its tokens cost."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from llmnb.pricing.book import Timeline, conditions, suffix, timeline
from llmnb.pricing.rates import LOCAL, Rates, override_rates
from llmnb.records import UNPRICED, Call, Cost, Usage
from llmnb.settings import PriceOverride

Overrides = Mapping[str, PriceOverride]
"""The user's own prices, by model."""

_DATED = re.compile(r"[-@]\d{8}$")


class Terms(NamedTuple):
    """Which model served, who billed it, when (`ts`, microseconds since 1970; None: now), and under which conditions.

    `model` is the one that decides the price, see `billed_model`; `overrides` are the user's own prices.
    """

    model: str
    provider: str = "anthropic"
    ts: int | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    overrides: Overrides | None = None

    @property
    def rates(self) -> Rates | None:
        """What a token costs; None where nothing is known, whatever was used."""
        if self.overrides:
            wanted = conditions(self.service_tier, self.speed, self.inference_geo)
            own = _own_price(self.model, suffix(wanted), self.overrides)
            if own is not None:
                return own
            if wanted and _own_price(self.model, "", self.overrides) is not None:
                return None  # the plain price is the user's own, so genai-prices' batch price is not theirs
        if is_local(self.provider, self.model):
            return LOCAL
        prices = _published(self.provider, self.model, self.service_tier, self.speed, self.inference_geo)
        return None if prices is None else prices.at(time.time_ns() // 1000 if self.ts is None else self.ts)

    def cost(self, usage: Usage) -> Cost:
        """What a usage costs, see `cost_of`."""
        rates = self.rates
        return UNPRICED if rates is None else rates.cost(usage)


def is_local(provider: str, model: str) -> bool:
    """Whether nobody bills the tokens: ollama runs the model on a machine of the user's, not in its cloud."""
    return provider == "ollama" and not model.endswith(("-cloud", ":cloud"))


def terms_of(call: Call, overrides: Overrides | None = None) -> Terms:
    """The terms of a ledger row."""
    model = billed_model(call.provider, call.model_requested, call.model)
    return Terms(model, call.provider, call.ts, call.service_tier, call.speed, call.inference_geo, overrides)


def billed_model(provider: str, requested: str, served: str | None) -> str:
    """The model id that decides the price: the one that served.

    Bedrock answers with the bare model name, and only the id that was asked for tells the endpoint, which costs 10 %
    more when it is regional: that id counts as long as it contains the name that served.
    """
    if served is None or (provider == "aws.bedrock" and served in requested):
        return requested
    return served


@lru_cache(maxsize=1024)
def _published(
    provider: str, model: str, service_tier: str | None, speed: str | None, inference_geo: str | None
) -> Timeline | None:
    return timeline(provider, model, conditions(service_tier, speed, inference_geo))


def _own_price(model: str, condition: str, overrides: Overrides) -> Rates | None:
    for name in (model + condition, _DATED.sub("", model) + condition):
        if name in overrides:
            return override_rates(name, overrides[name])
    return None
