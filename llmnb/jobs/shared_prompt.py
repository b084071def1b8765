"""What all rows of a run share of their prompts, and the API's prompt cache is to hold for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmnb.templates import Template, names

if TYPE_CHECKING:
    from llmnb.asking.access import Access
    from llmnb.asking.params import Plan

_LONG_BYTES = 4_096
"""A prompt shorter than some 1,000 tokens is below every model's minimum for the prompt cache."""


def cached(plan: Plan, access: Access, rows: int | None, prompt: object) -> tuple[Plan, bool]:
    """The plan with what all rows share marked for the API's prompt cache, and whether the first row has to write it.

    That is a long system prompt, and a long beginning of the template. prompt_cache="auto" would wait for a repetition;
    here it is certain that it comes.
    """
    system = plan.arguments.get("system")
    mode = plan.ledger.get("prompt_cache", access.prompt_cache)
    if mode == "off" or access.endpoint is not None or rows in (0, 1):
        return plan, False
    if isinstance(system, str) and names(system):  # a system prompt with fields is another for each row
        return plan, False
    chars = _shared_chars(prompt.beginning) if isinstance(prompt, Template) else 0
    if chars:
        plan = replace(plan, ledger={**plan.ledger, "shared_chars": chars})
    is_long = isinstance(system, str) and len(system.encode()) >= _LONG_BYTES
    if is_long and mode == "auto":
        block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
        plan = replace(plan, arguments={**plan.arguments, "system": [block]})
    return plan, is_long or bool(chars)


def _shared_chars(beginning: str) -> int:
    """How much of a template's beginning is cached apart, no word of it cut in two: up to the last line end, or space.

    0 where that is too short.
    """
    line = beginning.rfind("\n") + 1
    chars = line if line > len(beginning) / 2 else beginning.rfind(" ") + 1
    return chars if len(beginning[:chars].encode("utf-8", "replace")) >= _LONG_BYTES else 0
