"""Asks several models in turn until one answers: a loop over whole pipelines, in the place of an `Exchange`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from llmnb.asking.access import Access
from llmnb.asking.exchange import Exchange
from llmnb.asking.params import Plan
from llmnb.asking.runner import loop_thread, relayed
from llmnb.errors import IncompleteReply
from llmnb.events import Retry, Wait
from llmnb.messages.accumulate import Piece
from llmnb.records import Call
from llmnb.reply import Reply
from llmnb.routing import Candidate, Hop, Route, Router, breakers
from llmnb.settings import Settings

_OUT_OF_ORDER = 500
_BUSY = {408: "timed out", 409: "conflict", 429: "rate limited", 529: "overloaded"}


@dataclass(frozen=True, slots=True)
class Way:
    """One model with the client that it is asked through, planned as if it were the only one."""

    plan: Plan
    access: Access

    @property
    def candidate(self) -> Candidate:
        """What it is known as."""
        return Candidate(self.access.provider, self.plan.model, f"{self.access.endpoint or ''} {self.access.account}")

    def planned(self, base: Plan, now: Plan) -> Plan:
        """Its plan, with what has become of `base`, the first way's plan, since: tools, a schema."""
        if self.plan is base:
            return now
        changed = {name: value for name, value in now.arguments.items() if base.arguments.get(name) != value}
        kept = {name: value for name, value in self.plan.arguments.items() if _is_kept(name, base, now)}
        return replace(
            self.plan,
            arguments={**kept, **changed},
            ledger={**self.plan.ledger, **now.ledger},
            display=now.display,
            tools=now.tools,
        )


def _is_kept(name: str, base: Plan, now: Plan) -> bool:
    return name in now.arguments or name not in base.arguments


@dataclass(frozen=True, slots=True)
class Routing:
    """The ways of a question, the first of which its plan is made for."""

    router: Router
    ways: tuple[Way, ...]
    settings: Settings

    @property
    def can_live(self) -> bool:
        """Whether all of them can be asked on the loop thread."""
        return all(way.access.can_live for way in self.ways)


class Late(Exception):  # noqa: N818 - it says what happened
    """Nothing has come for as long as the router waits."""


class _Patience:
    """So long the first token may take, once the call has gone: what it waits for at our end is nobody's lateness."""

    def __init__(self, seconds: float) -> None:
        self._until = asyncio.get_running_loop().time() + seconds
        self._held_from: float | None = None
        self._timeout: asyncio.Timeout | None = None

    def __call__(self, is_held: bool) -> None:
        """The call is held back, or goes; told in the thread of the event loop."""
        now = asyncio.get_running_loop().time()
        if is_held and self._held_from is None:
            self._held_from = now
        elif not is_held and self._held_from is not None:
            self._until += now - self._held_from
            self._held_from = None
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._when)

    @property
    def _when(self) -> float | None:
        return self._until if self._held_from is None else None

    @asynccontextmanager
    async def while_it_lasts(self) -> AsyncGenerator[None]:
        """Ends with a TimeoutError when it has run out."""
        async with asyncio.timeout_at(self._when) as timeout:
            self._timeout = timeout
            try:
                yield
            finally:
                self._timeout = None


class Routed:
    """Asks once, whoever answers. The four ways are those of `Exchange`; `client` is that of the first way, and says
    which kind is wanted of the others. `make` gives the exchange of a plan."""

    def __init__(self, routing: Routing, plan: Plan, make: Callable[[Plan], Exchange]) -> None:
        self._routing = routing
        self._router = routing.router
        self._plan = plan
        self._make = make
        self._exchange: Exchange | None = None
        self._hops: list[Hop] = []
        self._left = 0
        self._shown = False
        self._parent: str | None = None
        self.on_wait: Callable[[Wait], None] | None = None
        self.reply: Reply | None = None

    def ask(self, client: Callable[[], Any]) -> Reply:
        """The whole answer."""
        if self._router.first_token_s is not None and self._routing.can_live and not loop_thread().is_here():
            # a request that comes in one piece cannot be left in the middle
            with closing(relayed(self, lambda: self._astream("on_loop_thread"))) as pieces:
                for _ in pieces:
                    pass
            return self.replied()
        for way in self._in_order():
            try:
                reply = self._begun(way).ask(getattr(way.access, client.__name__))
            except Exception as error:
                if not self._goes_on(way, error):
                    raise
            else:
                self._came(way, reply)
        return self.replied()

    async def aask(self, client: Callable[[], Any]) -> Reply:
        """The async twin of `ask`."""
        if self._router.first_token_s is not None:
            async with aclosing(self.astream(client)) as pieces:
                async for _ in pieces:
                    pass
            return self.replied()
        for way in self._in_order():
            try:
                reply = await self._begun(way).aask(getattr(way.access, client.__name__))
            except Exception as error:
                if not self._goes_on(way, error):
                    raise
            else:
                self._came(way, reply)
        return self.replied()

    def stream(self, client: Callable[[], Any]) -> Generator[Piece | Wait]:
        """The pieces of the answer as they come, and a `Retry` where the next model is asked."""
        for way in self._in_order():
            exchange = self._begun(way)
            try:
                for piece in exchange.stream(getattr(way.access, client.__name__)):
                    self._shown = self._shown or not isinstance(piece, Wait)
                    yield piece
            except Exception as error:
                if not self._goes_on(way, error):
                    raise
            else:
                self._came(way, exchange.replied())
            if self.reply is None:
                yield self._told()

    def astream(self, client: Callable[[], Any]) -> AsyncGenerator[Piece | Wait]:
        """The async twin of `stream`."""
        return self._astream(client.__name__)

    async def _astream(self, kind: str) -> AsyncGenerator[Piece | Wait]:
        for way in self._in_order():
            exchange = self._begun(way)
            try:
                async with aclosing(exchange.astream(getattr(way.access, kind))) as pieces:
                    async for piece in self._in_time(exchange, pieces):
                        self._shown = self._shown or not isinstance(piece, Wait)
                        yield piece
            except Exception as error:
                if not self._goes_on(way, error):
                    raise
            else:
                self._came(way, exchange.replied())
            if self.reply is None:
                yield self._told()

    async def _in_time(self, exchange: Exchange, pieces: AsyncGenerator[Piece | Wait]) -> AsyncGenerator[Piece | Wait]:
        """The same, as long as the first of them is not late; the last way has all the time."""
        late_s = self._router.first_token_s if self._left else None
        patience = None if late_s is None else _Patience(late_s)
        exchange.on_held = patience
        while True:
            try:
                async with nullcontext() if patience is None or self._shown else patience.while_it_lasts():
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Late(f"nothing within {late_s:g} s") from None
            yield piece

    # From one to the next ---------------------------------------------------------------------------------------------

    def _in_order(self) -> Iterator[Way]:
        ways = self._routing.ways
        order = self._router.order([way.candidate for way in ways], self._routing.settings)
        self._left = len(order)
        for place in order:
            self._left -= 1
            yield ways[place]
            if self.reply is not None:
                return

    def _begun(self, way: Way) -> Exchange:
        plan = way.planned(self._routing.ways[0].plan, self._plan)
        if self._parent is not None:
            plan = replace(plan, ledger={**plan.ledger, "parent_uid": self._parent})
        self._exchange = exchange = self._make(plan)
        if self.on_wait is not None:
            exchange.on_wait = self.on_wait
        return exchange

    def _goes_on(self, way: Way, error: Exception) -> bool:
        """Whether the next one is asked after this."""
        failure = _failure(error)
        if failure is None:
            return False
        why, all_models = failure
        breakers.failed(way.candidate, all_models=all_models)
        return not self._shown and self._next(way, why)

    def _came(self, way: Way, reply: Reply) -> None:
        """An answer is whole: it is the one, or the next is asked."""
        breakers.answered(way.candidate)
        if reply.refused and self._router.on_refusal and not self._shown and self._next(way, "refused"):
            return
        self._hops.append(Hop(way.plan.full_name, "refused" if reply.refused else "answered"))
        self.reply = reply.routed(Route(way.plan.full_name, tuple(self._hops)))

    def _next(self, way: Way, why: str) -> bool:
        if not self._left:
            return False
        self._hops.append(Hop(way.plan.full_name, why))
        if self._parent is None and self.rows:
            self._parent = self.rows[0].parent_uid or self.rows[0].uid
        return True

    def _told(self) -> Retry:
        last = self._hops[-1]
        return Retry(0.0, len(self._hops) + 1, f"{last.model}: {last.why}", len(self._routing.ways))

    # The end ----------------------------------------------------------------------------------------------------------

    def replied(self) -> Reply:
        """The reply of whoever answered."""
        assert self.reply is not None
        return self.reply

    def partial(self) -> Reply | None:
        """The reply, as far as it came."""
        return self.reply or (None if self._exchange is None else self._exchange.partial())

    @property
    def rows(self) -> tuple[Call, ...]:
        """The rows of the call that was made last."""
        return () if self._exchange is None else self._exchange.rows


def _failure(error: Exception) -> tuple[str, bool] | None:
    """Why a model did not answer, and whether that says something of its whole provider; None for what is no outage."""
    from anthropic import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, Late):
        return str(error), False
    if isinstance(error, APITimeoutError):
        return "timed out", True
    if isinstance(error, APIConnectionError):
        return "out of reach", True
    if isinstance(error, IncompleteReply):
        return "its stream broke off", False
    status = error.status_code if isinstance(error, APIStatusError) else 0
    if status in _BUSY:
        return _BUSY[status], False
    return (f"status {status}", True) if status >= _OUT_OF_ORDER else None


def ways_of(plans: Sequence[Plan], access: Callable[[Plan], Access]) -> tuple[Way, ...]:
    """A way for each plan."""
    return tuple(Way(plan, access(plan)) for plan in plans)
