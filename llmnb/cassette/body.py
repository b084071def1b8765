"""How a body stands in a cassette: readable where that is exact, and to the byte as it came in every case.

A JSON document is written as JSON when writing it again gives the same bytes, else as text, else as base64. A stream of
server-sent events is one such piece per event, with the time it came. The API pads events with spaces before their last
brace; the number of spaces is kept beside the data.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_EVENT = re.compile(r"event: ([^\r\n]+)\ndata: ([^\r\n]*)\n\n")
_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
_STYLES = {"compact": (",", ":"), "spaced": (", ", ": ")}


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of a streamed body, and when it was there: milliseconds after the request was sent."""

    at_ms: int
    data: bytes


def split_events(chunks: Iterable[tuple[int, bytes]]) -> list[Event]:
    """Chunks as they came from the network, cut after each server-sent event instead; what is left over comes last.

    An event has the time of the chunk that completed it.
    """
    events: list[Event] = []
    rest, at_ms = b"", 0
    for at_ms, chunk in chunks:
        searched = max(len(rest) - 3, 0)  # an end that began in an earlier chunk
        rest += chunk
        start = 0
        for end in _EVENT_END.finditer(rest, searched):
            events.append(Event(at_ms, rest[start : end.end()]))
            start = end.end()
        rest = rest[start:]
    return [*events, Event(at_ms, rest)] if rest else events


# One body as fields of a line -----------------------------------------------------------------------------------------


def body_fields(body: bytes) -> Json:
    """The fields that hold a body, the most readable ones that give it back to the byte."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}
    for style in _STYLES:
        value = _as_json(text, style)
        if value is not None:
            return {"json": value[0]} if style == "compact" else {"json": value[0], "style": style}
    return {"text": text}


def body_of(fields: Json) -> bytes:
    """The body of such fields.

    Raises:
        ValueError: they hold none, or one that cannot be read.
    """
    if "json" in fields:
        return _dumped(fields["json"], str(fields.get("style", "compact"))).encode()
    if "text" in fields:
        return str(fields["text"]).encode()
    if "base64" in fields:
        return _from_base64(fields["base64"])
    raise ValueError("it has no body: one of json, text, base64")


def event_fields(event: Event) -> Json:
    """The line of one event."""
    try:
        text = event.data.decode()
    except UnicodeDecodeError:
        return {"at_ms": event.at_ms, "base64": base64.b64encode(event.data).decode("ascii")}
    match = _EVENT.fullmatch(text)
    padded = _padded_json(match[2]) if match else None
    if match is None or padded is None:
        return {"at_ms": event.at_ms, "text": text}
    value, padding = padded
    fields: Json = {"at_ms": event.at_ms, "event": match[1], "data": value}
    return {**fields, "padding": padding} if padding else fields


def event_of(fields: Json) -> Event:
    """The event of a line.

    Raises:
        ValueError: it is no such line.
    """
    at_ms = int(fields["at_ms"])
    if "event" in fields:
        data = _with_padding(_dumped(fields["data"], "compact"), int(fields.get("padding", 0)))
        return Event(at_ms, f"event: {fields['event']}\ndata: {data}\n\n".encode())
    if "text" in fields:
        return Event(at_ms, str(fields["text"]).encode())
    if "base64" in fields:
        return Event(at_ms, _from_base64(fields["base64"]))
    raise ValueError("it is no event: one of event, text, base64")


def _padded_json(text: str) -> tuple[Any, int] | None:
    if not text.endswith("}"):
        return None
    inner = text[:-1].rstrip(" ")
    padding = len(text) - 1 - len(inner)
    value = _as_json(inner + "}", "compact")
    return None if value is None else (value[0], padding)


def _with_padding(text: str, padding: int) -> str:
    return f"{text[:-1]}{' ' * padding}{text[-1:]}" if padding else text


def _as_json(text: str, style: str) -> tuple[Any] | None:
    """The value, in a tuple of one, when writing it in this style gives the text again."""
    try:
        value = json.loads(text)
        return (value,) if _dumped(value, style) == text else None
    except (ValueError, RecursionError):
        return None


def _dumped(value: Any, style: str) -> str:
    if style not in _STYLES:
        raise ValueError(f"unknown style {style!r}")
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=_STYLES[style])


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged: {error}") from None
