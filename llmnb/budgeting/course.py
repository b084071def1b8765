"""How a budget is used up in its current period, quarter of an hour by quarter of an hour. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmnb.budgeting.status import BudgetStatus
from llmnb.ledger.connection import reading
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.shelf import settle
from llmnb.ledger.zones import SLOT_US
from llmnb.places import Place
from llmnb.settings import load

if TYPE_CHECKING:
    import pandas as pd

COURSE_COLUMNS: dict[str, Kind] = {"at": "time", "spent": "int", "left": "int"}
"""The columns of `course()`, in their order."""


def course(status: BudgetStatus, *, path: Place | None = None) -> pd.DataFrame:
    """What was spent and left of a budget after each quarter of an hour of its current period with a call.

    Args:
        status: the budget, as `statuses` gives it.
        path: the ledger; unset: the one of the settings.

    Returns:
        A frame with the columns of `COURSE_COLUMNS`: `at` is the end of a quarter of an hour, in the timezone of the
        budget; `spent` and `left` are nano-dollars or tokens, added up since the period began. Empty for a budget
        "total", which is counted without time.

    Raises:
        StoreError: the ledger cannot be read.
    """
    budget = status.budget
    where_from = path or load().ledger_path
    settle(where_from)
    if budget.per == "total":
        return frame(COURSE_COLUMNS, [], budget.zone)
    with reading(where_from) as connection:
        found = (
            []
            if connection is None
            else connection.execute(
                "SELECT slot, amount FROM budget_spent WHERE budget_id = ? AND slot >= ? AND slot < ? ORDER BY slot",
                (budget.id, *budget.period(status.at_us).slots),
            ).fetchall()
        )
    rows, spent = list[tuple[int, int, int]](), 0
    for slot, amount in found:
        spent += amount
        rows.append((min((slot + 1) * SLOT_US, status.at_us), spent, max(0, budget.allowance - spent)))
    return frame(COURSE_COLUMNS, rows, budget.zone)
