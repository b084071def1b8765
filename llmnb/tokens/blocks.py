"""Tokens of what a request is made of: content blocks, tools, messages, the whole of it.

What the API adds of its own is taken from recorded calls, one constant each; what a request only refers to (a file by
its id, an address, an earlier turn of a thread) cannot be counted and makes the count a lower bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmnb.messages import models
from llmnb.tokens import media
from llmnb.tokens.text import SECOND_TOKENISER_SINCE, generation_factor, heuristic_tokens

TextCounter = Callable[[str], float]
"""Tokens of cl100k_base in a text, exactly or estimated."""

REQUEST_TOKENS = 7
MESSAGE_TOKENS = 4
SYSTEM_TOKENS = 3
THINKING_TOKENS = {"enabled": 29, "adaptive": 17}
"""Up to version 4.6; later ones bill the instruction to no one (recordings 002, 005, 008, 059)."""
TOOLS_TOKENS = 496
FORCED_TOOLS_TOKENS = 588
"""The system prompt that comes with tools, by `tool_choice` auto or any (recordings 049, 057, 062 and 078)."""
SERVER_TOOL_TOKENS = {"web_search": 1_700, "code_execution": 1_750, "web_fetch": 1_700}
"""The instructions of a server tool, beside those of all tools (recordings 019, 021, 037, 051)."""
TOOL_CALL_TOKENS = 28
TOOL_RESULT_TOKENS = 24
FORMAT_TOKENS = 120
CITATIONS_TOKENS = 530
DOCUMENT_TOKENS = 12
COMPACTION_TOKENS = 85
"""Around the summary of a compacted conversation (recording 023)."""
ENCRYPTED_TOKENS_PER_CHAR = 0.34
"""Search results are sent back encrypted: about 72,000 tokens of 210,000 characters (recording 038)."""
THINKING_KEPT_SINCE = (4, 6)
"""Earlier models are not shown, nor bill, their thinking of earlier turns ("Extended thinking"; recording 010)."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Count:
    """Input tokens of a part of a request; `complete` is False when it refers to something that cannot be counted."""

    tokens: float = 0.0
    complete: bool = True

    def __add__(self, other: Count) -> Count:
        return Count(self.tokens + other.tokens, self.complete and other.complete)


NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts for one model, with one way to count text."""

    model: str
    text_tokens: TextCounter = heuristic_tokens

    def text(self, text: str) -> Count:
        """A text."""
        return Count(self.text_tokens(text) * generation_factor(self.model))

    def block(self, block: Json) -> Count:
        """A content block of a message or of the system prompt."""
        match block.get("type"):
            case "text":
                return self._str(block.get("text"))
            case "image":
                return self._image(_mapping(block.get("source")))
            case "document":
                return self._document(block)
            case "tool_use" | "server_tool_use":
                return self._json([block.get("name"), block.get("input")]) + Count(TOOL_CALL_TOKENS)
            case "tool_result":
                return self.content(block.get("content")) + Count(TOOL_RESULT_TOKENS)
            case "thinking" | "redacted_thinking":
                return self._str(block.get("thinking")) if self._is_since(THINKING_KEPT_SINCE) else NOTHING
            case "compaction":
                return self._strings(block) + Count(COMPACTION_TOKENS)
            case _:
                return self._strings(block)

    def content(self, content: object) -> Count:
        """The content of a message: a text or blocks."""
        if isinstance(content, str):
            return self.text(content)
        return sum((self.block(_mapping(block)) for block in _items(content)), NOTHING)

    def message(self, message: Json) -> Count:
        """A message."""
        return self.content(message.get("content")) + Count(MESSAGE_TOKENS)

    def system(self, system: object) -> Count:
        """The system prompt, a text or blocks."""
        return self.content(system) + Count(SYSTEM_TOKENS) if system else NOTHING

    def tool(self, tool: Json) -> Count:
        """The definition of one tool, without what tools bring as such (see `tools`)."""
        own = {key: value for key, value in tool.items() if key != "cache_control" and value is not None}
        name = str(tool.get("type") or "").rpartition("_")[0]
        return self._json(own) + Count(SERVER_TOOL_TOKENS.get(name, 0))

    def tools(self, tools: object, tool_choice: object = None) -> Count:
        """All tools, with the system prompt that the API adds to make the model use them."""
        given = list(_items(tools))
        if not given:
            return NOTHING
        forced = _mapping(tool_choice).get("type") in ("any", "tool")
        head = Count(FORCED_TOOLS_TOKENS if forced else TOOLS_TOKENS)
        return sum((self.tool(_mapping(tool)) for tool in given), head)

    def request(self, body: Json) -> Count:
        """The body of a `messages.create`."""
        messages = list(_items(body.get("messages")))
        total = Count(REQUEST_TOKENS - MESSAGE_TOKENS, complete=not _REFERS & set(body))
        total += self.tools(body.get("tools"), body.get("tool_choice")) + self.system(body.get("system"))
        total += self._thinking(_mapping(body.get("thinking")))
        if schema := _mapping(_mapping(body.get("output_config")).get("format")):
            total += self._json(schema) + Count(FORMAT_TOKENS)
        if any(
            _is_cited(_mapping(block)) for message in messages for block in _items(_mapping(message).get("content"))
        ):
            total += Count(CITATIONS_TOKENS)
        return sum((self.message(_mapping(message)) for message in messages), total)

    def _is_since(self, since: models.Version) -> bool:
        """Whether the model is of that version or later; a name without a version is taken for a new one."""
        version = models.facts(self.model).version
        return version is None or version >= since

    def _thinking(self, thinking: Json) -> Count:
        if self._is_since(SECOND_TOKENISER_SINCE):
            return NOTHING
        return Count(THINKING_TOKENS.get(str(thinking.get("type")), 0))

    def _image(self, source: Json) -> Count:
        counted = media.image_tokens(str(source.get("data")), self.model) if source.get("type") == "base64" else None
        return Count(media.most_image_tokens(self.model) if counted is None else counted)

    def _document(self, block: Json) -> Count:
        source = _mapping(block.get("source"))
        about = self._str(block.get("title")) + self._str(block.get("context")) + Count(DOCUMENT_TOKENS)
        match source.get("type"):
            case "base64":
                return about + Count(media.pdf_tokens(str(source.get("data")), self.model))
            case "text":
                return about + self._str(source.get("data"))
            case "content":
                return about + self.content(source.get("content"))
            case _:  # a file or an address: at least a page
                return about + Count(media.pdf_tokens("", self.model), complete=False)

    def _str(self, value: object) -> Count:
        return self.text(value) if isinstance(value, str) else NOTHING

    def _json(self, value: object) -> Count:
        return self.text(json.dumps(value, ensure_ascii=False, default=str))

    def _strings(self, value: object, key: str = "") -> Count:
        """All texts of a block that has no rule of its own, such as a search result."""
        if isinstance(value, str):
            return Count(len(value) * ENCRYPTED_TOKENS_PER_CHAR) if key.startswith("encrypted") else self.text(value)
        if isinstance(value, Mapping):
            known = cast("Json", value)
            if known.get("type") in ("image", "document"):
                return self.block(known)
            return sum((self._strings(part, name) for name, part in known.items() if name not in _UNREAD), NOTHING)
        return sum((self._strings(part) for part in _items(value)), NOTHING)


_UNREAD = ("type", "id", "tool_use_id", "cache_control", "signature")
_REFERS = {"thread", "previous_message_id", "container", "mcp_servers"}
"""What makes a request hold more than its body says."""


def _is_cited(block: Json) -> bool:
    return block.get("type") == "document" and bool(_mapping(block.get("citations")).get("enabled"))


def _mapping(value: object) -> Json:
    if isinstance(value, Mapping):
        return cast("Json", value)
    dump = getattr(value, "model_dump", None)  # an object of the SDK
    return cast("Json", dump(mode="json", exclude_none=True)) if callable(dump) else {}


def _items(value: object) -> Iterable[Any]:
    return cast("Iterable[Any]", value) if isinstance(value, (list, tuple)) else ()
