"""JSON values, narrowed: what arrived over the wire has any shape, and the rest of the room wants objects and lists."""

from __future__ import annotations

import json
from typing import Any, cast

Json = dict[str, Any]


def as_object(value: Any) -> Json:
    """The value when it is a JSON object, else an empty one."""
    return cast(Json, value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value when it is a JSON array, else an empty list."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_objects(value: Any) -> list[Json]:
    """The objects of a JSON array; anything else in it is left out."""
    return [cast(Json, item) for item in as_list(value) if isinstance(item, dict)]


def as_text(value: Any) -> str:
    """The value when it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: Any) -> int:
    """The value when it is a positive whole number, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def dumps(value: Any) -> str:
    """Compact JSON, with non-ASCII characters as they are (the API sends UTF-8, not escapes)."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def dump_bytes(value: Any) -> bytes:
    """Compact JSON as UTF-8 bytes; lone surrogates, which UTF-8 cannot carry, become question marks."""
    return dumps(value).encode("utf-8", "replace")


def content_blocks(content: Any) -> list[Json]:
    """Message content as blocks: a bare string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return as_objects(content)


def text_of(content: Any) -> str:
    """The text of message content, blocks joined by newlines, other blocks left out."""
    if isinstance(content, str):
        return content
    return "\n".join(as_text(block.get("text")) for block in as_objects(content) if block.get("type") == "text")
