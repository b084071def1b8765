"""The prompt cache: entries at breakpoints, found again by exact prefix, kept for their TTL and refreshed by a read.

Rules of https://platform.claude.com/docs/en/build-with-claude/prompt-caching: a lookup walks back at most 20 blocks
from each breakpoint; a prefix shorter than the model's minimum is not cached and raises no error; entries are private
to their workspace, and to the model. Time is the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmnb.simulator.prompt import Prompt

LOOKBACK_BLOCKS = 20
TTL_S = {"5m": 300.0, "1h": 3600.0}


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Input tokens of one request by what the cache did with them."""

    uncached_tokens: int
    read_tokens: int = 0
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0

    @property
    def write_tokens(self) -> int:
        """Tokens written, whatever the TTL."""
        return self.write_5m_tokens + self.write_1h_tokens


@dataclass(slots=True)
class _Entry:
    ttl_s: float
    expires: float


class PromptCache:
    """Every live prefix of the server."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything, as after an hour without a call."""
        self._entries.clear()

    def use(self, prompt: Prompt, minimum_tokens: int, now: float) -> CacheUse:
        """Read what is cached of the prompt, write what its breakpoints ask for, and say how many tokens were which."""
        breakpoints = prompt.breakpoints
        if not breakpoints:
            return CacheUse(prompt.tokens)
        self._sweep(now)
        totals = _running_totals(prompt)
        hit = self._longest_hit(prompt, breakpoints, now)
        self._refresh(prompt, hit, now)
        read = totals[hit] if hit >= 0 else 0
        cached_up_to, written = read, {"5m": 0, "1h": 0}
        for at in breakpoints:
            if at > hit and totals[at] >= minimum_tokens:
                ttl = prompt.blocks[at].ttl or "5m"
                written[ttl] += totals[at] - cached_up_to
                cached_up_to = totals[at]
                self._entries[prompt.blocks[at].prefix] = _Entry(TTL_S[ttl], now + TTL_S[ttl])
        return CacheUse(prompt.tokens - cached_up_to, read, written["5m"], written["1h"])

    def _longest_hit(self, prompt: Prompt, breakpoints: list[int], now: float) -> int:
        for at in reversed(breakpoints):
            for candidate in range(at, max(-1, at - LOOKBACK_BLOCKS), -1):
                entry = self._entries.get(prompt.blocks[candidate].prefix)
                if entry is not None and entry.expires > now:
                    return candidate
        return -1

    def _refresh(self, prompt: Prompt, hit: int, now: float) -> None:
        """A read renews the entry it used and the shorter ones inside it, each for its own TTL."""
        for block in prompt.blocks[: hit + 1]:
            entry = self._entries.get(block.prefix)
            if entry is not None and entry.expires > now:
                entry.expires = now + entry.ttl_s

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + 60
        for prefix in [prefix for prefix, entry in self._entries.items() if entry.expires <= now]:
            del self._entries[prefix]


def _running_totals(prompt: Prompt) -> list[int]:
    totals: list[int] = []
    running = 0
    for block in prompt.blocks:
        running += block.tokens
        totals.append(running)
    return totals
