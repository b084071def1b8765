"""One account with one model, as this process sees it: whether its limits are near, and whose turn it is when they are.

Turns go round by lanes: a lane is a chat, a run over many rows, or what is asked without either. So a chat beside a map
over a thousand rows waits for one call and not for all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from llmnb.events import Throttled
from llmnb.later import Later
from llmnb.pacing.allowance import Allowance, Need, Told
from llmnb.pacing.shelves import Shelf

NEAR = 0.5
"""Calls are held back from when less than this share of a limit is left."""
FAR = 0.7
"""And no longer from when more than this is left, and nobody waits."""
LOOK_S = 1.0
"""How old what is known may be while limits are far."""
LONGEST_PAUSE_S = 2.0
_SHORTEST_PAUSE_S = 0.02
_FIRST_OUTPUT_TOKENS = 256.0
"""What a call is expected to write before any has been seen."""
_TOLD = " told"
GOES = Throttled(0.0)
"""What a call is told that waits no longer."""


Change: TypeAlias = Callable[[Allowance], "float | None"]


class Clock(Protocol):
    """The time of pacing; the simulator's `Clock` is one, too."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def real_s(self, seconds: float) -> float:
        """How long to sleep for so many of its seconds to pass."""
        ...


class Account:
    """What concerns the calls of one account with one model. Every method may be called from any thread."""

    def __init__(self, key: str, shelf: Shelf, caps: Mapping[str, float]) -> None:
        self.key = key
        self._shelf = shelf
        self._caps = dict(caps)
        self.is_near = bool(caps)
        """Whether calls have to be counted and held back."""
        self._free_calls = self._free_bytes = 0
        self._look_at = 0.0
        self._unheld = 0
        # reentrant: a finalizer may end a stream in the middle of an update, and is heard with the next one
        self._lock = threading.RLock()
        self._updating = False
        self._deferred: deque[Change] = deque()
        self._waiting: dict[str, tuple[str, int, Need]] = {}
        self._told: dict[str, Throttled] = {}
        self._remembered: dict[str, float] = {}
        self._later = Later(self._note_limits, apart=True)
        self._served: dict[str, int] = {}
        self._arrivals = 0
        self._output_tokens = _FIRST_OUTPUT_TOKENS
        self._input_ratio = 1.0

    def look(self, now: float) -> None:
        """Begins with what the others know: a process that joins them where limits are near would run into these."""

        def share_left(allowance: Allowance) -> float:
            allowance.wait(Need(0.0), now)
            return allowance.share_left()

        with self._lock:
            self.is_near = self.is_near or self._update(share_left) < NEAR

    # While limits are far ---------------------------------------------------------------------------------------------

    def is_due(self, prompt_bytes: int, now: float) -> bool:
        """Whether this call's answer is to be looked at. Without a lock: a race looks once too often or too late."""
        self._free_calls -= 1
        self._free_bytes -= prompt_bytes
        return self._free_calls < 0 or self._free_bytes < 0 or now >= self._look_at

    def goes(self) -> None:
        """A call whose answer will be looked at goes without being held."""
        with self._lock:
            self._unheld += 1

    def seen(self, told: Told | None, now: float) -> None:
        """What the answer of such a call said; None where it got none."""
        with self._lock:
            self._unheld -= 1
        if told is None:
            return
        self._look_at = now + LOOK_S
        self._remember({kind: limit for kind, (limit, _) in told.items()})
        if not told:
            self._free_calls, self._free_bytes = 1_000, 1 << 30
            return
        if min(left / limit for limit, left in told.values()) < NEAR:
            with self._lock:  # of those that are under way the answer may not know
                limit, left = told.get("requests", (0.0, 0.0))
                told = {**told, "requests": (limit, left - self._unheld)} if limit else told
                self._update(
                    lambda allowance: allowance.told("", self._within_caps(told, allowance, now), now, is_whole=True)
                )
                self.is_near = True
            return
        # a quarter of what may go before the limits are near: other processes may do the same meanwhile
        free = {kind: (left - limit * NEAR) / 4 for kind, (limit, left) in told.items()}
        self._free_calls = int(free.get("requests", 1_000))
        self._free_bytes = int(min(free.get("input-tokens", 1 << 28), free.get("output-tokens", 1 << 28)))

    # When they are near -----------------------------------------------------------------------------------------------

    def need(self, estimated_input_tokens: int, max_tokens: int = 0) -> Need:
        """What a call is expected to take, by what others took.

        Who has one limit for all tokens counts the longest answer that is asked for, not the one that comes
        (https://platform.openai.com/docs/guides/rate-limits).
        """
        read = estimated_input_tokens * self._input_ratio
        return Need(1.0, read, self._output_tokens, read + max(self._output_tokens, max_tokens))

    def ask(self, uid: str, lane: str, need: Need, now: float) -> float:
        """0 when the call may go, which it then has to; else the seconds after which to ask again."""
        with self._lock:
            if uid not in self._waiting:
                self._arrivals += 1
                self._waiting[uid] = lane, self._arrivals, need
                # who was not here does not save up turns
                floor = min((self._served.get(other, 0) for other, _, _ in self._waiting.values()), default=0)
                self._served[lane] = max(self._served.get(lane, 0), floor)
            order = sorted(self._waiting, key=self._turn)
            rank = order.index(uid)
            ahead = [self._waiting[other][2] for other in order[:rank]]
            wait = self._update(lambda allowance: self._admitted(allowance, uid, need, ahead, now))
            if wait <= 0:
                self._served[lane] += 1
                self._left(uid)
                return 0.0
            return min(LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, wait))

    def throttled(self, uid: str) -> Throttled:
        """What a call was told when it asked last: how long it waits, and for what."""
        return self._told.get(uid, GOES)

    def give_up(self, uid: str) -> None:
        """The call does not go."""
        with self._lock:
            self._left(uid)

    def answered(
        self, uid: str, told: Told, now: float, *, is_whole: bool, refused: bool, retry_after_s: float | None
    ) -> None:
        """The head of an answer has come."""

        def change(allowance: Allowance) -> float:
            allowance.told(uid, self._within_caps(told, allowance, now), now, is_whole=is_whole)
            if refused:
                allowance.refused(retry_after_s, now, tells_limits=bool(told))
            return allowance.share_left() if allowance.window is None else 0.0

        with self._lock:
            share_left = self._update(change)
            self.is_near = bool(self._caps) or refused or bool(self._waiting) or share_left < FAR
            self._look_at = now + LOOK_S

    def ended(self, uid: str, used: Need, estimated_input_tokens: int, now: float, *, is_ok: bool) -> None:
        """A call has ended."""
        with self._lock:
            if is_ok:  # a moving mean over about eight calls
                self._output_tokens += (used.output_tokens - self._output_tokens) / 8
                if estimated_input_tokens and used.input_tokens:
                    self._input_ratio += (used.input_tokens / estimated_input_tokens - self._input_ratio) / 8
            self._update(lambda allowance: allowance.ended(uid, used, now, is_ok=is_ok))

    def limits(self) -> dict[str, float]:
        """What the account may do in a minute, by kind, as far as it was told to anybody on this store."""
        with self._lock:
            known: dict[str, float] = {}
            if self._remembered:  # by this process, and perhaps not noted yet
                self._note_limits()
            for key in (self.key + _TOLD, self.key):  # what is held back by is the newest
                self._shelf.update(key, lambda allowance: known.update(allowance.limits) or 0.0)
            return {kind: min(limit, self._caps.get(kind, limit)) for kind, limit in {**self._caps, **known}.items()}

    def held(self) -> tuple[int, str]:
        """How many calls of this process are held back, and for what, in words."""
        told = tuple(self._told.values())
        return len(self._waiting), max(told, key=lambda one: one.wait_s).reason if told else ""

    @property
    def waiting(self) -> int:
        """How many calls of this process wait for their turn."""
        return len(self._waiting)

    # ------------------------------------------------------------------------------------------------------------------

    def _remember(self, limits: dict[str, float]) -> None:
        """Keeps limits that are far, for estimates in other kernels, too; apart from what calls are held back by."""
        if limits and limits != self._remembered:
            self._remembered = limits
            self._later.ask()  # no caller waits for a ledger, and the first call's row opens it

    def _note_limits(self) -> None:
        limits = self._remembered
        self._shelf.note(self.key + _TOLD, lambda allowance: allowance.limits.update(limits) or 0.0)

    def _turn(self, uid: str) -> tuple[int, int]:
        lane, arrival, _ = self._waiting[uid]
        before = sum(other == lane and at < arrival for other, at, _ in self._waiting.values())
        return self._served[lane] + before, arrival

    def _admitted(self, allowance: Allowance, uid: str, need: Need, ahead: list[Need], now: float) -> float:
        total = Need(
            need.requests + sum(other.requests for other in ahead),
            need.input_tokens + sum(other.input_tokens for other in ahead),
            need.output_tokens + sum(other.output_tokens for other in ahead),
            need.total_tokens + sum(other.total_tokens for other in ahead),
        )
        wait, kind = allowance.wait(total, now)
        self._told[uid] = Throttled(wait, kind.replace("-", " "), allowance.limits.get(kind))
        if wait <= 0:  # there is room for those ahead, too
            allowance.take(uid, need, now)
        return wait

    def _within_caps(self, told: Told, allowance: Allowance, now: float) -> Told:
        """What the API says, where it says less than the user's own limits: those are counted here."""
        allowance.refill(now)
        known: dict[str, tuple[float, float]] = {}
        for kind, (limit, left) in told.items():
            cap = self._caps.get(kind, limit)
            if limit <= cap or left < allowance.levels.get(kind, cap):
                known[kind] = min(limit, cap), left
        return known

    def _update(self, change: Change) -> float:
        if self._updating:
            self._deferred.append(change)
            return 0.0

        def capped(allowance: Allowance) -> float:
            allowance.cap(self._caps)
            while self._deferred:
                self._deferred.popleft()(allowance)
            result = change(allowance)
            allowance.cap(self._caps)
            return result or 0.0

        self._updating = True
        try:
            return self._shelf.update(self.key, capped)
        finally:
            self._updating = False

    def _left(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)
        if not self._waiting:
            self._served.clear()
