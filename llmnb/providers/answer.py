"""A whole chat completion as the Message it is, and its usage in the disjoint classes that Messages counts."""

from __future__ import annotations

import json
from typing import Any, cast
from uuid import uuid4

import jiter

from llmnb.messages.wire import estimated_tokens
from llmnb.providers import signatures

Json = dict[str, Any]

_STOP_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "model_context_window_exceeded",
    **dict.fromkeys(("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"), "refusal"),
}
"""OpenAI's words (its SDK's `finish_reason`); Mistral's `model_length`; Gemini's own, which its endpoint passes on."""


def message_of(completion: Json, *, estimated_input: int = 0) -> Json:
    """The message; where the server counted no tokens, they are estimated, and the usage says so."""
    choice = first(completion.get("choices"))
    said = as_dict(choice.get("message"))
    blocks: list[Json] = []
    if thought := thought_of(said):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    text = text_of(said.get("content"))
    refusal = said.get("refusal") or ""
    if text or refusal:
        blocks.append({"type": "text", "text": text or refusal})
    calls = [call for call in as_list(said.get("tool_calls")) if as_dict(call.get("function")).get("name")]
    blocks += map(_tool_use, calls)
    usage = told_usage(completion)
    if usage is None:
        written = sum(len(json.dumps(block, ensure_ascii=False).encode()) for block in blocks)
        usage_told = estimated_usage(estimated_input, estimated_tokens(written) if blocks else 0)
    else:
        usage_told = usage_of(usage, completion.get("service_tier"))
    return {
        "id": completion.get("id") or "",
        "type": "message",
        "role": "assistant",
        "model": completion.get("model") or "",
        "content": blocks,
        "stop_reason": stop_reason(choice.get("finish_reason"), calls=bool(calls), refused=bool(refusal)),
        "stop_sequence": None,
        "usage": usage_told,
    }


def stop_reason(finish: object, *, calls: bool, refused: bool) -> str:
    """Why the model stopped. Some servers say "stop" where it calls tools; a word of their own is kept as it is."""
    if refused:
        return "refusal"
    said = str(finish or "stop").lower()
    why = _STOP_REASONS.get(said.partition(":")[0], said)  # Gemini's "content_filter: RECITATION"
    return "tool_use" if calls and why == "end_turn" else why


def new_call_id() -> str:
    """An id for a call that came without one. Results are kept by it, so that no two calls may share one."""
    return f"call_{uuid4().hex}"


def _tool_use(call: Json) -> Json:
    function = as_dict(call.get("function"))
    uid = call.get("id") or new_call_id()
    signatures.remember(uid, call)
    return {
        "type": "tool_use",
        "id": uid,
        "name": function.get("name"),
        "input": _arguments(function.get("arguments")),
    }


def _arguments(told: object) -> Json:
    """A call's input. Models write it as text, and not always as JSON: what cannot be read is not hidden."""
    if isinstance(told, dict):
        return cast(Json, told)
    text = told if isinstance(told, str) else ""
    try:
        found: object = jiter.from_json(text.encode()) if text.strip() else {}
    except ValueError:
        found = None
    return cast(Json, found) if isinstance(found, dict) else {"unreadable_arguments": text}


def thought_of(said: Json) -> str:
    """What the model thought, where a server shows it: in one of two fields, or as parts of the content."""
    told = said.get("reasoning_content") or said.get("reasoning")
    if isinstance(told, str):
        return told
    parts = [part for part in as_list(said.get("content")) if part.get("type") == "thinking"]
    return "".join(text_of(part.get("thinking")) for part in parts)


def text_of(content: object) -> str:
    """Content as text: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in as_list(content) if part.get("type") == "text")


# Usage ----------------------------------------------------------------------------------------------------------------


def usage_of(usage: object, service_tier: object = None) -> Json:
    """The usage as Messages has it.

    `prompt_tokens` hold the cached ones and those written to the cache, as genai-prices reads them, too; Messages
    counts the three apart. Reasoning is inside `completion_tokens` at OpenAI, and beside them at Gemini and x.AI, where
    only `total_tokens` has it; it is billed as output everywhere. Cache writes have one price where they have any, so
    that how long they last makes no difference.
    """
    told = as_dict(usage)
    prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    details, written_out = as_dict(told.get("prompt_tokens_details")), as_dict(told.get("completion_tokens_details"))
    # DeepSeek's own names, which its endpoint gives besides or instead
    read = _count(details.get("cached_tokens")) or _count(told.get("prompt_cache_hit_tokens"))
    read = min(read, prompt)
    written = min(_count(details.get("cache_write_tokens")), prompt - read)
    reasoned = _count(written_out.get("reasoning_tokens"))
    # what was thought and is in no total cannot be inside of less
    beside = max(0, _count(told.get("total_tokens")) - prompt - completion) or (
        reasoned if reasoned > completion else 0
    )
    known: Json = {
        "input_tokens": prompt - read - written,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": completion + beside,
        "estimated": False,
    }
    thought = reasoned or beside
    if thought or "reasoning_tokens" in written_out:
        known["output_tokens_details"] = {"thinking_tokens": min(thought, completion + beside)}
    if isinstance(service_tier, str):
        known["service_tier"] = {"default": "standard"}.get(service_tier, service_tier)
    return known


def told_usage(body: Json) -> Json | None:
    """The usage in an answer or a chunk, where there is one; Groq has had it in a place of its own."""
    found = as_dict(body.get("usage")) or as_dict(as_dict(body.get("x_groq")).get("usage"))
    return found or None


def estimated_usage(input_tokens: int, output_tokens: int) -> Json:
    """The usage of an answer whose server counted nothing."""
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "estimated": True}


# Careful reading ------------------------------------------------------------------------------------------------------


def as_dict(value: object) -> Json:
    """The value when it is an object, else an empty one."""
    return cast(Json, value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    """The objects of a list."""
    return (
        [cast(Json, item) for item in cast("list[object]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )


def first(value: object) -> Json:
    """The first object of a list, or an empty one."""
    return next(iter(as_list(value)), dict[str, Any]())


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
