"""What one account may still do with one model this minute: token buckets that the API's own word puts right. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

KINDS = ("requests", "input-tokens", "output-tokens", "total-tokens")
"""As in the names of the API's headers: `anthropic-ratelimit-requests-limit`, `-remaining`. The last is what other
providers have instead of the two before it (see `llmnb.providers.refusal`)."""
_WITHOUT_OUTPUT = ("requests", "input-tokens")
HELD_S = 600.0
"""A call that has not ended by then is forgotten: its process died. It is the SDK's own default timeout."""
STEP_BACK_S = 60.0
"""The clocks of threads and machines differ by less; when one is further behind, the time was put back."""
OVERTAKING_S = 5.0
"""A call can read the clock so long before it is its turn to write what it read."""
MARGIN = 0.02
"""This share of each limit is left alone: calls overtake each other on their way, and what one takes is estimated."""
MOST_AT_ONCE = 64.0
"""A window of calls that has grown so wide again is none."""

Told: TypeAlias = Mapping[str, tuple[float, float]]
"""By kind: what the API allows in a minute, and what is left of it."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one call is expected to take, in the order of `KINDS`."""

    requests: float = 1.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    total_tokens: float = 0.0

    def of(self, kind: str) -> float:
        """The amount of one kind."""
        return getattr(self, kind.replace("-", "_"))


@dataclass(slots=True)
class Allowance:
    """The buckets of an account. Times are seconds since the epoch, limits are per minute.

    `held` are the calls under way: when each was admitted, what it has taken that the API has not told of yet, and its
    number.
    `window` is how many calls may be under way at once, after a 429 of a server that tells no limits; None: any number.
    `behind_s` is by how much the clock that is followed now is behind the one that was followed before.
    """

    limits: dict[str, float] = field(default_factory=dict[str, float])
    levels: dict[str, float] = field(default_factory=dict[str, float])
    at: float = 0.0
    blocked_until: float = 0.0
    admitted: int = 0
    newest_answered: int = 0
    window: float | None = None
    behind_s: float = 0.0
    held: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    @classmethod
    def read(cls, kept: dict[str, Any] | None) -> Allowance:
        """From what `written` gave."""
        if not kept:
            return cls()
        made = cls(**kept)
        # another version may have held other kinds
        made.held = {uid: call for uid, call in made.held.items() if len(call) == len(KINDS) + 2}
        return made

    def written(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def cap(self, caps: Mapping[str, float]) -> None:
        """No limit is higher than these; one that the API does not tell of begins with a full minute."""
        for kind, cap in caps.items():
            self.levels[kind] = min(self.levels.get(kind, cap), cap)
            self.limits[kind] = min(self.limits.get(kind, cap), cap)

    def wait_s(self, need: Need, now: float) -> float:
        """Seconds until a call that needs so much may go; 0 where it may go now."""
        return self.wait(need, now)[0]

    def wait(self, need: Need, now: float) -> tuple[float, str]:
        """The same, and the kind of limit that is waited for; '' where it is none of `KINDS`."""
        self.refill(now)
        wait, waited_for = max(0.0, self.blocked_until - now), ""
        for kind, limit in self.limits.items():
            # one that needs more than all takes all
            short = min(need.of(kind) + limit * MARGIN, limit) - self.levels[kind]
            if short * 60 / limit > wait:
                wait, waited_for = short * 60 / limit, kind
        if self.window is not None and len(self.held) >= max(1, int(self.window)):
            wait = max(wait, 0.25)  # until one of them ends, which nobody knows
        return wait, waited_for

    def take(self, uid: str, need: Need, now: float) -> None:
        """A call goes."""
        for kind in self.limits:
            self.levels[kind] -= need.of(kind)
        self.admitted += 1
        self.held[uid] = [now, *(need.of(kind) for kind in KINDS), self.admitted]

    def told(self, uid: str, told: Told, now: float, *, is_whole: bool) -> None:
        """An answer has come, and with it what is left; `is_whole` when its output is in that, too."""
        self.refill(now)
        held = self.held.get(uid)
        is_newest = False
        if held is not None:
            # answers overtake each other, and an older one does not know of the newer calls
            is_newest, self.newest_answered = held[-1] >= self.newest_answered, max(held[-1], self.newest_answered)
            for at, kind in enumerate(KINDS, 1):
                if kind in told and (is_whole or kind in _WITHOUT_OUTPUT):
                    held[at] = 0.0
        for at, kind in enumerate(KINDS, 1):
            if kind not in told:
                continue
            limit, left = told[kind]
            level = left - sum(call[at] for call in self.held.values())
            known = self.limits.get(kind) == limit
            if not known or is_newest or level < self.levels[kind]:
                self.levels[kind] = level
            self.limits[kind] = limit

    def refused(self, retry_after_s: float | None, now: float, *, tells_limits: bool) -> None:
        """The API said 429."""
        self.blocked_until = max(self.blocked_until, now + (retry_after_s or 0.0))
        if not tells_limits and not self.limits:
            self.window = max(1.0, min(self.window or MOST_AT_ONCE, len(self.held)) / 2)

    def ended(self, uid: str, used: Need, now: float, *, is_ok: bool) -> None:
        """A call has ended: what it was thought to take gives way to what it took."""
        self.refill(now)
        held = self.held.pop(uid, None)
        if held is None:
            return
        for at, kind in enumerate(KINDS, 1):
            if kind in self.limits and held[at]:
                self.levels[kind] = min(self.limits[kind], self.levels[kind] + held[at] - used.of(kind))
        if self.window is not None and is_ok:
            self.window += 1 / self.window
            if self.window >= MOST_AT_ONCE:
                self.window = None

    def share_left(self) -> float:
        """What is left of the kind of which least is left, as a share of its limit; 1 where nothing is limited."""
        shares = [self.levels[kind] / limit for kind, limit in self.limits.items()]
        return min(shares, default=1.0)

    def refill(self, now: float) -> None:
        """What came back since the last time; calls that nobody can be waiting for any more are forgotten."""
        if now < self.at - STEP_BACK_S:
            self.behind_s += self.at - now
            self._follow(now - self.at)
        elif self.behind_s and now - self.at > self.behind_s - OVERTAKING_S:
            self._follow(self.behind_s)
            self.behind_s = 0.0
        passed = max(0.0, now - self.at)
        self.at = max(now, self.at)
        for kind, limit in self.limits.items():
            self.levels[kind] = min(limit, self.levels[kind] + passed * limit / 60)
        for uid in [uid for uid, held in self.held.items() if held[0] < now - HELD_S]:
            del self.held[uid]

    def _follow(self, by_s: float) -> None:
        """A clock that shows another time: it was put back, or another machine's is behind, or the first is back.

        Nothing would come back before the one behind shows the old time again, on another day perhaps; and from one
        to the other no time passes, however often two machines take turns.
        """
        self.at += by_s
        self.blocked_until += by_s
        for held in self.held.values():
            held[0] += by_s
