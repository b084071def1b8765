"""Faults inside a stream: a list of events in, the same list with the fault built into it out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from llmnb.simulator.dialect import MESSAGES, Dialect
from llmnb.simulator.fault import MID_STREAM, Fault
from llmnb.simulator.json_value import Json
from llmnb.simulator.turn import Frame, event

_CHARACTER = re.compile(rb"[\x80-\xbf]")


@dataclass(frozen=True, slots=True)
class Act:
    """Something a sender does between events: `wait` (seconds, None: for ever), `partial` then `reset` or `close`."""

    kind: str
    seconds: float | None = None
    data: bytes = b""


Step = Frame | Act


def with_fault(frames: list[Frame], fault: Fault | None, request_id: str, dialect: Dialect = MESSAGES) -> list[Step]:
    """The steps of sending a stream that has this fault."""
    if fault is None:
        return [*frames]
    if fault.kind in MID_STREAM:
        return _broken_at(frames, _position(frames, fault.after_events), fault, request_id, dialect)
    match fault.kind:
        case "comments":
            return [step for frame in frames for step in (Frame(b": keep-alive\n\n"), frame)]
        case "unknown_events":
            stranger = Frame(dialect.stranger)
            return [*frames[:1], stranger, *frames[1:-1], stranger, frames[-1]]
        case "unknown_blocks":
            return _with_unknown_block(frames) if dialect.has_blocks else [*frames]
        case "slow_body":
            return [step for frame in frames for step in (Act("wait", fault.seconds or 0.1), frame)]
        case _:
            return [*frames]


def _position(frames: list[Frame], after: int) -> int:
    """Where a fault strikes: behind so many deltas; 0 is behind `message_start`, less is before everything."""
    if after < 0:
        return 0
    if after == 0:
        return min(1, len(frames))
    seen = 0
    for at, frame in enumerate(frames):
        seen += frame.is_delta
        if seen == after:
            return at + 1
    last = [at for at, frame in enumerate(frames) if frame.is_delta]
    return last[-1] + 1 if last else max(0, len(frames) - 2)


def _broken_at(frames: list[Frame], at: int, fault: Fault, request_id: str, dialect: Dialect) -> list[Step]:
    before, after = frames[:at], frames[at:]
    following = after[0].data if after else b"event: ping\ndata: {}\n\n"
    match fault.kind:
        case "stall":
            return [*before, Act("wait", fault.seconds), *after]
        case "reset" | "drop":
            return [*before, Act("partial", data=following), Act("reset" if fault.kind == "reset" else "close")]
        case "truncate":
            return [*before]
        case "error_event":
            return [*before, Frame(dialect.error_event(fault.stream_error(), request_id))]
        case "bad_json":
            return [*before, Frame(dialect.broken_json), *after]
        case _:
            return [*before, Frame(dialect.text_head + b"caf\xe9 \xff\xfe" + dialect.text_tail), *after]


def _with_unknown_block(frames: list[Frame]) -> list[Step]:
    """A block of a type no SDK knows yet, behind the others."""
    index = sum(frame.data.startswith(b"event: content_block_start\n") for frame in frames)
    block: Json = {"type": "future_block", "payload": {"note": "from a newer API"}}
    stranger = [
        Frame(event("content_block_start", {"type": "content_block_start", "index": index, "content_block": block})),
        Frame(event("content_block_stop", {"type": "content_block_stop", "index": index})),
    ]
    return [*frames[:-2], *stranger, *frames[-2:]]


def chunks(data: bytes, chunk_bytes: int | None, split_utf8: bool) -> Iterable[bytes]:
    """The data in HTTP chunks: whole, of a size, or cut inside every character that has more than one byte."""
    if split_utf8:
        edges = [0, *(match.start() for match in _CHARACTER.finditer(data)), len(data)]
        return [data[a:b] for a, b in pairwise(edges) if b > a]
    if chunk_bytes:
        return [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    return [data]
