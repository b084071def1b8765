"""What is said to somebody whose money runs out: what is left, when it begins anew, and how to go on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from llmnb.budgeting.budget import Budget
from llmnb.errors import BudgetExceeded
from llmnb.ledger.zones import from_us
from llmnb.records import Usage


def resets(budget: Budget, ts: int) -> str:
    """When a budget begins anew, in a sentence."""
    if budget.per == "rolling 24h":
        return "What was spent counts for 24 hours."
    end = budget.period(ts).end_us
    return "It never begins anew." if end is None else f"It begins anew {on(budget, end)}."


def on(budget: Budget, when_us: int) -> str:
    """A moment in the timezone of a budget, and how far away it is."""
    when = from_us(when_us, budget.zone)
    return f"on {when:%Y-%m-%d at %H:%M} ({budget.zone_name()}){in_words(when_us - time.time_ns() // 1000)}"


def in_words(span_us: int) -> str:
    """How far away something is; empty for what is past."""
    minutes = round(span_us / 60e6)
    if minutes < 1:
        return ""
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f", in {days} d {hours} h"
    return f", in {hours} h {minutes} min" if hours else f", in {minutes} min"


@dataclass(frozen=True, slots=True)
class Shortage:
    """A budget that does not allow a call made at `ts`: `left` is not spent, the call needs `needed`.

    `free_us` is when there will be enough again; None: never.
    """

    budget: Budget
    ts: int
    left: int
    needed: int
    free_us: int | None

    def refusal(self, what: str, waited: str = "") -> BudgetExceeded:
        """The error of a call that was not sent; `what` says what it needs money for, `waited` for what it waited."""
        budget = self.budget
        return self._error(
            f"the budget of {budget} has {budget.amount(max(0, self.left))} left, and this call may cost "
            f"{budget.amount(self.needed)} ({what}). {waited}Nothing was sent. {self._way_on()}"
        )

    def cut(self, partial: str, usage: Usage) -> BudgetExceeded:
        """The error of an answer that was cut off."""
        error = self._error(
            f"the answer was cut off after {len(partial):,} characters, where it would have crossed the budget of "
            f"{self.budget}. What came is in `.partial`. {self._way_on()}"
        )
        error.partial, error.usage = partial, usage
        return error

    def _way_on(self) -> str:
        budget, anew = self.budget, resets(self.budget, self.ts)
        if budget.per == "rolling 24h" and self.free_us is not None:
            anew = f"Enough of it is free again {on(budget, self.free_us)}."
        return f"{anew} To go on now: {raised(budget, self.needed - self.left)}, or a smaller max_tokens."

    def _error(self, message: str) -> BudgetExceeded:
        budget, free_us = self.budget, self.free_us
        return BudgetExceeded(
            message,
            budget=str(budget),
            unit=budget.unit,
            limit=budget.limit,
            left=budget.in_unit(max(0, self.left)),
            needed=budget.in_unit(self.needed),
            resets_at=None if free_us is None else from_us(free_us, budget.zone),
        )


def raised(budget: Budget, short: int) -> str:
    """The call that raises a budget by half, or by what is short if that is more."""
    enough = budget.allowance + max(short, budget.allowance // 2)
    if budget.unit == "tokens":
        return budget.call(tokens=enough)
    return budget.call(usd=f"{-(-enough // 10_000_000) / 100:g}")  # whole cents
