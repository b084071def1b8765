"""A bound of what a row can cost that takes no counting: no token of a text is shorter than a byte.

To count the tokens of a prompt and to look up what is known of others takes longer than asking does. While a budget has
room for several times what a row will cost, that need not be known any better.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from llmnb.budgeting.quick_bound import text_bytes
from llmnb.pricing import cost_of
from llmnb.records import Usage

if TYPE_CHECKING:
    from llmnb.asking.question import Question
    from llmnb.settings import Settings

_UNDERSTOOD = frozenset(
    {"model", "max_tokens", "system", "metadata", "stop_sequences", "service_tier", "speed", "inference_geo",
     "thinking", "timeout", "extra_headers"}
)  # fmt: skip
"""Arguments that add no tokens of their own, or whose text is counted here."""
_AROUND = 64
"""Tokens of the frame around a message and a system prompt; the API's is some ten."""
_STEP = 1_024
_INPUT_TIMES = 2
"""Of what input costs, what it costs at most: writing it to the prompt cache for an hour."""


def quick_bound(settings: Settings) -> Callable[[Question], Decimal | None]:
    """What a question costs at most, in dollars; None where that takes a closer look."""

    @lru_cache(256)
    def dollars(tokens: int, most: int, provider: str, model: str, *conditions: str | None) -> Decimal | None:
        names = ("service_tier", "speed", "inference_geo")
        terms: dict[str, Any] = dict(zip(names, conditions, strict=True))
        costs = [
            cost_of(usage, model, provider=provider, overrides=settings.prices, **terms).usd
            for usage in (Usage(tokens * _INPUT_TIMES), Usage(tokens, output_tokens=most))
        ]
        return None if None in costs else sum(cast("list[Decimal]", costs), Decimal(0))

    def bound(question: Question) -> Decimal | None:
        asked = question.plan.arguments
        if question.plan.tools is not None or question.routing is not None or not asked.keys() <= _UNDERSTOOD:
            return None
        size = text_bytes(asked.get("system"))
        for message in question.messages:
            text = text_bytes(message.get("content"))
            size = None if size is None or text is None else size + text
        if size is None:
            return None
        tokens = -(-(size + _AROUND) // _STEP) * _STEP
        conditions = (asked.get("service_tier"), asked.get("speed"), asked.get("inference_geo"))
        return dollars(tokens, int(asked["max_tokens"]), question.access.provider, question.plan.model, *conditions)

    return bound
