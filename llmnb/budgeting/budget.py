"""A budget: how much may be spent in a period, on which calls, and how that is said in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import tzinfo
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import SLOT_US, UTC, cuts_us, reporting_zone
from llmnb.records import NANO
from llmnb.settings import load

Per = Literal["hour", "day", "week", "month", "rolling 24h", "total"]
Action = Literal["stop", "warn"]
Unit = Literal["usd", "tokens"]

PERIODS: tuple[Per, ...] = ("hour", "day", "week", "month", "rolling 24h", "total")
UNITS: tuple[Unit, ...] = ("usd", "tokens")
ACTIONS: tuple[Action, ...] = ("stop", "warn")
SCOPES = ("project", "user", "model", "notebook")
"""What a budget can be for; of all that are named."""

ROLLING_US = 24 * 3600 * 1_000_000
END_OF_TIME = 1 << 62


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when a budget counts, in microseconds since 1970; None: from ever, or without an end."""

    start_us: int | None
    end_us: int | None

    @property
    def slots(self) -> tuple[int, int]:
        """The quarters of an hour it is made of, as the ledger numbers them; the last is not one of them."""
        if self.start_us is None:
            return 0, 1  # what never begins anew is counted in one place
        return self.start_us // SLOT_US, END_OF_TIME if self.end_us is None else -(-self.end_us // SLOT_US)


# without slots, for cached_property
@dataclass(frozen=True)
class Budget:
    """One budget as it is in the ledger. `allowance` is nano-dollars or tokens, as `unit` says.

    `counting` names the session that still counts what was spent before the budget was set; `said_percent` was the last
    warning, in the period that begins at `said_period`.
    """

    id: int
    per: Per
    unit: Unit
    project: str | None
    user: str | None
    model: str | None
    notebook: str | None
    allowance: int
    action: Action = "stop"
    timezone: str | None = None
    unpriced: tuple[str, ...] = ()
    counting: str | None = None
    said_period: int = 0
    said_percent: int = 0

    # Which calls ------------------------------------------------------------------------------------------------------

    def concerns(self, call: Mapping[str, Any]) -> bool:
        """Whether a call with these fields of its row is one of the budget's, as the ledger's triggers have it."""
        for name, wanted in self._narrowed:
            if wanted != call.get(name):
                return False
        return self.model is None or any(_matches(self.model, call.get(name)) for name in ("model_requested", "model"))

    @cached_property
    def _narrowed(self) -> tuple[tuple[str, str], ...]:
        """The fields of a row that it is not for every value of."""
        given = ((name, getattr(self, name)) for name in ("project", "user", "notebook"))
        return tuple((name, wanted) for name, wanted in given if wanted is not None)

    def allows_unpriced(self, model: str) -> bool:
        """Whether a model without a price may be asked."""
        return self.unit != "usd" or any(_matches(name, model) for name in self.unpriced)

    # When -------------------------------------------------------------------------------------------------------------

    @cached_property
    def zone(self) -> tzinfo:
        """The timezone in which its periods begin."""
        if self.timezone is None:
            return reporting_zone(load())
        try:
            return ZoneInfo(self.timezone)
        except Exception:  # a machine that does not know the zone of the one that set the budget
            return UTC

    def period(self, ts: int) -> Period:
        """The period that a call made at `ts` belongs to."""
        if self.per == "total":
            return Period(None, None)
        slot = ts // SLOT_US
        if self.per == "rolling 24h":
            # whole quarters of an hour, never less than 24 h; what the clock was set back from counts, too
            return Period((ts - ROLLING_US) // SLOT_US * SLOT_US, None)
        return _calendar_period(self.per, slot, self.zone)

    # In words ---------------------------------------------------------------------------------------------------------

    @property
    def limit(self) -> Decimal | int:
        """The allowance in dollars, or in tokens."""
        return self.in_unit(self.allowance)

    def in_unit(self, amount: int) -> Decimal | int:
        """An amount of the ledger as dollars or tokens."""
        return Decimal(amount) / NANO if self.unit == "usd" else amount

    def amount(self, amount: int) -> str:
        """An amount of the ledger in words."""
        return dollars(amount) if self.unit == "usd" else f"{amount:,} tokens"

    @property
    def scope(self) -> str:
        """What it is for, in words; empty where it is for everything."""
        given = [(name, getattr(self, name)) for name in SCOPES]
        return ", ".join(f"{name} {value!r}" for name, value in given if value is not None)

    def __str__(self) -> str:
        return f"{self.amount(self.allowance)} {_PER[self.per]}" + (f" for {self.scope}" if self.scope else "")

    def call(self, **changes: Any) -> str:
        """The call of `set_budget` that sets it, with these arguments changed."""
        limit = format(self.limit.normalize(), "f") if isinstance(self.limit, Decimal) else self.limit
        given = {self.unit: limit, "per": repr(self.per)}
        given |= {name: repr(getattr(self, name)) for name in SCOPES if getattr(self, name) is not None}
        if self.action != "stop":
            given["action"] = repr(self.action)
        if self.unpriced:
            given["allow_unpriced"] = repr(list(self.unpriced))
        return f"llmnb.set_budget({', '.join(f'{name}={value}' for name, value in {**given, **changes}.items())})"

    def zone_name(self) -> str:
        """The timezone in words."""
        return self.timezone or getattr(self.zone, "key", None) or "local time"


_FIELDS = tuple(f.name for f in fields(Budget))
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM budgets ORDER BY id"  # noqa: S608 - our own names
_PER = {
    "hour": "an hour",
    "day": "a day",
    "week": "a week",
    "month": "a month",
    "rolling 24h": "in any 24 hours",
    "total": "in total",
}


def all_budgets(connection: Connection) -> tuple[Budget, ...]:
    """The budgets of a ledger, oldest first."""
    return tuple(_budget(tuple(row)) for row in connection.execute(_SELECT))


@lru_cache(maxsize=256)
def _budget(row: tuple[Any, ...]) -> Budget:
    known: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    known["unpriced"] = tuple(json.loads(known["unpriced"]))
    return Budget(**known)


def dollars(nanousd: int) -> str:
    """Dollars for reading: at least cents, and four digits of what is less than a dollar."""
    usd = Decimal(nanousd) / NANO
    places = 2 if usd == 0 or abs(usd) >= 1 else min(9, max(2, 3 - usd.adjusted()))
    text = f"{abs(usd):,.{places}f}"
    whole, _, fraction = text.partition(".")
    return f"{'-' if usd < 0 else ''}${whole}.{fraction.rstrip('0').ljust(2, '0')}"


@lru_cache(maxsize=256)
def _calendar_period(unit: str, slot: int, zone: tzinfo) -> Period:
    # every timezone offset is a multiple of a slot, so that all of one lies in one period
    start, end = cuts_us(unit, slot * SLOT_US, slot * SLOT_US, zone)[:2]
    return Period(start, end)


def _matches(pattern: str, model: object) -> bool:
    return isinstance(model, str) and _compiled(pattern).fullmatch(model) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A model's name, with or without the date at its end; `*` stands for anything."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))) + r"(?:[-@][0-9]{8})?", re.DOTALL)
