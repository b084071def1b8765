"""What was spent of a budget and what is held of it, read from the ledger; and the first count of a new one.

The ledger's triggers keep `budget_spent` (see `llmnb.ledger.migrations`): here it is read, and filled once, with what
was on the books before the budget was set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llmnb.budgeting.budget import ROLLING_US, Budget, Period
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import SLOT_US

AMOUNTS = {
    "usd": "coalesce(cost_nanousd, 0)",
    "tokens": "(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens"
    " + cache_write_unsplit_tokens + output_tokens)",
}
"""What a row of `calls` takes from a budget, by its unit. All tokens are alike: read, cached, written."""

_DATED = "[-@]" + "[0-9]" * 8
_CONCERNED = f"""
    status <> 'running' AND source = 'live'
    AND (:project IS NULL OR project = :project) AND (:user IS NULL OR user = :user)
    AND (:notebook IS NULL OR notebook = :notebook)
    AND (:model IS NULL OR model_requested GLOB :model OR model_requested GLOB (:model || '{_DATED}')
        OR model GLOB :model OR model GLOB (:model || '{_DATED}'))
"""


class Count(NamedTuple):
    """What was spent by calls that are on the books; `unpriced` rows took nothing, since nobody knows how much."""

    amount: int
    calls: int
    unpriced: int


@dataclass(frozen=True, slots=True)
class Held:
    """What calls under way still hold beyond what of them is on the books.

    `excess` is the most that one of them can cost beyond what it holds, `uids` are the calls.
    """

    amount: int = 0
    excess: int = 0
    uids: tuple[str, ...] = ()


def spent(connection: Connection, budget: Budget, period: Period) -> Count:
    """What was spent of a budget in a period."""
    row = connection.execute(
        "SELECT coalesce(sum(amount), 0), coalesce(sum(calls), 0), coalesce(sum(unpriced), 0) FROM budget_spent"
        " WHERE budget_id = ? AND slot >= ? AND slot < ?",
        (budget.id, *period.slots),
    ).fetchone()
    return Count(*row)


def on_the_books(connection: Connection, budget: Budget, uid: str) -> int:
    """What the row of one call has taken from a budget so far."""
    row = connection.execute(
        f"SELECT {AMOUNTS[budget.unit]} FROM calls WHERE uid = ? AND status <> 'running' AND source = 'live'",  # noqa: S608
        (uid,),
    ).fetchone()
    return 0 if row is None else row[0]


def held(connection: Connection, budget: Budget, period: Period, *, besides: str = "") -> Held:
    """What calls hold of a budget in a period, all but the call `besides`.

    Of a call that is tried again, earlier attempts may be on the books: they are held once, not twice.
    """
    start, end = period.start_us, period.end_us
    rows = connection.execute(
        f"""
        SELECT reservations.uid, max(0, reservations.amount - CASE WHEN calls.status IS NULL
            OR calls.status = 'running' OR calls.source <> 'live' THEN 0 ELSE {AMOUNTS[budget.unit]} END), excess
        FROM reservations LEFT JOIN calls ON calls.uid = reservations.uid
        WHERE budget_id = ? AND reservations.uid <> ? AND (? IS NULL OR reservations.ts >= ?)
            AND (? IS NULL OR reservations.ts < ?)
        """,  # noqa: S608 - our own text
        (budget.id, besides, start, start, end, end),
    ).fetchall()
    if not rows:
        return Held()
    uids, amounts, excesses = zip(*rows, strict=True)
    return Held(sum(amounts), max(excesses), uids)


def held_at_most(connection: Connection, budget: Budget, *, besides: str, also: str = "") -> tuple[int, int]:
    """No less than what `held` tells, and at once: all that calls have reserved, and the largest excess.

    Calls that have ended may be among them for a moment, until their rows are written: thousands a minute are hundreds.
    """
    row = connection.execute(
        "SELECT sum(amount), max(excess) FROM reservations WHERE budget_id = ? AND uid <> ? AND uid <> ?",
        (budget.id, besides, also),
    ).fetchone()
    return int(row[0] or 0), int(row[1] or 0)


def free_again_us(connection: Connection, budget: Budget, ts: int, short: int) -> int | None:
    """When so much more of a budget will be free, if nothing is spent until then; None: it never begins anew."""
    period = budget.period(ts)
    if budget.per != "rolling 24h":
        return period.end_us
    rows = connection.execute(
        "SELECT slot, amount FROM budget_spent WHERE budget_id = ? AND slot >= ? ORDER BY slot",
        (budget.id, period.slots[0]),
    )
    for slot, amount in rows:
        short -= amount
        if short <= 0:
            return (slot + 1) * SLOT_US + ROLLING_US
    return None


# The first count ------------------------------------------------------------------------------------------------------


def before(connection: Connection, budget: Budget, since_us: int | None) -> list[tuple[int, Count]]:
    """What was on the books before a budget was set, by slot, of calls made since then."""
    slot = "0" if budget.per == "total" else f"ts / {SLOT_US}"
    rows = connection.execute(
        f"""
        SELECT {slot}, sum({AMOUNTS[budget.unit]}), sum(is_call), sum(cost_nanousd IS NULL) FROM calls
        WHERE (:since IS NULL OR ts >= :since) AND {_CONCERNED} GROUP BY 1
        """,  # noqa: S608
        {
            "since": since_us,
            **{name: getattr(budget, name) for name in ("project", "user", "notebook", "model")},
        },
    )
    return [(row[0], Count(*row[1:])) for row in rows]


def add(connection: Connection, budget: Budget, counts: list[tuple[int, Count]]) -> None:
    """Adds what was counted to what the triggers counted since."""
    connection.executemany(
        """
        INSERT INTO budget_spent (budget_id, slot, amount, calls, unpriced) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (budget_id, slot) DO UPDATE SET
            amount = budget_spent.amount + excluded.amount, calls = budget_spent.calls + excluded.calls,
            unpriced = budget_spent.unpriced + excluded.unpriced
        """,
        [(budget.id, slot, *count) for slot, count in counts],
    )
