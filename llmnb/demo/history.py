"""Thirty days of invented calls, so that the demo's dashboard has something to show; priced like real ones.

Each row says so: its tag is "demo". Repeatable: the same day gives the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta

from llmnb.ledger import open_ledger
from llmnb.pricing import cost_of, saved_of_call
from llmnb.records import Call
from llmnb.settings import Settings

DAYS = 30
TAG = "demo"


@dataclass(frozen=True, slots=True)
class Habit:
    """One way of working: how often a workday sees such a call, and what it looks like (medians; they vary)."""

    project: str
    notebook: str
    model: str
    calls_a_day: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_per_s: int


HABITS = (
    Habit("thesis", "literature.ipynb", "claude-sonnet-5-5", 14, 900, 6_500, 620, 75),
    Habit("thesis", "figures.ipynb", "claude-opus-5-5", 3, 1_600, 9_000, 1_400, 45),
    Habit("survey", "label_answers.ipynb", "claude-haiku-5-5", 40, 450, 2_200, 90, 160),
    Habit("course", "week_3.ipynb", "claude-sonnet-5-5", 5, 350, 0, 480, 75),
)
FAILURES = ("overloaded_error", "rate_limit_error", "api_error")


def write(settings: Settings, now: datetime) -> int:
    """Writes the calls of the thirty days before the day of `now` into the settings' ledger; gives their number."""
    ledger = open_ledger(settings=settings)
    count = 0
    for call in thirty_days(now):
        ledger.write(call)
        count += 1
    return count


def thirty_days(now: datetime) -> Iterator[Call]:
    """The calls of the days before the day of `now` (which says the timezone), oldest first."""
    for ago in range(DAYS - 1, 0, -1):
        day = (now - timedelta(days=ago)).date()
        chance = random.Random(day.toordinal())  # noqa: S311 - it must repeat, and guards nothing
        yield from sorted(_day(datetime.combine(day, time(8), now.tzinfo), chance), key=lambda call: call.ts)


def _day(morning: datetime, chance: random.Random) -> Iterator[Call]:
    busy = 0.2 if morning.weekday() >= 5 else chance.uniform(0.6, 1.3)
    for habit in HABITS:
        for number in range(round(habit.calls_a_day * busy)):
            start = morning + timedelta(seconds=chance.triangular(0, 12 * 3600, 3 * 3600))
            yield _priced(_ended(_call(habit, start, number, chance), habit, chance))


def _call(habit: Habit, start: datetime, number: int, chance: random.Random) -> Call:
    """A call that went well."""
    day = f"{start:%Y%m%d}"
    output = _varied(habit.output_tokens, chance)
    ttft_ms = chance.lognormvariate(6.2, 0.35)
    thinking = output // 3 if "opus" in habit.model else None
    # the first call of a day writes the long beginning of the prompt to the cache, the others read it
    first = number == 0
    return Call(
        uid=f"{TAG}-{day}-{habit.notebook}-{number:03}",
        ts=int(start.timestamp() * 1_000_000),
        model_requested=habit.model,
        model=habit.model,
        project=habit.project,
        session=f"{TAG}-{day}",
        user=TAG,
        notebook=habit.notebook,
        tag=TAG,
        status="ok",
        stop_reason="end_turn" if chance.random() > 0.03 else "max_tokens",
        stream=True,
        latency_ms=ttft_ms + output / habit.tokens_per_s * 1000,
        ttft_ms=ttft_ms,
        input_tokens=_varied(habit.prompt_tokens, chance),
        cache_read_tokens=0 if first else habit.cached_tokens,
        cache_write_1h_tokens=habit.cached_tokens if first else 0,
        output_tokens=output,
        thinking_tokens=thinking,
        service_tier="standard",
    )


def _ended(call: Call, habit: Habit, chance: random.Random) -> Call:
    """The same call, once in a while refused by the API, retried, or stopped by its user."""
    fate = chance.random()
    if fate < 0.015:
        nothing = dict.fromkeys(("input_tokens", "cache_read_tokens", "cache_write_1h_tokens", "output_tokens"), 0)
        failure = chance.choice(FAILURES)
        lasted = {"latency_ms": chance.uniform(300, 9_000), "ttft_ms": None, "attempts": 3, "wait_ms": 1_500.0}
        told = {"status": "error", "error_type": failure, "stop_reason": None, "thinking_tokens": None}
        return replace(call, **nothing, **lasted, **told)
    if fate < 0.03:
        half = call.output_tokens // 2
        latency_ms = (call.ttft_ms or 0) + half / habit.tokens_per_s * 1000
        stopped = replace(call, status="cancelled", stop_reason=None, output_tokens=half, estimated=True)
        return replace(stopped, latency_ms=latency_ms, thinking_tokens=None)
    return replace(call, attempts=2, wait_ms=chance.uniform(400, 900)) if fate < 0.06 else call


def _priced(call: Call) -> Call:
    cost = cost_of(call.usage, call.model or call.model_requested, ts=call.ts)
    return replace(call, cost_nanousd=cost.nanousd, price_id=cost.price_id, saved_nanousd=saved_of_call(call, cost))


def _varied(median: int, chance: random.Random) -> int:
    return max(1, round(median * chance.lognormvariate(0, 0.45)))
