"""A request's prompt as a line of pieces in the order the prompt cache sees them: tools, system, messages. Pure.

A piece is a tool or a content block. Each knows its size, how it can be found in the body, which breakpoints the caller
set on it, and a hash of everything up to and including it. No text is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, cast

from llmnb.messages import wire
from llmnb.tokens import count_block, count_tool

Section = Literal["tools", "system", "messages"]
Path = tuple[str | int, ...]
"""Where a piece stands in the body: ("tools", 2), ("system",) when that is a text, ("messages", 3, "content", 0)."""

MEDIA_BYTES = int(1_600 * wire.BYTES_PER_TOKEN)
"""An image counts as the most that one may cost, 1,600 tokens (the API's documentation, "Vision"); a PDF as one
page."""

_MARKABLE_BLOCKS = frozenset(
    [
        "text", "image", "document", "search_result", "tool_use", "tool_result", "server_tool_use",
        "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
        "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result",
        "container_upload", "mcp_tool_use", "mcp_tool_result",
    ]
)  # fmt: skip
"""Content blocks whose parameter types in the SDK take `cache_control`."""
_DOCUMENTS = frozenset(["document", "image", "search_result"])
_HOLD_BLOCKS = ("content", "source")
"""Keys under which a block holds blocks of its own; elsewhere (a tool's input or schema) data is the caller's."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One tool or content block; `tokens` are estimated, its own, and `total` those of everything up to and with it.

    `own` is its hash and `prefix` that of everything up to and with it; the caller's breakpoints are in neither. `ttls`
    are the breakpoints that the caller set on or in it. `is_document` is True for what a question may be about.
    """

    section: Section
    path: Path
    tokens: int
    total: int
    own: bytes
    prefix: bytes
    ttls: tuple[str, ...] = ()
    is_markable: bool = True
    is_document: bool = False

    @property
    def message(self) -> int | None:
        """The number of its message, counted from 1."""
        return cast(int, self.path[1]) + 1 if self.section == "messages" else None


@dataclass(frozen=True, slots=True)
class Outline:
    """The pieces of a request and what of it concerns the cache besides.

    `parameters` hashes what changes only how messages are read (thinking, tool choice). `automatic_ttl` is that of the
    request's own `cache_control`, which the API puts on the last piece that can bear one. `continues` is the message
    that a thread goes on from: the API holds the prompt up to it, and the pieces are what is new.
    """

    model: str
    speed: str
    pieces: tuple[Piece, ...]
    parameters: bytes
    automatic_ttl: str | None = None
    in_thread: bool = False
    continues: str | None = None

    @property
    def automatic_at(self) -> int | None:
        """Where the API will put the breakpoint that the request asks for as a whole."""
        return None if self.automatic_ttl is None else self.last_markable()

    def last_markable(self, message: int | None = None) -> int | None:
        """The last piece (of a message, by its number) that can bear a breakpoint."""
        for at in range(len(self.pieces) - 1, -1, -1):
            piece = self.pieces[at]
            wanted = message is None or piece.message == message
            if wanted and (piece.is_markable or piece.ttls):
                return at
        return None


def outline(body: dict[str, Any], scope: bytes = b"", held_tokens: int = 0) -> Outline:
    """The outline of a Messages request.

    Args:
        body: the request's JSON; it is read only.
        scope: what keeps cache entries apart besides the prompt: address and key.
        held_tokens: tokens the API holds before the first piece, where the request continues a thread.
    """
    thread = _dict(body.get("thread"))
    previous = thread.get("previous_message_id")
    continues = str(previous) if previous is not None else None
    model = str(body.get("model") or "")
    speed = str(body.get("speed") or "standard")
    parameters = _hash(_dumps([body.get("thinking"), body.get("tool_choice")]))
    start = _hash(scope, _dumps([model, speed, continues]))
    return Outline(
        model=model,
        speed=speed,
        pieces=tuple(_linked(body, start, parameters, held_tokens)),
        parameters=parameters,
        automatic_ttl=ttl_of(body),
        in_thread=bool(thread),
        continues=continues,
    )


def prompt_bytes(body: dict[str, Any]) -> int:
    """UTF-8 bytes of all text that the model is to read, without copying it; keys and structure are left out."""
    total = 0
    for name in ("system", "tools"):
        if name in body:
            total += _text_bytes(body[name])
    for message in _list(body.get("messages")):
        content = _dict(message).get("content")
        total += len(content) if isinstance(content, str) and content.isascii() else _text_bytes(content)
    return total


def ttl_of(block: dict[str, Any]) -> str | None:
    """The TTL of a block's breakpoint, or None when it has none."""
    control = block.get("cache_control")
    return str(cast("dict[str, Any]", control).get("ttl") or "5m") if isinstance(control, dict) else None


# Pieces ---------------------------------------------------------------------------------------------------------------


def _linked(body: dict[str, Any], start: bytes, parameters: bytes, held_tokens: int) -> Iterator[Piece]:
    running, total, in_messages, model = start, held_tokens, False, str(body.get("model") or "")
    for section, path, role, block in _blocks(body):
        if section == "messages" and not in_messages:
            in_messages = True
            running = _hash(running, parameters)
        own = _own(role, block)
        running = _hash(running, own)
        tokens = _tokens(section, block, own, model)
        total += tokens
        yield Piece(
            section,
            path,
            tokens,
            total,
            own,
            running,
            ttls=tuple(_ttls(block, section)),
            is_markable="cache_control" not in block and role != "system" and _is_markable(section, block),
            is_document=block.get("type") in _DOCUMENTS,
        )


def _blocks(body: dict[str, Any]) -> Iterator[tuple[Section, Path, str, dict[str, Any]]]:
    for at, tool in enumerate(_list(body.get("tools"))):
        yield "tools", ("tools", at), "", _dict(tool)
    for path, block in _content(body.get("system"), ("system",)):
        yield "system", path, "", block
    for at, message in enumerate(map(_dict, _list(body.get("messages")))):
        role = str(message.get("role"))
        for path, block in _content(message.get("content"), ("messages", at, "content")):
            yield "messages", path, role, block


def _content(content: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A text is one block, as the API reads it."""
    if isinstance(content, str):
        yield path, {"type": "text", "text": content}
    else:
        yield from (((*path, at), _dict(block)) for at, block in enumerate(_list(content)))


def _is_markable(section: Section, block: dict[str, Any]) -> bool:
    if section == "tools":
        return "name" in block and not block.get(
            "defer_loading"
        )  # a tool that is loaded later is no part of the prefix
    kind = block.get("type")
    if kind == "text":
        return bool(str(block.get("text") or "").strip())
    return section == "messages" and kind in _MARKABLE_BLOCKS


def _ttls(block: dict[str, Any], section: Section) -> Iterator[str]:
    if section == "messages":
        for held in (block[key] for key in _HOLD_BLOCKS if key in block):
            inside: list[Any] = [held] if isinstance(held, dict) else _list(held)
            for inner in inside:
                yield from _ttls(_dict(inner), section)
    if (ttl := ttl_of(block)) is not None:
        yield ttl


# Sizes and hashes -----------------------------------------------------------------------------------------------------

_MOST_COUNTED = 8_192
_counted: dict[tuple[bytes, str], int] = {}
"""Tokens by a piece's own hash and the model: a conversation sends the same pieces again with every turn."""


def _tokens(section: Section, block: dict[str, Any], own: bytes, model: str) -> int:
    """How many tokens a piece is taken for: the one measure of this room."""
    if (known := _counted.get((own, model))) is not None:
        return known
    if len(_counted) >= _MOST_COUNTED:
        _counted.clear()
    _counted[own, model] = tokens = count_tool(block, model) if section == "tools" else count_block(block, model)
    return tokens


def _text_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        block = cast("dict[str, Any]", value)
        return MEDIA_BYTES if block.get("type") == "base64" else sum(map(_text_bytes, block.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_text_bytes, cast("list[Any]", value)))
    return 0


def _own(role: str, block: dict[str, Any]) -> bytes:
    """A hash of a piece without its breakpoint, good in this process only.

    Python keeps the hash of a text with it, so that a long one that is sent again and again is read once.
    """
    told = {key: _short(value) for key, value in block.items() if key != "cache_control"}
    return _hash(_dumps([role, told]))


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return [len(value), hash(value)] if len(value) > _LONG_CHARS else value
    if isinstance(value, dict) and "data" in value:  # the source of an image or document
        return {key: _short(part) for key, part in cast("dict[str, Any]", value).items()}
    return cast("Any", value)


_LONG_CHARS = 512


def _dumps(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)
    return text.encode("utf-8", "replace")


def _hash(*data: bytes) -> bytes:
    return blake2b(b"".join(data), digest_size=16).digest()


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else []
