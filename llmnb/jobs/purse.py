"""`Purse`: what a run may cost. No row is asked that could take it over, by an estimate's upper end and max_tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from llmnb.errors import InvalidRequest
from llmnb.jobs.lost import NONE_LOST, Lost
from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.asking.question import Question


class Purse:
    """A sum of which every row on its way holds back the most that it can cost.

    Args:
        usd: dollars in all.
        spent_nanousd: what of them is gone already.
        most: the most that a question can cost, in dollars; None when there is no price.
        attempts: how often a row may be asked.
        quick: more than that, but told at once; None where it cannot be told. Default: it never can.
        lost: calls before that were killed, which may be billed: as much is gone, too.
    """

    def __init__(
        self,
        usd: Decimal,
        spent_nanousd: int,
        most: Callable[[Question], Decimal | None],
        attempts: int,
        quick: Callable[[Question], Decimal | None] | None = None,
        lost: Lost = NONE_LOST,
    ) -> None:
        self._left = int(usd * NANO) - spent_nanousd - lost.nanousd
        self.is_empty = f"not asked: it could cost more than is left of budget_usd={usd}{lost}"
        """What is said of a row for which not enough is left."""
        self._held = 0
        self._most, self._attempts, self._quick = most, attempts, quick
        self._changed = asyncio.Event()

    async def take(self, question: Question) -> int | None:
        """Holds back the most that a question can cost, in nano-dollars; None when that is not left.

        While others hold some back, which they may not need, it waits for them.

        Raises:
            InvalidRequest: there is no price.
        """
        if self._quick is not None and (enough := self._quick(question)) is not None:
            wanted = int(enough * NANO) * self._attempts
            if self._held + wanted <= self._left:
                self._held += wanted
                return wanted
        most = self._most(question)
        if most is None:
            raise InvalidRequest(f"budget_usd wants a price, and there is none for {question.plan.model}: set one")
        wanted = int(most * NANO) * self._attempts
        while self._held + wanted > self._left:
            if not self._held:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._held += wanted
        return wanted

    def settle(self, held: int, cost_nanousd: int | None) -> None:
        """A row has ended: what it cost is gone (all that was held, where nobody knows), and the rest is free again."""
        self._held -= held
        self._left -= held if cost_nanousd is None else cost_nanousd
        self._changed.set()
