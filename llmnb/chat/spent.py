"""`Spent`: what the calls of a chat used and cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from llmnb.records import NANO, Call, Usage


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls used and cost; a call without a price counts in `unpriced_calls` and not in `cost_nanousd`."""

    usage: Usage = field(default_factory=Usage)
    cost_nanousd: int | None = None
    unpriced_calls: int = 0

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars of the calls that have a price; None when none has."""
        if self.cost_nanousd is None:
            return None if self.unpriced_calls else Decimal(0)
        return Decimal(self.cost_nanousd) / NANO

    def plus(self, usage: Usage, cost_nanousd: int | None) -> Spent:
        """With one more call."""
        if cost_nanousd is None:
            return Spent(self.usage + usage, self.cost_nanousd, self.unpriced_calls + 1)
        return Spent(self.usage + usage, (self.cost_nanousd or 0) + cost_nanousd, self.unpriced_calls)

    def plus_all(self, calls: Iterable[Call]) -> Spent:
        """With the calls of these rows."""
        spent = self
        for call in calls:
            spent = spent.plus(call.usage, call.cost_nanousd)
        return spent
