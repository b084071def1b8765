"""What "auto" has won and lost with the prompt cache so far, so that it can stop before it has lost too much.

Whether a prefix will be read again is a guess, and a guess can be wrong each time. So every write is a stake on an
account, paid back with the reads that follow: where the account is short, nothing is staked, whatever seems likely.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from llmnb.pricing import CachePrices
from llmnb.records import Usage

PROMPTS_AT_STAKE = 1.5
"""As many times the prompt being sent may be lost: a wasted five-minute write costs 0.25 of it, one for an hour 1."""
SHARE_AT_STAKE = 0.05
"""This share of all input so far may be lost besides: what was wasted once is forgotten in time."""


@dataclass(frozen=True, slots=True)
class Stake:
    """What a request may lose, in tokens at the input price, and what the account may lose in all when it is sent."""

    tokens: float
    bound_tokens: float


class Balance:
    """The account of one model at one address, in tokens at the price of plain input. Starts at 0.

    It never goes below -(1.5 x the largest prompt + 0.05 x all input), but by what could not be known when a request
    was sent: that a prompt has more tokens than were estimated, or that the API had dropped an entry before its time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moves: deque[tuple[float, int]] = deque()  # a finalizer adds to it, and must not wait for the lock
        self._saved = 0.0
        self._input = 0

    def stake(self, tokens: float, prompt_tokens: int) -> Stake | None:
        """Takes the stake of a request that may lose so many tokens; None where the account is short of it."""
        with self._lock:
            self._count()
            bound = PROMPTS_AT_STAKE * prompt_tokens + SHARE_AT_STAKE * self._input
            if self._saved - tokens < -bound:
                return None
            self._saved -= tokens
            return Stake(tokens, bound)

    def give_back(self, stake: Stake) -> None:
        """The request was not answered: nothing was written."""
        self._moves.append((stake.tokens, 0))

    def settle(self, stake: Stake, usage: Usage, prices: CachePrices, *, only_losses: bool = False) -> None:
        """What the cache did for the request is known, and takes the place of its stake."""
        saved = saved_tokens(usage, prices)
        self._moves.append((stake.tokens + (min(saved, 0.0) if only_losses else saved), usage.total_input_tokens))

    @property
    def saved_tokens(self) -> float:
        """Tokens saved so far, stakes of requests under way counted as lost; negative where more was lost."""
        with self._lock:
            self._count()
            return self._saved

    def _count(self) -> None:
        while self._moves:
            saved, read = self._moves.popleft()
            self._saved += saved
            self._input += read


def saved_tokens(usage: Usage, prices: CachePrices) -> float:
    """What reading saved less what writing cost more, in tokens at the input price."""
    hour = 1.0 if prices.write_1h is None else prices.write_1h
    return (
        usage.cache_read_tokens * (1 - prices.read)
        - (usage.cache_write_5m_tokens + usage.cache_write_unsplit_tokens) * (prices.write_5m - 1)
        - usage.cache_write_1h_tokens * (hour - 1)
    )
