"""The world of the chaos runs: a server with plans, what can go wrong in it, and by which doors it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llmnb
from llmnb.pacing import pacer
from llmnb.settings import load
from llmnb.simulator import Answer, Clock, Fault, Limits, Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.views import views

CLAUDE, CHEAP, GPT, GEMINI = "claude-sonnet-5-5", "claude-haiku-5-5", "openai:gpt-5.2", "gemini:gemini-2.5-flash"
MODELS = (CLAUDE, CHEAP, GPT, GEMINI, "openai:gpt-4o")
LONG = "You answer in one line. " * 300
"""A system prompt that is worth caching, on either wire."""
STREAMED = 60_000
"""max_tokens from which on the SDK demands a stream."""


@dataclass
class Word:
    """What is extracted."""

    word: str


@dataclass
class Question:
    """One thing that is done, with a name that is found in the books and at the server."""

    name: str
    door: str
    model: Any
    prompt: str
    options: dict[str, Any]
    end: str
    after: int
    answers: list[Answer]
    outcome: str = ""
    is_done: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the model refuses, at last."""
        return bool(self.answers[-1].refusal)


class World:
    """A server on whose clock no wait takes time, with rate limits that are soon reached, and one ledger."""

    def __init__(self, monkeypatch: Any) -> None:
        self.clock = Clock.jumping()
        limits = Limits(requests_per_minute=120, input_tokens_per_minute=400_000, enforce=True)
        self.sim = Simulator(clock=self.clock, limits=limits).start()
        monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
        for name, value in {**self.sim.environ(), "LLMNB_LONGEST_RETRY_WAIT_S": "0.001"}.items():
            monkeypatch.setenv(name, value)
        self.plans: dict[str, list[Answer]] = {}
        self.watched: dict[str, Question] = {}
        self.sim.rule(self._reply)
        monkeypatch.setattr(views, "view", lambda name: Reader(self.watched[name]) if name in self.watched else None)
        pacer(load()).clock = self.clock
        self.sync = llmnb.wrap(self.sim.client(), cache=True)

    def close(self) -> None:
        """Ends the server."""
        self.sync.close()
        self.sim.stop()
        assert self.sim.crashes == []

    def _reply(self, seen: SeenRequest) -> Answer:
        left = self.plans.get(name_of(seen)) or []
        return left.pop(0) if left else Answer(text='{"word": "ready"}', delta_tokens=2)


def name_of(seen: SeenRequest) -> str:
    """The name of the question that a request belongs to, on either wire."""
    told = (seen.body.get("metadata") or {}).get("user_id")
    return str(told or seen.body.get("safety_identifier") or seen.body.get("user") or "")


# What is asked --------------------------------------------------------------------------------------------------------

FAULTS = (
    [Fault(kind, retry_after_ms=1) for kind in ("rate_limited", "overloaded", "server_error")]
    + [Fault("status", status=400), Fault("reset_before_headers"), Fault("close_before_headers")]
    + [Fault("error_event", after_events=at, error_type=name) for at in (-1, 0, 2) for name in ("api_error", None)]
    + [
        Fault(kind, after_events=at)
        for kind in ("reset", "drop", "truncate", "bad_json", "bad_utf8")
        for at in (0, 1, 4)
    ]
    + [Fault(kind, seconds=5) for kind in ("slow_headers", "stall", "slow_body", "json_for_sse", "gzip", "split_utf8")]
    + [Fault(kind) for kind in ("comments", "unknown_events", "unknown_blocks")]
)
TOOL_DOORS = ("tools", "atools", "tools stream")
VALUE_DOORS = ("extract", "aextract", "into", "ainto")
CHAT_DOORS = ("chat", "achat", "chat stream", "achat stream")
DOORS = (
    *("create", "stream", "acreate", "astream"),
    *("ask", "aask", "ask stream", "ask astream", "watched", "awatched"),
    *CHAT_DOORS,
    *TOOL_DOORS,
    *VALUE_DOORS,
)
STREAMS = ("stream", "astream", *(door for door in DOORS if "stream" in door or "into" in door))


def is_async(door: str) -> bool:
    """Whether a door has to be awaited."""
    return (door.startswith("a") and not door.startswith("ask")) or door == "ask astream"


class Reader:
    """A view that is looked at until its reader presses Stop."""

    def __init__(self, one: Question) -> None:
        self._one, self._seen = one, 0
        self._stop: Callable[[], None] | None = None

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        self._stop = stop

    def show(self, event: Any) -> None:
        self._seen += 1
        if self._one.end == "stop" and self._seen > self._one.after and self._stop is not None:
            self._stop()

    def close(self, error: BaseException | None = None) -> None:
        pass
