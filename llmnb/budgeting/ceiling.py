"""The ceiling of one call: what `budget_usd` leaves for it. A call that could pass it is not sent.

A budget of many calls lets one begin that will most likely stay within it, and cuts off the stream that does not. A
ceiling is of one loop or question, and is kept without that: what counts is the most that the call can cost.
"""

from __future__ import annotations

from decimal import Decimal

from llmnb.budgeting.bound import Bound
from llmnb.budgeting.budget import dollars
from llmnb.errors import BudgetExceeded
from llmnb.records import NANO

CEILING = "budget_usd"
"""What `BudgetExceeded.budget` says where it was not one of `llmnb.set_budget`."""


def check(bound: Bound, left_nanousd: int) -> None:
    """Refuses a call that could cost more than is left.

    Raises:
        BudgetExceeded: it could, or there is no price.
    """
    most = bound.take("usd", bound.most_output_tokens)
    if most is None:
        raise _refusal("no price is known for its model", left_nanousd, None)
    if most > left_nanousd:
        takes = f"{bound.usage.total_input_tokens:,} tokens of input and {bound.most_output_tokens:,} of output"
        told = f"it can cost up to {dollars(most)} ({takes}), and {dollars(left_nanousd)} is left"
        raise _refusal(f"{told}; a lower max_tokens makes it cheaper", left_nanousd, most)


def _refusal(told: str, left: int, needed: int | None) -> BudgetExceeded:
    return BudgetExceeded(
        f"budget_usd does not allow the call: {told}. Nothing was sent.",
        budget=CEILING,
        left=Decimal(left) / NANO,
        needed=None if needed is None else Decimal(needed) / NANO,
    )
