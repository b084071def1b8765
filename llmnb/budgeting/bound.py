"""The bound of a call: how many tokens and dollars it can take, told offline before it is sent.

Input is the offline count with a margin; what the body only refers to is taken from earlier calls. Output is the
99th percentile of earlier answers, at most `max_tokens`. Not bounded are: what tools of the server read and search
beyond that, and a model served in place of the one asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any, cast

from llmnb.budgeting.budget import UNITS, Unit
from llmnb.budgeting.desk import Need
from llmnb.budgeting.past import UNKNOWN, Past
from llmnb.messages import models
from llmnb.pricing import Terms, billed_model
from llmnb.pricing.rates import Rates
from llmnb.pricing.terms import Overrides
from llmnb.records import Usage
from llmnb.tokens import Counter

INPUT_MARGIN = 1.25
INPUT_FEW = 16
"""Added to the offline count: of the recorded requests without tools of the server the API billed at most 1.10 times
the count (17 tokens of them were a count of 13)."""

Json = Mapping[str, Any]


_NOTHING = Usage()


# without slots, for cached_property
@dataclass(frozen=True)
class Bound:
    """What a call can take at most. `usage` is its input, in the class of tokens that costs most.

    `output_tokens` is what its answer is expected to stay under, `most_output_tokens` what it cannot pass. `rates` is
    None for a model without a price. `lost` is what earlier attempts may be billed.
    """

    usage: Usage
    output_tokens: int
    most_output_tokens: int
    rates: Rates | None
    lost: Usage = _NOTHING

    def take(self, unit: Unit, output_tokens: int) -> int | None:
        """Nano-dollars or tokens with that much output; None where there is no price."""
        if unit == "tokens":
            lost = self.lost.total_input_tokens + self.lost.output_tokens
            return self.usage.total_input_tokens + lost + output_tokens
        if self.rates is None:
            return None
        cost = self.rates.cost(replace(self.usage, output_tokens=output_tokens)).nanousd
        return None if cost is None else cost + (self.rates.cost(self.lost).nanousd or 0)

    def needs(self, stream: bool) -> Mapping[Unit, Need | None]:
        """What is to be held for it, by unit: the expected answer; one that is not streamed cannot be cut off."""
        return self._streamed if stream else self._whole

    @cached_property
    def _streamed(self) -> Mapping[Unit, Need | None]:
        found: dict[Unit, Need | None] = {}
        for unit in UNITS:
            amount = self.take(unit, self.output_tokens)
            found[unit] = None if amount is None else Need(amount)
        return found

    @cached_property
    def _whole(self) -> Mapping[Unit, Need | None]:
        found: dict[Unit, Need | None] = {}
        for unit in UNITS:
            amount, most = self.take(unit, self.output_tokens), self.take(unit, self.most_output_tokens)
            found[unit] = None if amount is None or most is None else Need(amount, most - amount)
        return found

    @property
    def text(self) -> str:
        """What it is made of, in words."""
        return f"up to {self.usage.total_input_tokens:,} tokens of input and {self.output_tokens:,} of output"


def bound_of(
    body: Json,
    past: Past | None,
    *,
    provider: str = "anthropic",
    project: str | None = None,
    ts: int | None = None,
    prices: Overrides | None = None,
    lost: Usage | None = None,
    service_tier: str | None = None,
) -> Bound:
    """The bound of the request with that body; without a `past` nothing is known of earlier calls.

    `service_tier` is how it is billed, where that is not as usual.
    """
    model = str(body.get("model") or "")
    most = _max_tokens(body, model)
    usual = UNKNOWN if past is None else past.of(model, project)
    rates = rates_of(body, model, provider, ts, prices, service_tier)
    usage = _dearest(_input_tokens(body, model, past, usual.input_tokens), body, rates)
    expected = most if usual.output_tokens is None else min(most, usual.output_tokens)
    return Bound(usage, expected, most, rates, lost or _NOTHING)


def rates_of(
    body: Json, model: str, provider: str, ts: int | None, prices: Overrides | None, service_tier: str | None = None
) -> Rates | None:
    """What a request costs by the token; None where no price is known."""
    conditions = {name: _text(body.get(name)) for name in ("speed", "inference_geo")}
    served = billed_model(provider, model, None)
    return Terms(served, provider, ts, service_tier=service_tier, **conditions, overrides=prices).rates


def _input_tokens(body: Json, model: str, past: Past | None, usual: int | None) -> int:
    counted = Counter(model).request(body)
    tokens = ceil(counted.tokens * INPUT_MARGIN) + INPUT_FEW
    thread = _mapping(body.get("thread"))
    if previous := thread.get("previous_message_id"):
        known = None if past is None else past.turn(str(previous))
        if known is not None:  # what the model read and wrote then, and what is new
            return known + tokens
    elif counted.complete and not any(map(_is_of_the_server, _items(body.get("tools")))):
        return tokens
    return max(tokens, usual or 0)


def _dearest(tokens: int, body: Json, rates: Rates | None) -> Usage:
    """The input in the class that costs most of those it can be billed in; with the searches it may make."""
    searches = sum(_searches(tool) for tool in _items(body.get("tools")))
    classes = ["input_tokens", *(f"cache_write_{ttl}_tokens" for ttl in sorted(_ttls(body)))]
    usages = [replace(Usage(web_search_requests=searches), **{name: tokens}) for name in classes]
    if rates is None:
        return usages[0]
    return max(usages, key=lambda usage: rates.cost(usage).nanousd or 0)


def _searches(tool: Json) -> int:
    if not str(tool.get("type") or "").startswith("web_search"):
        return 0
    limit = tool.get("max_uses")
    return limit if isinstance(limit, int) and limit > 0 else 1


def _is_of_the_server(tool: Json) -> bool:
    return tool.get("type") not in (None, "custom") and "input_schema" not in tool


def _ttls(body: Json) -> set[str]:
    """For how long parts of the prompt are to be cached, as breakpoints ask for it."""
    found: set[str] = set()
    places: list[Any] = [body, *_items(body.get("system")), *_items(body.get("tools"))]
    for message in _items(body.get("messages")):
        for block in _items(message.get("content")):
            places += [block, *_items(block.get("content"))]
    for place in places:
        if control := _mapping(place.get("cache_control")):
            found.add("1h" if control.get("ttl") == "1h" else "5m")
    return found


def _max_tokens(body: Json, model: str) -> int:
    asked = body.get("max_tokens")
    if isinstance(asked, int) and asked >= 0:
        return asked
    return models.facts(model).max_output_tokens or models.DEFAULT_MAX_TOKENS


def _mapping(value: object) -> Json:
    return cast("Json", value) if isinstance(value, Mapping) else {}


def _items(value: object) -> Iterable[Json]:
    found = cast("list[Any]", value) if isinstance(value, (list, tuple)) else []
    return [cast("Json", item) for item in found if isinstance(item, Mapping)]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
