"""One call of `map`: works at a run, shows how far it is, can be stopped, and gives what was asked for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from llmnb import interrupts
from llmnb.errors import InvalidRequest
from llmnb.interrupts import Cancelled, Stopped
from llmnb.jobs.batches.notes import check_none_open
from llmnb.jobs.garbage import looked_for_less_often
from llmnb.jobs.saved import remember
from llmnb.jobs.turn import Turn
from llmnb.views import views

if TYPE_CHECKING:
    from llmnb.jobs.estimate import MapEstimate
    from llmnb.jobs.mapped import Mapped
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.results import Results
    from llmnb.jobs.run import Run, Status
    from llmnb.jobs.written import MappedFile

_P = ParamSpec("_P")
_T = TypeVar("_T")
_NOT_BEGUN = "Stopped while another call was at this run: nothing was sent."


def ask(job: Job, *, failed_again: bool) -> Mapped | MappedFile:
    """See `Job.ask`."""
    from llmnb.asking.runner import from_loop_thread

    if job.confirms:
        _see_somebody()
        _confirm(job.estimate())
    with _turn(job) as turn:
        try:
            turn.wait()
            turn.enter()
        except KeyboardInterrupt:
            raise Stopped(_NOT_BEGUN) from None
        run, results = job.with_one_client(on_loop_thread=True).run(failed_again=failed_again)
        with job.described(run, results), _progress(job, Stopped) as told:
            try:
                with closing(from_loop_thread(run.work)) as events:
                    for status in events:
                        told(status)
            except KeyboardInterrupt as pressed:
                error = Stopped(_stopped(run))
                error.by_view = isinstance(pressed, Stopped) and pressed.by_view
                raise error from None
            except Exception as error:
                error.add_note(f"llmnb: {_kept(run.status)}{run.way_back}")
                raise
            finally:
                told(replace(run.status, is_over=True))
    return _given(job, run, results)


async def aask(job: Job, *, failed_again: bool) -> Mapped | MappedFile:
    """See `Job.aask`."""
    if job.confirms:
        _see_somebody()
        # an async iterator gives its rows on this loop
        _confirm(await in_thread(job.estimate))
    with _turn(job) as turn:
        await stoppable(turn.wait_async(), lambda: _NOT_BEGUN)
        turn.enter()
        run, results = job.with_one_client(on_loop_thread=False).run(failed_again=failed_again)
        with job.described(run, results), _progress(job, Cancelled) as told:
            try:
                await stoppable(_tell(run, told), lambda: _stopped(run))
            except Exception as error:
                error.add_note(f"llmnb: {_kept(run.status)}{run.way_back}")
                raise
            finally:
                told(replace(run.status, is_over=True))
    return await asyncio.to_thread(_given, job, run, results) if job.out is not None else _given(job, run, results)


def _see_somebody() -> None:
    """Raises:
    InvalidRequest: there is nobody to ask.
    """
    if not views.is_somebody_there():
        raise InvalidRequest(
            "confirm=True asks a person, and there is none: this is neither a notebook nor a terminal. Give "
            "budget_usd=…, which holds by itself. Nothing was sent."
        )


def _confirm(estimate: MapEstimate) -> None:
    """Shows the estimate to a person, and goes on if that is wanted.

    Raises:
        Stopped: it is not; nothing was sent.
    """
    print(estimate)  # noqa: T201 - the question needs it, wherever it is asked
    if input("Ask these rows? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stopped("Not begun: nothing was sent.")


@contextmanager
def _turn(job: Job) -> Generator[Turn]:
    # several kernels may wait for the same batches: these have a lock of their own
    turn = Turn(job.folder, job.settings, is_shared=job.via == "batch")
    if job.via != "batch":
        check_none_open(job.folder)
    try:
        yield turn
    finally:
        turn.close()


async def stoppable(work: Coroutine[Any, Any, _T], said: Callable[[], str]) -> _T:
    """Does the work, unless a person stops it; `said` is what they are told then."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    with interrupts.heard(lambda: _cancel(loop, task)) as interrupt:
        try:
            return await task
        except asyncio.CancelledError as error:
            if interrupt.struck or isinstance(error, Cancelled):
                raise Cancelled(said()) from None
            raise
        finally:
            task.cancel()


async def in_thread(work: Callable[_P, _T], *given: _P.args, **options: _P.kwargs) -> _T:
    """Does what comes before a run, and may wait for its rows, in a thread; a person can stop it."""
    done: Future[_T] = Future()

    def do() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work(*given, **options))
        except BaseException as error:
            done.set_exception(error)

    async def waited() -> _T:
        return await asyncio.wrap_future(done)

    # a daemon, and none of the loop's own threads, which `asyncio.run` waits for: an iterator may hang
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(do,), name="llmnb-before-a-run", daemon=True).start()
    return await stoppable(waited(), lambda: "Stopped: nothing was sent.")


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    loop.call_soon_threadsafe(task.cancel)


async def _tell(run: Run, told: Callable[[Status], None]) -> None:
    async with aclosing(run.work()) as statuses:
        async for status in statuses:
            told(status)


@looked_for_less_often()
def _given(job: Job, run: Run, results: Results) -> Mapped | MappedFile:
    """The frame of the results, or where they were written."""
    status = replace(run.status, is_over=True)
    rows = zip((run.facts(key) for key in run.keys), run.keys.firsts(), strict=True)
    again = replace(job, confirms=False)
    remember(again)
    try:
        if job.out is None:
            from llmnb.jobs.mapped import mapped

            return mapped(
                job.frame,
                rows,
                job.shape,
                run_id=job.run_id,
                status=status,
                again=lambda: cast("Mapped", again.ask(failed_again=True)),
            )
        from llmnb.jobs.written import MappedFile, write

        write(job.source, rows, job.shape, job.out)
        return MappedFile(job.out, job.run_id, status, lambda: cast("MappedFile", again.ask(failed_again=True)))
    except OSError as error:
        error.add_note(f"llmnb: {_kept(run.status)}")
        raise
    finally:
        results.close()


def _progress(job: Job, stops: type[BaseException]) -> Any:
    module: Any = import_module("llmnb.display.run_progress")  # the display room stands above this one
    return module.progress(shown=job.progress, why=job.why, run_id=job.run_id, stops=stops)


def _stopped(run: Run) -> str:
    return f"Stopped. {_kept(run.status)}{run.way_back}"


def _kept(status: Status) -> str:
    finished = status.kept + status.done - status.failed
    return f"{finished:,} of {status.rows:,} rows are answered and kept; the same call goes on from there."
