"""Asks while a view shows the answer, so that Stop stops: at once, in every kind of cell.

A blocked socket read cannot be stopped from another thread, but an async one can. So the request runs as a task on one
private event loop in a thread of its own; the thread that asked waits at a mailbox, does every display, and is free to
be interrupted. Stop, from Ctrl-C or from the view, cancels the task: the server sees the connection close at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing, suppress
from typing import Any, Protocol, TypeAlias, TypeVar

from llmnb import interrupts, slots
from llmnb.asking.mailbox import Mailbox
from llmnb.events import StreamEvent, Wait
from llmnb.interrupts import STOPPED, Cancelled, Stopped
from llmnb.reply import Reply
from llmnb.views import View

T = TypeVar("T")
Events: TypeAlias = Callable[[], AsyncGenerator[StreamEvent]]

_CLEAN_UP_S = 2.0
"""How long Stop waits for the connection to be closed and the ledger row to be written."""


class Answering(Protocol):
    """What is asked of an exchange here; the names are those of `Exchange`."""

    on_wait: Callable[[Wait], None] | None

    @property
    def reply(self) -> Reply | None: ...

    def partial(self) -> Reply | None: ...


# The loop thread ------------------------------------------------------------------------------------------------------


class LoopThread:
    """An event loop that runs in a daemon thread, started on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Calls the function there, soon, in the context variables of the caller."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="llmnb-loop", daemon=True).start()
        self._loop.call_soon_threadsafe(function)

    def is_here(self) -> bool:
        """Whether the caller runs in it, and so cannot wait for it."""
        return self._loop is not None and asyncio._get_running_loop() is self._loop


_loop_thread = LoopThread()


def loop_thread() -> LoopThread:
    """The loop thread of this process."""
    return _loop_thread


def _after_fork() -> None:
    global _loop_thread
    _loop_thread = LoopThread()  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Watching from a thread -----------------------------------------------------------------------------------------------


class _Watch:
    """One answer on its way from the loop thread to the thread that asked."""

    def __init__(self, events: Callable[[], AsyncGenerator[Any]]) -> None:
        self.stopped = False
        self.by_view = False
        self.error: BaseException | None = None
        self._make = events
        self.events = Mailbox()
        self._over = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins on the loop thread, while this one waits."""
        token = slots.BLOCKED.set(slots.this_owner())
        _loop_thread.call(self._begin)
        slots.BLOCKED.reset(token)

    def press(self) -> None:
        """The view's Stop: ends the answer. May be called from any thread, and does nothing more than that."""
        self.by_view = True
        self.stop()

    def tell(self, event: StreamEvent) -> None:
        """Hands on an event that does not come from the answer itself."""
        self.events.put(event)

    def stop(self) -> None:
        """Ends the answer, from whatever thread."""
        self.stopped = True
        self.events.end()
        _loop_thread.call(self._cancel)

    @property
    def over(self) -> bool:
        """Whether the connection is closed and the ledger knows."""
        return self._over.is_set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the connection is closed and the ledger knows."""
        self._over.wait(timeout_s)

    # on the loop thread

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._pump())
        self._task.add_done_callback(self._ended)

    async def _pump(self) -> None:
        async with aclosing(self._make()) as events:
            async for event in events:
                self.events.put(event)

    def _cancel(self) -> None:
        if self._task is None:
            self._over.set()
        else:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.error = None if task.cancelled() else task.exception()
        self._over.set()
        self.events.end()


def from_loop_thread(
    events: Callable[[], AsyncGenerator[T]], hand_out: Callable[[Callable[[], None]], None] | None = None
) -> Generator[T]:
    """What an async generator gives on the loop thread, in the thread that asks. Closing it ends it there.

    `hand_out` is given, before it begins, what a view's Stop does; then the end is `Stopped`.
    """
    running = _Watch(events)
    if hand_out is not None:
        hand_out(running.press)
    try:
        running.start()
        yield from running.events
    finally:
        if not running.over:
            running.stop()
        if hand_out is not None:
            with suppress(KeyboardInterrupt):  # pressed again: nobody wants to wait
                running.wait(_CLEAN_UP_S)
    if running.by_view:
        raise interrupts.stopped(by_view=True)
    if running.error is not None:
        raise running.error


def watch(exchange: Answering, events: Events, view: View, model: str) -> Reply:
    """The reply, after `view` has shown it come. `events` makes the async generator that runs on the loop thread.

    Raises:
        Stopped: the person stopped it, by Ctrl-C, the kernel's interrupt, or the view's own button.
    """
    running = _Watch(events)
    exchange.on_wait = running.tell
    try:
        view.open(model, running.press)
        running.start()
        running.events.show_in(view)
    except KeyboardInterrupt:
        running.stop()
    except BaseException as error:  # a view that fails; the request shall not go on unseen
        running.stop()
        with interrupts.put_off():
            view.close(error)
        raise
    return _ended(exchange, running, view)


def _ended(exchange: Answering, running: _Watch, view: View) -> Reply:
    if running.stopped:
        with suppress(KeyboardInterrupt):  # pressed again: nobody wants to wait
            running.wait(_CLEAN_UP_S)
        with interrupts.put_off():
            running.events.show_rest(view)
    if exchange.reply is not None:
        return _shown(exchange.reply, view)
    error = interrupts.stopped(by_view=running.by_view) if running.stopped else running.error
    assert error is not None
    _close(exchange if running.over else None, view, error)
    raise error


def _close(exchange: Answering | None, view: View, error: BaseException) -> None:
    """Close a view early; that of an answer that was stopped still says what was used, as far as the books know."""
    partial = exchange.partial() if exchange is not None and not isinstance(error, Exception) else None
    with interrupts.put_off():  # pressed again: it ends anyhow, and `error` says why
        if partial is not None:
            view.show(partial.done())
        view.close(error)


def watch_here(exchange: Answering, events: Generator[StreamEvent], view: View, model: str) -> Reply:
    """`watch` for a client that is sync only: everything happens in this thread, which Ctrl-C interrupts.

    The view is given no `stop`: a blocked read cannot be ended from elsewhere.
    """
    exchange.on_wait = view.show
    try:
        view.open(model, None)
        with closing(events):
            for event in events:
                view.show(event)
    except KeyboardInterrupt:
        stopped = Stopped(STOPPED)
        _close(exchange, view, stopped)
        raise stopped from None
    except BaseException as error:
        _close(None, view, error)
        raise
    assert exchange.reply is not None
    return _shown(exchange.reply, view)


# Without a view -------------------------------------------------------------------------------------------------------


def relayed(exchange: Answering, events: Events) -> Generator[StreamEvent]:
    """The events of an answer as they come on the loop thread: a retry is told while it is waited for.

    The SDK's sync client sleeps between two attempts in the thread that asks, where nothing can be told meanwhile.
    Leaving the generator ends the answer at once.
    """
    running = _Watch(events)
    exchange.on_wait = running.tell
    running.start()
    try:
        yield from running.events
    except BaseException as error:
        running.stop()
        if not (sys.is_finalizing() or _loop_thread.is_here()):  # nobody would end it there
            with suppress(KeyboardInterrupt):  # pressed again
                running.wait(_CLEAN_UP_S)
        interrupts.shorten(error)
        raise
    if running.error is not None:
        raise running.error


# Watching in a coroutine ----------------------------------------------------------------------------------------------


async def awatch(exchange: Answering, events: Events, view: View, model: str) -> Reply:
    """The async twin of `watch`: everything happens in the caller's own event loop.

    Raises:
        Cancelled: the view's Stop was pressed. A cancellation from outside passes as it is.
    """
    exchange.on_wait = view.show
    loop = asyncio.get_running_loop()
    task = loop.create_task(_show_all(events, view))
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        loop.call_soon_threadsafe(task.cancel)

    with interrupts.heard(stop) as interrupt:
        try:
            view.open(model, stop)
            await task
        except BaseException as error:
            task.cancel()
            pressed = stopped.is_set() or interrupt.struck
            told = Cancelled(STOPPED) if pressed and isinstance(error, asyncio.CancelledError) else error
            _close(exchange if task.done() else None, view, told)
            raise told from None if told is not error else error.__cause__
    assert exchange.reply is not None
    return _shown(exchange.reply, view)


async def _show_all(events: Events, view: View) -> None:
    async with aclosing(events()) as pieces:
        async for piece in pieces:
            view.show(piece)


def _shown(reply: Reply, view: View) -> Reply:
    with interrupts.put_off() as late:
        view.show(reply.done())
        view.close()
    late.strike()
    return reply
