"""The driver's side of a run on a cluster: sees that the workers can ask, has them ask rows, and lets them go."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import llmnb
from llmnb import origin
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.jobs.asking import Outcome, Row
from llmnb.jobs.cluster.common import Seen, marked
from llmnb.jobs.cluster.parcel import OF_EACH, Parcel, outcome_of
from llmnb.settings import Settings
from llmnb.trouble import quietly, warn_once

if TYPE_CHECKING:
    from llmnb.asking.params import Plan
    from llmnb.jobs.cluster.worker import Report
    from llmnb.jobs.mapping import Job


def checked(executor: object) -> Any:
    """The client of a cluster that the user gave.

    Raises:
        InvalidRequest: it is none, or one whose every method has to be awaited.
    """
    distributed: Any = sys.modules.get("distributed")
    if distributed is None or not isinstance(executor, distributed.Client):
        raise InvalidRequest(
            "executor must be the client of a Dask cluster, such as dask.distributed.Client() (pip install "
            f"'llmnb[dask]'), not a {type(executor).__name__}. Nothing was sent."
        )
    client: Any = executor
    if client.asynchronous:
        raise InvalidRequest("executor must be a Dask client without asynchronous=True. Nothing was sent.")
    return client


_SECRETS = (
    "API keys and the addresses of your services are not sent through the scheduler: set them in the environment of "
    "the workers."
)


class Crew:
    """The workers of one run. Nobody is called before the first row is to be asked."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._client = checked(job.executor)
        self._name = f"llmnb-run-{job.run_id}-{secrets.token_hex(3)}"
        self._server = job.server
        self._has_purse = job.budget_usd is not None
        self._settings = job.settings
        routing = job.routing
        self._parcel = Parcel(
            plan=plan,
            recipe=job.access.elsewhere(),
            concurrency=job.concurrency,
            shape=job.shape,
            retries=job.retries,
            settings=_for_all(job.settings),
            router=None if routing is None else routing.router,
            ways=() if routing is None else tuple((way.plan, way.access.elsewhere()) for way in routing.ways),
        )
        self._opening: asyncio.Future[Any] | None = None
        self._numbers = itertools.count()
        self._under_way: dict[str, Callable[[], object]] = {}

    async def ask(self, row: Row, lost: Callable[[], None]) -> Outcome:
        """Has a row asked. When its worker is lost, another one asks it again, and `lost` is called before.

        Raises:
            InvalidRequest: a worker cannot ask, or has another ledger; nothing was sent.
            LlmnbError: the cluster is gone, or a worker that came later cannot ask.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        executor = await asyncio.shield(self._opening)
        from llmnb.jobs.cluster.worker import CannotAsk, ask_row

        key = f"{self._name}-{next(self._numbers)}"
        self._under_way[key] = partial(asyncio.get_running_loop().call_soon_threadsafe, lost)
        future = executor.submit(ask_row, self._name, row, key=key)
        try:
            # shielded: to cancel them one by one would take a call of the scheduler each
            return outcome_of(await asyncio.shield(asyncio.wrap_future(future)))
        except asyncio.CancelledError:
            if not future.cancelled():
                raise
            raise LlmnbError("the Dask cluster was restarted or closed, or its scheduler is out of reach.") from None
        except CannotAsk as error:
            raise LlmnbError(f"the Dask worker {error} {_SECRETS}") from None
        except Exception as error:
            # of a worker that died while it was asking nobody knows what that cost
            return Outcome.unasked(error, is_free=type(error).__name__ != "KilledWorker")
        finally:
            del self._under_way[key]

    def heard(self, keys: Iterable[str]) -> None:
        """A worker is gone, and what it was asking is given to another one."""
        for key in keys:
            if (lost := self._under_way.get(key)) is not None:
                lost()

    async def close(self) -> None:
        """Nothing more is asked, and what is under way is stopped."""
        if self._opening is None:
            return
        try:
            executor = await self._opening
        except Exception:  # whoever wanted to ask knows
            return
        await asyncio.to_thread(self._let_go, executor)

    def _open(self) -> Any:
        from llmnb.jobs.cluster.worker import Presence, report

        packed = self._parcel.packed()
        with marked(self._settings) as mark:
            reports: Mapping[str, Report | BaseException] = self._client.run(report, packed, mark, on_error="return")
        for address, said in reports.items():
            self._check(address, said)
        self._client.register_plugin(Presence(self._name, packed), name=self._name)
        if self._has_purse:
            _listen(self._client, self)
        return self._client.get_executor(pure=False)

    def _let_go(self, executor: Any) -> None:
        _crews.get(self._client, set()).discard(self)
        try:
            executor.shutdown(wait=False)
            self._client.unregister_worker_plugin(self._name)
        except Exception as trouble:
            quietly("telling the workers of a Dask cluster that a run is over", trouble, but="they may not know of it")

    def _check(self, address: str, said: Report | BaseException) -> None:
        trouble = self._trouble(said)
        if trouble is not None:
            raise InvalidRequest(f"the Dask worker {address} {trouble} Nothing was sent.")

    def _trouble(self, said: Report | BaseException) -> str | None:
        if isinstance(said, BaseException):
            return f"cannot run llmnb ({type(said).__name__}: {said}): install llmnb[dask] there."
        if said.version != llmnb.__version__:
            return f"has llmnb {said.version}, and here is {llmnb.__version__}: install the same."
        if said.seen is None:
            return f"cannot ask: {said.trouble} {_SECRETS}"
        if said.server != self._server:
            return f"asks {said.server}, and here is {self._server}: set ANTHROPIC_BASE_URL in its environment."
        return self._trouble_of_books(said.seen)

    def _trouble_of_books(self, seen: Seen) -> str | None:
        if seen.is_file and not seen.same_host:
            return (
                f"is another machine, and the ledger {seen.ledger} is a file: no budget and no rate limit would hold. "
                "Set LLMNB_STORE_URL=postgresql://… here and in the environment of the workers."
            )
        if not seen.in_ledger:
            return (
                f"has another ledger ({seen.ledger}; here it is {self._settings.ledger_path}): set LLMNB_STORE_URL or "
                "LLMNB_HOME in its environment."
            )
        if seen.in_cache:
            return None
        if not seen.is_folder or self._settings.cache_url is not None:
            return (
                f"has another response cache ({seen.cache}), through which rate limits are shared: set LLMNB_CACHE_URL "
                "here and in the environment of the workers."
            )
        warn_once(
            "cluster cache",
            "each worker of the Dask cluster has a response cache of its own: what a worker was answered in the moment "
            "before it was lost is asked again. LLMNB_CACHE_URL=redis://… gives all of them one.",
        )
        return None


_crews: weakref.WeakKeyDictionary[Any, set[Crew]] = weakref.WeakKeyDictionary()


def _listen(client: Any, crew: Crew) -> None:
    """Has a crew hear of workers that are lost. A client takes one listener a topic: ours serves all runs, and where
    the user has one, theirs stays.
    """
    is_new = client not in _crews
    crews = _crews.setdefault(client, set())
    crews.add(crew)
    if not is_new or "all" in getattr(client, "_event_handlers", ()):
        return

    def heard(event: tuple[float, Any]) -> None:
        told = event[1]
        if isinstance(told, dict) and told.get("action") == "remove-worker":  # pyright: ignore[reportUnknownMemberType]
            keys: Any = (*told.get("processing-tasks", ()), *told.get("lost-computed-tasks", ()))  # pyright: ignore[reportUnknownMemberType]
            for one in tuple(crews):
                one.heard(keys)

    client.subscribe_topic("all", heard)


def _for_all(settings: Settings) -> dict[str, Any]:
    """The settings that hold at the workers, too: with who asks and from where, which they cannot know."""
    told = {name: getattr(settings, name) for name in Settings.model_fields if name not in OF_EACH}
    return {**told, "user": origin.user(settings), "notebook": origin.notebook(settings)}
