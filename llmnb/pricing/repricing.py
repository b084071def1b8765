"""Prices old ledger rows anew: when a price has become known, was corrected, or is the user's own.

Works in id ranges, a short transaction each, so that whoever writes calls meanwhile hardly waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from llmnb.pricing.caching import saved_of_call
from llmnb.pricing.costs import BY_PROMPT, cost_of_call
from llmnb.pricing.terms import Overrides
from llmnb.records import Call, Cost
from llmnb.settings import load

ROWS_AT_A_TIME = 500


class StoredCall(NamedTuple):
    """A ledger row and its id."""

    id: int
    call: Call


class Repriced(NamedTuple):
    """A ledger row, what it costs from now on, and the nano-dollars that the prompt cache saved of it."""

    row: StoredCall
    cost: Cost
    saved_nanousd: int | None = None


class Priceable(Protocol):
    """The part of a ledger that repricing needs."""

    def repricing(self) -> AbstractContextManager[PriceableRows]:
        """A connection of its own for the work."""
        ...


class PriceableRows(Protocol):
    """Rows that can be read and given another cost, a range of ids at a time."""

    def after(self, last_id: int, limit: int, model: str | None, since_us: int | None) -> Sequence[StoredCall]:
        """The next live rows that have ended, by id."""
        ...

    def set_costs(self, changed: Sequence[Repriced]) -> None:
        """Writes new costs in one transaction, where the row still has the tokens that were priced."""
        ...


@dataclass(frozen=True, slots=True)
class Repricing:
    """What repricing did, or with `dry_run` would do; totals are nano-dollars of the rows that were looked at.

    `kept` rows have a cost and no price is known for them now: they keep what they have. `unpriced` rows have neither.
    """

    looked_at: int = 0
    changed: int = 0
    newly_priced: int = 0
    kept: int = 0
    unpriced: int = 0
    before_nanousd: int = 0
    after_nanousd: int = 0
    dry_run: bool = False


def reprice(
    ledger: Priceable,
    *,
    model: str | None = None,
    since: datetime | int | None = None,
    dry_run: bool = False,
    overrides: Overrides | None = None,
) -> Repricing:
    """Computes the cost of live calls from their tokens again, at the prices that were valid when they were made.

    Args:
        ledger: the ledger (`llmnb.ledger.open_ledger()`).
        model: only rows that asked for this model or were served by it.
        since: only rows from then on: an aware datetime, or microseconds since 1970.
        dry_run: change nothing, only say what would change.
        overrides: the user's own prices, by model; unset: those of the settings.

    Only rows whose cost or `price_id` differs are written. Cache hits cost nothing and stay as they are.

    Raises:
        StoreError: the ledger cannot be read or written.
    """
    prices = load().prices if overrides is None else overrides
    since_us = int(since.timestamp() * 1_000_000) if isinstance(since, datetime) else since
    done = _Tally()
    with ledger.repricing() as rows:
        for page in _pages(rows, model, since_us):
            costs = [(row, _new_cost(row.call, prices, done)) for row in page]
            changed = [_repriced(row, cost, prices) for row, cost in costs if cost is not None]
            if changed and not dry_run:
                rows.set_costs(changed)
    return done.summary(dry_run)


def _repriced(row: StoredCall, cost: Cost, prices: Overrides) -> Repriced:
    return Repriced(row, cost, saved_of_call(row.call, cost, prices))


def _pages(rows: PriceableRows, model: str | None, since_us: int | None) -> Iterator[Sequence[StoredCall]]:
    last_id = 0
    while page := rows.after(last_id, ROWS_AT_A_TIME, model, since_us):
        yield page
        last_id = page[-1].id


def _new_cost(call: Call, prices: Overrides, done: _Tally) -> Cost | None:
    """The cost to write, or None when the row stays as it is: also one whose prompts were priced one by one."""
    old, new = call.cost, cost_of_call(call, prices)
    done.looked_at += 1
    done.before += old.nanousd or 0
    if new.nanousd is None or (call.price_id or "").endswith(BY_PROMPT):
        done.kept += old.nanousd is not None
        done.unpriced += old.nanousd is None
        done.after += old.nanousd or 0
        return None
    done.after += new.nanousd
    if new == old or new.nanousd == old.nanousd == 0:  # a refused call used nothing, at whatever price
        return None
    done.changed += 1
    done.newly_priced += old.nanousd is None
    return new


@dataclass(slots=True)
class _Tally:
    looked_at: int = 0
    changed: int = 0
    newly_priced: int = 0
    kept: int = 0
    unpriced: int = 0
    before: int = 0
    after: int = 0

    def summary(self, dry_run: bool) -> Repricing:
        return Repricing(
            self.looked_at,
            self.changed,
            self.newly_priced,
            self.kept,
            self.unpriced,
            self.before,
            self.after,
            dry_run,
        )
