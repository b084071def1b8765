"""What the API demands of `messages`: roles, content, tool results that answer tool calls, and breakpoints."""

from __future__ import annotations

from typing import Any

from llmnb.simulator.api_error import invalid
from llmnb.simulator.catalog import Model
from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text, content_blocks

MAX_BREAKPOINTS = 4
MAX_MESSAGES = 100_000
TTLS = ("5m", "1h")
RESUMED = frozenset({"server_tool_use", "compaction"})
BLOCK_FIELDS = {
    "text": "text",
    "image": "source",
    "document": "source",
    "tool_use": "input",
    "tool_result": "tool_use_id",
    "thinking": "signature",
}


def check_messages(body: Json, model: Model) -> None:
    """Refuse messages the API would refuse, with its words."""
    if "messages" not in body:
        raise invalid("messages: Field required")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    found = as_list(messages)
    if len(found) > MAX_MESSAGES:
        raise invalid(f"messages: List should have at most {MAX_MESSAGES} items after validation, not {len(found)}")
    for at, message in enumerate(found):
        _check_message(at, message, model, is_last=at == len(found) - 1)
    if as_object(found[0]).get("role") == "assistant":
        raise invalid('messages: first message must use the "user" role')
    if not model.takes_prefill and _is_prefill(as_object(found[-1])):
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    _check_tool_results(as_objects(found))


def _is_prefill(message: Json) -> bool:
    """Whether an answer was begun for the model; a paused turn sent back to be continued is none."""
    paused = any(block.get("type") in RESUMED for block in content_blocks(message.get("content")))
    return message.get("role") == "assistant" and not paused


def _check_message(at: int, message: Any, model: Model, *, is_last: bool) -> None:
    if not isinstance(message, dict):
        raise invalid(f"messages.{at}: Input should be a valid dictionary")
    item = as_object(message)
    role = item.get("role")
    roles = ("user", "assistant", "system") if model.generation >= (4, 8) else ("user", "assistant")
    if role == "system" and role not in roles:
        raise invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if role not in roles:
        raise invalid(f"messages.{at}.role: Input should be 'user' or 'assistant'")
    content = item.get("content")
    if not isinstance(content, (str, list)):
        raise invalid(f"messages.{at}.content: Field required")
    if not content and not (is_last and role == "assistant"):
        raise invalid(
            f"messages.{at}: all messages must have non-empty content except for the optional final assistant message"
        )
    for position, block in enumerate(as_list(content)):
        _check_block(f"messages.{at}.content.{position}", as_object(block))


def _check_block(where: str, block: Json) -> None:
    kind = block.get("type")
    if not isinstance(kind, str):
        raise invalid(f"{where}.type: Field required")
    wanted = BLOCK_FIELDS.get(kind)
    if wanted is not None and wanted not in block:
        raise invalid(f"{where}.{kind}.{wanted}: Field required")
    if kind == "text" and not as_text(block.get("text")):
        raise invalid("messages: text content blocks must be non-empty")


def _check_tool_results(messages: list[Json]) -> None:
    """Every tool call is answered by the next user message, and nothing else is."""
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        blocks = content_blocks(message.get("content"))
        if message.get("role") == "system":
            continue
        results = [as_text(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
        for position, result in enumerate(results):
            if result not in open_calls:
                raise invalid(
                    f"messages.{at}.content.{position}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{result}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                    "message."
                )
        missing = [call for call in open_calls if call not in results]
        if missing:
            raise invalid(
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        open_calls = [as_text(block.get("id")) for block in blocks if block.get("type") == "tool_use"]


def check_breakpoints(body: Json) -> None:
    """At most four breakpoints, known lifetimes, one-hour ones first, none on what cannot be cached."""
    controls = breakpoints(body)
    if len(controls) > MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(controls)}."
        )
    seen_short = False
    for control in controls:
        ttl = control.get("ttl", "5m")
        if control.get("type") != "ephemeral":
            raise invalid("cache_control.type: Input should be 'ephemeral'")
        if ttl not in TTLS:
            raise invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
        if ttl == "1h" and seen_short:
            raise invalid(
                "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
                "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
            )
        seen_short = seen_short or ttl == "5m"


def breakpoints(body: Json) -> list[Json]:
    """The `cache_control` of every block in the order of the prompt, that of the whole request last."""
    blocks = [*as_objects(body.get("tools")), *content_blocks(body.get("system"))]
    for message in as_objects(body.get("messages")):
        blocks.extend(content_blocks(message.get("content")))
    found: list[Json] = []
    for block in blocks:
        control = block.get("cache_control")
        if not isinstance(control, dict):
            continue
        if block.get("type") in ("thinking", "redacted_thinking"):
            raise invalid("cache_control cannot be set on thinking blocks.")
        if block.get("type") == "text" and not as_text(block.get("text")):
            raise invalid("cache_control cannot be set for empty text blocks")
        found.append(as_object(control))
    if isinstance(body.get("cache_control"), dict):
        found.append(as_object(body.get("cache_control")))
    return found
