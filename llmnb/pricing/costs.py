"""`cost_of`: what a usage costs on a model."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from llmnb.pricing.book import Timeline, conditions, suffix, timeline
from llmnb.pricing.rates import Rates, override_rates
from llmnb.records import UNPRICED, Call, Cost, Usage
from llmnb.settings import PriceOverride

Overrides = Mapping[str, PriceOverride]

_DATED = re.compile(r"[-@]\d{8}$")


def cost_of(
    usage: Usage,
    model: str,
    *,
    provider: str = "anthropic",
    ts: int | None = None,
    service_tier: str | None = None,
    speed: str | None = None,
    inference_geo: str | None = None,
    overrides: Overrides | None = None,
) -> Cost:
    """What `usage` costs on `model`, in integer nano-dollars (1e-9 USD), rounded once to the nearest, half up.

    Prices are those of genai-prices that were valid at `ts` (microseconds since 1970; unset: now). `provider` is
    OpenTelemetry's `gen_ai.provider.name`, or a host. Cache writes whose TTL is unknown cost what five-minute writes
    do, the API's default TTL and a lower bound; `Usage.estimated` marks them.

    A price of the user's own in `overrides` wins. It is found by the model's name, with or without its date. What is
    billed differently has a name of its own there: `claude-sonnet-5-5:batch`, `claude-opus-5-5:fast`, `…:priority`,
    `…:us` (an inference_geo).

    `Cost(None)` is the answer for an unknown model, and for a call under a condition, or with a class of tokens or
    searches, that is billed differently at a price which is not known. `price_id` names source, version and model.
    """
    rates = rates_for(
        model,
        provider=provider,
        ts=ts,
        service_tier=service_tier,
        speed=speed,
        inference_geo=inference_geo,
        overrides=overrides,
    )
    return UNPRICED if rates is None else rates.cost(usage)


def rates_for(
    model: str,
    *,
    provider: str = "anthropic",
    ts: int | None = None,
    service_tier: str | None = None,
    speed: str | None = None,
    inference_geo: str | None = None,
    overrides: Overrides | None = None,
) -> Rates | None:
    """The rates that `cost_of` computes with; None where it says unpriced whatever the usage."""
    if overrides:
        wanted = conditions(service_tier, speed, inference_geo)
        own = _own_price(model, suffix(wanted), overrides)
        if own is not None:
            return own
        if wanted and _own_price(model, "", overrides) is not None:
            return None  # the plain price is the user's own, so genai-prices' batch price is not theirs
    prices = _published(provider, model, service_tier, speed, inference_geo)
    return None if prices is None else prices.at(time.time_ns() // 1000 if ts is None else ts)


@lru_cache(maxsize=1024)
def _published(
    provider: str, model: str, service_tier: str | None, speed: str | None, inference_geo: str | None
) -> Timeline | None:
    return timeline(provider, model, conditions(service_tier, speed, inference_geo))


BY_PROMPT = " by prompt"
"""Ends the `price_id` of a call whose prompts were priced one by one: its token counts alone do not tell its cost."""


def cost_of_prompts(prompts: Sequence[Usage], model: str, **conditions: Any) -> Cost:
    """What an answer costs that took several prompts, each of which has a price tier of its own (see `cost_of`).

    Where the tiers make no difference it is the cost of the sum, rounded once.
    """
    if len(prompts) == 1:
        return cost_of(prompts[0], model, **conditions)
    whole = cost_of(sum(prompts[1:], prompts[0]), model, **conditions)
    each = [cost_of(prompt, model, **conditions).nanousd for prompt in prompts]
    known = [nanousd for nanousd in each if nanousd is not None]
    if whole.nanousd is None or len(known) < len(each) or abs(sum(known) - whole.nanousd) <= len(each):
        return whole
    return Cost(sum(known), f"{whole.price_id}{BY_PROMPT}")


def cost_of_call(call: Call, overrides: Overrides | None = None) -> Cost:
    """What the tokens on a ledger row cost, at the prices of when it was made."""
    return cost_of(
        call.usage,
        billed_model(call.provider, call.model_requested, call.model),
        provider=call.provider,
        ts=call.ts,
        service_tier=call.service_tier,
        speed=call.speed,
        inference_geo=call.inference_geo,
        overrides=overrides,
    )


def billed_model(provider: str, requested: str, served: str | None) -> str:
    """The model id that decides the price: the one that served.

    Bedrock answers with the bare model name, and only the id that was asked for tells the endpoint, which costs 10 %
    more when it is regional: that id counts as long as it contains the name that served.
    """
    if served is None or (provider == "aws.bedrock" and served in requested):
        return requested
    return served


def _own_price(model: str, condition: str, overrides: Overrides) -> Rates | None:
    for name in (model + condition, _DATED.sub("", model) + condition):
        if name in overrides:
            return override_rates(name, overrides[name])
    return None
