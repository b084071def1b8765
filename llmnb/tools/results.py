"""What a tool gave, as the content of a `tool_result` block and as the text that people see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, cast

from llmnb.asking.content import Block, content_of
from llmnb.errors import InvalidRequest

MAX_CHARS = 100_000
"""A longer text is cut, and the model told so: it is read again at every turn that follows, at about a token for every
four characters."""
NOTHING = "(done; it returned nothing)"
_BLOCKS = ("text", "image", "document", "search_result", "tool_reference")
"""What a `tool_result` may hold (the SDK's ToolResultBlockParam)."""

Content = str | list[Block]


def content_of_result(value: Any) -> Content:
    """What the API takes for a value that a function returned.

    Texts stay as they are; images and files (bytes, Path) and content blocks are sent as such; a DataFrame becomes CSV;
    all else JSON, and what has none, its str().
    """
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return limited(value) or NOTHING
    if isinstance(value, (bytes, PathLike)) or _is_block(value):
        return _blocks([value])
    if isinstance(value, (list, tuple)) and value and all(map(_is_part, cast("Sequence[Any]", value))):
        return _blocks(cast("Sequence[Any]", value))
    to_csv: Any = getattr(cast("Any", value), "to_csv", None)
    if to_csv is not None:
        return limited(str(to_csv()))
    return limited(_json(value))


def text_of_result(content: Content) -> str:
    """The same for people: what is no text is named."""
    if isinstance(content, str):
        return content
    return "\n".join(
        str(block["text"]) if block.get("type") == "text" else f"[{block.get('type')}]" for block in content
    )


def limited(text: str) -> str:
    """A text, cut when it is too long to be read at every turn."""
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:MAX_CHARS]}\n[cut here: these are the first {MAX_CHARS:,} of {len(text):,} characters]"


def _is_block(value: object) -> bool:
    if hasattr(value, "model_dump") and getattr(value, "type", None) in _BLOCKS:
        return True
    return isinstance(value, Mapping) and cast("Mapping[str, Any]", value).get("type") in _BLOCKS


def _is_part(value: object) -> bool:
    return _is_block(value) or isinstance(value, (bytes, PathLike))


def _blocks(parts: Sequence[Any]) -> Content:
    try:
        blocks = cast("list[Block]", content_of(list(parts)))
    except InvalidRequest as error:
        return f"(the result cannot be sent: {error})"
    return [
        {**block, "text": limited(str(block["text"]))} if block.get("type") == "text" else block for block in blocks
    ]


def _json(value: Any) -> str:
    from pydantic_core import to_json

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    tolist: Any = getattr(cast("Any", value), "tolist", None)  # numpy's arrays and numbers
    return to_json(value if tolist is None else tolist(), fallback=str, inf_nan_mode="constants").decode()
