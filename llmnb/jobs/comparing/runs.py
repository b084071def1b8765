"""Several runs over the same rows, side by side: those of a comparison's contestants, and that of its judge.

Another call that would ask one of the contestants the very same rows, in this kernel or another, waits for its turn at
them, and so do an `llm.map` with the same template and settings and a comparison for each other. Comparisons of other
prompts go on side by side; a prompt that both have, beside others, may be asked by both.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from llmnb.jobs.asking import KEY_BYTES, Row
from llmnb.jobs.comparing.comparison import Facts
from llmnb.jobs.description import LOCK
from llmnb.jobs.lost import NONE_LOST, Lost, spent_by
from llmnb.jobs.mapping import Job
from llmnb.jobs.purse import Purse
from llmnb.jobs.run import Run, Status
from llmnb.jobs.turn import Caller, Turn
from llmnb.trouble import LlmnbWarning, warn_user

Act: TypeAlias = Callable[[], object]
"""What the thread that watches is to do."""
_TELLS_EVERY_S = 0.25


def unasked(why: str) -> Facts:
    return {"error": why, "cost_nanousd": 0, "full_nanousd": None, "input_tokens": 0, "output_tokens": 0}


def purse_of(jobs: Sequence[Job], spent_nanousd: int = 0, lost: Lost = NONE_LOST) -> Purse | None:
    """One purse for all: that of the job whose rows may be asked most often."""
    return max(jobs, key=lambda job: 0 if job.shape is None else job.retries).purse(spent_nanousd, lost)


class Runs:
    """Several runs over the same rows, side by side; one that fails leaves the others alone."""

    def __init__(
        self, jobs: Sequence[Job], spent_nanousd: int = 0, lost: Lost = NONE_LOST, *, caller: Caller, blocks: bool
    ) -> None:
        """`spent_nanousd` and `lost` are of runs before that share their budget; `caller` and `blocks`: see `Turn`."""
        self._jobs = jobs
        self._caller, self._blocks = caller, blocks
        self._spent = spent_nanousd
        self.unkept = 0
        """What calls of these runs cost that ended, and whose rows a kill kept from being written."""
        self.lost = lost
        """Calls that were killed, of these runs and of those before that share their budget."""
        self._runs: list[Run] = []
        self._open, self._turns = ExitStack(), ExitStack()
        self._statuses: list[Status] = [Status(len(job.frame)) for job in jobs]
        self._errors: dict[int, Exception] = {}

    async def __aenter__(self) -> Runs:
        return self

    async def begin(self) -> AsyncGenerator[Act]:
        """Waits until no other call is at the rows of one of the runs, and says for whom; then they are there.

        Raises:
            InvalidRequest: a call is at them that cannot end while this one waits.
        """
        # in one order everywhere: two that have some runs in common do not wait for each other
        named = {job.run_id: job for job in self._jobs}
        locks = await asyncio.to_thread(lambda: {run_id: _lock_of(job) for run_id, job in named.items()})
        for run_id, job in sorted(named.items()):
            for name in (LOCK, locks[run_id]):
                told: list[str] = []
                turn = Turn(
                    job.folder,
                    job.settings,
                    name=name,
                    with_others=name == LOCK,
                    caller=self._caller,
                    warn=told.append,
                )
                self._turns.callback(turn.close)
                for pause_s in turn.tries(blocks=self._blocks):
                    while told:
                        yield partial(warn_user, told.pop(), LlmnbWarning)
                    await asyncio.sleep(pause_s)
                turn.enter()
        self._begin()

    def _begin(self) -> None:
        spent = self._spent
        named = {job.run_id: job for job in self._jobs if job.budget_usd is not None}  # of two with one run once
        for job in named.values():
            kept, unkept, lost = spent_by(job)
            spent += kept + unkept
            self.unkept += unkept
            self.lost += lost
        purse = purse_of(self._jobs, spent, self.lost)
        for job in self._jobs:
            run, results = job.run(purse=purse)
            self._open.callback(results.close)
            self._open.enter_context(job.described(run, results))
            self._open.callback(results.catch_up)  # what it cost to that of comparisons of other prompts, too
            self._runs.append(run)

    async def __aexit__(self, *error: object) -> None:
        with self._turns:
            self._open.close()

    async def work(self) -> AsyncGenerator[Status]:
        """Does it, and tells now and then how far all of them are together."""
        async with running([self._one(n, run) for n, run in enumerate(self._runs)]) as tasks:
            pending = set(tasks)
            yield _together(self._statuses)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=_TELLS_EVERY_S)
                if not pending:
                    self._turns.close()  # whoever watches may take long over the last answers
                yield _together(self._statuses)
            for task in tasks:
                task.result()

    @property
    def runs(self) -> Sequence[Run]:
        """The runs, in the order of their jobs."""
        return self._runs

    @property
    def statuses(self) -> Sequence[Status]:
        """How far each of them is."""
        return self._statuses

    def facts(self) -> list[list[Facts]]:
        """What became of the rows of each; figures of rows that ask the same stand at the first."""
        return [self._facts_of(n) for n in range(len(self._runs))]

    async def _one(self, number: int, run: Run) -> None:
        try:
            async with aclosing(run.work()) as statuses:
                async for status in statuses:
                    self._statuses[number] = status
        except Exception as error:
            self._errors[number] = error
        self._statuses[number] = replace(run.status, is_over=True)

    def _facts_of(self, number: int) -> list[Facts]:
        run, error = self._runs[number], self._errors.get(number)
        told: list[Facts] = []
        for key, is_first in zip(run.keys, run.keys.firsts(), strict=True):
            facts = run.facts(key)
            again = {"cost_nanousd": 0 if facts["cost_nanousd"] is not None else None}
            told.append(facts if is_first else {**facts, **again})
        lost = unasked("not asked" if error is None else f"{type(error).__name__}: {error}")
        return told + [lost] * (len(self._jobs[number].frame) - len(told))


def _lock_of(job: Job) -> str:
    """The name of the lock on just these rows of the job's run."""
    keys: set[bytes] = set()
    for prompt in job.prompts():
        with suppress(Exception):  # it will be that row's error
            keys.add(Row.of(prompt).key)
    return f"{LOCK}.{hashlib.blake2b(b''.join(sorted(keys)), digest_size=KEY_BYTES).hexdigest()}"


def _together(statuses: Sequence[Status]) -> Status:
    names = ("rows", "kept", "done", "cached", "failed", "cost_nanousd", "unpriced", "saved_nanousd")
    first_error = next((status.first_error for status in statuses if status.first_error), "")
    seconds = max(status.seconds for status in statuses)
    totals: dict[str, Any] = {name: sum(getattr(status, name) for status in statuses) for name in names}
    held = max(statuses, key=lambda status: status.held)  # two that ask one model see the same calls held back
    return Status(**totals, seconds=seconds, first_error=first_error, held=held.held, held_for=held.held_for)


class running:  # noqa: N801 - used as `async with running(…)`
    """Tasks that end with the block."""

    def __init__(self, work: Sequence[Coroutine[Any, Any, None]]) -> None:
        self._work = work

    async def __aenter__(self) -> list[asyncio.Task[None]]:
        self._tasks = [asyncio.ensure_future(one) for one in self._work]
        return self._tasks

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
