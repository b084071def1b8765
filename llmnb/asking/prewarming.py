"""`llm.prewarm()`: has the API cache a prompt before it is needed, so that the first question already reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from llmnb.asking.content import content_of
from llmnb.asking.params import Plan
from llmnb.errors import InvalidRequest
from llmnb.messages import models
from llmnb.messages.prompt_outline import outline
from llmnb.prompt_cache import TTL_S, candidates
from llmnb.records import Call, Cost, PromptCacheUse, Usage
from llmnb.reply import Reply

if TYPE_CHECKING:
    from llmnb.asking.content import Prompt
    from llmnb.prompt_cache import Mode, Ttl

PLACEHOLDER = "warmup"
"""What is asked where nothing is: the API demands a message, reads it, and does not answer it. It is not cached."""


@dataclass(frozen=True, slots=True, repr=False)
class Prewarmed:
    """What prewarming did.

    Attributes:
        model: the model whose cache was filled.
        usage: its tokens, in disjoint classes; there is no output.
        cost: what it cost; unpriced when no price is known.
        prompt_cache: tokens written to the cache, or read from it where they were there already.
        holds_until: the moment the entry ends unless it is used before, in the machine's timezone; None when the API
            cached nothing.
        call: its row of the ledger; None when the books could not be kept.
    """

    model: str
    usage: Usage
    cost: Cost
    prompt_cache: PromptCacheUse
    holds_until: datetime | None = None
    call: Call | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars, exact to the nano-dollar; None when no price is known for the model."""
        return self.cost.usd

    def __repr__(self) -> str:
        use = self.prompt_cache
        counts = [(use.written_tokens, "written"), (use.read_tokens, "there already")]
        did = ", ".join(f"{count:,} tokens {what}" for count, what in counts if count)
        cost = "unpriced" if self.cost_usd is None else f"${self.cost_usd:.6f}"
        until = "" if self.holds_until is None else f", holds until {self.holds_until:%H:%M:%S}"
        return f"<Prewarmed {self.model}: {did or 'nothing was cached'}, {cost}{until}>"

    @classmethod
    def of(cls, reply: Reply, asked_at: datetime) -> Prewarmed:
        """From the reply to a prewarming request that was sent at `asked_at`."""
        use = reply.prompt_cache
        held = use.read_tokens + use.written_tokens > 0
        ttl = max((point.ttl for point in use.breakpoints), key=lambda ttl: TTL_S.get(ttl, 0.0), default="5m")
        until = asked_at + timedelta(seconds=TTL_S.get(ttl, 0.0)) if held else None
        return cls(reply.model, reply.usage, reply.cost, use, until, reply.call)


def ttl_for(mode: Mode | None) -> Ttl:
    """How long prewarming keeps a prompt where questions are asked in this mode.

    Raises:
        InvalidRequest: they use no cache, so that nothing would read it.
    """
    if mode == "off":
        raise InvalidRequest(
            "there is nothing to prewarm for: prompt_cache is off, so no question would read the cache. Give "
            'prompt_cache="5m" or "1h" to the LLM, or to this call.'
        )
    return "1h" if mode == "1h" else "5m"


def prewarming(planned: Plan, documents: Prompt | None) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan and the messages of the request that has a prompt cached.

    Raises:
        InvalidRequest: there is nothing to cache, it is too short for the model's cache, or the API does not prewarm
            with these settings.
    """
    content = [] if documents is None else content_of(documents)
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    arguments = _arguments(planned.arguments, blocks)
    asked: Any = [*blocks, {"type": "text", "text": PLACEHOLDER}] if blocks else PLACEHOLDER
    messages = [{"role": "user", "content": asked}]
    _check_length({**arguments, **_extra(arguments), "messages": messages}, blocks)
    ledger = {"tag": "prewarm", **planned.ledger}
    return replace(planned, arguments=arguments, ledger=ledger), messages


def _arguments(planned: dict[str, Any], blocks: list[Any]) -> dict[str, Any]:
    """What a question would send, as far as the cache depends on it and the API takes it without an answer."""
    arguments = {**planned, "max_tokens": 0}
    if cast("dict[str, Any]", arguments.get("output_config") or {}).get("format") is not None:
        raise InvalidRequest("the API does not prewarm with a structured output (output_config.format): leave it out")
    if cast("dict[str, Any]", arguments.get("thinking") or {}).get("type") == "enabled":
        if blocks:
            raise InvalidRequest(
                "the API does not prewarm with a thinking budget, and documents cached without one are not read with "
                "it: prewarm without documents, or ask without the budget"
            )
        del arguments["thinking"]  # it changes how messages are read, not the system prompt and the tools
    return arguments


def _extra(arguments: dict[str, Any]) -> dict[str, Any]:
    return dict(cast("Mapping[str, Any]", arguments.get("extra_body") or {}))


def _check_length(body: dict[str, Any], blocks: list[Any]) -> None:
    facts = models.facts(str(body["model"]))
    prompt = outline(body)
    ends = [prompt.pieces[candidate.at] for candidate in candidates(prompt, "single", facts.cache_minimum_tokens)]
    longest = max((piece.total for piece in ends), default=0)
    if longest >= facts.cache_minimum_tokens:
        return
    if not ends and not blocks:
        raise InvalidRequest("there is nothing to prewarm: give the LLM a system prompt, or tools= or documents here")
    raise InvalidRequest(
        f"there is too little to prewarm: {facts.name} caches prompts from {facts.cache_minimum_tokens:,} tokens on, "
        f"and this is about {prompt.pieces[-1].total:,}"
    )
