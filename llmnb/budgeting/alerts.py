"""Says once, across all processes, that half, four fifths or all of a budget is spent: as a warning and by a webhook.

Whoever is first to see it marks it as said in the ledger, and says it. A budget of 24 hours may be warned of again once
less than half of it is spent; all others when they begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmnb.budgeting import webhook
from llmnb.budgeting.budget import Budget
from llmnb.budgeting.texts import resets
from llmnb.ledger.sql import Connection
from llmnb.settings import Settings
from llmnb.trouble import BudgetWarning, warn_user

LEVELS = (50, 80, 100)
"""Percent."""


@dataclass(frozen=True, slots=True)
class Alert:
    """So much of a budget is spent. `period` tells its periods apart, `ts` is when the call was made that showed it."""

    budget: Budget
    percent: int
    spent: int
    period: int
    ts: int

    @property
    def is_new(self) -> bool:
        """Whether it was not said yet, as far as the budget that it was made of tells."""
        before = self.budget.said_percent if self.budget.said_period == self.period else 0
        return self.percent > before or self._ends_a_rise

    @property
    def _ends_a_rise(self) -> bool:
        return self.budget.per == "rolling 24h" and self.percent < LEVELS[0] and self.budget.said_percent > 0

    @property
    def text(self) -> str:
        """What is said."""
        budget = self.budget
        left = budget.amount(max(0, budget.allowance - self.spent))
        ends = " Calls are stopped from here on." if self.percent == 100 and budget.action == "stop" else ""
        if self.percent == 100 and self.spent < budget.allowance:  # a call was refused that needed more than there is
            said = f"the budget of {budget} is used up but for {left}, and a call that needs more was not sent."
        else:
            said = f"{self.percent} % of the budget of {budget} is spent: {budget.amount(self.spent)}, {left} is left."
        return f"llmnb: {said}{ends} {resets(budget, self.ts)}".strip()

    def facts(self) -> dict[str, Any]:
        """What is posted to a webhook: `text` is what Slack, Mattermost and others show."""
        budget = self.budget
        end = budget.period(self.ts).end_us
        return {
            "text": self.text,
            "event": "budget",
            "percent": self.percent,
            "budget": str(budget),
            "budget_id": budget.id,
            "unit": budget.unit,
            "limit": float(budget.limit),
            "spent": float(budget.in_unit(self.spent)),
            "per": budget.per,
            "action": budget.action,
            "project": budget.project,
            "user": budget.user,
            "model": budget.model,
            "notebook": budget.notebook,
            "resets_at_us": end,
        }


def due(spent: int, allowance: int) -> int:
    """The highest level that is reached, in percent; 0 for none."""
    return max((level for level in LEVELS if spent * 100 >= level * allowance), default=0)


def said(connection: Connection, budget: Budget | None, alert: Alert) -> bool:
    """Marks an alert as said, inside a transaction that writes; whether this is who has to say it."""
    if budget is None:
        return False
    changed = connection.execute(
        "UPDATE budgets SET said_period = ?, said_percent = ?"
        " WHERE id = ? AND (said_period <> ? OR said_percent < ? OR (? < ? AND said_percent > 0))",
        (alert.period, alert.percent, budget.id, alert.period, alert.percent, alert.percent, LEVELS[0]),
    ).rowcount
    return changed > 0 and alert.percent >= LEVELS[0]


def say(alerts: Iterable[Alert], settings: Settings) -> None:
    """Says them, here and to the webhook of the settings; never raises."""
    for alert in alerts:
        if settings.budget_webhook is not None:
            webhook.post(settings.budget_webhook, alert.facts())
        if alert.percent < 100 or alert.budget.action == "warn":  # the error of the call says the rest
            warn_user(alert.text, BudgetWarning)
