"""The desk at which one call asks all its budgets for money, inside a transaction of the ledger.

Money is held in the transaction that finds it free, so that no two calls are told of the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmnb import origin
from llmnb.budgeting import counting
from llmnb.budgeting.alerts import Alert, due, said
from llmnb.budgeting.budget import Budget, Unit


@dataclass(frozen=True, slots=True)
class Need:
    """What a call takes of a budget: what is to be held, and how much more it can cost, where it cannot be cut off."""

    amount: int
    excess: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that wants to be sent. `call` holds the fields of its row, `needs` what it needs (None: unpriced).

    `holder` is who holds the money where that is no process, which would let it go when it dies, and `held_from_us` is
    from when on that counts: a day later, at the latest, it is let go.
    """

    uid: str
    attempt: int
    ts: int
    call: Mapping[str, Any]
    needs: Mapping[Unit, Need | None]
    holder: str | None = None
    held_from_us: int | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may be sent; `budgets` hold money for it, `alerts` are to be said now."""

    budgets: tuple[Budget, ...] = ()
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A budget does not allow it: `left` is what is not spent of it; `needed` is None where there is no price.

    `free_us` is when there will be enough again; None: never.
    """

    budget: Budget
    left: int
    needed: int | None
    free_us: int | None = None
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class MustWait:
    """It fits as soon as other calls end that hold `held` of the budget; no `uids` where it is still being counted."""

    budget: Budget
    left: int
    needed: int
    held: int
    uids: tuple[str, ...]
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretched:
    """How many output tokens money is held for; where that is fewer than wanted, which budget allows no more, and why.

    `left` is what is neither spent nor held by others, `needed` what the call would have to have.
    """

    output_tokens: int
    budget: Budget | None = None
    left: int = 0
    needed: int = 0
    free_us: int | None = None


Verdict = Granted | Refused | MustWait


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended, by the fields of its row, and what it took."""

    call: Mapping[str, Any]
    took: Mapping[Unit, int]


@dataclass(slots=True)
class Desk:
    """Looks at the budgets for one call, inside a transaction."""

    connection: Any
    ask: Ask
    unwritten: Sequence[Ended] = ()
    """Calls that have ended, and are not on the books yet."""
    looked_up: dict[Budget, tuple[int, counting.Count]] = field(
        default_factory=dict[Budget, tuple[int, counting.Count]]
    )

    def judge(self, concerned: list[Budget]) -> Verdict:
        alerts = self.claimed(concerned)
        stops = [budget for budget in concerned if budget.action == "stop"]
        verdicts = [verdict for budget in stops if (verdict := self.verdict(budget, alerts)) is not None]
        refusals = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
        return next(iter([*refusals, *verdicts]), Granted(tuple(stops), alerts))

    def verdict(self, budget: Budget, alerts: tuple[Alert, ...]) -> Refused | MustWait | None:
        """Why the call may not be sent now, or None."""
        need = self.ask.needs[budget.unit]
        if need is None and budget.allows_unpriced(self.ask.call["model_requested"]):
            return None
        left = budget.allowance - self.count(budget).amount
        if budget.counting is not None:
            return MustWait(budget, left, 0 if need is None else need.amount, 0, (), alerts)
        if need is None:
            return Refused(budget, left, None, alerts=alerts)
        needed = max(0, need.amount - self.own(budget))
        if needed > left:
            free_us = counting.free_again_us(self.connection, budget, self.ask.ts, needed - left)
            return Refused(budget, left, needed, free_us, (*alerts, *self.used_up(budget)))
        most, excess = counting.held_at_most(self.connection, budget, besides=self.ask.uid)
        if most + needed + max(excess, need.excess) <= left:
            return None
        held = self.held(budget)
        # room for one call that costs more than is held for it; where no other is under way, there is no such call
        if held.uids and held.amount + needed + max(held.excess, need.excess) > left:
            return MustWait(budget, left, needed, held.amount, held.uids, alerts)
        return None

    def stretched(self, budget: Budget, wanted: int, needs: Callable[[Unit, int], int]) -> Stretched:
        """How many output tokens a budget has money for."""
        if self.ask.needs[budget.unit] is None:
            return Stretched(wanted)
        left = budget.allowance - self.count(budget).amount + self.own(budget) - self.held(budget).amount
        tokens = _most(lambda count: needs(budget.unit, count), left, wanted)
        if tokens >= wanted:
            return Stretched(wanted)
        needed = needs(budget.unit, wanted)
        free_us = counting.free_again_us(self.connection, budget, self.ask.ts, needed - left)
        return Stretched(tokens, budget, left, needed, free_us)

    def hold(self, budgets: tuple[Budget, ...]) -> None:
        for budget in budgets:
            need = self.ask.needs[budget.unit]
            if need is not None:
                self.set(budget, need)

    def set(self, budget: Budget, need: Need) -> None:
        self.connection.execute(
            "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid, budget_id) DO UPDATE SET"
            " attempt = excluded.attempt, amount = excluded.amount, excess = excluded.excess",
            (
                self.ask.uid,
                budget.id,
                self.ask.attempt,
                self.ask.ts,
                need.amount,
                need.excess,
                self.ask.holder or origin.session(),
                self.ask.held_from_us or time.time_ns() // 1000,
            ),
        )

    # What the ledger says

    def count(self, budget: Budget) -> counting.Count:
        """What was spent in the period of the call, with what the call itself took if that is not written yet."""
        if budget not in self.looked_up:
            period = budget.period(self.ask.ts)
            count = counting.spent(self.connection, budget, period)
            number = _number(period.start_us, budget)
            for one in self.unwritten:
                if budget.concerns(one.call) and _number(budget.period(one.call["ts"]).start_us, budget) == number:
                    count = count._replace(amount=count.amount + one.took[budget.unit])
            self.looked_up[budget] = (number, count)
        return self.looked_up[budget][1]

    def own(self, budget: Budget) -> int:
        """What earlier attempts of the call took, as far as it is on the books."""
        return counting.on_the_books(self.connection, budget, self.ask.uid) if self.ask.attempt > 1 else 0

    def held(self, budget: Budget) -> counting.Held:
        return counting.held(self.connection, budget, budget.period(self.ask.ts), besides=self.ask.uid)

    # Alerts

    def alerts(self, concerned: list[Budget]) -> tuple[Alert, ...]:
        found: list[Alert] = []
        for budget in concerned:
            if budget.counting is None:
                count = self.count(budget)
                number = self.looked_up[budget][0]
                found.append(Alert(budget, due(count.amount, budget.allowance), count.amount, number, self.ask.ts))
        return tuple(alert for alert in found if alert.is_new)

    def claimed(self, concerned: list[Budget]) -> tuple[Alert, ...]:
        return tuple(alert for alert in self.alerts(concerned) if said(self.connection, alert.budget, alert))

    def used_up(self, budget: Budget) -> tuple[Alert, ...]:
        """Says that a budget is used up, when it is nearly so and refuses a call."""
        count = self.count(budget)
        if due(count.amount, budget.allowance) < 80:
            return ()
        alert = Alert(budget, 100, count.amount, self.looked_up[budget][0], self.ask.ts)
        return (alert,) if alert.is_new and said(self.connection, budget, alert) else ()


def _number(start_us: int | None, budget: Budget) -> int:
    """Tells the periods of a budget apart, for its warnings; a rolling one is always the same."""
    return start_us if start_us is not None and budget.per != "rolling 24h" else 0


def _most(cost: Callable[[int], int], room: int, tokens: int) -> int:
    """The most tokens, up to so many, that cost no more than there is room for."""
    if cost(tokens) <= room:
        return tokens
    low, high = 0, tokens
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= room else (low, middle)
    return low
