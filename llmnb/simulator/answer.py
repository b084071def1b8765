"""What a test or a user tells the simulator to answer, and the order in which it is told.

An `Answer` says what comes back and how fast; a `Rule` says to which requests, and how often. `Script` holds the rules:
queued answers are used up first, each by the first request that matches, then the standing rules are asked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmnb.simulator.fault import Chance, Fault
from llmnb.simulator.json_value import Json, as_object, as_objects, text_of


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded reply, served verbatim; `kind` is "sse" or "json"."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted reply. Anything left out is what the simulator would have done by itself.

    Content: `text`; `thinking` before it; `tool_calls` as (name, input) pairs after it; or `blocks`, content blocks of
    any type exactly as given, in place of all three (they alone are not cut at `max_tokens` and stop sequences).
    `refusal` is a category or True. `stop_reason` and `stop_sequence` replace what follows from the content. `model` is
    the model that served. `usage` is laid over the final usage (also `iterations`), `start_usage` over that of
    `message_start`; `extra` over the message.

    Pace: `first_token_s` before the reply's first byte, `tokens_per_second`, `delta_delay_s` before every delta
    (seconds of the server's clock); `deltas` cuts the text in that many deltas, `delta_tokens` sets tokens a
    delta, `chunk_bytes` cuts the stream in HTTP chunks of that size. `fault` goes wrong on top. `no_usage` leaves
    out the usage (chat completions only). `recorded` is served instead of all of this.
    """

    text: str | None = None
    thinking: str | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    blocks: Sequence[Mapping[str, Any]] | None = None
    refusal: bool | str = False
    stop_reason: str | None = None
    stop_sequence: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start_usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    delta_delay_s: float | None = None
    deltas: int | None = None
    delta_tokens: int | None = None
    chunk_bytes: int | None = None
    no_usage: bool = False
    fault: Fault | None = None
    recorded: Recorded | None = None

    @property
    def has_content(self) -> bool:
        """Whether the content is scripted, and not only the pace or the usage."""
        return (
            bool(self.text is not None or self.thinking or self.tool_calls or self.refusal) or self.blocks is not None
        )


@dataclass(slots=True)
class SeenRequest:
    """One request as the server saw it. `body` is the parsed JSON (empty when there was none); times are the clock's.

    `disconnected_at` is when the client went away before the end of the reply; `finished_at` when the last byte was
    written.
    """

    request_id: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    body: Json
    at: float
    status: int | None = None
    finished_at: float | None = None
    disconnected_at: float | None = None
    fault: str | None = None

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        messages = as_objects(self.body.get("messages"))
        return text_of(messages[-1].get("content")) if messages else ""

    @property
    def is_message(self) -> bool:
        """Whether it asks for a message, and not for a count, a model or a batch."""
        return self.method == "POST" and (self.path == "/v1/messages" or self.is_chat)

    @property
    def is_chat(self) -> bool:
        """Whether it came over the chat completions wire, whose errors look different."""
        return self.path.endswith("/chat/completions")

    @property
    def attempt(self) -> int:
        """Which attempt of its call this is, from 0, by the SDK's own count."""
        count = self.headers.get("x-stainless-retry-count", "0")
        return int(count) if count.isdigit() else 0


Match = str | re.Pattern[str] | Mapping[str, Any] | Callable[[SeenRequest], bool] | None
Reply = str | Answer | Fault | Callable[[SeenRequest], "str | Answer | Fault | None"]


def as_answer(reply: str | Answer | Fault) -> Answer:
    """A text or a fault alone as an answer."""
    if isinstance(reply, str):
        return Answer(text=reply)
    return Answer(fault=reply) if isinstance(reply, Fault) else reply


@dataclass(slots=True)
class Rule:
    """An answer, the requests it is for, how many times it may be used (None: always), and by what chance."""

    reply: Reply
    match: Match = None
    times: int | None = None
    chance: Chance | None = None
    any_route: bool = False

    def fits(self, request: SeenRequest) -> bool:
        """Whether this rule answers the request; a throw of its chance included."""
        if not (self.any_route or request.is_message) or self.times == 0 or not _matches(self.match, request):
            return False
        return self.chance is None or self.chance.falls()

    def answer(self, request: SeenRequest) -> Answer | None:
        """Use the rule once; a reply function may decline with None."""
        reply = self.reply if isinstance(self.reply, (str, Answer, Fault)) else self.reply(request)
        if reply is None:
            return None
        if self.times is not None:
            self.times -= 1
        return as_answer(reply)


def _matches(match: Match, request: SeenRequest) -> bool:
    if match is None:
        return True
    if isinstance(match, str):
        return match in request.prompt
    if isinstance(match, re.Pattern):
        return match.search(request.prompt) is not None
    return match(request) if callable(match) else _holds(request.body, match)


def _holds(body: Any, wanted: Mapping[str, Any]) -> bool:
    found = as_object(body)
    for key, value in wanted.items():
        if isinstance(value, dict):
            if not _holds(found.get(key), as_object(value)):
                return False
        elif found.get(key) != value:
            return False
    return True


class Script:
    """The rules in force, oldest first; queued answers (those with `times`) go before standing rules."""

    def __init__(self) -> None:
        self._queued: list[Rule] = []
        self._standing: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> None:
        """Put a rule at the end of its line. Callable from any thread."""
        with self._lock:
            (self._standing if rule.times is None else self._queued).append(rule)

    def clear(self) -> None:
        """Forget every rule."""
        with self._lock:
            self._queued.clear()
            self._standing.clear()

    @property
    def left(self) -> int:
        """How many queued answers have not been asked for."""
        return sum(rule.times or 0 for rule in self._queued)

    def answer_for(self, request: SeenRequest) -> Answer | None:
        """The answer of the first rule that fits, or None when the simulator is to answer by itself."""
        if not (self._queued or self._standing):
            return None
        with self._lock:
            for rule in (*self._queued, *self._standing):
                if rule.fits(request):
                    answer = rule.answer(request)
                    if rule.times == 0:
                        self._queued.remove(rule)
                    if answer is not None:
                        return answer
        return None
