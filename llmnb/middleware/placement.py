"""Where one request's breakpoints go: by what it is part of, what is known of such prompts, and what may be risked.

Pure but for the memory it is handed: it serves the part that sets breakpoints, and estimates, which only say what it
would set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from llmnb.messages import models
from llmnb.messages.prompt_outline import Outline, Piece, outline, prompt_bytes
from llmnb.middleware.balance import Balance, Stake
from llmnb.middleware.history import history
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
    candidates,
    cheapest,
    kind_of,
    parted,
    place,
)
from llmnb.records import CallContext
from llmnb.settings import Settings

_FEWEST_BYTES_A_TOKEN = 2
"""Prose has three to four; a prompt below the minimum at two is not worth a closer look."""
_SURELY_CACHED_SINCE = (3, 7)
"""Some clouds refuse breakpoints on earlier models; "auto" must never make a call fail, so it leaves them alone."""


@dataclass(frozen=True)
class Marking:
    """What all calls of one client share. `mode` is that of calls that do not name one; `scope` keeps entries apart."""

    settings: Settings
    mode: Mode = "off"
    provider: str = "anthropic"
    project: str | None = None
    scope: bytes = b""
    memory: Sightings = field(default_factory=lambda: sightings)


@dataclass(frozen=True)
class Placement:
    """Where one request's breakpoints go."""

    marking: Marking
    mode: Mode
    context: CallContext
    body: dict[str, Any]

    @classmethod
    def of(cls, marking: Marking, mode: Mode, context: CallContext, body: dict[str, Any]) -> Placement:
        """Those of a request as it is asked; its `body` has what others share with it as a block of its own."""
        return cls(marking, mode, context, parted(body, context.shared_chars) if context.shared_chars else body)

    @cached_property
    def wanted(self) -> list[Candidate]:
        """Where breakpoints may go, the most wanted first."""
        return candidates(self.outline, self.kind, self.minimum)

    @cached_property
    def chosen(self) -> list[Mark]:
        """Where they pay, by what is known."""
        return place(self.outline, self.wanted, self._wish(), self.minimum)

    @cached_property
    def minimum(self) -> int:
        """The shortest prefix that the model's cache takes, in tokens."""
        return _minimum(self.body)

    @cached_property
    def outline(self) -> Outline:
        """The request's pieces."""
        previous = (cast("dict[str, Any]", self.body.get("thread") or {})).get("previous_message_id")
        held = self.marking.memory.held_tokens(str(previous)) if previous is not None else None
        return outline(self.body, self.marking.scope, held or 0)

    @cached_property
    def kind(self) -> Kind:
        """What the request is part of."""
        return kind_of(self.body, self.outline, in_chat=self.context.chat is not None)

    @cached_property
    def prices(self) -> CachePrices | None:
        """What "auto" decides by; None where it leaves the model alone."""
        version = models.facts(self.outline.model).version
        if version is None or version < _SURELY_CACHED_SINCE:
            return None
        overrides = self.marking.settings.prices
        return cache_prices(self.outline.model, provider=self.marking.provider, overrides=overrides)

    @property
    def held_tokens(self) -> int:
        """Tokens of the longest beginning that the API should hold now."""
        memory = self.marking.memory
        held = (at for at in range(len(self.outline.pieces) - 1, -1, -1) if memory.held(self.outline, at) is not None)
        return self.outline.pieces[at].total if (at := next(held, None)) is not None else 0

    # What is risked ---------------------------------------------------------------------------------------------------

    def risked(self) -> tuple[list[Mark], Stake | None]:
        """The breakpoints to set, and what they may lose; of those chosen by "auto" what its account can bear."""
        if self.mode != "auto" or self.prices is None or not self.outline.pieces:
            return self.chosen, None
        balance = self.balance
        prompt = self.outline.pieces[-1].total
        there = [mark for mark in self.chosen if self.marking.memory.held(self.outline, mark.candidate.at) is not None]
        for marks in (self.chosen, there):
            if marks and (stake := balance.stake(self._risk(marks, self.prices), prompt)) is not None:
                return marks, stake
        return [], balance.stake(0.0, prompt) or Stake(0.0, 0.0)

    def likely(self) -> list[Mark]:
        """The breakpoints that would be set now; nothing is staked."""
        marks, stake = self.risked()
        if stake is not None:
            self.balance.give_back(stake)
        return marks

    def possible(self) -> list[Mark]:
        """The breakpoints that could be set, whether they pay or not."""
        return place(self.outline, self.wanted, lambda candidate, piece: "5m", self.minimum)

    @property
    def balance(self) -> Balance:
        """The account that the request's stake is taken from."""
        return self.marking.memory.balance(self.marking.scope, self.outline.model)

    def _risk(self, marks: list[Mark], prices: CachePrices) -> float:
        """What writing costs more than plain input where nothing is ever read, in tokens at the input price."""
        risk, start = 0.0, self.held_tokens
        for mark in marks:
            end = self.outline.pieces[mark.candidate.at].total
            write = prices.write_5m if mark.ttl == "5m" or prices.write_1h is None else prices.write_1h
            risk += max(end - start, 0) * (write - 1)
            start = max(start, end)
        return risk

    def sent(self, chosen: list[Mark]) -> Sent:
        """The request as it is remembered, with these breakpoints of ours."""
        ours = [(mark.candidate.at, str(mark.ttl)) for mark in chosen]
        theirs = [(at, ttl) for at, piece in enumerate(self.outline.pieces) for ttl in piece.ttls]
        automatic = self.outline.automatic_at
        if automatic is not None:
            theirs.append((automatic, self.outline.automatic_ttl or "5m"))
        memory = self.marking.memory
        set_ = tuple(sorted(ours + theirs))
        return Sent(
            self.outline, self.marking.scope, self.kind, self.context.chat, memory.clock(), set_, tuple(self.wanted)
        )  # fmt: skip

    def _wish(self) -> Wish:
        if self.mode in ("5m", "1h"):
            ttl = self.mode
            return lambda candidate, piece: ttl
        return self._automatic(self.prices)

    def _automatic(self, prices: CachePrices | None) -> Wish:
        """For as long as is cheapest by what was seen; not at all where no price tells what is cheap."""
        memory = self.marking.memory

        def wish(candidate: Candidate, piece: Piece) -> Ttl | None:
            if prices is None:
                return None
            if self.context.shared_chars and candidate.place == "document":
                return "5m"
            held = memory.held(self.outline, candidate.at)
            if held is not None and prices.read < 1:  # it is there to be read, which takes a breakpoint
                return cast(Ttl, held)
            seen = memory.gaps(self.outline, candidate, self.kind)
            return cheapest(PRIOR[self.kind] + self._history(candidate, seen) + seen, prices)

        return wish

    def _history(self, candidate: Candidate, seen: Gaps) -> Gaps:
        """What earlier processes saw, which gives way to what this one sees: it may be about other prompts."""
        in_chat = self.kind == "chat"
        project = self.context.project or self.marking.project or self.marking.settings.project
        found = history(self.marking.settings.ledger_path).gaps(project, self.outline.model, in_chat=in_chat)
        if candidate.place == "document" and not in_chat:
            return found.scaled(0.0)  # that earlier calls shared a system prompt says nothing of a document
        return found.scaled(min(found.total, max(HISTORY_WEIGHT - seen.total, 0.0)))

    def too_short(self) -> Change | None:
        """Why nothing was marked, for whoever asked for it by name."""
        if self.mode == "auto" or not self.wanted:
            return None
        longest = max(self.outline.pieces[candidate.at].total for candidate in self.wanted)
        if longest >= self.minimum:
            return None
        return Change(
            "below_minimum",
            f"about {longest:,} tokens could be cached, and {self.outline.model} caches from {self.minimum:,} on",
        )


def is_surely_small(body: dict[str, Any], known_bytes: int = 0) -> bool:
    """Whether there is no need to look closer: most questions are short, and every call would pay for the look.

    `known_bytes` are those of its prompt, where somebody has counted them already.
    """
    if body.get("tools") or body.get("thread"):
        return False
    return (known_bytes or prompt_bytes(body)) < _minimum(body) * _FEWEST_BYTES_A_TOKEN


def _minimum(body: dict[str, Any]) -> int:
    return models.facts(str(body.get("model") or "")).cache_minimum_tokens
