"""Builds the SDK's `Message` from raw stream events, and says of each event what a reader would want to see.

Work per event is one class look-up and one list append; strings are joined once, at the end. The SDK's own
accumulator (`messages.stream()`) costs about twice the raw events, because it builds a snapshot for every one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from llmnb.events import Citation, Text, Thinking, ToolCall, ToolResult

if TYPE_CHECKING:
    from anthropic.types import Message, RawMessageStreamEvent

Piece = Text | Thinking | Citation | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class ToolInput(Text):
    """A piece of the JSON that a tool is called with; told where the input is the answer."""


class OutOfOrder(Exception):  # noqa: N818 - it says what happened
    """The server sent events that do not fit together, such as a piece of a block that never began."""


_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_DELTA_USAGE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "server_tool_use",
    "output_tokens_details",
)


class Accumulator:
    """Collects the events of one stream.

    `complete` is True once `message_stop` came; only then is the message whole. With `tells_input`, pieces of a tool's
    input are told, too, and not only the whole call.
    """

    __slots__ = ("_blocks", "_message", "_parts", "_tells_input", "complete")

    def __init__(self, *, tells_input: bool = False) -> None:
        self.complete = False
        self._tells_input = tells_input
        self._message: Message | None = None
        self._blocks: dict[int, Any] = {}
        self._parts: dict[int, list[str]] = {}

    def add(self, event: RawMessageStreamEvent) -> Piece | None:
        """Takes the next event; what it shows to a reader, or None.

        Raises:
            OutOfOrder: it does not fit to those before.
        """
        try:
            return self._add(event)
        except (KeyError, AttributeError, TypeError) as error:
            raise OutOfOrder(f"{event.type}: {error!r}") from error

    def _add(self, event: RawMessageStreamEvent) -> Piece | None:
        if event.type == "content_block_delta":
            return self._add_delta(event.index, event.delta)
        if event.type == "content_block_start":
            return self._start_block(event.index, event.content_block)
        if event.type == "content_block_stop":
            return self._stop_block(event.index)
        if event.type == "message_start":
            self._message = event.message
        elif event.type == "message_delta":
            self._add_totals(event)
        elif event.type == "message_stop":
            self.complete = True
        return None

    def message(self) -> Message | None:
        """The message so far, blocks that never ended included; None before `message_start`."""
        for index in list(self._parts):
            self._finish(index)
        return self._message

    @property
    def has_content(self) -> bool:
        """Whether a block has begun."""
        return bool(self._blocks)

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        message = self.message()
        return "" if message is None else "".join(block.text for block in message.content if block.type == "text")

    # Blocks -----------------------------------------------------------------------------------------------------------

    def _add_delta(self, index: int, delta: Any) -> Piece | None:
        kind = delta.type
        if kind == "text_delta":
            text = delta.text
            self._parts[index].append(text)
            return Text(text)
        if kind == "thinking_delta":
            self._parts[index].append(delta.thinking)
            return Thinking(delta.thinking)
        if kind == "input_json_delta":
            self._parts[index].append(delta.partial_json)
            return ToolInput(delta.partial_json) if self._tells_input else None
        if kind == "signature_delta":
            self._blocks[index].signature = delta.signature
        elif kind == "citations_delta":
            block = self._blocks[index]
            block.citations = [*(block.citations or []), delta.citation]
            return cited(delta.citation)
        return None

    def _start_block(self, index: int, block: Any) -> Piece | None:
        if self._message is None:
            raise OutOfOrder("content_block_start before message_start")
        self._message.content.append(block)
        self._blocks[index] = block
        self._parts[index] = []
        if block.type == "text" and block.text:
            self._parts[index].append(block.text)
            return Text(block.text)
        if block.type in ("thinking", "redacted_thinking"):
            shown = getattr(block, "thinking", "")
            if shown:
                self._parts[index].append(shown)
            return Thinking(shown)
        if block.type.endswith("_tool_result"):
            return _result_of(block, self._blocks.values())
        return None

    def _stop_block(self, index: int) -> Piece | None:
        self._finish(index)
        block = self._blocks[index]
        if block.type in _CALLS:
            return ToolCall(block.id, block.name, cast("dict[str, object]", block.input))
        return None

    def _finish(self, index: int) -> None:
        parts = self._parts.pop(index, None)
        if not parts:
            return
        block, whole = self._blocks[index], "".join(parts)
        if block.type == "text":
            block.text = whole
        elif block.type == "thinking":
            block.thinking = whole
        elif whole:
            block.input = _json(whole)

    # The end ----------------------------------------------------------------------------------------------------------

    def _add_totals(self, event: Any) -> None:
        """Takes over what `message_delta` says: cumulative totals, which replace those of `message_start`."""
        message, usage = self._message, event.usage
        if message is None:
            raise OutOfOrder("message_delta before message_start")
        message.stop_reason = event.delta.stop_reason
        message.stop_sequence = event.delta.stop_sequence
        message.stop_details = event.delta.stop_details
        if event.delta.container is not None:
            message.container = event.delta.container
        message.usage.output_tokens = usage.output_tokens
        for name in _DELTA_USAGE:
            if (value := getattr(usage, name)) is not None:
                setattr(message.usage, name, value)
        extra = cast("dict[str, object]", usage.model_extra or {})  # such as `iterations`, which the SDK does not type
        for name, value in extra.items():
            setattr(message.usage, name, _typed(name, value))


def pieces_of(content: Sequence[Any], *, tells_input: bool = False) -> Iterator[Piece]:
    """The content of a message that came at once, as the pieces of a stream."""
    for block in content:
        if block.type == "text":
            yield Text(block.text)
            yield from map(cited, block.citations or ())
        elif block.type in ("thinking", "redacted_thinking"):
            yield Thinking(getattr(block, "thinking", ""))
        elif block.type in _CALLS:
            if tells_input:
                yield ToolInput(json.dumps(block.input))
            yield ToolCall(block.id, block.name, block.input)
        elif block.type.endswith("_tool_result"):
            yield _result_of(block, content)


def _result_of(block: Any, others: Iterable[Any]) -> ToolResult:
    """What a tool that runs on the API's side gave back; it comes in one piece."""
    called = (known for known in others if getattr(known, "id", None) == block.tool_use_id)
    name = next((str(known.name) for known in called), block.type.removesuffix("_tool_result"))
    content: Any = json_of(block.content)
    failed = bool(getattr(block, "is_error", False)) or (isinstance(content, dict) and "error_code" in content)
    return ToolResult(block.tool_use_id, name, result_text(content), is_error=failed)


def _typed(name: str, value: object) -> object:
    """A field that the SDK types at the start of a message only, and which other providers tell at its end."""
    if name == "cache_creation" and isinstance(value, dict):
        from anthropic.types import CacheCreation

        return CacheCreation.construct(**cast("dict[str, Any]", value))
    return value


def cited(citation: Any) -> Citation:
    """One of the SDK's citations, of whatever type, as a reader would want to see it."""
    known = getattr(citation, "title", None) or getattr(citation, "document_title", None) or ""
    url = getattr(citation, "url", None) or getattr(citation, "source", None) or ""
    return Citation(known, url, getattr(citation, "cited_text", None) or "", _pages(citation))


def _pages(citation: Any) -> str:
    first, end = getattr(citation, "start_page_number", None), getattr(citation, "end_page_number", None)
    if first is None:
        return ""
    last = first if end is None else max(first, end - 1)  # the API's end is exclusive
    return f"page {first}" if last == first else f"pages {first}–{last}"


def json_of(value: Any) -> Any:
    """The SDK's objects as plain JSON values; what they are made of stays as it is."""
    if isinstance(value, list):
        return [json_of(item) for item in cast("list[Any]", value)]
    dump = getattr(value, "model_dump", None)
    return value if dump is None else dump(mode="json", exclude_none=True)


def result_text(content: Any) -> str:
    """The result of a server tool as a reader would want to see it: a line a page found, what a program printed."""
    if isinstance(content, list):
        return "\n".join(map(result_text, cast("list[Any]", content)))
    if not isinstance(content, dict):
        return str(content)
    found = cast("dict[str, Any]", content)
    if "error_code" in found:
        return str(found["error_code"])
    if "url" in found:
        return f"{found.get('title') or ''} {found['url']}".strip()
    if "stdout" in found:
        return f"{found['stdout']}{found.get('stderr') or ''}".rstrip("\n")
    return str(found.get("text") or found.get("type", ""))


def _json(text: str) -> Any:
    """Tool input, as far as it came: an answer cut off by max_tokens may end inside it."""
    from jiter import from_json

    return from_json(text.encode(), partial_mode=True)
