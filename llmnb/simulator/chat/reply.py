"""A turn as a chat completion: one JSON document, or chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmnb.simulator.chat.models import ChatModel
from llmnb.simulator.json_value import Json, as_count, as_object, as_text, dump_bytes, dumps
from llmnb.simulator.turn import DELTA_TOKENS, Frame, Turn, cut

FINISH = {"tool_use": "tool_calls", "max_tokens": "length", "model_context_window_exceeded": "length"} | {
    "refusal": "content_filter"
}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A turn of a model; `with_usage` is whether a stream ends with the usage."""

    turn: Turn
    model: ChatModel
    created: int
    with_usage: bool

    def document(self) -> Json:
        """The whole reply."""
        message: Json = {"role": "assistant", "content": self._text() or None, "refusal": None}
        if thought := self._thought():
            message[self.model.thoughts] = thought
        if calls := self._calls():
            message["tool_calls"] = calls
        choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish()}
        whole = self._head("chat.completion") | {"choices": [choice]}
        return (whole | {"usage": self.usage()} if self.with_usage else whole) | self.turn.extra

    def frames(self, deltas: int | None, delta_tokens: int | None) -> list[Frame]:
        """The reply as server-sent events. What was thought and is not shown exists before the first of them."""
        hidden = 0 if self.model.thoughts in ("reasoning", "reasoning_content") else self._thinking_tokens()
        found = [Frame(self._chunk({"role": "assistant", "content": ""}), hidden)]
        size = delta_tokens or DELTA_TOKENS
        for part, tokens in cut(self._thought(), None, size):
            found.append(Frame(self._chunk({self.model.thoughts: part}), tokens, is_delta=True))
        for part, tokens in cut(self._text(), deltas, size):
            found.append(Frame(self._chunk({"content": part}), tokens, is_delta=True))
        for at, call in enumerate(self._calls()):
            found += self._call_frames(at, call, size)
        left = max(0, self.turn.output_tokens - sum(frame.tokens for frame in found))
        found.append(Frame(self._chunk({}, self._finish()), left))
        if self.with_usage:
            found.append(Frame(_event(self._head("chat.completion.chunk") | {"choices": [], "usage": self.usage()})))
        return [*found, Frame(DONE)]

    def usage(self) -> Json:
        """The usage in this wire's words: cached tokens are among the prompt's, thoughts among the completion's."""
        told = self.turn.usage
        read, written = as_count(told.get("cache_read_input_tokens")), as_count(told.get("cache_creation_input_tokens"))
        prompt = as_count(told.get("input_tokens")) + read + written
        completion, thought = as_count(told.get("output_tokens")), self._thinking_tokens()
        usage: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if self.model.is_local:
            return usage
        if self.model.thoughts == "beside":
            return usage | {"completion_tokens": completion - thought, "prompt_tokens_details": {"cached_tokens": read}}
        details: Json = {"cached_tokens": read, "audio_tokens": 0}
        if self.model.bills_cache_writes:
            details["cache_write_tokens"] = written
        return usage | {
            "prompt_tokens_details": details,
            "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
        }

    # ------------------------------------------------------------------------------------------------------------------

    def _head(self, kind: str) -> Json:
        head: Json = {"id": self.turn.id, "object": kind, "created": self.created, "model": self.turn.model}
        return head if self.model.is_local else head | {"service_tier": "default"}

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._head("chat.completion.chunk") | {"choices": [choice]}
        return _event(chunk | {"usage": None} if self.with_usage else chunk)

    def _call_frames(self, at: int, call: Json, size: int) -> list[Frame]:
        function = as_object(call["function"])
        begun: Json = {"index": at, **call, "function": {"name": function["name"], "arguments": ""}}
        found = [Frame(self._chunk({"tool_calls": [begun]}), is_delta=True)]
        for part, tokens in cut(as_text(function["arguments"]), None, size):
            piece: Json = {"index": at, "function": {"arguments": part}}
            found.append(Frame(self._chunk({"tool_calls": [piece]}), tokens, is_delta=True))
        return found

    def _text(self) -> str:
        return "".join(as_text(block.get("text")) for block in self.turn.blocks if block.get("type") == "text")

    def _thought(self) -> str:
        if self.model.thoughts not in ("reasoning", "reasoning_content"):
            return ""
        return "".join(as_text(block.get("thinking")) for block in self.turn.blocks if block.get("type") == "thinking")

    def _thinking_tokens(self) -> int:
        return as_count(as_object(self.turn.usage.get("output_tokens_details")).get("thinking_tokens"))

    def _calls(self) -> list[Json]:
        return [
            {
                "id": as_text(block.get("id")).replace("toolu_", "call_"),
                "type": "function",
                "function": {"name": block.get("name"), "arguments": dumps(block.get("input"))},
            }
            for block in self.turn.blocks
            if block.get("type") == "tool_use"
        ]

    def _finish(self) -> str:
        return FINISH.get(self.turn.stop_reason, "stop")


def _event(payload: Any) -> bytes:
    return b"data: " + dump_bytes(payload) + b"\n\n"
