"""What runs on the workers of a cluster: a look at whether they can ask, and the task that asks a row."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from distributed import WorkerPlugin, get_worker, secede

import llmnb
from llmnb.asking.runner import loop_thread
from llmnb.errors import LlmnbError
from llmnb.jobs.asking import Outcome, Row
from llmnb.jobs.cluster.common import Mark, seen
from llmnb.jobs.cluster.fitness import SECRETS, Report
from llmnb.jobs.cluster.handed import Handed
from llmnb.jobs.cluster.parcel import Told, Work, told

_CLEAN_UP_S = 2.0
"""How long the end of a run waits for calls to be closed, as Stop does where there is no cluster."""


async def report(packed: bytes, mark: Mark) -> Report:
    """Whether this worker can ask the rows of a parcel. Imports what asking needs, too, which takes seconds."""
    return await asyncio.to_thread(_report, packed, mark)


def _report(packed: bytes, mark: Mark) -> Report:
    try:
        work = Work(packed)
        try:
            return _report_of(work, mark)
        finally:
            work.settle()
    except Exception as error:
        return Report(llmnb.__version__, trouble=f"{type(error).__name__}: {error}")


def _report_of(work: Work, mark: Mark) -> Report:
    from llmnb.jobs.mapping import server_of

    work.begin()
    return Report(llmnb.__version__, server_of(work.access), seen(mark, work.settings))


class Presence(WorkerPlugin):
    """A run on a worker, from its begin to its end; Dask gives it to workers that come later, too."""

    def __init__(self, name: str, packed: bytes, mark: Mark) -> None:
        self.name = name
        self._packed = packed
        self._mark = mark

    def setup(self, worker: object) -> None:
        """Begins; what it needs is imported with the first row, in a thread."""
        del worker
        self._lock = threading.Lock()
        self._work: tuple[Work, Handed] | None = None
        self._under_way: dict[asyncio.Task[Outcome], Future[Outcome | None]] = {}
        self._is_over = False

    async def teardown(self, worker: object) -> None:
        """The run is over, or the worker: nothing is asked any more, and what was is in the ledger for all to see."""
        del worker
        self._is_over = True
        loop_thread().call(self._cancel)
        await asyncio.to_thread(self._settle)

    def ask(self, row: Row, place: str) -> Told | None:
        """Asks a row, on llmnb's loop thread, and waits for what becomes of it; None where the driver has to decide
        what to do: another worker has begun with it and is gone, or this one is going.

        Raises:
            Exception: this worker cannot ask.
        """
        work, handed = self._opened()
        before = handed.begin(place)
        if before.is_begun:
            if before.facts is None:
                return None
            # in words: what others can write to is no place for an error that is unpickled
            return told(Outcome(before.facts, LlmnbError(before.facts["error"]) if before.failed else None))
        done: Future[Outcome | None] = Future()
        loop_thread().call(lambda: self._begin(work, row, done))
        outcome = done.result()
        if outcome is None:
            return None
        if outcome.state != "free":  # else it is asked again, and that costs nothing
            handed.hand_in(place, outcome.facts, failed=outcome.error is not None)
        return told(outcome)

    def held(self) -> tuple[int, str]:
        """How many rows are held back here for a limit of the account, and for which."""
        return (0, "") if self._work is None else self._work[0].held()

    def _opened(self) -> tuple[Work, Handed]:
        """What the rows have in common, unpacked with the first of them."""
        with self._lock:
            if self._work is None:
                work = Work(self._packed)
                # again, for workers that come when the run has begun
                trouble = work.parcel.wanted.trouble(_report_of(work, self._mark))
                if trouble is not None:
                    raise CannotAsk(trouble)
                self._work = work, work.handed(self.name)
            return self._work

    def _begin(self, work: Work, row: Row, done: Future[Outcome | None]) -> None:
        task = asyncio.get_running_loop().create_task(work.asked(row))
        self._under_way[task] = done
        task.add_done_callback(self._ended)
        if self._is_over:
            task.cancel()

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        done = self._under_way.pop(task)
        if task.cancelled():
            done.set_result(None)
        elif (error := task.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(task.result())

    def _cancel(self) -> None:
        for task in tuple(self._under_way):
            task.cancel()

    def _settle(self) -> None:
        wait(tuple(self._under_way.values()), _CLEAN_UP_S)
        if self._work is not None:
            with suppress(Exception):  # the books have said what is wrong, and keep what they could not write
                self._work[0].settle()


class CannotAsk(Exception):  # noqa: N818 - it says what happened
    """This worker, which came late, cannot ask: it would go through all rows in no time."""


async def held_back(name: str, dask_worker: Any) -> tuple[int, str]:
    """How many rows of a run are held back on this worker for a limit of the account, and for which."""
    presence = dask_worker.plugins.get(name)
    return presence.held() if isinstance(presence, Presence) else (0, "")


def ask_row(name: str, row: Row, place: str) -> Told | None:
    """The task: asks a row of the run `name` on this worker; `place` is what the workers know it by."""
    worker = get_worker()
    presence = worker.plugins.get(name)
    if not isinstance(presence, Presence):
        return None
    secede()  # it waits, and others may ask meanwhile
    # errors as text only: what Dask makes of them goes through its scheduler, and may be logged
    try:
        return presence.ask(row, place)
    except CannotAsk as error:
        raise CannotAsk(f"{worker.address} {error}") from None
    except Exception as error:
        raise CannotAsk(f"{worker.address} cannot ask: {type(error).__name__}: {error} {SECRETS}") from None
