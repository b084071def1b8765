"""`month_end()`: what the current month will have cost at its end, with a range, from the days of the last weeks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmnb.ledger.totals import usage
from llmnb.ledger.zones import reading_zone
from llmnb.places import Place
from llmnb.settings import load

WEEKS_BACK = 4
FEWEST_DAYS = 7
"""Of fewer days nothing is said."""
_MONTHS = 500
_LOW, _HIGH = 0.1, 0.9


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the month that ends at `ends_at` will have cost: nano-dollars, `spent_nanousd` of which are spent already.

    Of ten months that go on like the last `days` days, eight end between `low_nanousd` and `high_nanousd`.
    """

    spent_nanousd: int
    expected_nanousd: int
    low_nanousd: int
    high_nanousd: int
    ends_at: datetime
    days: int


def month_end(
    *, where: Mapping[str, object] | None = None, path: Place | None = None, now: datetime | None = None
) -> Forecast | None:
    """What this month (of the reporting timezone) will have cost; None with less than a week of calls before today.

    The days to come are drawn from those of the last four weeks, working days from working days and weekends from
    weekends, as a Bayesian bootstrap (Rubin 1981), so that few days give a wide range. What has no price is left out.

    Args:
        where, path: as for `usage()`.
        now: the moment it is asked at, with its timezone; unset: now.

    Raises:
        InvalidRequest: a name is not understood.
        StoreError: the ledger cannot be read.
    """
    moment = now or datetime.now(reading_zone(load()))
    today = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    month, back = today.replace(day=1), today - timedelta(weeks=WEEKS_BACK)
    found = usage(min(month, back), moment, by=["day"], where=where, columns=["cost_nanousd"], path=path)
    costs = {day.date(): int(cost) for day, cost in zip(found["day"], found["cost_nanousd"].fillna(0), strict=True)}
    if not costs:
        return None
    first = max(min(costs), back.date())
    days = [first + timedelta(days=n) for n in range((today.date() - first).days)]
    if len(days) < FEWEST_DAYS:
        return None
    end = (month + timedelta(days=32)).replace(day=1)
    spent = sum(cost for day, cost in costs.items() if day >= month.date())
    kinds = [[costs.get(day, 0) for day in days if _is_weekend(day.weekday()) is kind] for kind in (False, True)]
    ahead = [_is_weekend((today + timedelta(days=n)).weekday()) for n in range((end.date() - today.date()).days)]
    left_of_today = 1 - (moment - today) / timedelta(days=1)
    drawn = sorted(_rests(kinds, ahead, left_of_today))
    mean = sum(drawn) // len(drawn)
    low, high = (drawn[int(share * (len(drawn) - 1))] for share in (_LOW, _HIGH))
    return Forecast(spent, spent + mean, spent + low, spent + high, end, len(days))


def _is_weekend(weekday: int) -> bool:
    return weekday >= 5


def _rests(kinds: Sequence[Sequence[int]], ahead: Sequence[bool], left_of_today: float) -> list[int]:
    """What the rest of many such months costs; the same for the same days."""
    chance = random.Random(0)  # noqa: S311 - it must repeat, and guards nothing
    rests: list[int] = []
    for _ in range(_MONTHS):
        rest = 0
        for kind in (False, True):
            costs = kinds[kind]
            count = sum(weekend is kind for weekend in ahead)
            if not costs or not count:
                continue
            weights = [chance.expovariate(1) for _ in costs]
            draws = chance.choices(costs, weights, k=count)
            if ahead[0] is kind:
                draws[0] = round(draws[0] * left_of_today)
            rest += sum(draws)
        rests.append(rest)
    return rests
