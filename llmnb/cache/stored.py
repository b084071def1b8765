"""One finished answer as it is kept: frozen, checked, and in bytes and JSON only. Nothing is ever pickled.

An answer keeps the form it came in: a message as its JSON, byte for byte, a stream folded into few events. Either form
gives the other (`body_as`), so that one entry serves every way of asking.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

from llmnb.errors import LlmnbError
from llmnb.messages import folding, wire
from llmnb.records import made

Form = Literal["json", "sse"]

KEPT_HEADERS = ("request-id", "x-amzn-requestid", "anthropic-organization-id", "anthropic-workspace-id")
"""Response headers that still say something true on another day; limits, lengths and cookies do not."""

CONTENT_TYPES: dict[Form, str] = {"json": "application/json", "sse": "text/event-stream; charset=utf-8"}

_FORMAT = 1
_HEAD = struct.Struct(">6sHI")  # magic, format, checksum of all that follows
_LENGTHS = struct.Struct(">II")  # of what is known about the answer, and of its body; the rest is the request
_BEGINNING = struct.Struct(">6sHIII")  # both
_BEGIN = _BEGINNING.size
_MAGIC = b"llmnb\x00"

PEEK_BYTES = 2_048
"""What is known about an answer is shorter than that, as a rule, so that a list of answers need not read them all."""


class Unreadable(LlmnbError):  # noqa: N818 - it says what happened
    """A stored entry is damaged, or was written by another version of llmnb."""


@dataclass(frozen=True)  # no slots, see `made`
class StoredAnswer:
    """A whole answer of a model, as the API gave it.

    Attributes:
        form: the form it came in, a JSON message or a stream.
        body: the decoded body in that form; a stream with its deltas put together.
        model_requested: the model that was asked.
        created_us: when it came, in microseconds since 1970.
        message: the message without its content: id, model, stop_reason, usage, …
        status: the HTTP status, 200 as a rule.
        headers: those of `KEPT_HEADERS` that came with it.
        provider: OpenTelemetry's name of who answered.
        expires_us: until when it may be used; None is for ever.
        key: the key of the question, see `llmnb.keys`.
        request: what was asked, as JSON; None when it is kept apart or not at all.
    """

    form: Form
    body: bytes
    model_requested: str
    created_us: int
    message: Mapping[str, Any]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    provider: str = "anthropic"
    expires_us: int | None = None
    key: str = ""
    request: bytes | None = None

    def outcome(self) -> wire.Outcome:
        """What the answer says of its tokens, its model and its end."""
        return wire.read_message(dict(self.message), self.model_requested)

    def body_as(self, form: Form) -> bytes:
        """The body as a JSON message or as a stream.

        Raises:
            llmnb.messages.folding.CannotFold: the stream holds something that no message can be made of.
        """
        if form == self.form:
            return self.body
        if form == "json":
            return json.dumps(self.whole_message()).encode()
        return folding.sse(folding.stream_of(json.loads(self.body)))

    def whole_message(self) -> dict[str, Any]:
        """The message with its content.

        Raises:
            llmnb.messages.folding.CannotFold: the stream holds something that no message can be made of.
        """
        if self.form == "json":
            return json.loads(self.body)
        return folding.message_of(folding.events_of(self.body))

    # As bytes ---------------------------------------------------------------------------------------------------------

    def encoded(self) -> bytes:
        """The entry as bytes that `decoded` reads."""
        about, request = _json(dict(zip(_ABOUT, _about(self), strict=True))), self.request or b""
        beginning = _LENGTHS.pack(len(about), len(self.body)) + about
        checksum = _checksum(request, _checksum(self.body, _checksum(beginning)))
        return b"".join((_HEAD.pack(_MAGIC, _FORMAT, checksum), beginning, self.body, request))

    @classmethod
    def decoded(cls, data: bytes) -> StoredAnswer:
        """The entry that `encoded` wrote.

        Raises:
            Unreadable: a bit is wrong, the end is missing, or another version wrote it.
        """
        checksum, about_end, body_end = _lengths(data)
        if _checksum(memoryview(data)[_HEAD.size :]) != checksum:
            raise Unreadable("its checksum is wrong: it is damaged")
        return _answer(data[_BEGIN:about_end], data[about_end:body_end], data[body_end:] or None)

    @classmethod
    def peeked(cls, data: bytes) -> StoredAnswer | None:
        """The entry without body and request, from its first bytes, unchecked; None when more of them are needed.

        Raises:
            Unreadable: another version wrote it, or it is no entry.
        """
        _, about_end, _ = _lengths(data)
        return _answer(data[_BEGIN:about_end], b"", None) if about_end <= len(data) else None


_PIECE_BYTES = 5 * 1024
_MOST_IN_PIECES = 32 * _PIECE_BYTES


def _checksum(data: bytes | memoryview, so_far: int = 0) -> int:
    # of more than a piece Python's lock is given up, and had back when no other thread wants it: for each entry that
    # is kept while calls go on, that costs more than all else about it
    size = len(data)
    if size <= _PIECE_BYTES or size > _MOST_IN_PIECES:
        return zlib.crc32(data, so_far)
    rest = memoryview(data)
    for begin in range(0, size, _PIECE_BYTES):
        so_far = zlib.crc32(rest[begin : begin + _PIECE_BYTES], so_far)
    return so_far


def _json(value: dict[str, Any]) -> bytes:
    from pydantic_core import to_json  # a fifth of what the json module takes, for every answer

    try:
        return to_json(value)
    except ValueError:  # half a surrogate
        return json.dumps(value, separators=(",", ":")).encode()


_ABOUT = tuple(field.name for field in fields(StoredAnswer) if field.name not in ("body", "request"))
_ABOUT_NAMES = frozenset(_ABOUT)
_about: Callable[[StoredAnswer], tuple[Any, ...]] = attrgetter(*_ABOUT)


def _lengths(data: bytes) -> tuple[int, int, int]:
    """The checksum, and where what is known and the body end."""
    if len(data) < _BEGIN or data[:6] != _MAGIC:
        raise Unreadable("it is no entry of llmnb's")
    _, version, checksum, about_length, body_length = _BEGINNING.unpack_from(data)
    if version != _FORMAT:
        raise Unreadable(f"another version of llmnb wrote it (format {version}, this one knows {_FORMAT})")
    about_end = _BEGIN + about_length
    return checksum, about_end, about_end + body_length


def _answer(about: bytes, body: bytes, request: bytes | None) -> StoredAnswer:
    try:
        known = wire.parsed(about)
        known["headers"] = tuple([(name, value) for name, value in known["headers"]])
        if known.keys() != _ABOUT_NAMES:
            return StoredAnswer(body=body, request=request, **known)
        known["body"], known["request"] = body, request
        return made(StoredAnswer, known)
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"another version of llmnb wrote it ({error})") from None


def stored(
    body: bytes,
    *,
    model_requested: str,
    created_us: int,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    **known: Any,
) -> StoredAnswer | None:
    """The answer in a decoded response body, ready to be kept; None when it is not whole, is an error or a refusal.

    Which form the body has is read from the body: some servers answer a stream with one JSON message.
    """
    found = _read(body)
    if found is None or status != 200:
        return None
    form, kept, message = found
    about = message.copy()
    about.pop("content", None)
    if about.get("type") != "message" or about.get("stop_reason") in (None, "refusal"):
        return None
    told = {
        "form": form,
        "body": kept,
        "model_requested": model_requested,
        "created_us": created_us,
        "message": about,
        "status": status,
        "headers": tuple([(name.lower(), value) for name, value in headers if name.lower() in KEPT_HEADERS]),
    }
    return made(StoredAnswer, {**told, **known})


def _read(body: bytes) -> tuple[Form, bytes, dict[str, Any]] | None:
    """Form, body as kept, and the message; None when that is no whole answer."""
    try:
        if body.lstrip()[:1] == b"{":
            return "json", body, wire.parsed(body)
        events = folding.folded(folding.events_of(body))
        if not folding.is_complete(events):
            return None
        return "sse", folding.sse(events), folding.message_of(filter(_is_about_the_whole, events))
    except (ValueError, RecursionError):  # CannotFold is one
        return None


def _is_about_the_whole(event: folding.Json) -> bool:
    block: Any = event.get("content_block")
    return event["type"] in ("message_start", "message_delta") or (block is not None and block["type"] == "fallback")
