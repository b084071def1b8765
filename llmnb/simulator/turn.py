"""A turn: what the simulator answers to one request, and the bytes of it as JSON and as server-sent events."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmnb.simulator import tokenizer
from llmnb.simulator.json_value import Json, as_list, as_text, dump_bytes, dumps

DELTA_TOKENS = 3
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


@dataclass(slots=True)
class Turn:
    """A whole reply: content blocks, why it stopped, and its usage at the start and at the end."""

    id: str
    model: str
    blocks: list[Json]
    stop_reason: str
    usage: Json
    start_usage: Json
    stop_sequence: str | None = None
    stop_details: Json | None = None
    diagnostics: Json | None = None
    output_tokens: int = 0
    extra: Json = field(default_factory=dict[str, object])

    def message(self) -> Json:
        """The reply as the Message object."""
        message: Json = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.blocks,
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": self.stop_details,
            "usage": self.usage,
        }
        if self.diagnostics is not None:
            message["diagnostics"] = self.diagnostics
        return message | self.extra

    def opening(self) -> Json:
        """The message as `message_start` has it: no content yet, and a noisy output count."""
        empty: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
        return self.message() | empty | {"usage": self.start_usage}


@dataclass(slots=True)
class Frame:
    """One server-sent event as bytes; `tokens` are the output tokens that exist once it is made."""

    data: bytes
    tokens: int = 0
    is_delta: bool = False


def event(kind: str, payload: Json) -> bytes:
    """A server-sent event as bytes."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dump_bytes(payload))


def delta_usage(usage: Json) -> Json:
    """The usage of `message_delta`: cumulative totals, without the split of cache writes by TTL."""
    left_out = ("cache_creation", "service_tier", "inference_geo", "speed")
    return {key: value for key, value in usage.items() if key not in left_out}


def frames(turn: Turn, *, deltas: int | None = None, delta_tokens: int | None = None) -> list[Frame]:
    """The turn as events in the order of the wire, a ping after the first block's start."""
    found = [Frame(event("message_start", {"type": "message_start", "message": turn.opening()}))]
    for index, block in enumerate(turn.blocks):
        found.append(Frame(_block_start(index, block)))
        if index == 0:
            found.append(Frame(PING))
        found.extend(_block_deltas(index, block, deltas, delta_tokens or DELTA_TOKENS))
        found.append(Frame(event("content_block_stop", {"type": "content_block_stop", "index": index})))
    ending: Json = {
        "stop_reason": turn.stop_reason,
        "stop_sequence": turn.stop_sequence,
        "stop_details": turn.stop_details,
    }
    counted = sum(frame.tokens for frame in found)
    last: Json = {"type": "message_delta", "delta": ending, "usage": delta_usage(turn.usage)}
    found.append(Frame(event("message_delta", last), tokens=max(0, turn.output_tokens - counted)))
    found.append(Frame(event("message_stop", {"type": "message_stop"})))
    return found


_EMPTIED: dict[str, Json] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
    "compaction": {"content": None},
}


def _block_start(index: int, block: Json) -> bytes:
    """A block as it begins: what arrives by deltas is empty."""
    start = block | _EMPTIED.get(as_text(block.get("type")), {})
    if block.get("type") == "text":
        start.pop("citations", None)
    return event("content_block_start", {"type": "content_block_start", "index": index, "content_block": start})


def _block_deltas(index: int, block: Json, deltas: int | None, delta_tokens: int) -> list[Frame]:
    match block.get("type"):
        case "text":
            found = _text_frames(index, "text_delta", "text", as_text(block.get("text")), deltas, delta_tokens)
            citations = as_list(block.get("citations"))
            return found + [_delta(index, {"type": "citations_delta", "citation": item}) for item in citations]
        case "thinking":
            text = as_text(block.get("thinking"))
            found = _text_frames(index, "thinking_delta", "thinking", text, None, delta_tokens)
            signature: Json = {"type": "signature_delta", "signature": as_text(block.get("signature"))}
            return [*found, _delta(index, signature)]
        case "tool_use" | "server_tool_use":
            call = dumps(block.get("input"))
            found = _text_frames(index, "input_json_delta", "partial_json", call, None, delta_tokens)
            return [_delta(index, {"type": "input_json_delta", "partial_json": ""}), *found]
        case "compaction":
            return [_delta(index, {"type": "compaction_delta", "content": block.get("content")})]
        case _:
            return []


def _delta(index: int, delta: Json) -> Frame:
    payload: Json = {"type": "content_block_delta", "index": index, "delta": delta}
    return Frame(event("content_block_delta", payload), is_delta=True)


def _text_frames(
    index: int, kind: str, field_name: str, text: str, deltas: int | None, delta_tokens: int
) -> list[Frame]:
    """Deltas of a text. The JSON around it is the same in each, so it is written once."""
    opening = (
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
        f'"delta":{{"type":"{kind}","{field_name}":'
    ).encode()
    parts = cut(text, deltas, delta_tokens)
    return [Frame(opening + dump_bytes(part) + b"}}\n\n", tokens, is_delta=True) for part, tokens in parts]


def cut(text: str, deltas: int | None, delta_tokens: int) -> list[tuple[str, int]]:
    """The text in parts with the tokens of each: `deltas` parts when asked for, else `delta_tokens` tokens each."""
    pieces = tokenizer.pieces(text)
    if deltas is None:
        groups = [pieces[at : at + delta_tokens] for at in range(0, len(pieces), delta_tokens)]
        return [("".join(group), len(group)) for group in groups]
    edges = [round(at * len(text) / deltas) for at in range(deltas + 1)]
    shares = [round(at * len(pieces) / deltas) for at in range(deltas + 1)]
    return [(text[edges[at] : edges[at + 1]], shares[at + 1] - shares[at]) for at in range(deltas)]
