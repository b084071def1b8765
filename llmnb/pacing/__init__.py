"""Pacing: keeps the calls of all kernels inside what an account may do in a minute, and nobody meets a 429.

The API says in every answer what is left of requests, input and output tokens (`anthropic-ratelimit-*`). While much is
left a call costs a comparison; once half of any of them is used, each call waits until there is room for it, in turn
with others (`account`). What is left and what is under way is kept in the ledger's store, or in Redis where the cache
is, for all kernels (`shelves`).

Limiter libraries were looked at: pyrate-limiter 4.5, limits 5.8, aiolimiter 1.3, throttled-py 3.5. All admit by a rate
that is known beforehand and by an amount that is final. Here the rate and the level come from the server with every
answer, and the tokens of a call are known only when it has ended, so that what was taken has to be put right; none of
them has either, and pyrate-limiter keeps a row in SQLite for each token. What is left to write is the arithmetic of a
token bucket (`allowance`).
"""

from __future__ import annotations

from llmnb.pacing.account import Account as Account
from llmnb.pacing.allowance import Need as Need
from llmnb.pacing.pacer import Pacer as Pacer
from llmnb.pacing.pacer import pacer as pacer

__all__ = ["Account", "Need", "Pacer", "pacer"]
