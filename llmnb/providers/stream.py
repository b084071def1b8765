"""A stream of chat completion chunks as the stream of a Message: bytes in, bytes out, whatever carries them.

Every event goes on as soon as it is whole. The end is said only when the other side has said it: a body that just stops
is a Message that just stops.
"""

from __future__ import annotations

import json
from typing import Any

import jiter

from llmnb.messages.wire import estimated_tokens
from llmnb.providers import signatures
from llmnb.providers.answer import (
    as_dict,
    as_list,
    estimated_usage,
    first,
    new_call_id,
    stop_reason,
    text_of,
    thought_of,
    told_usage,
    usage_of,
)
from llmnb.providers.refusal import error_of_event

Json = dict[str, Any]

_TEXT = ("text", {"type": "text", "text": ""}, "text_delta", "text")
_THINKING = ("thinking", {"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking")


class Translation:
    """One stream. `feed` it what comes, and `end` it when nothing more does."""

    def __init__(self, *, estimated_input: int = 0) -> None:
        self._estimated_input = estimated_input
        self._rest = b""
        self._out: list[bytes] = []
        self._started = False
        self._over = False
        self._blocks = 0
        self._open: str | None = None
        self._calls: dict[int, _Call] = {}
        self._finish: str | None = None
        self._refused = False
        self._usage: Json | None = None
        self._tier: object = None
        self._bytes_written = 0

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.rstrip(b"\r"))
        return self._taken()

    def end(self) -> bytes:
        """The last events: nothing more comes."""
        rest, self._rest = self._rest.strip(), b""
        if rest.endswith((b"}", b"[DONE]")):  # else it was cut off in the middle of an event, of which nothing is told
            self._line(rest)
        if self._finish is not None:  # some servers stop without [DONE] when they have said why
            self._end_message()
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def _line(self, line: bytes) -> None:
        if line.startswith(b":"):
            self._out.append(b": keep-alive\n\n")
        if not line.startswith(b"data:") or self._over:
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._end_message()
            return
        try:
            chunk = as_dict(jiter.from_json(data))
        except ValueError:  # the client is to say what it says of an event that cannot be read
            self._out.append(b"event: content_block_delta\ndata: " + data + b"\n\n")
            return
        self._chunk(chunk)

    def _chunk(self, chunk: Json) -> None:
        if chunk.get("error") or chunk.get("object") == "error":
            self._over = True
            self._event("error", error_of_event(chunk))
            return
        usage = told_usage(chunk)
        if "choices" not in chunk or not (chunk["choices"] or usage):  # Azure begins with what it filtered
            return
        if not self._started:
            self._start(chunk)
        self._usage = usage or self._usage
        self._tier = chunk.get("service_tier") or self._tier
        choice = first(chunk["choices"])
        self._delta(as_dict(choice.get("delta")))
        if choice.get("finish_reason"):
            self._finish = str(choice["finish_reason"])

    def _start(self, chunk: Json) -> None:
        self._started = True
        message: Json = {
            "id": chunk.get("id") or "",
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": estimated_usage(self._estimated_input, 0),
        }
        self._event("message_start", {"type": "message_start", "message": message})

    # What the model writes --------------------------------------------------------------------------------------------

    def _delta(self, delta: Json) -> None:
        if thought := thought_of(delta):
            self._piece(_THINKING, thought)
        if text := text_of(delta.get("content")):
            self._piece(_TEXT, text)
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            self._refused = True
            self._piece(_TEXT, delta["refusal"])
        for piece in as_list(delta.get("tool_calls")):
            self._call(piece)

    def _piece(self, kind: tuple[str, Json, str, str], text: str) -> None:
        name, empty, delta, field = kind
        if self._open != name:
            self._close()
            self._open = name
            self._event(
                "content_block_start",
                {"type": "content_block_start", "index": self._blocks, "content_block": empty},
            )
        self._bytes_written += len(text.encode("utf-8", "surrogatepass"))
        self._event(
            "content_block_delta",
            {"type": "content_block_delta", "index": self._blocks, "delta": {"type": delta, field: text}},
        )

    def _close(self) -> None:
        if self._open is not None:
            self._open = None
            self._event("content_block_stop", {"type": "content_block_stop", "index": self._blocks})
            self._blocks += 1

    def _call(self, piece: Json) -> None:
        """A piece of a tool call. Calls stay open to the end: nothing says when one is whole."""
        index, function = piece.get("index"), as_dict(piece.get("function"))
        at = index if isinstance(index, int) else max(self._calls, default=-1 if piece.get("id") else 0)
        call = self._calls.get(at)
        # some servers give every call the index 0, or none
        if call is None or (piece.get("id") and piece["id"] != call.uid and function.get("name")):
            if call is not None:
                at = max(self._calls) + 1
            self._close()
            call = self._calls[at] = _Call(piece.get("id") or new_call_id(), self._blocks)
            self._blocks += 1
            block: Json = {"type": "tool_use", "id": call.uid, "name": function.get("name") or "", "input": {}}
            signatures.remember(call.uid, piece)
            started = {"type": "content_block_start", "index": call.block, "content_block": block}
            self._event("content_block_start", started)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        if arguments:
            self._bytes_written += len(arguments)
            delta = {"type": "input_json_delta", "partial_json": arguments}
            self._event("content_block_delta", {"type": "content_block_delta", "index": call.block, "delta": delta})

    # The end ----------------------------------------------------------------------------------------------------------

    def _end_message(self) -> None:
        if self._over or not self._started:
            return
        self._over = True
        self._close()
        for call in self._calls.values():
            self._event("content_block_stop", {"type": "content_block_stop", "index": call.block})
        if self._usage is None:
            usage = estimated_usage(self._estimated_input, estimated_tokens(self._bytes_written))
        else:
            usage = usage_of(self._usage, self._tier)
        why = stop_reason(self._finish, calls=bool(self._calls), refused=self._refused)
        delta = {"stop_reason": why, "stop_sequence": None}
        self._event("message_delta", {"type": "message_delta", "delta": delta, "usage": usage})
        self._event("message_stop", {"type": "message_stop"})

    def _event(self, name: str, payload: Json) -> None:
        data = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))


class _Call:
    __slots__ = ("block", "uid")

    def __init__(self, uid: str, block: int) -> None:
        self.uid = uid
        self.block = block
