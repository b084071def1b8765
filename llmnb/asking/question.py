"""A question that is ready to be asked, in any of the four ways, with a view where one fits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any

from llmnb import interrupts
from llmnb.asking import recent
from llmnb.asking.access import Access
from llmnb.asking.exchange import Exchange
from llmnb.asking.params import Plan
from llmnb.asking.resuming import Continued, Entered, Resumption, resume_by
from llmnb.asking.routed import Routed, Routing
from llmnb.asking.runner import awatch, loop_thread, relayed, watch, watch_here
from llmnb.asking.tool_loop import ToolLoop
from llmnb.errors import IncompleteReply, InvalidRequest
from llmnb.events import StreamEvent, Wait
from llmnb.records import Call
from llmnb.reply import Reply, running_cell
from llmnb.views import View, views


@dataclass(frozen=True, slots=True)
class Question:
    """What will be sent, through which client, for which chat.

    `limit` is how many requests may be under way at once. `on_call` is told every ledger row, of failed calls, too,
    `on_wait` the waits for rate limits and before retries where no view or stream shows them;
    `on_reply` the answer, once it is whole and before anybody else sees the end of it. `shown_as` puts something before
    the view, and `tells_input` has the input of a tool come piece by piece. `entered` is what an answer that broke off
    is resumed inside of, `resumes` the beginning of the one that this question has finished. `routing` are the models
    that answer where the first cannot.
    """

    plan: Plan
    messages: Sequence[Any]
    access: Access
    limit: int
    chat: str | None = None
    on_call: Callable[[Call], None] | None = None
    on_wait: Callable[[Wait], None] | None = None
    on_reply: Callable[[Reply], None] | None = None
    shown_as: Callable[[View], View] | None = None
    tells_input: bool = False
    entered: Entered = nullcontext
    resumes: Resumption | None = None
    routing: Routing | None = None

    def ask(self) -> Reply:
        """The reply, shown live where a view fits."""
        view = self._view()
        exchange = self._exchange(view, blocking=True)
        try:
            if view is None:
                reply = exchange.ask(self.access.sync)
            elif self._can_live and not loop_thread().is_here():  # as in a function that `map` has write a prompt
                reply = watch(exchange, lambda: exchange.astream(self.access.on_loop_thread), view, self.plan.model)
            else:
                reply = watch_here(exchange, exchange.stream(self.access.sync), view, self.plan.model)
        except BaseException as error:
            self._failed(exchange, error)
            raise
        return self._told(reply)

    async def aask(self) -> Reply:
        """The async twin of `ask`."""
        view = self._view()
        exchange = self._exchange(view)
        try:
            if view is None:
                reply = await exchange.aask(self.access.here)
            else:
                reply = await awatch(exchange, lambda: exchange.astream(self.access.here), view, self.plan.model)
        except BaseException as error:
            self._failed(exchange, error)
            raise
        return self._told(reply)

    async def aask_quietly(self, *, on_loop_thread: bool) -> Reply:
        """`aask` without a view; `on_loop_thread` when it runs on llmnb's own loop and not on the user's."""
        exchange = self._exchange(None)
        return self._told(await exchange.aask(self.access.on_loop_thread if on_loop_thread else self.access.here))

    def stream(self) -> Generator[StreamEvent, None, Reply]:
        """The events of the answer, `Done` last; the generator's value is the reply."""
        self._check_unseen()
        exchange = self._exchange(None, blocking=True)
        try:
            if self._can_live and not loop_thread().is_here():
                yield from relayed(exchange, lambda: exchange.astream(self.access.on_loop_thread))
            else:
                yield from exchange.stream(self.access.sync)
        except BaseException as error:
            self._failed(exchange, error)
            raise
        reply = self._told(exchange.replied())
        yield reply.done()
        return reply

    async def astream(self, *, on_loop_thread: bool = False) -> AsyncGenerator[StreamEvent]:
        """The async twin of `stream`; `on_loop_thread` when it runs on llmnb's own loop and not on the user's."""
        if not on_loop_thread:  # a chat's box, which shows buttons
            self._check_unseen()
        exchange = self._exchange(None, has_buttons=on_loop_thread)
        client = self.access.on_loop_thread if on_loop_thread else self.access.here
        try:
            async with aclosing(exchange.astream(client)) as pieces:
                async for piece in pieces:
                    yield piece
        except BaseException as error:
            self._failed(exchange, error)
            raise
        yield self._told(exchange.replied()).done()

    def _view(self) -> View | None:
        view = views.view(self.plan.display)
        if view is not None and self.resumes is not None:
            view = Continued(view, self.resumes.before)
        return view if view is None or self.shown_as is None else self.shown_as(view)

    @property
    def _can_live(self) -> bool:
        return self.access.can_live if self.routing is None else self.routing.can_live

    def _failed(self, exchange: Exchange | ToolLoop | Routed, error: BaseException) -> None:
        """Keeps what came, and lets an answer that broke off be resumed."""
        recent.remember(exchange.partial())
        if isinstance(error, IncompleteReply):
            # a loop of tools is gone through again: its turns come from the cache
            resume_by(error, self, () if isinstance(exchange, ToolLoop) else exchange.rows)

    def _told(self, reply: Reply) -> Reply:
        if self.resumes is not None:
            reply = self.resumes.merged(reply)
        recent.remember(reply)
        if self.on_reply is not None:
            self.on_reply(reply)
        return reply

    def _exchange(
        self, view: View | None, *, blocking: bool = False, has_buttons: bool = False
    ) -> Exchange | ToolLoop | Routed:
        interrupts.refuse()
        shown_in = None if view is None else running_cell()
        tools = self.plan.tools
        if tools is None:
            return self._asked(self.plan, self.messages, shown_in)
        if tools.approve is True and not has_buttons:
            views.check_somebody_there()
        return ToolLoop(
            self.plan,
            self.messages,
            lambda plan, messages: self._asked(plan, messages, shown_in),
            provider=self.access.provider,
            shown_in=shown_in,
            blocking=blocking,
        )

    def _asked(self, plan: Plan, messages: Sequence[Any], shown_in: str | None) -> Exchange | Routed:
        if self.routing is None:
            return self._one(plan, messages, shown_in)
        return Routed(self.routing, plan, lambda planned: self._one(planned, messages, shown_in))

    def _one(self, plan: Plan, messages: Sequence[Any], shown_in: str | None) -> Exchange:
        return Exchange(
            plan,
            messages,
            limit=self.limit,
            chat=self.chat,
            shown_in=shown_in,
            on_call=self.on_call,
            on_wait=self.on_wait,
            tells_input=self.tells_input,
        )

    def _check_unseen(self) -> None:
        if self.plan.tools is not None and self.plan.tools.approve is True:
            raise InvalidRequest(
                "a stream has no view to ask you in: give approve= a function that decides, or ask with llm(…). "
                "Nothing was sent."
            )
