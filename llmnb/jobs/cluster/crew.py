"""The driver's side of a run on a cluster: sees that the workers can ask, has them ask rows, and lets them go."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmnb import origin
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.jobs.asking import Outcome, Row
from llmnb.jobs.cluster.common import marked
from llmnb.jobs.cluster.fitness import Report, Wanted
from llmnb.jobs.cluster.handed import Handed
from llmnb.jobs.cluster.parcel import OF_EACH, Parcel, Told, outcome_of
from llmnb.settings import Settings
from llmnb.trouble import quietly, warn_once

if TYPE_CHECKING:
    from llmnb.asking.params import Plan
    from llmnb.jobs.mapping import Job

_NO_WORKERS = "a worker of the Dask cluster"
_GONE = "the Dask cluster was restarted or closed, or its scheduler is out of reach"
_INSTALL = "install the same llmnb[dask] there."
_LOOKS_EVERY_S = 2.0
_PATIENCE_S = 20.0
"""How long a cluster may be without workers before a warning says so, also where no display is."""
_FORGOTTEN_TOGETHER = 500


def checked(executor: object) -> Any:
    """The client of a cluster that the user gave.

    Raises:
        InvalidRequest: it is none, is closed, or has not been awaited.
    """
    distributed: Any = sys.modules.get("distributed")
    if distributed is None or not isinstance(executor, distributed.Client):
        raise InvalidRequest(
            "executor must be the client of a Dask cluster, such as dask.distributed.Client() (pip install "
            f"'llmnb[dask]'), not a {type(executor).__name__}. Nothing was sent."
        )
    client: Any = executor
    if client.scheduler is None:
        raise InvalidRequest(
            "executor is a Dask client that is closed, or not connected yet: await it. Nothing was sent."
        )
    return client


@contextmanager
def _blocking(client: Any) -> Generator[Any]:
    """The client, or one to the same cluster where every method of it has to be awaited on the user's loop."""
    if not client.asynchronous:
        yield client
        return
    distributed: Any = import_module("distributed")
    address, security = client.scheduler.address, client.security
    with distributed.Client(address, security=security, set_as_default=False, name="llmnb") as own:
        yield own


class Crew:
    """The workers of one run. Nobody is called before the first row is to be asked."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._client = checked(job.executor)
        self._run = f"llmnb-run-{job.run_id}-{secrets.token_hex(3)}"
        self._settings = job.settings
        routing = job.routing
        self._parcel = Parcel(
            plan=plan,
            recipe=job.access.elsewhere(),
            concurrency=job.concurrency,
            shape=job.shape,
            retries=job.retries,
            settings=_for_all(job.settings),
            wanted=Wanted(
                server=job.server,
                ledger=str(job.settings.ledger_path),
                has_cache_url=job.settings.cache_url is not None,
                has_purse=job.budget_usd is not None,
            ),
            router=None if routing is None else routing.router,
            ways=() if routing is None else tuple((way.plan, way.access.elsewhere()) for way in routing.ways),
        )
        self._opening: asyncio.Future[Any] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._kept = ExitStack()
        self._handed: Handed | None = None
        self._numbers = itertools.count()
        self._heard: list[str] = []
        self._under_way = 0
        self._ended = 0
        self._waits = 0, ""

    async def ask(self, row: Row, again: Callable[[], Awaitable[bool]]) -> Outcome | None:
        """Has a row asked. When its worker is lost before anybody knows what it was answered, `again` is asked whether
        another one may ask it; None when not.

        Raises:
            InvalidRequest: a worker cannot ask, or has another ledger; nothing was sent.
            LlmnbError: the cluster is gone, or a worker that came later cannot ask.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        executor = await asyncio.shield(self._opening)
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._watch())
        self._under_way += 1
        try:
            for _ in range(1 + _most_losses()):
                told = await self._told(executor, row)
                if told is not None:
                    return outcome_of(told)
                if not await again():
                    return None
        except _Lost as error:
            # of a worker that died while it was asking nobody knows what that cost
            return Outcome.unasked(error.why, is_free=False)
        finally:
            self._under_way -= 1
            self._ended += 1
        lost = LlmnbError(f"{1 + _most_losses()} workers were lost, one after the other, while they asked this row")
        return Outcome.unasked(lost, is_free=False)

    def held(self) -> tuple[int, str]:
        """How many rows wait, and for what: a worker, or a limit of the account."""
        return self._waits

    async def close(self) -> None:
        """Nothing more is asked, and what is under way is stopped."""
        if self._watching is not None:
            self._watching.cancel()
        if self._opening is None:
            return
        try:
            executor = await self._opening
        except Exception:  # whoever wanted to ask knows
            return
        await asyncio.to_thread(self._let_go, executor)

    async def _told(self, executor: Any, row: Row) -> Told | None:
        from llmnb.jobs.cluster.worker import CannotAsk, ask_row

        place = str(next(self._numbers))
        future = executor.submit(ask_row, self._run, row, place, key=f"{self._run}-{place}")
        try:
            # shielded: to cancel them one by one would take a call of the scheduler each
            told: Told | None = await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            if not future.cancelled():
                raise
            raise LlmnbError(f"{_GONE}.") from None
        except CannotAsk as error:
            raise LlmnbError(f"the Dask worker {error}") from None
        except Exception as error:
            if type(error).__name__ == "KilledWorker":
                raise _Lost(error) from None
            raise LlmnbError(
                f"a worker of the Dask cluster cannot run llmnb ({type(error).__name__}: {error}): {_INSTALL}"
            ) from None
        await self._hear(place)
        return told

    async def _hear(self, place: str) -> None:
        self._heard.append(place)
        if self._handed is not None and len(self._heard) >= _FORGOTTEN_TOGETHER:
            heard, self._heard = self._heard, []
            await asyncio.to_thread(self._handed.forget, heard)

    async def _watch(self) -> None:
        """Looks now and then what rows wait for, for the display to say so."""
        since, ended = time.monotonic(), -1
        while True:
            if ended != self._ended:  # rows come
                since, ended, self._waits = time.monotonic(), self._ended, (0, "")
            else:
                self._waits = await asyncio.to_thread(self._look)
                if self._waits[1] == _NO_WORKERS and time.monotonic() - since > _PATIENCE_S:
                    warn_once("cluster workers", f"the rows wait for {_NO_WORKERS}: it has none.")
            await asyncio.sleep(_LOOKS_EVERY_S)

    def _look(self) -> tuple[int, str]:
        from llmnb.jobs.cluster.worker import held_back

        try:
            if not self._client.nthreads():
                return self._under_way, _NO_WORKERS
            told: Mapping[str, tuple[int, str]] = self._client.run(held_back, self._run, on_error="ignore")
        except Exception:  # out of reach for a moment: Dask says so where it is for good
            return 0, ""
        held = sorted(told.values())
        return sum(rows for rows, _ in held), held[-1][1] if held else ""

    def _open(self) -> Any:
        from llmnb.jobs.cluster.worker import Presence, report

        packed = self._parcel.packed()
        with ExitStack() as kept:
            with _in_our_words(self._client):
                self._client = kept.enter_context(_blocking(self._client))
            mark, backend = kept.enter_context(marked(self._settings))
            reports: Mapping[str, Report | BaseException]
            with _in_our_words(self._client):
                reports = self._client.run(report, packed, mark, on_error="return")
            for address, said in reports.items():
                self._check(address, said)
            with _in_our_words(self._client):
                self._client.register_plugin(Presence(self._run, packed, mark), name=self._run)
            self._handed = Handed(backend, self._run)
            self._kept = kept.pop_all()
        return self._client.get_executor(pure=False)

    def _let_go(self, executor: Any) -> None:
        try:
            executor.shutdown(wait=False)
            self._client.unregister_worker_plugin(self._run)
        except Exception as trouble:
            quietly("telling the workers of a Dask cluster that a run is over", trouble, but="they may not know of it")
        if self._handed is not None:
            self._handed.forget(self._heard)
        self._kept.close()

    def _check(self, address: str, said: Report | BaseException) -> None:
        trouble = self._parcel.wanted.trouble(said)
        if trouble is not None:
            raise InvalidRequest(f"the Dask worker {address} {trouble} Nothing was sent.")


@contextmanager
def _in_our_words(client: Any) -> Generator[None]:
    """What Dask raises, with what to do.

    Raises:
        LlmnbError: the cluster is out of reach, or a worker that has just come cannot run llmnb.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (OSError, TimeoutError)) or client.status != "running":
            raise LlmnbError(f"{_GONE} ({error}).") from None
        raise LlmnbError(f"a worker of the Dask cluster cannot run llmnb ({error}): {_INSTALL}") from None


class _Lost(Exception):  # noqa: N818 - it says what happened
    """Dask has given a row up: the workers that were given it died of it."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


def _most_losses() -> int:
    """How many workers a row may take with it before Dask gives it up."""
    dask: Any = import_module("dask")
    return int(dask.config.get("distributed.scheduler.allowed-failures"))


def _for_all(settings: Settings) -> dict[str, Any]:
    """The settings that hold at the workers, too: with who asks and from where, which they cannot know."""
    told = {name: getattr(settings, name) for name in Settings.model_fields if name not in OF_EACH}
    return {**told, "user": origin.user(settings), "notebook": origin.notebook(settings)}
