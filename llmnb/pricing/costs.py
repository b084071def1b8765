"""`cost_of`: what a usage costs on a model."""

from __future__ import annotations

from collections.abc import Sequence

from llmnb.pricing.terms import Overrides, Terms, terms_of
from llmnb.records import Call, Cost, Usage


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
    return Terms(model, provider, ts, service_tier, speed, inference_geo, overrides).cost(usage)


def cost_of_call(call: Call, overrides: Overrides | None = None) -> Cost:
    """What the tokens on a ledger row cost, at the prices of when it was made."""
    return terms_of(call, overrides).cost(call.usage)


BY_PROMPT = " by prompt"
"""Ends the `price_id` of a call whose prompts were priced one by one: its token counts alone do not tell its cost."""


def cost_of_prompts(prompts: Sequence[Usage], terms: Terms) -> Cost:
    """What an answer costs that took several prompts, each of which has a price tier of its own (see `cost_of`).

    Where the tiers make no difference it is the cost of the sum, rounded once.
    """
    if len(prompts) == 1:
        return terms.cost(prompts[0])
    whole = terms.cost(sum(prompts[1:], prompts[0]))
    each = [terms.cost(prompt).nanousd for prompt in prompts]
    known = [nanousd for nanousd in each if nanousd is not None]
    if whole.nanousd is None or len(known) < len(each) or abs(sum(known) - whole.nanousd) <= len(each):
        return whole
    return Cost(sum(known), f"{whole.price_id}{BY_PROMPT}")
