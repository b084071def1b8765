"""The simulator's tokeniser: deterministic, close to 3.9 characters a token in English prose and code.

It is no model's real vocabulary. Text is cut by one regular expression whose pieces join up to the text again, so that
an answer can be streamed piece by piece and every piece is one token. Images cost width × height / 750 and a PDF page
what a page of text and its image cost (https://platform.claude.com/docs/en/build-with-claude/vision, …/pdf-support).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from functools import lru_cache

from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text, content_blocks, dumps

REQUEST_TOKENS = 3
MESSAGE_TOKENS = 4
SYSTEM_TOKENS = 3
TOOLS_TOKENS = 264  # the tool-use preamble that the API adds once tools are given
TOOL_CALL_TOKENS = 24

MAX_IMAGE_TOKENS = 1_640
PDF_PAGE_TOKENS = 1_800

_PIECE = re.compile(r" ?[A-Za-z]{1,6}| ?[0-9]{1,3}|[^\S\n]+|\n+|[^\sA-Za-z0-9]")


def pieces(text: str) -> list[str]:
    """The text cut into tokens; joined, they are the text."""
    return _PIECE.findall(text)


@lru_cache(maxsize=2048)
def count_text(text: str) -> int:
    """Tokens of a text."""
    return len(_PIECE.findall(text))


def count_block(block: Json) -> int:
    """Tokens of one content block of a message or of the system prompt."""
    match block.get("type"):
        case "text":
            return count_text(as_text(block.get("text")))
        case "image":
            return image_tokens(as_object(block.get("source")))
        case "document":
            return _document_tokens(block)
        case "tool_use" | "server_tool_use":
            return TOOL_CALL_TOKENS + count_text(as_text(block.get("name"))) + count_text(dumps(block.get("input")))
        case "tool_result":
            return 8 + sum(count_block(part) for part in content_blocks(block.get("content")))
        case "thinking":
            return count_text(as_text(block.get("thinking"))) + 4
        case "redacted_thinking":
            return 40
        case _:
            return count_text(dumps({key: value for key, value in block.items() if key != "cache_control"}))


def count_tool(tool: Json) -> int:
    """Tokens of one tool definition."""
    return 8 + count_text(dumps({key: value for key, value in tool.items() if key != "cache_control"}))


def image_tokens(source: Json) -> int:
    """Tokens of an image: from its size when the bytes are here, else those of a large one."""
    if source.get("type") != "base64":
        return MAX_IMAGE_TOKENS
    size = image_size(_decoded(as_text(source.get("data"))[:65536]))
    if size is None:
        return MAX_IMAGE_TOKENS
    width, height = size
    return max(8, min(MAX_IMAGE_TOKENS, width * height // 750))


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, WebP or JPEG from its first bytes, or None."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data[:4] == b"GIF8" and len(data) >= 10:
        return struct.unpack("<HH", data[6:10])
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return _jpeg_size(data) if data[:2] == b"\xff\xd8" else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def pdf_pages(data: bytes) -> int:
    """Pages of a PDF whose page objects are not compressed; 1 when none can be seen."""
    return max(1, len(re.findall(rb"/Type\s*/Page(?![s\w])", data)))


def _document_tokens(block: Json) -> int:
    source = as_object(block.get("source"))
    title = count_text(as_text(block.get("title"))) + count_text(as_text(block.get("context")))
    match source.get("type"):
        case "text":
            return title + 10 + count_text(as_text(source.get("data")))
        case "base64":
            return title + PDF_PAGE_TOKENS * pdf_pages(_decoded(as_text(source.get("data"))))
        case "content":
            return title + 10 + sum(count_block(part) for part in content_blocks(source.get("content")))
        case _:
            return title + PDF_PAGE_TOKENS


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4))
    except (binascii.Error, ValueError):
        return b""


def count_request(body: Json) -> int:
    """Input tokens of a whole Messages request, as `count_tokens` answers and as the usage adds up to."""
    total = REQUEST_TOKENS
    tools = as_objects(body.get("tools"))
    if tools:
        total += TOOLS_TOKENS + sum(map(count_tool, tools))
    system = content_blocks(body.get("system"))
    if system:
        total += SYSTEM_TOKENS + sum(map(count_block, system))
    for message in as_list(body.get("messages")):
        blocks = content_blocks(as_object(message).get("content"))
        total += MESSAGE_TOKENS + sum(map(count_block, blocks))
    return total
