"""How a part is written once and runs in sync and async clients: as a generator that yields what it needs.

A part yields the request it wants sent and receives the response; what goes wrong on the way is raised inside it, at
the `yield`, so that `try/finally` works as it reads:

    class Stopwatch(Part):
        def flow(self, request):
            started = time.perf_counter()
            response = yield request
            print(time.perf_counter() - started)
            return response

Besides requests, a part can yield what only the driver can do for it, sync or async: an `Answer` to have a response
made of it, a `Pause` to wait, `ReadAhead` and `Close` for a body, `CLIENT` to be told which client asks, `BLOCKS`
whether a pause blocks the thread.

Tests step a flow by hand with `next`, `send` and `throw`; the only two drivers stand here.
"""

from __future__ import annotations

import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, cast

import anyio
import httpx2
from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

from llmnb.middleware.answering import dressed
from llmnb.middleware.tee import AsyncTee, Enough, SyncTee
from llmnb.trouble import quietly

Response: TypeAlias = APIResponse[Any] | AsyncAPIResponse[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Gives the SDK's response, made of an HTTP response that never came over the network."""

    http: httpx2.Response
    request: APIRequest


@dataclass(frozen=True, slots=True)
class Pause:
    """Waits, in async clients without blocking the event loop."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """Reads a watched body until it is enough; see `tee.SyncTee.read_ahead`."""

    tee: SyncTee | AsyncTee
    is_enough: Enough


@dataclass(frozen=True, slots=True)
class Close:
    """Closes a response, whose body is not read any further."""

    http: httpx2.Response


class _Client:
    """Gives the client that asks, or None when it cannot be found out. Copies of a client share their parts."""


CLIENT: Final = _Client()


class _Blocks:
    """Gives whether a pause blocks the thread, as it does in sync clients."""


BLOCKS: Final = _Blocks()

Wanted: TypeAlias = Answer | Pause | ReadAhead | Close | _Client | _Blocks
Flow: TypeAlias = Generator[APIRequest | Wanted, Any, Any]
"""Yields requests to send, receives a `Response` for each, returns the one that the caller shall get."""


class Part(Middleware):
    """One concern of the pipeline. Override `flow`; the base class runs it in both kinds of clients."""

    is_innermost: ClassVar[bool] = False
    """Whether it belongs inside all others, however often the client is wrapped."""

    def concerns(self, request: APIRequest) -> bool:
        """Whether the part has work to do on a request; where it has none, it is not there. Must not raise."""
        del request
        return True

    @abstractmethod
    def flow(self, request: APIRequest) -> Flow:
        """The part's work on one HTTP attempt that concerns it."""

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        if not self.concerns(request):
            return call_next(request)
        flow = self.flow(request)
        try:
            wanted = next(flow)
            while True:
                try:
                    response = call_next(wanted) if isinstance(wanted, APIRequest) else _given(wanted, call_next)
                except BaseException as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(response)
        except StopIteration as stop:
            return stop.value

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        if not self.concerns(request):
            return await call_next(request)
        flow = self.flow(request)
        try:
            wanted = next(flow)
            while True:
                try:
                    if isinstance(wanted, APIRequest):
                        response = await call_next(wanted)
                    else:
                        response = await _agiven(wanted, call_next)
                except BaseException as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(response)
        except StopIteration as stop:
            return stop.value


def _given(wanted: Wanted, call_next: CallNext) -> Any:
    if isinstance(wanted, Answer):
        return dressed(wanted.http, wanted.request, asynchronous=False)
    if isinstance(wanted, Pause):
        return time.sleep(wanted.seconds)
    if isinstance(wanted, ReadAhead):
        return cast("SyncTee", wanted.tee).read_ahead(wanted.is_enough)
    if isinstance(wanted, Close):
        return wanted.http.close()
    return True if wanted is BLOCKS else client_behind(call_next)


async def _agiven(wanted: Wanted, call_next: AsyncCallNext) -> Any:
    if isinstance(wanted, Answer):
        return dressed(wanted.http, wanted.request, asynchronous=True)
    if isinstance(wanted, Pause):
        return await anyio.sleep(wanted.seconds)
    if isinstance(wanted, ReadAhead):
        return await cast("AsyncTee", wanted.tee).read_ahead(wanted.is_enough)
    if isinstance(wanted, Close):
        return await wanted.http.aclose()
    return False if wanted is BLOCKS else client_behind(call_next)


_behind: weakref.WeakKeyDictionary[Callable[..., Any], weakref.ref[Any]] = weakref.WeakKeyDictionary()


def client_behind(call_next: Callable[..., Any]) -> Any | None:
    """The client whose chain of middleware goes on with `call_next`; None when the SDK builds chains another way.

    The SDK tells middleware nothing of the client, and `with_options` makes a copy with another address that shares it.
    """
    known = _behind.get(call_next)
    client = None if known is None else known()
    if client is None and (client := _found_behind(call_next)) is not None:
        _behind[call_next] = weakref.ref(client)
    return client


def _found_behind(call_next: Callable[..., Any]) -> Any | None:
    link: Any = call_next
    while link is not None:
        names: tuple[str, ...] = getattr(getattr(link, "__code__", None), "co_freevars", ())
        cells: tuple[Any, ...] = getattr(link, "__closure__", None) or ()
        held = {name: cell.cell_contents for name, cell in zip(names, cells, strict=False)}
        if hasattr(held.get("self"), "base_url"):
            return held["self"]
        link = held.get("call_next")
    return None


# Before it is sent ----------------------------------------------------------------------------------------------------

_ON_SENDING = "_llmnb_on_sending"


def tell_when_sent(request: APIRequest, told: Callable[[], None]) -> None:
    """Has `told` called by the part inside that sends the request, if one does: it may be answered without."""
    setattr(request, _ON_SENDING, told)


def sending(request: APIRequest) -> APIRequest:
    """The request, which goes out now; whoever wanted to know is told."""
    told: Callable[[], None] | None = getattr(request, _ON_SENDING, None)
    if told is not None:
        try:
            told()
        except Exception as trouble:
            quietly("opening a ledger row", trouble)
    return request
