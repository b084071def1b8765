"""Which questions can be asked in a batch, and what has to be different about them there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmnb.errors import InvalidRequest
from llmnb.templates import names

if TYPE_CHECKING:
    from llmnb.asking.access import Access
    from llmnb.asking.params import Plan
    from llmnb.asking.question import Question

_LONG_BYTES = 4_096
"""A shorter system prompt is below every model's minimum for the prompt cache."""


def unfit(question: Question) -> str | None:
    """Why the rows of a run that asks such questions cannot go into batches; None where they can."""
    plan, access = question.plan, question.access
    if plan.tools is not None:
        return "tools= take several turns, and a request of a batch has one"
    if question.routing is not None:
        return "several models are tried one after another, and a batch ends hours later: name one model"
    if access.endpoint is not None or access.provider != "anthropic":
        return f"{access.provider} has no Message Batches API, as far as llmnb knows"
    if plan.arguments.get("speed") == "fast":
        return 'speed="fast" and a batch do not go together'
    return None


def check(question: Question) -> None:
    """Refuses what cannot go into a batch.

    Raises:
        InvalidRequest: it cannot, and why.
    """
    if (why := unfit(question)) is not None:
        raise InvalidRequest(f'via="batch" is not for these rows: {why}. Nothing was sent.')


def batched(plan: Plan, access: Access, rows: int) -> Plan:
    """The plan of a run in batches: with the system prompt marked for the API's prompt cache where that was asked for.

    "auto" marks nothing: the requests of a batch are worked at side by side over hours, so that nobody knows how many
    of them will find what one of them wrote.
    """
    system, mode = plan.arguments.get("system"), plan.ledger.get("prompt_cache", access.prompt_cache)
    if mode not in ("5m", "1h") or rows < 2 or not isinstance(system, str):
        return plan
    if len(system.encode()) < _LONG_BYTES or names(system):  # a system prompt with fields is another for each row
        return plan
    block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral", "ttl": mode}}
    return replace(plan, arguments={**plan.arguments, "system": [block]})
