"""What runs on the workers of a cluster: a look at whether they can ask, and the task that asks a row."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass

from distributed import WorkerPlugin, get_worker, secede

import llmnb
from llmnb.asking.runner import loop_thread
from llmnb.jobs.asking import Outcome, Row
from llmnb.jobs.cluster.common import Mark, Seen, seen
from llmnb.jobs.cluster.parcel import Told, Work, told

_CLEAN_UP_S = 2.0
"""How long the end of a run waits for calls to be closed, as Stop does where there is no cluster."""


@dataclass(frozen=True)
class Report:
    """What a worker says of itself. `trouble` is why it cannot ask."""

    version: str
    server: str = ""
    seen: Seen | None = None
    trouble: str = ""


async def report(packed: bytes, mark: Mark) -> Report:
    """Whether this worker can ask the rows of a parcel. Imports what asking needs, too, which takes seconds."""
    return await asyncio.to_thread(_report, packed, mark)


def _report(packed: bytes, mark: Mark) -> Report:
    from llmnb.jobs.mapping import server_of

    try:
        work = Work(packed)
        work.begin()
        return Report(llmnb.__version__, server_of(work.access), seen(mark, work.settings))
    except Exception as error:
        return Report(llmnb.__version__, trouble=f"{type(error).__name__}: {error}")


class Presence(WorkerPlugin):
    """A run on a worker, from its begin to its end; Dask gives it to workers that come later, too."""

    def __init__(self, name: str, packed: bytes) -> None:
        self.name = name
        self._packed = packed

    def setup(self, worker: object) -> None:
        """Begins; what it needs is imported with the first row, in a thread."""
        del worker
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._under_way: dict[asyncio.Task[Outcome], Future[Outcome]] = {}
        self._is_over = False

    async def teardown(self, worker: object) -> None:
        """The run is over: nothing is asked any more, and what was is in the ledger for all to see."""
        del worker
        self._is_over = True
        loop_thread().call(self._cancel)
        await asyncio.to_thread(self._settle)

    def ask(self, work: Work, row: Row) -> Told:
        """Asks a row, on llmnb's loop thread, and waits for what becomes of it."""
        done: Future[Outcome] = Future()
        loop_thread().call(lambda: self._begin(work, row, done))
        outcome = done.result()
        work.keep()  # who asks this row again, because this worker died before anybody heard of it, finds the answer
        return told(outcome)

    def opened(self) -> Work:
        """What the rows have in common, unpacked with the first of them; raises what that raises."""
        with self._lock:
            if self._work is None:
                work = Work(self._packed)
                work.begin()
                self._work = work
            return self._work

    def _begin(self, work: Work, row: Row, done: Future[Outcome]) -> None:
        task = asyncio.get_running_loop().create_task(work.asked(row))
        self._under_way[task] = done
        task.add_done_callback(self._ended)
        if self._is_over:
            task.cancel()

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        done = self._under_way.pop(task)
        if task.cancelled():
            done.set_exception(RunOver("the run was stopped"))
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
                self._work.settle()


class RunOver(Exception):  # noqa: N818 - it says what happened
    """The run has ended, and this row was not asked, or not to its end."""


class CannotAsk(Exception):  # noqa: N818 - it says what happened
    """This worker, which came late, cannot ask: it would go through all rows in no time."""


def ask_row(name: str, row: Row) -> Told:
    """The task: asks a row of the run `name` on this worker."""
    worker = get_worker()
    presence = worker.plugins.get(name)
    if not isinstance(presence, Presence):
        raise RunOver(f"the run {name} is not on this worker")
    secede()  # it waits, and others may ask meanwhile
    # errors as text only: what Dask makes of them goes through its scheduler, and may be logged
    try:
        work = presence.opened()
    except Exception as error:
        raise CannotAsk(f"{worker.address} cannot ask: {type(error).__name__}: {error}") from None
    try:
        return presence.ask(work, row)
    except RunOver:
        raise
    except Exception as error:
        error.add_note(f"llmnb: on the Dask worker {worker.address}")
        return told(Outcome.unasked(error))
