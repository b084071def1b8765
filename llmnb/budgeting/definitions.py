"""`set_budget`, `budgets` and `remove_budget`: what a user says about budgets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import closing
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from llmnb import origin
from llmnb.budgeting import counting
from llmnb.budgeting.alerts import due
from llmnb.budgeting.budget import ACTIONS, PERIODS, SCOPES, Action, Budget, Per, Unit, all_budgets
from llmnb.budgeting.reservations import reservations
from llmnb.budgeting.status import BudgetStatus, budget_frame, status_of, statuses
from llmnb.errors import InvalidRequest
from llmnb.ledger import Store, open_ledger, settle
from llmnb.ledger.connection import in_our_words
from llmnb.ledger.filters import known
from llmnb.ledger.sessions import is_dead
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import reporting_zone
from llmnb.plain_numbers import whole
from llmnb.records import NANO
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

_MOST = 1 << 62  # what a column holds


def set_budget(
    *,
    usd: Decimal | float | str | None = None,
    tokens: int | None = None,
    per: Per,
    project: str | None = None,
    user: str | None = None,
    model: str | None = None,
    notebook: str | None = None,
    action: Action = "stop",
    allow_unpriced: str | Iterable[str] = (),
) -> BudgetStatus:
    """Sets how much may be spent in a period, by every process that uses this ledger; or changes it.

    There is one budget in dollars and one in tokens for each `per` and scope; setting it again replaces its limit and
    action. What was spent before in the current period counts. Calls under way when it is set end undisturbed.

    Before a call is sent, what it may take is held: a bound of its input, and its `max_tokens`. Calls held like that
    never pass the limit, however many processes make them. With a hundred calls of the model in the project on the
    books, the 99th percentile of their answers is held instead. A streamed answer that grows longer takes what is free,
    and is cut off where nothing is. One that is not streamed cannot be cut: the limit can be passed by what its
    `max_tokens` allows beyond the percentile, and while several are under way there is room for the one that can most.
    Of calls that were killed, cut off or left early an estimate is on the books; the bill can differ by what each of
    them held. What is left unused for want of certainty is less than what the next call would hold.

    Args:
        usd: the limit in dollars; pass a Decimal or a text for an exact one.
        tokens: the limit in tokens instead: all that is read (also from the prompt cache) and written.
        per: hour, day, week (from Monday) or month, cut in the reporting timezone as it is now; "rolling 24h" (in whole
            quarters of an hour); "total" for all time.
        project: only calls of this project; so for `user` and `notebook`. Of all that are given.
        model: only calls that ask for this model or are served by it, with or without the date at the end of its name;
            `*` stands for anything, as in "claude-opus-*".
        user: only calls of this user.
        notebook: only calls of this notebook.
        action: "stop" refuses calls that do not fit, and cuts off a streamed answer that would cross the line; "warn"
            only warns, at 50, 80 and 100 %.
        allow_unpriced: models, by name or with `*`, that may be asked though they have no price. All others are refused
            under a budget in dollars.

    Returns:
        How the budget stands now.

    Raises:
        InvalidRequest: an argument is impossible.
        StoreError: the ledger cannot be written.
    """
    settings = load()
    unit, allowance = _limit(usd, tokens)
    known(per, PERIODS, "per")
    known(action, ACTIONS, "action")
    wanted: dict[str, Any] = {
        "per": per,
        "unit": unit,
        **_scope(project=project, user=user, model=model, notebook=notebook),
        "allowance": allowance,
        "action": action,
        "timezone": _zone_name(settings),
        "unpriced": json.dumps(_models(allow_unpriced)),
    }
    ledger = open_ledger(settings=settings)
    settle(ledger.path)
    budget_id = _put(ledger, wanted)
    reservations(ledger.path).forget()
    with ledger.transaction(reading=True) as connection:
        budget = next(budget for budget in all_budgets(connection) if budget.id == budget_id)
        return status_of(connection, budget, _now_us())


def budgets() -> pd.DataFrame:
    """All budgets of the ledger and how they stand, oldest first.

    Returns:
        A frame with the columns `id`; `per`, `project`, `user`, `model`, `notebook` (missing: any), `action`; what is
        allowed, spent, held by calls under way (and, in a process that makes many, for those it makes next) and left,
        in dollars (`limit_usd`, …) or in tokens (`limit_tokens`, …); `spent_percent`; `calls` on the books in this
        period and `unpriced_calls` of them; `starts_at`, `resets_at` (in the reporting timezone); the `timezone` in
        which its periods are cut; `allow_unpriced`.

    Raises:
        StoreError: the ledger cannot be read.
    """
    return budget_frame(statuses())


def remove_budget(budget: int | BudgetStatus) -> None:
    """Removes a budget, by its `id` or by what `set_budget` gave. The books keep what was spent.

    Raises:
        InvalidRequest: there is no such budget.
        StoreError: the ledger cannot be written.
    """
    wanted = budget.id if isinstance(budget, BudgetStatus) else whole(budget)
    if wanted is None:
        raise InvalidRequest(f"remove_budget() takes the id of a budget, as in llmnb.budgets(), not {budget!r}")
    ledger = open_ledger()
    with ledger.transaction() as connection:
        found = connection.execute("DELETE FROM budgets WHERE id = ?", (wanted,)).rowcount
        ids = [str(budget.id) for budget in all_budgets(connection)]
    reservations(ledger.path).forget()
    if not found:
        there = f"there are: {', '.join(ids)}" if ids else "none is set"
        raise InvalidRequest(f"no budget has the id {wanted}; {there}.")


# Reading what was given -----------------------------------------------------------------------------------------------


def _limit(usd: Any, tokens: Any) -> tuple[Unit, int]:
    if (usd is None) == (tokens is None):
        raise InvalidRequest("give a budget either usd= or tokens=, such as llmnb.set_budget(usd=5, per='day')")
    if tokens is not None:
        number = whole(tokens)
        if number is None or not 0 <= number <= _MOST:
            raise InvalidRequest(f"tokens={tokens!r} is no whole number of tokens")
        return "tokens", number
    return "usd", _nanousd(usd)


def _nanousd(usd: Any) -> int:
    try:
        value = Decimal(str(usd)) * NANO
        if isinstance(usd, bool) or not 0 <= value <= _MOST or value != int(value):
            raise ValueError
    except (InvalidOperation, ValueError, OverflowError):
        raise InvalidRequest(f"usd={usd!r} is no amount of dollars, such as 5, 0.25 or '12.50'") from None
    return int(value)


def _scope(**given: object) -> dict[str, object]:
    for name, value in given.items():
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise InvalidRequest(f"{name}={value!r} is no name; leave it out for a budget of every {name}")
    if isinstance(model := given["model"], str):
        _check_pattern(model)
    return {name: given[name] for name in SCOPES}


def _models(given: Any) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InvalidRequest(f"allow_unpriced={given!r} holds {name!r}, which is no model's name")
        _check_pattern(name)
    return names


def _check_pattern(model: str) -> None:
    if set(model) & set("?[]"):
        raise InvalidRequest(f"{model!r} is no model's name: of all signs only * stands for anything")


def _zone_name(settings: Settings) -> str | None:
    """The name under which other processes find the reporting timezone, too; None when it has none."""
    name = settings.timezone or getattr(reporting_zone(settings), "key", None)
    return None if name == "localtime" else name


def _now_us() -> int:
    return time.time_ns() // 1000


# Setting it -----------------------------------------------------------------------------------------------------------


def _put(ledger: Store, wanted: dict[str, Any]) -> int:
    """Writes the budget; a new one, or one whose days begin elsewhere now, is counted up to this moment."""
    with ledger.transaction() as connection:
        before = _same_scope(connection, wanted)
        if before is None:
            budget_id = _insert(connection, wanted)
            snapshot = ledger.snapshot()
        else:
            budget_id = before.id
            _update(connection, before, wanted)
            if before.counting is None and before.timezone == wanted["timezone"]:
                return budget_id
            _begin_count(connection, budget_id)
            snapshot = ledger.snapshot()
    _count(ledger, snapshot, budget_id)
    return budget_id


def _same_scope(connection: Connection, wanted: dict[str, Any]) -> Budget | None:
    names = ("per", "unit", *SCOPES)
    return next((b for b in all_budgets(connection) if all(getattr(b, name) == wanted[name] for name in names)), None)


def _insert(connection: Connection, wanted: dict[str, Any]) -> int:
    row = {**wanted, "counting": origin.session()}
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    sql = f"INSERT INTO budgets ({names}) VALUES ({places}) RETURNING id"  # noqa: S608 - our own names
    return int(connection.execute(sql, row).fetchall()[0][0])


def _update(connection: Connection, before: Budget, wanted: dict[str, Any]) -> None:
    changed = {name: wanted[name] for name in ("allowance", "action", "timezone", "unpriced")}
    # after a raise, the lines that lie ahead again are warned of again
    percent = due(counting.spent(connection, before, before.period(_now_us())).amount, wanted["allowance"])
    changed["said_percent"] = min(before.said_percent, percent)
    columns = ", ".join(f"{name} = :{name}" for name in changed)
    connection.execute(f"UPDATE budgets SET {columns} WHERE id = :id", {**changed, "id": before.id})  # noqa: S608


# The count of what is on the books takes as long as it takes, and nobody waits for it but who set the budget: from the
# moment the budget is there, the triggers count every change; the count is of the ledger as it was just before that,
# seen through a read transaction begun while nobody else could write. Both together are all there is.


def recount(ledger: Store, budget: Budget) -> None:
    """Counts a budget anew whose count was never finished, because the process died that had set it."""
    with ledger.transaction() as connection:
        now = next((found for found in all_budgets(connection) if found.id == budget.id), None)
        if now is None or now.counting is None or not is_dead(now.counting):
            return
        _begin_count(connection, budget.id)
        snapshot = ledger.snapshot()
    _count(ledger, snapshot, budget.id)


def _begin_count(connection: Connection, budget_id: int) -> None:
    connection.execute("DELETE FROM budget_spent WHERE budget_id = ?", (budget_id,))
    connection.execute("UPDATE budgets SET counting = ? WHERE id = ?", (origin.session(), budget_id))


def _count(ledger: Store, snapshot: Connection, budget_id: int) -> None:
    with closing(snapshot), in_our_words(ledger.path):
        with ledger.transaction(reading=True) as connection:
            budget = next((found for found in all_budgets(connection) if found.id == budget_id), None)
        if budget is None:  # removed meanwhile
            return
        period = budget.period(_now_us())
        counts = counting.before(snapshot, budget, period.start_us)
    with ledger.transaction() as connection:
        mine = connection.execute(
            "UPDATE budgets SET counting = NULL WHERE id = ? AND counting = ?", (budget_id, origin.session())
        ).rowcount
        if mine:
            counting.add(connection, budget, counts)
