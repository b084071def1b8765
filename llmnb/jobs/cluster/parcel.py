"""What travels between a run and the workers of a cluster: what all rows have in common, and what became of each.

It goes through Dask's scheduler, which keeps it in memory and may log it. So no key is in it, nor an address with a
password: those are the worker's own, of its own environment.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmnb.asking.question import Question
from llmnb.asking.routed import Routing, Way
from llmnb.cache.responses import responses
from llmnb.errors import InvalidRequest
from llmnb.jobs.asking import Outcome, Row, asked
from llmnb.jobs.cluster.fitness import Wanted
from llmnb.jobs.cluster.handed import Handed
from llmnb.ledger import books
from llmnb.middleware.pacing import PacingPart
from llmnb.providers.known import PROVIDERS
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    from llmnb.asking.access import Access
    from llmnb.asking.params import Plan
    from llmnb.asking.shape import Shape
    from llmnb.routing import Router

Recipe = Callable[[Settings], "Access"]
"""Makes an access with the key of the environment where it is called."""

OF_EACH = frozenset(
    {
        "home",
        "store_url",
        "network_store",
        "cache_url",
        "cache_limit",
        "budget_webhook",
        "dashboard_password",
        "dashboard_users",
        "display",
    }
)
"""Settings that a worker has of its own: its disk, and what may hold a secret."""
_SECRET_HEADERS = ("x-api-key", "authorization", "api-key")


@dataclass(frozen=True)
class Parcel:
    """What all rows of a run have in common, wherever they are asked."""

    plan: Plan
    recipe: Recipe
    concurrency: int
    shape: Shape | None
    retries: int
    settings: Mapping[str, Any]
    wanted: Wanted
    router: Router | None = None
    ways: tuple[tuple[Plan, Recipe], ...] = ()

    def packed(self) -> bytes:
        """It as bytes, what the user defined in a notebook by value.

        Raises:
            InvalidRequest: it cannot travel.
        """
        cloudpickle: Any = import_module("cloudpickle")  # Dask's own
        for plan in (self.plan, *(plan for plan, _ in self.ways)):
            _check(plan)
        try:
            return cloudpickle.dumps(self)
        except Exception as error:
            raise InvalidRequest(
                f"this run cannot be sent to the workers of a cluster: {type(error).__name__}: {error}. Put the "
                "functions and classes that it uses into a module that the workers can import. Nothing was sent."
            ) from None


def _check(plan: Plan) -> None:
    for name in plan.arguments.get("extra_headers", {}):
        if name.lower() in _SECRET_HEADERS:
            raise InvalidRequest(
                f"the header {name!r} holds a key, which would go through the cluster's scheduler: set it in the "
                "environment of the workers (ANTHROPIC_CUSTOM_HEADERS). Nothing was sent."
            )
    if plan.tools is not None and plan.tools.approve is True:
        raise InvalidRequest(
            "approve=True asks a person, and there is none at the workers of a cluster: give a function that decides, "
            "or leave executor= out. Nothing was sent."
        )


class Work:
    """A parcel that has arrived: asks rows, with this process' key and through its ledger.

    Raises:
        Exception: it cannot be unpacked or asked here, such as ModuleNotFoundError, SettingsError or MissingKey.
    """

    def __init__(self, packed: bytes) -> None:
        parcel: Parcel = pickle.loads(packed)  # noqa: S301 - of the user who runs code here anyway
        self.parcel = parcel
        self.settings = load().model_copy(update=dict(parcel.settings))
        self.access = parcel.recipe(self.settings)
        self._routing: Routing | None = None
        if parcel.router is not None:
            ways = tuple(Way(plan, recipe(self.settings)) for plan, recipe in parcel.ways)
            self._routing = Routing(parcel.router, ways, self.settings)
        # what was answered is there for all before the ledger hears of it: no row that is "ok" is asked again
        responses(self.settings).at_once += 1

    async def asked(self, row: Row) -> Outcome:
        """Asks a row; an error is part of the outcome."""
        parcel = self.parcel
        plan = row.plan(parcel.plan, parcel.plan.arguments.get("system"))
        messages = [{"role": "user", "content": row.content}]
        question = Question(plan, messages, self.access, parcel.concurrency, routing=self._routing)
        return await asked(question, parcel.shape, parcel.retries)

    def handed(self, run: str) -> Handed:
        """What the workers of the run leave for each other."""
        return Handed(responses(self.settings).backend, run)

    def settle(self) -> None:
        """Has what was asked written to the ledger now, and not in a moment: nothing more is."""
        responses(self.settings).at_once -= 1
        books(self.settings).settle()

    def begin(self) -> None:
        """Makes the clients that will ask, and has them begin with what other workers know of the account's limits.

        Raises:
            MissingKey, MissingExtra: they cannot be made here.
        """
        for part, model in self._pacing():
            part.look(model)

    def held(self) -> tuple[int, str]:
        """How many rows are held back for a limit of the account, and for which."""
        held = sorted(part.held(model) for part, model in self._pacing())
        return sum(rows for rows, _ in held), held[-1][1] if held else ""

    def _pacing(self) -> Iterator[tuple[PacingPart, str]]:
        for way in (Way(self.parcel.plan, self.access),) if self._routing is None else self._routing.ways:
            for part in way.access.sync().middleware:
                if isinstance(part, PacingPart):
                    yield part, way.plan.model


# What became of a row -------------------------------------------------------------------------------------------------

Told = tuple[dict[str, Any], "bytes | None"]


def told(outcome: Outcome) -> Told:
    """An outcome, to be sent back."""
    return outcome.facts, None if outcome.error is None else _sent(outcome.error)


def outcome_of(told: Told) -> Outcome:
    """What was told."""
    facts, error = told
    return Outcome(facts, None if error is None else pickle.loads(error))  # noqa: S301 - of our own workers


def _sent(error: Exception) -> bytes:
    """An error without the request that it came of, whose headers hold the key."""
    try:
        data = pickle.dumps(_bare(error))
        pickle.loads(data)  # noqa: S301 - what was just written: some errors can be written and not read
        if not any(secret in data for secret in _secrets()):
            return data
    except Exception:  # noqa: S110 - any class may fail at it in its own way
        pass
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _bare(error: Exception) -> Exception:
    facts = dict(error.__dict__)
    if not facts.keys() & {"request", "response"}:
        return error
    import httpx2

    request = facts.get("request")
    bare = httpx2.Request("POST", "http://worker" if request is None else request.url.copy_with(userinfo=b""))
    if request is not None:
        facts["request"] = bare
    if (response := facts.get("response")) is not None:
        facts["response"] = httpx2.Response(response.status_code, headers=_kept(response.headers), request=bare)
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(facts)
    return copy


def _kept(headers: Any) -> list[tuple[str, str]]:
    # the body is not kept, so neither is what says how it is written
    return [(name, value) for name, value in headers.items() if not name.lower().startswith(("content-", "transfer-"))]


def _secrets() -> list[bytes]:
    names = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"]
    names += [name for provider in PROVIDERS for name in provider.key_variables]
    return [os.environ[name].encode() for name in names if os.environ.get(name)]
