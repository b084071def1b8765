"""Budgets: how much may be spent, kept by every process that uses the same ledger.

How it works. A budget is a row of the ledger; `budget_spent` holds what was spent of it by quarters of an hour, kept by
triggers on the table of calls, so that a row counts exactly once, whoever writes it, however often, and also after a
repricing. A period (cut in the timezone the budget was set in) is a range of quarters: at most 3,000 for a month,
whatever the size of the ledger.

A call holds money before it is sent (`reservations`, one row a call and budget): the offline bound of its input and the
99th percentile of earlier answers, at most `max_tokens` (`bound`, `past`). It is sent when `spent + held + its own` is
within the limit; it waits when calls under way hold what it needs; it is refused only when `spent + its own` is over
the limit. Deciding and holding are one transaction under the ledger's write lock. The trigger that counts the final row
of an attempt drops the reservation in the same transaction: until the row is in the ledger, which may be 0.1 s after
the call or days (a spool), its money stays held; there is no moment at which it counts twice or not at all. A process
that died holds its money until its calls are on the books (see `llmnb.ledger.underway`), and no longer.

Where a process makes many calls, it holds money for those of the next quarter of a second at once, and gives it out in
memory (`blocks`): at most an eighth of what nobody has spent or holds, so that near the limit each call asks for
itself. That is in what `budgets()` says is held, which is up to a second old then. What a call took can count twice for
that long; it is never not counted, and a block pays for its own calls that got longer than was held for them.

The bound. Spend passes a limit by no more than, for each call under way: what the API bills beyond the bound of the
input (`bound` names what cannot be bounded), and, for an answer that is not streamed and so cannot be cut off, what is
longer than its 99th percentile; room for one such answer is kept free while others are under way, so it takes two at
the same time, or one that goes alone for the last of the money. Without a hundred earlier calls `max_tokens` is held,
and that part is 0. A streamed answer is cut off where it would cross the line, as far as what it wrote can be estimated
from its text; hidden reasoning cannot, and shows at the end.

When the ledger cannot be used. No budget known: the call goes on, and one warning says so, since a broken ledger
breaks no call. A budget that stops calls is known and concerns the call: it is refused with a `StoreError`, after the
ledger was tried for five seconds, since nothing is spent by surprise; `LLMNB_BUDGETS=off` lets it pass.

A budget set by another process counts for calls that begin 0.1 s later.
"""

from llmnb.budgeting.budget import Budget as Budget
from llmnb.budgeting.course import COURSE_COLUMNS as COURSE_COLUMNS
from llmnb.budgeting.course import course as course
from llmnb.budgeting.definitions import budgets as budgets
from llmnb.budgeting.definitions import remove_budget as remove_budget
from llmnb.budgeting.definitions import set_budget as set_budget
from llmnb.budgeting.status import BUDGET_COLUMNS as BUDGET_COLUMNS
from llmnb.budgeting.status import BudgetStatus as BudgetStatus
from llmnb.budgeting.status import statuses as statuses

__all__ = [
    "BUDGET_COLUMNS",
    "COURSE_COLUMNS",
    "Budget",
    "BudgetStatus",
    "budgets",
    "course",
    "remove_budget",
    "set_budget",
    "statuses",
]
