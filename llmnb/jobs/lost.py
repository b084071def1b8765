"""What calls of a run cost that left no row: those under way when a process was killed are asked again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmnb.budgeting.budget import dollars
from llmnb.errors import StoreError
from llmnb.jobs.asking import Row
from llmnb.jobs.description import read
from llmnb.ledger import settle
from llmnb.ledger.connection import reading
from llmnb.pricing import cost_of
from llmnb.records import Usage
from llmnb.settings import Settings
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from llmnb.jobs.mapping import Job

_INPUT_TIMES = 2
"""Of what input costs, what it costs at most: writing it to the prompt cache for an hour."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Calls that were under way when a process was killed, and what they cost at most."""

    nanousd: int = 0
    calls: int = 0

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.nanousd + other.nanousd, self.calls + other.calls)

    def __str__(self) -> str:
        if not self.calls:
            return ""
        calls = "a call that was" if self.calls == 1 else f"{self.calls:,} calls that were"
        return (
            f"; {dollars(self.nanousd)} is counted for {calls} under way when a process was killed, and may be "
            "billed: raise budget_usd to go on"
        )


NONE_LOST = Lost()


def without_rows(job: Job, rows_nanousd: int) -> tuple[int, Lost]:
    """What calls of a run before this one cost that are in no row's figures: those that ended, and those that did not.

    Args:
        job: whose run.
        rows_nanousd: what all rows of it have cost so far.
    """
    before = read(job.folder)
    if before is None:
        return 0, NONE_LOST
    try:
        most_tokens = int(job.plan.arguments["max_tokens"])
        known, lost = on_the_books(job.run_id, before.began, most_tokens, job.settings)
    except StoreError as trouble:
        quietly("looking for calls of the run that were killed", trouble, but="budget_usd does not count them")
        return 0, NONE_LOST
    return max(0, known - rows_nanousd), lost


def spent_by(job: Job) -> tuple[int, int, Lost]:
    """What the rows of a job have cost in runs that were broken off; and calls that left no row, as `without_rows`."""
    results = job.results()
    keys: set[bytes] = set()
    for prompt in job.prompts():
        with suppress(Exception):  # it will be that row's error
            keys.add(Row.of(prompt).key)
    kept = sum((results.facts(key) or {}).get("cost_nanousd") or 0 for key in keys)
    unkept, lost = without_rows(job, results.spent_nanousd)
    results.close()
    return kept, unkept, lost


def on_the_books(run_id: str, began: float, most_output_tokens: int, settings: Settings) -> tuple[int, Lost]:
    """What calls of a run cost whose end is known, in nano-dollars, and the others.

    Args:
        run_id: the run's.
        began: when it was begun, in seconds since 1970.
        most_output_tokens: how long an answer may get.
        settings: whose ledger, and whose prices.

    Raises:
        StoreError: the ledger cannot be read.
    """
    settle(settings.ledger_path)
    with reading(settings.ledger_path) as connection:
        if connection is None:
            return 0, NONE_LOST
        named = (int(began * 1e6), run_id)
        (known,) = connection.execute(_KNOWN, named).fetchone()
        lost = connection.execute(_LOST, named).fetchall()
    most = (
        calls * (cost_of(usage, model, provider=provider, overrides=settings.prices).nanousd or 0)
        for provider, model, tokens, calls in lost
        for usage in (Usage(tokens * _INPUT_TIMES), Usage(output_tokens=most_output_tokens))
    )
    return int(known or 0), Lost(sum(most), sum(calls for *_, calls in lost))


_OF_THE_RUN = "FROM calls WHERE ts >= ? AND run_id = ? AND source = 'live'"
_KNOWN = f"SELECT sum(cost_nanousd) {_OF_THE_RUN} AND status NOT IN ('running', 'interrupted')"
_LOST = f"""
    SELECT provider, model_requested, input_tokens, count(*) {_OF_THE_RUN} AND status = 'interrupted' AND is_call
    GROUP BY provider, model_requested, input_tokens
"""
