"""What one reply says: content blocks from the script or from the simulator's own head, cut to the request's limits."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from llmnb.simulator import tokenizer
from llmnb.simulator.answer import Answer
from llmnb.simulator.api_error import invalid
from llmnb.simulator.catalog import Model
from llmnb.simulator.json_value import Json, as_list, as_object, as_text, dumps
from llmnb.simulator.prose import Question, question_of, thought, write_answer
from llmnb.simulator.schema import UnsatisfiableError, instance_of
from llmnb.simulator.schema_text import Words
from llmnb.simulator.tool_calls import planned_calls, search_blocks, wants_search, web_search_tool

REFUSAL_TRIGGER = "ANTHROPIC_MAGIC_STRING_TRIGGER_REFUSAL"
REDACTED_TRIGGER = "ANTHROPIC_MAGIC_STRING_TRIGGER_REDACTED_THINKING"
EXPLANATION = "This request triggered a simulated policy check (no model was asked)."
NOT_OUTPUT = frozenset({"web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result"})


@dataclass(slots=True)
class Composed:
    """Blocks, why they end, and the output tokens they are."""

    blocks: list[Json]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    stop_details: Json | None = None
    output_tokens: int = 0
    thinking_tokens: int | None = None
    web_search_requests: int = 0
    seed: str = field(default="", repr=False)


def compose(body: Json, model: Model, answer: Answer, seed: int, room_tokens: int) -> Composed:
    """The reply to a validated request; `room_tokens` is what the context window leaves for it."""
    if body["max_tokens"] == 0:
        return Composed([], "max_tokens")
    question = question_of(body)
    own_seed = f"{seed}:{model.id}:{question.prompt}:{len(as_list(body.get('messages')))}"
    composed = Composed(_blocks(body, model, answer, question, own_seed), seed=own_seed)
    if any(block.get("type") == "tool_use" for block in composed.blocks):
        composed.stop_reason = "tool_use"
    _refuse(composed, answer, question)
    if answer.blocks is None:
        _stop_at_sequences(composed, [as_text(item) for item in as_list(body.get("stop_sequences"))])
        _cut(composed, min(body["max_tokens"], room_tokens), "max_tokens")
    if room_tokens < body["max_tokens"] and composed.stop_reason == "max_tokens":
        composed.stop_reason = "model_context_window_exceeded"
    composed.stop_reason = answer.stop_reason or composed.stop_reason
    composed.stop_sequence = answer.stop_sequence or composed.stop_sequence
    _count(composed)
    return composed


def thinks(body: Json, model: Model) -> bool:
    """Whether the request has the model think."""
    kind = as_object(body.get("thinking")).get("type")
    if kind is None:
        return model.thinking != "off"
    return kind in ("enabled", "adaptive")


def _blocks(body: Json, model: Model, answer: Answer, question: Question, seed: str) -> list[Json]:
    if answer.blocks is not None:
        return [dict(block) for block in answer.blocks]
    if answer.has_content:
        return _scripted(answer, seed)
    if REFUSAL_TRIGGER in question.prompt:
        return []
    thinking = _thinking_blocks(body, question, seed) if thinks(body, model) else []
    return thinking + _own_blocks(body, question, seed)


def _scripted(answer: Answer, seed: str) -> list[Json]:
    blocks: list[Json] = []
    if answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": signature(answer.thinking)})
    if answer.text is not None:
        blocks.append({"type": "text", "text": answer.text})
    return blocks + _tool_blocks(answer.tool_calls, seed)


def _thinking_blocks(body: Json, question: Question, seed: str) -> list[Json]:
    if REDACTED_TRIGGER in question.prompt:
        return [{"type": "redacted_thinking", "data": signature(seed)}]
    text = thought(question)
    shown = "" if as_object(body.get("thinking")).get("display") == "omitted" else text
    return [{"type": "thinking", "thinking": shown, "signature": signature(text)}]


def _own_blocks(body: Json, question: Question, seed: str) -> list[Json]:
    calls = planned_calls(body, question.prompt, seed)
    if calls:
        forced = as_object(body.get("tool_choice")).get("type") in ("any", "tool")
        says = [] if forced else [_text(f"I will use {_names(calls)} for this. (Simulated, no model was asked.)")]
        return says + _tool_blocks(calls, seed)
    wanted = as_object(as_object(body.get("output_config")).get("format"))
    if wanted.get("type") == "json_schema":
        return [_text(_structured(as_object(wanted.get("schema")), question, seed))]
    text = _text(write_answer(question, seed))
    if web_search_tool(body) is not None and wants_search(question.prompt):
        return [*search_blocks(question.prompt, random.Random(seed)), text]
    return [text]


def _structured(schema: Json, question: Question, seed: str) -> str:
    try:
        return dumps(instance_of(schema, seed=seed, words=Words(question.prompt)))
    except UnsatisfiableError as error:
        raise invalid(f"output_config.format.schema: {error}") from None


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _names(calls: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _ in calls))


def _tool_blocks(calls: Sequence[tuple[str, Any]], seed: str) -> list[Json]:
    return [
        {"type": "tool_use", "id": f"toolu_sim{_short_hash(f'{seed}:{at}:{name}')}", "name": name, "input": value}
        for at, (name, value) in enumerate(calls)
    ]


def _short_hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=10).hexdigest()


def signature(text: str) -> str:
    """An opaque value that goes with a thinking block, the same for the same text."""
    return base64.b64encode(b"simulated:" + blake2b(text.encode("utf-8", "replace")).digest()).decode()


def _refuse(composed: Composed, answer: Answer, question: Question) -> None:
    triggered = REFUSAL_TRIGGER in question.prompt and not answer.has_content
    if not (answer.refusal or triggered):
        return
    category = answer.refusal if isinstance(answer.refusal, str) else None
    composed.stop_reason = "refusal"
    composed.stop_details = {"type": "refusal", "category": category, "explanation": EXPLANATION}


def _stop_at_sequences(composed: Composed, sequences: list[str]) -> None:
    """Cut at the first stop sequence that the text holds, and drop what would have followed."""
    for at, block in enumerate(composed.blocks):
        text = as_text(block.get("text")) if block.get("type") == "text" else ""
        hits = [(text.find(sequence), sequence) for sequence in sequences if sequence in text]
        if hits:
            position, composed.stop_sequence = min(hits)
            composed.blocks = [*composed.blocks[:at], *([_text(text[:position])] if position else [])]
            composed.stop_reason = "stop_sequence"
            return


def _cut(composed: Composed, limit: int, reason: str) -> None:
    """Keep what fits in the limit; a text or a thought is cut inside, a tool call that does not fit is left out."""
    left, kept = limit, list[Json]()
    for block in composed.blocks:
        tokens = output_tokens(block)
        if tokens > left:
            kept.extend(_beginning(block, left))
            composed.stop_reason, composed.stop_sequence = reason, None
            break
        kept.append(block)
        left -= tokens
    composed.blocks = kept


def _beginning(block: Json, tokens: int) -> list[Json]:
    key = {"text": "text", "thinking": "thinking"}.get(as_text(block.get("type")))
    if key is None or tokens <= 0:
        return []
    overhead = 4 if key == "thinking" else 0
    pieces = tokenizer.pieces(as_text(block.get(key)))[: max(0, tokens - overhead)]
    return [block | {key: "".join(pieces)}] if pieces else []


def output_tokens(block: Json) -> int:
    """Output tokens of one block; what a server tool returned is not output."""
    return 0 if block.get("type") in NOT_OUTPUT else tokenizer.count_block(block)


def _count(composed: Composed) -> None:
    thinking = [block for block in composed.blocks if block.get("type") in ("thinking", "redacted_thinking")]
    if thinking:
        composed.thinking_tokens = sum(map(output_tokens, thinking))
    composed.output_tokens = max(1, sum(map(output_tokens, composed.blocks)))
    composed.web_search_requests = sum(
        block.get("type") == "server_tool_use" and block.get("name") == "web_search" for block in composed.blocks
    )
