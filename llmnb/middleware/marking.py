"""The marking part: sets the prompt cache's breakpoints on a request before it is sent, and says what came of it.

It stands inside the ledger and the response cache, whose key is of the request without them. What it may set is decided
from this process's memory alone: nothing is asked of the network, of the ledger or of a disk while a call waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import httpx2
from anthropic import APIRequest

from llmnb.messages import models
from llmnb.messages.prompt_outline import Outline, Piece, outline, prompt_bytes
from llmnb.middleware.entry import MARKS, UNDER_WAY, Entry
from llmnb.middleware.flow import Flow, Part
from llmnb.middleware.history import history
from llmnb.middleware.ledger import is_billable
from llmnb.middleware.sightings import Sent, Sightings, sightings
from llmnb.pricing import CachePrices, cache_prices
from llmnb.prompt_cache import (
    HISTORY_WEIGHT,
    PRIOR,
    Candidate,
    Change,
    Gaps,
    Kind,
    Mark,
    Mode,
    Ttl,
    Wish,
    breakpoints,
    candidates,
    cheapest,
    kind_of,
    marked,
    place,
)
from llmnb.records import Breakpoint, CallContext, PromptMarks, Usage, current_context
from llmnb.settings import Settings
from llmnb.trouble import quietly

_FEWEST_BYTES_A_TOKEN = 2
"""Prose has three to four; a prompt below the minimum at two is not worth a closer look."""
_SURELY_CACHED_SINCE = (3, 7)
"""Some clouds refuse breakpoints on earlier models; "auto" must never make a call fail, so it leaves them alone."""
_API_KNOWS_NOT = (None, "unavailable", "previous_message_not_found")


@dataclass(frozen=True)
class Marking:
    """What all calls of one client share. `mode` is that of calls that do not name one; `scope` keeps entries apart."""

    settings: Settings
    mode: Mode = "off"
    provider: str = "anthropic"
    project: str | None = None
    scope: bytes = b""
    memory: Sightings = field(default_factory=lambda: sightings)


class MarkingPart(Part):
    """Marks the requests that make a model write, and lets everything else pass untouched."""

    def __init__(self, marking: Marking) -> None:
        self.marking = marking

    def concerns(self, request: APIRequest) -> bool:
        mode = current_context().prompt_cache or self.marking.mode
        if mode == "off" or not is_billable(request):
            return False
        entry = UNDER_WAY.get()
        try:
            return mode != "auto" or not _is_surely_small(cast("dict[str, Any]", request.json), entry)
        except Exception:  # a body that nobody understands: its trouble is told where it is looked at
            return True

    def flow(self, request: APIRequest) -> Flow:
        context = current_context()
        marks = self._marked(request, context)
        if marks is None:
            return (yield request)
        response = yield marks.request
        self._answered(marks, context, response)
        return response

    def _marked(self, request: APIRequest, context: CallContext) -> Marks | None:
        mode = cast(Mode, context.prompt_cache or self.marking.mode)
        try:
            return _Question(self.marking, mode, context, cast("dict[str, Any]", request.json)).marks(request)
        except Exception as trouble:
            quietly("placing the prompt cache's breakpoints", trouble)
            return None

    def _answered(self, marks: Marks, context: CallContext, response: Any) -> None:
        try:
            http: httpx2.Response | None = getattr(response, "http_response", None)
            if http is None or not http.is_success:
                return
            marks.memory.answered(marks.sent)
            http.extensions[MARKS] = marks
            if context.on_marked is not None:
                context.on_marked(marks)
        except Exception as trouble:
            quietly("noting what was cached", trouble)


class Marks(PromptMarks):
    """What was marked in one request; `request` is what is sent."""

    def __init__(self, request: APIRequest, sent: Sent, set_: tuple[Breakpoint, ...], memory: Sightings) -> None:
        self.request = request
        self.sent = sent
        self.memory = memory
        self.too_short: Change | None = None
        self._breakpoints = set_
        self._miss = ""

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        return self._breakpoints

    @property
    def miss(self) -> str:
        return self._miss

    def settle(self, usage: Usage, told: str | None, message_id: str | None) -> str | None:
        missed = self.memory.settled(self.sent, usage, message_id) or self.too_short
        if missed is None and self._breakpoints and not usage.cache_read_tokens + usage.cache_write_tokens:
            missed = Change("below_minimum", "the API cached nothing: the prefix is below the model's minimum")
        if told not in _API_KNOWS_NOT and (missed is None or missed.reason != told):
            missed = Change(str(told), f"the API says so ({told})")
        self._miss = "" if missed is None else missed.text
        return None if missed is None else missed.reason


@dataclass(frozen=True)
class _Question:
    """Where one request's breakpoints go."""

    marking: Marking
    mode: Mode
    context: CallContext
    body: dict[str, Any]

    def marks(self, request: APIRequest) -> Marks | None:
        wanted = candidates(self.outline, self.kind, self.minimum)
        chosen = place(self.outline, wanted, self._wish(), self.minimum)
        if chosen:
            request = _copy(request, marked(self.body, self.outline, chosen))
        marks = Marks(request, self._sent(wanted, chosen), breakpoints(self.outline, chosen), self.marking.memory)
        if not marks.breakpoints:
            marks.too_short = self._too_short(wanted)
        return marks

    @cached_property
    def minimum(self) -> int:
        return _minimum(self.body)

    @cached_property
    def outline(self) -> Outline:
        previous = (cast("dict[str, Any]", self.body.get("thread") or {})).get("previous_message_id")
        held = self.marking.memory.held_tokens(str(previous)) if previous is not None else None
        return outline(self.body, self.marking.scope, held or 0)

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.body, self.outline, in_chat=self.context.chat is not None)

    def _sent(self, wanted: list[Candidate], chosen: list[Mark]) -> Sent:
        ours = [(mark.candidate.at, str(mark.ttl)) for mark in chosen]
        theirs = [(at, ttl) for at, piece in enumerate(self.outline.pieces) for ttl in piece.ttls]
        automatic = self.outline.automatic_at
        if automatic is not None:
            theirs.append((automatic, self.outline.automatic_ttl or "5m"))
        memory = self.marking.memory
        set_ = tuple(sorted(ours + theirs))
        return Sent(
            self.outline, self.marking.scope, self.kind, self.context.chat, memory.clock(), set_, tuple(wanted)
        )  # fmt: skip

    def _wish(self) -> Wish:
        if self.mode in ("5m", "1h"):
            ttl = self.mode
            return lambda candidate, piece: ttl
        version = models.facts(self.outline.model).version
        if version is None or version < _SURELY_CACHED_SINCE:
            return self._automatic(None)
        overrides = self.marking.settings.prices
        return self._automatic(cache_prices(self.outline.model, provider=self.marking.provider, overrides=overrides))

    def _automatic(self, prices: CachePrices | None) -> Wish:
        """For as long as is cheapest by what was seen; not at all where no price tells what is cheap."""
        memory = self.marking.memory

        def wish(candidate: Candidate, piece: Piece) -> Ttl | None:
            if prices is None:
                return None
            held = memory.held(self.outline, candidate.at)
            if held is not None and prices.read < 1:  # it is there to be read, which takes a breakpoint
                return cast(Ttl, held)
            seen = memory.gaps(self.outline, candidate, self.kind)
            return cheapest(PRIOR[self.kind] + self._history(candidate) + seen, prices)

        return wish

    def _history(self, candidate: Candidate) -> Gaps:
        in_chat = self.kind == "chat"
        project = self.context.project or self.marking.project or self.marking.settings.project
        found = history(self.marking.settings.ledger_path).gaps(project, self.outline.model, in_chat=in_chat)
        if candidate.place == "document" and not in_chat:
            return found.scaled(0.0)  # that earlier calls shared a system prompt says nothing of a document
        return found.scaled(min(found.total, HISTORY_WEIGHT))

    def _too_short(self, wanted: list[Candidate]) -> Change | None:
        """Why nothing was marked, for whoever asked for it by name."""
        if self.mode == "auto" or not wanted:
            return None
        longest = max(self.outline.pieces[candidate.at].total for candidate in wanted)
        if longest >= self.minimum:
            return None
        return Change(
            "below_minimum",
            f"about {longest:,} tokens could be cached, and {self.outline.model} caches from {self.minimum:,} on",
        )


def _is_surely_small(body: dict[str, Any], entry: Entry | None) -> bool:
    """Whether there is no need to look closer: most questions are short, and every call would pay for the look."""
    if body.get("tools") or body.get("thread"):
        return False
    size = (entry.prompt_bytes if entry is not None else 0) or prompt_bytes(body)
    return size < _minimum(body) * _FEWEST_BYTES_A_TOKEN


def _minimum(body: dict[str, Any]) -> int:
    return models.facts(str(body.get("model") or "")).cache_minimum_tokens


def _copy(request: APIRequest, body: dict[str, Any]) -> APIRequest:
    """`request.copy(body=…)` without its deep copy of a prompt that may be long."""
    return APIRequest(
        options=request.options.model_copy(update={"json_data": body}),
        cast_to=request.cast_to,
        stream=request.stream,
        stream_cls=request.stream_cls,
        retries_taken=request.retries_taken,
    )
