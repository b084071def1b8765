"""What a user may ask with, turned into content blocks of the Messages API: text, bytes, files, SDK blocks.

Nothing is edited: a plain string is sent as the string it is. Files are read whole, told apart by their first bytes and
not by their names, and refused with a sentence when the API could not take them.
"""

from __future__ import annotations

import difflib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from llmnb.reply import Reply
    from llmnb.templates import Template

Block: TypeAlias = dict[str, Any]
"""A content block of the Messages API as plain data, such as {"type": "text", "text": "…"}."""

if TYPE_CHECKING:
    Part: TypeAlias = str | bytes | PathLike[str] | Mapping[str, Any] | BaseModel
    Prompt: TypeAlias = Part | Iterable[Part] | Template

MAX_REQUEST_BYTES = 32_000_000
"""The API refuses requests above 32 MB (its overview, "Request size limits"); base64 adds a third to a file."""

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_FOREIGN = (
    (b"BM", "a BMP image", "save it as PNG"),
    (b"II*\x00", "a TIFF image", "save it as PNG"),
    (b"MM\x00*", "a TIFF image", "save it as PNG"),
    (b"PK\x03\x04", "a ZIP archive (also DOCX, XLSX, PPTX)", "save it as PDF or text"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "save it as PDF or text"),
    (b"\x00\x00\x00\x18ftyp", "a video or HEIC image", "save an image of it as PNG or JPEG"),
    (b"\x00\x00\x00\x1cftyp", "a video or HEIC image", "save an image of it as PNG or JPEG"),
    (b"\x00\x00\x00 ftyp", "a video or HEIC image", "save an image of it as PNG or JPEG"),
)
_TABLES = ("pandas", "polars", "pyarrow")
_TAKEN = "Taken are PNG, JPEG, GIF and WebP images, PDF, and text in UTF-8."


def content_of(prompt: Prompt) -> str | list[Block]:
    """The `content` of a user message: a string as it is, anything else as a list of blocks.

    Raises:
        InvalidRequest: the prompt is empty, or a part of it is missing, unreadable, too large or of a kind that the
            API does not take.
    """
    if isinstance(prompt, str):
        return _spoken(prompt)
    parts = _parts(prompt)
    if not parts:
        raise InvalidRequest("the prompt is empty: give a text, a Path, bytes, or a list of them")
    blocks = [_block(part) for part in parts]
    _check_size(blocks)
    return blocks


def _parts(prompt: object) -> list[object]:
    if isinstance(prompt, (bytes, bytearray, PathLike, Mapping)) or _is_model(prompt):
        return [prompt]
    # a frame would be asked as the names of its columns
    if not _is_table(prompt) and not isinstance(prompt, (set, frozenset)) and isinstance(prompt, Iterable):
        return list(cast("Iterable[object]", prompt))
    raise InvalidRequest(_refused(cast("object", prompt)))


def _block(part: object) -> Block:
    if isinstance(part, str):
        return {"type": "text", "text": _spoken(part)}
    if isinstance(part, PathLike):
        return _file(Path(cast("PathLike[str]", part)))
    if isinstance(part, (bytes, bytearray)):
        return _data(bytes(part), None)
    if isinstance(part, Mapping):
        return _given(dict(cast("Mapping[str, Any]", part)))
    if _is_model(part):
        return _given(cast("BaseModel", part).model_dump(mode="json", exclude_unset=True, by_alias=True))
    raise InvalidRequest(_refused(part))


def _spoken(text: str) -> str:
    if not text.strip():
        raise InvalidRequest("the prompt is empty: the API takes no text without a visible character")
    check_characters(text, "the prompt")
    return str(text)  # one that knows its template forgets it here


def check_characters(text: str, what: str) -> None:
    """Refuses half a surrogate pair, as text has that was decoded or cut wrongly: it cannot be sent.

    Raises:
        InvalidRequest: says where it stands, and what takes it out.
    """
    if text.isascii():  # which is known without a look
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{what} holds half a character, {text[error.start]!r}, at position {error.start:,}, which cannot be sent: "
            "text.encode('utf-8', 'replace').decode() puts a question mark in its place"
        ) from None


def check_inside(value: object, what: str) -> None:
    """`check_characters` of all texts in plain data."""
    if isinstance(value, str):
        check_characters(value, what)
    elif isinstance(value, Mapping):
        for one in cast("Mapping[object, object]", value).values():
            check_inside(one, what)
    elif isinstance(value, (list, tuple)):
        for one in cast("Iterable[object]", value):
            check_inside(one, what)


def _given(block: Block) -> Block:
    if "role" in block:
        raise InvalidRequest(
            "a prompt holds content, not messages with a role; for a conversation use chat = llm.chat(), then chat(…)"
        )
    if not isinstance(block.get("type"), str):
        raise InvalidRequest('a content block needs a "type", such as {"type": "text", "text": "…"}')
    check_inside(block, "a content block")
    return block


def _is_table(prompt: object) -> bool:
    if hasattr(prompt, "iloc"):
        return True
    libraries = {kind.__module__.partition(".")[0] for kind in type(prompt).__mro__}
    return hasattr(prompt, "columns") and not libraries.isdisjoint(_TABLES)


def _is_model(part: object) -> bool:
    return hasattr(part, "model_dump") and not isinstance(part, type)


def _refused(part: object) -> str:
    if _is_table(part):
        return (
            f"a prompt cannot hold {_named(part)}: llm.map(rows, template) asks of each row, and "
            "frame.to_csv(index=False) or list(series) makes one prompt of all"
        )
    return (
        f"a prompt cannot hold {_named(part)}: give str, bytes, pathlib.Path, a content block (dict or SDK "
        f"object), or a list of them. {_TAKEN}"
    )


def _named(part: object) -> str:
    name = type(part).__name__
    return "None" if part is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


# Files and bytes ------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Block:
    path = path.expanduser()
    try:
        if path.is_dir():
            raise InvalidRequest(
                f"{path} is a folder; give its files one by one, such as [*Path({str(path)!r}).glob('*')]"
            )
        size = path.stat().st_size
        if size > MAX_REQUEST_BYTES:
            raise InvalidRequest(_too_large(str(path), size))
        return _data(path.read_bytes(), path)
    except FileNotFoundError:
        raise InvalidRequest(_missing(path)) from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error


def _missing(path: Path) -> str:
    message = f"there is no file {path}"
    if not path.is_absolute():
        message += f" in {Path.cwd()}"
    try:
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    return f"{message}. Did you mean {str(path.with_name(near[0]))!r}?" if near else message


def _data(data: bytes, path: Path | None) -> Block:
    named = str(path) if path else "the bytes"
    if not data:
        raise InvalidRequest(f"{named} hold{'s' if path else ''} nothing: 0 bytes")
    if len(data) > MAX_REQUEST_BYTES:
        raise InvalidRequest(_too_large(named, len(data)))
    if (media_type := _image_type(data)) is not None:
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": _base64(data)}}
    if data.startswith(b"%PDF-"):
        return _document({"type": "base64", "media_type": "application/pdf", "data": _base64(data)}, path)
    text = _text(data, named)
    if path is None:
        return {"type": "text", "text": _spoken(text)}
    return _document({"type": "text", "media_type": "text/plain", "data": text}, path)


def _image_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _IMAGES if data.startswith(magic)), None)


def _document(source: Block, path: Path | None) -> Block:
    return {"type": "document", "source": source} | ({"title": path.name} if path else {})


def _text(data: bytes, named: str) -> str:
    for magic, what, remedy in _FOREIGN:
        if data.startswith(magic) and b"\x00" in data[:4096]:
            raise InvalidRequest(f"{named}: this is {what}, which the API does not take; {remedy}. {_TAKEN}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        raise InvalidRequest(f"{named}: neither an image nor PDF nor text that can be read. {_TAKEN}")
    return text


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _too_large(named: str, size: int) -> str:
    return (
        f"{named}: {size / 1e6:,.1f} MB is more than one request may hold (32 MB, and base64 adds a third); "
        "split or shrink it, or upload it with the SDK's client.files and give the file block"
    )


def _check_size(blocks: list[Block]) -> None:
    size = sum(_weight(block) for block in blocks)
    if size > MAX_REQUEST_BYTES:
        raise InvalidRequest(_too_large("the parts of the prompt together", size))


def _weight(block: Block) -> int:
    source: Any = block.get("source")
    data: Any = cast("Block", source).get("data") if isinstance(source, dict) else block.get("text")
    return len(data) if isinstance(data, str) else 0


# What comes back ------------------------------------------------------------------------------------------------------

THINKING = ("thinking", "redacted_thinking")


def taken_back(reply: Reply) -> list[Block]:
    """What the API takes back of an answer; empty when it takes nothing back.

    A refused turn must be left out, or every later one is refused, too (API documentation, "Handle streaming
    refusals"); a message can neither be empty nor hold empty text nor end with thinking, as one cut off can.
    """
    if reply.refused:
        return []
    blocks = [block.to_dict(mode="json") for block in reply.message.content]
    blocks = [block for block in blocks if block["type"] != "text" or str(block["text"]).strip()]
    while blocks and blocks[-1]["type"] in THINKING:
        blocks.pop()
    return blocks
