"""How budgets stand: what is spent, held and left of each, for people, scripts and the meter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb.budgeting import counting
from llmnb.budgeting.blocks import has_stale
from llmnb.budgeting.budget import Budget, all_budgets
from llmnb.budgeting.reservations import let_go
from llmnb.budgeting.texts import resets
from llmnb.errors import StoreError
from llmnb.ledger.connection import reading
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.sessions import is_dead
from llmnb.ledger.shelf import settle
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import from_us, reporting_zone
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

BUDGET_COLUMNS: dict[str, Kind] = {
    "id": "int", "per": "text", "project": "text", "user": "text", "model": "text", "notebook": "text",
    "action": "text", "limit_usd": "usd", "spent_usd": "usd", "held_usd": "usd", "left_usd": "usd",
    "limit_tokens": "int", "spent_tokens": "int", "held_tokens": "int", "left_tokens": "int", "spent_percent": "float",
    "calls": "int", "unpriced_calls": "int", "starts_at": "time", "resets_at": "time", "timezone": "text",
    "allow_unpriced": "text",
}  # fmt: skip
"""The columns of `budgets()`, in their order."""


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget and how it stands at a moment (microseconds since 1970).

    `spent_amount` is what calls on the books took, `held_amount` what calls under way hold, both in nano-dollars or
    tokens as the budget's unit says; `unpriced_calls` are on the books without a price, and took nothing.
    """

    budget: Budget
    spent_amount: int
    held_amount: int
    calls: int
    unpriced_calls: int
    at_us: int

    @property
    def id(self) -> int:
        """What `remove_budget` takes."""
        return self.budget.id

    @property
    def limit(self) -> Decimal | int:
        """The limit in dollars, or in tokens."""
        return self.budget.limit

    @property
    def spent(self) -> Decimal | int:
        """What is spent, in dollars or tokens."""
        return self.budget.in_unit(self.spent_amount)

    @property
    def held(self) -> Decimal | int:
        """What calls under way hold, in dollars or tokens."""
        return self.budget.in_unit(self.held_amount)

    @property
    def left(self) -> Decimal | int:
        """What is not spent, in dollars or tokens; some of it may be held."""
        return self.budget.in_unit(max(0, self.budget.allowance - self.spent_amount))

    @property
    def share(self) -> float:
        """What is spent as a share of the limit; 1 where that is 0."""
        return self.spent_amount / self.budget.allowance if self.budget.allowance else 1.0

    @property
    def resets_at(self) -> datetime | None:
        """When it begins anew; None where it never does at one moment."""
        end = self.budget.period(self.at_us).end_us
        return None if end is None else from_us(end, self.budget.zone)

    def __str__(self) -> str:
        budget = self.budget
        facts = [f"{budget.amount(self.spent_amount)} spent"]
        if self.held_amount:
            facts.append(f"{budget.amount(self.held_amount)} held by calls under way")
        facts.append(f"{budget.amount(max(0, budget.allowance - self.spent_amount))} left")
        if self.unpriced_calls:
            facts.append(f"{self.unpriced_calls:,} calls unpriced")
        then = "" if budget.action == "stop" else " It warns, and stops no call."
        return f"Budget {budget.id}: {budget}. {', '.join(facts)}. {resets(budget, self.at_us)}{then}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # an element of its own for a dollar sign: a page-wide typesetter takes text between two of them for math
        return f"<div>{escape(str(self)).replace('$', '<span>$</span>')}</div>"

    def row(self) -> tuple[Any, ...]:
        """The values of `BUDGET_COLUMNS`."""
        budget, period = self.budget, self.budget.period(self.at_us)
        left = max(0, budget.allowance - self.spent_amount)
        amounts = (budget.allowance, self.spent_amount, self.held_amount, left)
        nothing = (None,) * len(amounts)
        usd, tokens = (amounts, nothing) if budget.unit == "usd" else (nothing, amounts)
        return (
            budget.id, budget.per, budget.project, budget.user, budget.model, budget.notebook, budget.action, *usd,
            *tokens, round(self.share * 100, 4), self.calls, self.unpriced_calls, period.start_us, period.end_us,
            budget.zone_name(), ", ".join(budget.unpriced) or None,
        )  # fmt: skip


def statuses(settings: Settings | None = None, *, at_us: int | None = None) -> list[BudgetStatus]:
    """How all budgets of the ledger stand. What processes of this host held that have died is let go before.

    Raises:
        StoreError: the ledger cannot be read.
    """
    chosen = settings or load()
    path = chosen.ledger_path
    settle(path)
    let_go(path)
    with reading(path) as connection:
        is_held_by_dead = connection is not None and _is_held_by_dead(connection)
    if is_held_by_dead:
        from llmnb.budgeting.guard import guard  # not above: it tidies definitions, which say how budgets stand

        with suppress(StoreError):  # a ledger that can only be read is shown as it is
            guard(chosen).tidy()
    with reading(path) as connection:
        return [] if connection is None else statuses_in(connection, at_us=at_us)


def statuses_in(connection: Connection, *, at_us: int | None = None) -> list[BudgetStatus]:
    """The same, on a connection that is in no transaction."""
    if not has_budgets(connection):
        return []
    connection.execute("BEGIN")  # one moment of the ledger
    try:
        now_us = time.time_ns() // 1000 if at_us is None else at_us
        return [status_of(connection, budget, now_us) for budget in all_budgets(connection)]
    finally:
        connection.execute("ROLLBACK")


def _is_held_by_dead(connection: Connection) -> bool:
    if not has_budgets(connection):
        return False
    sessions = connection.execute("SELECT DISTINCT session FROM reservations").fetchall()
    return any(is_dead(session) for (session,) in sessions) or has_stale(connection)


def has_budgets(connection: Connection) -> bool:
    """Whether the ledger is of a version that has budgets at all."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'budgets'").fetchone()
    return found is not None


def status_of(connection: Connection, budget: Budget, at_us: int) -> BudgetStatus:
    """How a budget stands, inside a transaction."""
    period = budget.period(at_us)
    count = counting.spent(connection, budget, period)
    held = counting.held(connection, budget, period)
    return BudgetStatus(budget, count.amount, held.amount, count.calls, count.unpriced, at_us)


def budget_frame(found: Sequence[BudgetStatus], zone: tzinfo | None = None) -> pd.DataFrame:
    """Statuses as a data frame, times in the reporting timezone."""
    return frame(BUDGET_COLUMNS, [status.row() for status in found], zone or reporting_zone(load()))
