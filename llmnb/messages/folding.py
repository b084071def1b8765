"""Folds a stream into few events, into one message, and a message back into a stream. Pure; works on the wire's JSON.

An answer of three thousand deltas is kept as a stream of about five events: what the model wrote piece by piece is put
together, everything else stays as it came. Read by the SDK, both give the same message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

Json = dict[str, Any]

PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Deltas that go on where the last one ended, and the field they grow."""

_GROWN = {"text": "text", "thinking": "thinking"}
"""Blocks that a stream begins empty, and the field that its deltas fill."""

_INPUT_BLOCKS = ("tool_use", "server_tool_use", "mcp_tool_use")

_TOTALS = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "output_tokens_details",
    "server_tool_use", "iterations",
)  # fmt: skip
"""What `message_delta` tells of the usage; the rest stands in `message_start`."""


class CannotFold(ValueError):  # noqa: N818 - it says what happened
    """The stream holds something that this llmnb does not know how to put into a message."""


# Streams --------------------------------------------------------------------------------------------------------------


def events_of(body: bytes) -> list[Json]:
    """The events of an SSE body, in their order.

    Raises:
        CannotFold: one of them is no JSON object with a type.
    """
    data = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    try:
        events: list[Any] = json.loads(b"[" + b",".join(data) + b"]")
    except ValueError as error:
        raise CannotFold(f"an event is no JSON: {error}") from None
    if not all(isinstance(event, dict) and isinstance(cast(Json, event).get("type"), str) for event in events):
        raise CannotFold("an event has no type")
    return events


def sse(events: Iterable[Json]) -> bytes:
    """Events as an SSE body, the way the API writes it."""
    return "".join(f"event: {event['type']}\ndata: {_text(event)}\n\n" for event in events).encode()


def folded(events: Iterable[Json]) -> list[Json]:
    """The same stream in fewer events: pieces of one block that follow each other are one, and pings are gone."""
    kept: list[Json] = []
    pieces: list[str] = []
    growing: Json | None = None  # the last event, when the next piece may go on there

    for event in events:
        if event["type"] == "ping":
            continue
        field = _piece_field(event)
        if growing is not None and field is not None and _same_place(event, growing):
            pieces.append(event["delta"][field])
            continue
        _close(growing, pieces)
        growing, pieces = None, []
        if field is not None:
            growing = {**event, "delta": dict(event["delta"])}
            pieces.append(event["delta"][field])
        kept.append(event if growing is None else growing)
    _close(growing, pieces)
    return kept


def _piece_field(event: Json) -> str | None:
    """The field that the event adds to, when that is all it does."""
    if event["type"] != "content_block_delta":
        return None
    delta = event.get("delta")
    if not isinstance(delta, dict) or len(cast(Json, delta)) != 2:
        return None
    field = PIECES.get(cast(Json, delta).get("type", ""))
    return field if field is not None and isinstance(cast(Json, delta).get(field), str) else None


def _same_place(event: Json, growing: Json) -> bool:
    return event.get("index") == growing.get("index") and event["delta"]["type"] == growing["delta"]["type"]


def _close(growing: Json | None, pieces: list[str]) -> None:
    if growing is not None:
        growing["delta"][PIECES[growing["delta"]["type"]]] = "".join(pieces)


def is_complete(events: list[Json]) -> bool:
    """Whether the stream came to its end: a message that began and stopped, and no error on the way."""
    kinds = [event["type"] for event in events]
    return "message_start" in kinds and kinds[-1] == "message_stop" and "error" not in kinds


# A stream as a message ------------------------------------------------------------------------------------------------


def message_of(events: Iterable[Json]) -> Json:
    """The message that a stream tells, as the API would have sent it in one piece.

    Raises:
        CannotFold: an event is unknown, or the events do not fit together.
    """
    builder = _Builder()
    try:
        for event in events:
            builder.add(event)
        return builder.message()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CannotFold(f"the events do not fit together: {error!r}") from error


class _Builder:
    def __init__(self) -> None:
        self._message: Json | None = None
        self._blocks: dict[int, Json] = {}
        self._pieces: dict[int, list[str]] = {}

    def add(self, event: Json) -> None:
        kind = event["type"]
        if kind == "content_block_delta":
            self._add_delta(event["index"], event["delta"])
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "message_start":
            self._message = dict(event["message"])
        elif kind == "message_delta":
            self._add_totals(event)
        elif kind not in ("content_block_stop", "message_stop", "ping"):
            raise CannotFold(f"an event of the type {kind!r}")

    def message(self) -> Json:
        if self._message is None:
            raise CannotFold("no message_start")
        for index, pieces in self._pieces.items():
            self._finish(self._blocks[index], "".join(pieces))
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        if blocks and blocks[-1].get("type") == "fallback":
            self._message["model"] = blocks[-1]["to"]["model"]
        return {**self._message, "content": blocks}

    def _add_delta(self, index: int, delta: Json) -> None:
        kind, block = delta["type"], self._blocks[index]
        if kind in PIECES:
            self._pieces.setdefault(index, []).append(delta[PIECES[kind]])
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        elif kind == "compaction_delta":
            block.update({name: value for name, value in delta.items() if name != "type"})
        else:
            raise CannotFold(f"a delta of the type {kind!r}")

    def _finish(self, block: Json, whole: str) -> None:
        field = _GROWN.get(block["type"])
        if field is not None:
            block[field] = (block.get(field) or "") + whole
        elif whole:
            block["input"] = _input(whole)

    def _add_totals(self, event: Json) -> None:
        if self._message is None:
            raise CannotFold("message_delta before message_start")
        told = {name: value for name, value in event.items() if name not in ("type", "delta", "usage")}
        usage = dict(self._message.get("usage") or {})
        usage.update({name: value for name, value in event.get("usage", {}).items() if value is not None})
        self._message.update({**told, **_known(event["delta"], self._message), "usage": usage})


def _known(delta: Json, message: Json) -> Json:
    """What a `message_delta` changes: an empty container does not take away the one that is there."""
    return {name: value for name, value in delta.items() if value is not None or not message.get(name)}


def _input(text: str) -> Any:
    """Tool input, as far as it came: an answer cut off by max_tokens may end inside it."""
    try:
        return json.loads(text)
    except ValueError:
        from jiter import from_json

        return from_json(text.encode(), partial_mode=True)


# A message as a stream ------------------------------------------------------------------------------------------------


def stream_of(message: Json) -> Iterator[Json]:
    """The events of a stream that tells the message, one delta for what a stream would have told in many."""
    usage: Json = message.get("usage") or {}
    content: list[Json] = message.get("content") or []
    late = {name: message[name] for name in _LATE if name in message}
    start = {name: (None if name in _LATE_IN_DELTA else value) for name, value in message.items()}
    start = {name: value for name, value in start.items() if name not in _LATE_ON_EVENT}
    yield {"type": "message_start", "message": {**start, "content": []}}
    for index, block in enumerate(content):
        yield from _block_events(index, block)
    delta = {"stop_reason": None, "stop_sequence": None}
    delta.update({name: value for name, value in late.items() if name in _LATE_IN_DELTA})
    totals = {name: usage[name] for name in _TOTALS if name in usage}
    beside = {name: value for name, value in late.items() if name in _LATE_ON_EVENT}
    yield {"type": "message_delta", "delta": delta, "usage": totals, **beside}
    yield {"type": "message_stop"}


_LATE_IN_DELTA = ("stop_reason", "stop_sequence", "stop_details", "container")
_LATE_ON_EVENT = ("context_management",)
_LATE = (*_LATE_IN_DELTA, *_LATE_ON_EVENT)


def _block_events(index: int, block: Json) -> Iterator[Json]:
    empty, deltas = _taken_apart(block)
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _taken_apart(block: Json) -> tuple[Json, list[Json]]:
    """A block as a stream begins it, and the deltas that make it whole."""
    kind = block.get("type")
    if kind == "text":
        cited: list[Json] = block.get("citations") or []
        deltas: list[Json] = [{"type": "citations_delta", "citation": citation} for citation in cited]
        empty: Json = {**block, "text": ""}
        if cited:
            empty["citations"] = []
        return empty, [*deltas, *_piece("text_delta", block.get("text"))]
    if kind == "thinking":
        deltas = _piece("thinking_delta", block.get("thinking"))
        if block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind in _INPUT_BLOCKS:
        return {**block, "input": {}}, _piece("input_json_delta", _text(block.get("input")))
    return block, []


def _piece(kind: str, text: Any) -> list[Json]:
    return [{"type": kind, PIECES[kind]: text}] if text else []


def _text(value: object) -> str:
    # ASCII: a lone surrogate, which JSON may hold, has no UTF-8
    return json.dumps(value, separators=(",", ":"))
