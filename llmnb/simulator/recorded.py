"""Recorded replies: served verbatim, and billed by what their bytes say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llmnb.simulator import tokenizer
from llmnb.simulator.answer import Recorded
from llmnb.simulator.billing import BillingRecord, bill, canonical
from llmnb.simulator.json_value import Json, as_object, as_text
from llmnb.simulator.turn import Frame

HOP_BY_HOP = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "date"})
_EVENT_END = re.compile(rb"(?<=\n)\r?\n")


def recorded_headers(recorded: Recorded) -> list[tuple[str, str]]:
    """The recorded headers that are sent again; framing is this connection's own."""
    return [(name, value) for name, value in recorded.headers if name.lower() not in HOP_BY_HOP]


def recorded_frames(recorded: Recorded) -> list[Frame]:
    """The body cut after each event, not a byte changed; deltas know their tokens."""
    frames: list[Frame] = []
    start = 0
    for match in [*_EVENT_END.finditer(recorded.body), None]:
        end = len(recorded.body) if match is None else match.end()
        data = recorded.body[start:end]
        start = end
        if data:
            frames.append(_frame(data))
    return frames


def _frame(data: bytes) -> Frame:
    payload = as_object(next(iter(_payloads(data)), None))
    delta = as_object(payload.get("delta"))
    text = "".join(as_text(delta.get(key)) for key in ("text", "thinking", "partial_json"))
    return Frame(data, tokenizer.count_text(text), is_delta=payload.get("type") == "content_block_delta")


def bill_recorded(record: BillingRecord, recorded: Recorded, *, complete: bool, tokens: int) -> BillingRecord:
    """The record with what the bytes say was used; of a body that was not sent to its end, up to where it was."""
    if recorded.status != 200:
        return replace(record, status=recorded.status)
    message, ending = _message_and_ending(recorded)
    usage = as_object(message.get("usage")) | as_object(ending.get("usage") if complete else {})
    if not complete:
        usage = usage | {"output_tokens": tokens}
    stop = as_object(ending.get("delta")).get("stop_reason") or message.get("stop_reason")
    if not message:
        return record
    identified = replace(
        record,
        message_id=as_text(message.get("id")) or None,
        model=canonical(as_text(message.get("model"))),
        stop_reason=as_text(stop) or None,
        service_tier=as_text(usage.get("service_tier")) or "standard",
    )
    return bill(identified, usage)


def _message_and_ending(recorded: Recorded) -> tuple[Json, Json]:
    """The message object, and the last `message_delta` of a stream."""
    if recorded.kind != "sse":
        message = as_object(_loaded(recorded.body))
        return (message, {}) if message.get("type") == "message" else ({}, {})
    message: Json = {}
    ending: Json = {}
    for payload in _payloads(recorded.body):
        if payload.get("type") == "message_start":
            message = as_object(payload.get("message"))
        elif payload.get("type") == "message_delta":
            ending = payload
    return message, ending


def _payloads(body: bytes) -> Iterable[Json]:
    for line in body.splitlines():
        if line.startswith(b"data:"):
            yield as_object(_loaded(line[5:]))


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
