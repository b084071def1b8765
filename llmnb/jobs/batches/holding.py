"""The money for a batch: counted before it is sent, held until its rows are on the books.

A batch is sent when every budget that concerns it has money for all its requests: what an answer is expected to stay
under, for each. It is held under a name of the batch's own, since the process that sent it may be gone long before it
ends; and let go when its results are on the books, or nobody can have them any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from llmnb.budgeting.alerts import say
from llmnb.budgeting.bound import Bound, bound_of
from llmnb.budgeting.budget import UNITS, Unit
from llmnb.budgeting.desk import Ask, Granted, Need, Refused
from llmnb.budgeting.guard import GIVE_UP_US, Guard
from llmnb.budgeting.texts import Shortage
from llmnb.errors import StoreBusy, StoreError, UnknownPrice
from llmnb.middleware.budget import LOCKED_S, PATIENCE_S, BudgetPart
from llmnb.middleware.entry import Ledgered
from llmnb.middleware.ledger import LedgerPart
from llmnb.records import current_context
from llmnb.slots import this_owner
from llmnb.trouble import quietly

KEPT_US = 29 * 24 * 3600 * 1_000_000
"""The API keeps results for 29 days after a batch was made (its documentation, "Batch processing")."""
_HOLDER = "message batch"
_PAUSE_S = 0.25

_NOTHING = Need(0)

Sleep = Callable[[float], Coroutine[Any, Any, None]]


@dataclass
class Needed:
    """What the requests of a batch need in all; None where one has no price."""

    usd: Need | None = _NOTHING
    tokens: Need | None = _NOTHING
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, bound: Bound) -> None:
        """One more request: as much as is expected of it; one of all may get as long as it can."""
        self.usd = _and(self.usd, bound, "usd")
        self.tokens = _and(self.tokens, bound, "tokens")
        self.input_tokens += bound.usage.total_input_tokens
        self.output_tokens += bound.output_tokens

    @property
    def text(self) -> str:
        """What it is made of, in words."""
        return f"a batch: up to {self.input_tokens:,} tokens of input and {self.output_tokens:,} of output"


def _and(before: Need | None, bound: Bound, unit: Unit) -> Need | None:
    amount, most = bound.take(unit, bound.output_tokens), bound.take(unit, bound.most_output_tokens)
    if before is None or amount is None or most is None:
        return None
    return Need(before.amount + amount, max(before.excess, most - amount))


class Holding:
    """The budgets that concern batches sent through `client`, if it has any."""

    def __init__(self, client: Any, model: str) -> None:
        parts: tuple[object, ...] = client.middleware
        ledger = next((part for part in parts if isinstance(part, LedgerPart)), None)
        budget = next((part for part in parts if isinstance(part, BudgetPart)), None)
        self._ledgered: Ledgered | None = None if ledger is None else ledger.ledgered
        self._guard: Guard | None = None if budget is None else budget.guard
        self._model = model

    @property
    def is_asked(self) -> bool:
        """Whether any budget concerns these batches, as far as is known now."""
        return self._guard is not None and any(
            budget.concerns(self._facts()) for budget in self._guard.reservations.known()
        )

    def bound(self, body: dict[str, Any]) -> Bound:
        """What one request can take, at the price of a batch."""
        shared, facts = self._ledgered, self._facts()
        assert shared is not None
        return bound_of(
            body,
            None if self._guard is None else self._guard.past,
            provider=shared.provider,
            project=facts.get("project"),
            prices=shared.settings.prices,
            service_tier="batch",
        )

    def _facts(self) -> dict[str, Any]:
        assert self._ledgered is not None
        now_us = time.time_ns() // 1000
        return {**self._ledgered.origin(current_context(), self._model, stream=False).fields, "uid": "", "ts": now_us}

    async def hold(self, name: str, needed: Needed, sleep: Sleep) -> None:
        """Holds the money for a batch, waiting for it while other calls hold what they may not need.

        Raises:
            BudgetExceeded, UnknownPrice: it may not be sent.
            StoreError: a budget is known, and what is left of it cannot be found out.
        """
        if self._guard is None or not self.is_asked:
            return
        facts: dict[str, Any] = {**self._facts(), "uid": _uid(name)}
        held_from = facts["ts"] + KEPT_US - GIVE_UP_US
        needs: dict[Unit, Need | None] = {unit: getattr(needed, unit) for unit in UNITS}
        ask = Ask(facts["uid"], 1, facts["ts"], facts, needs, _HOLDER, held_from)
        began = time.monotonic()
        while not await self._is_granted(ask, needed, time.monotonic() - began):
            await sleep(_PAUSE_S)

    async def _is_granted(self, ask: Ask, needed: Needed, waited_s: float) -> bool:
        assert self._guard is not None
        assert self._ledgered is not None
        try:
            verdict = self._guard.reservations.reserve(ask, this_owner())
        except StoreBusy:
            if waited_s > LOCKED_S:
                raise
            await asyncio.sleep(0)
            return False
        say(verdict.alerts, self._ledgered.settings)
        if isinstance(verdict, Granted):
            self._guard.reservations.ended(ask.uid)  # no call of this process: nobody waits for it to end
            return True
        if isinstance(verdict, Refused) and verdict.needed is None:
            raise UnknownPrice(self._model, self._ledgered.provider, f"The budget of {verdict.budget} stands.")
        if isinstance(verdict, Refused) or waited_s > PATIENCE_S:
            free_us = verdict.free_us if isinstance(verdict, Refused) else None
            short = Shortage(verdict.budget, ask.ts, verdict.left, verdict.needed or 0, free_us)
            raise short.refusal(needed.text)
        self._guard.tidy_soon()
        return False

    def let_go(self, name: str) -> None:
        """The batch was not sent, or what it cost is on the books."""
        if self._guard is None:
            return
        try:
            self._guard.reservations.let_go(_uid(name))
        except StoreError as trouble:
            quietly("letting go of money held for a batch", trouble, but="it is held on for up to 29 days")


def _uid(name: str) -> str:
    return f"batch:{name}"
