"""Asking while a view shows the answer: order, threads, and Stop in all its forms."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.asking import runner
from llmnb.asking.runner import Cancelled, Stopped
from llmnb.events import Done, StreamEvent, Text
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.views import View, views


class Watcher:
    """A `View` that notes what it was told, and from which thread; `on` is called with each event."""

    def __init__(self, on: Callable[[StreamEvent], None] | None = None) -> None:
        self.on = on
        self.model: str | None = None
        self.stop: Callable[[], None] | None = None
        self.events: list[StreamEvent] = []
        self.threads: set[int] = set()
        self.closed_with: list[BaseException | None] = []

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        self.model, self.stop = model, stop
        self.threads.add(threading.get_ident())

    def show(self, event: StreamEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())
        if self.on is not None:
            self.on(event)

    def close(self, error: BaseException | None = None) -> None:
        self.threads.add(threading.get_ident())
        self.closed_with.append(error)


@contextmanager
def shown_in(monkeypatch: pytest.MonkeyPatch, watcher: View) -> Iterator[None]:
    """Every answer asked for inside is shown in `watcher`."""
    with monkeypatch.context() as patch:
        patch.setattr(views, "_choose", lambda name: watcher)
        yield


def _until_asked(sim: Simulator) -> None:
    while not sim.requests:
        pass


def status() -> str:
    """How the one call in the ledger ended."""
    (row,) = llmnb.calls().to_dict("records")
    return str(row["status"])


def test_the_view_sees_everything_in_order(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is opened, shown every event with Done last, and closed, all in the thread that asked."""
    sim.script(Answer(text="one two three", deltas=3))
    watcher = Watcher()
    with shown_in(monkeypatch, watcher):
        reply = llmnb.LLM(project="p")("Hi")
    assert watcher.model == "claude-sonnet-5-5"
    assert [type(event) for event in watcher.events] == [Text, Text, Text, Done]
    assert watcher.events[-1] == reply.done()
    assert watcher.closed_with == [None]
    assert watcher.threads == {threading.get_ident()}
    assert reply.call is not None
    assert reply.call.project == "p"


def test_a_live_answer_streams(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is watched is streamed, whatever max_tokens is."""
    with shown_in(monkeypatch, Watcher()):
        llmnb.LLM(max_tokens=5)("Hi")
    assert sim.requests[0].body["stream"] is True


def test_live_from_many_threads(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of several threads do not mix."""
    sim.rule(lambda request: f"echo {request.prompt}")
    monkeypatch.setattr(views, "_choose", lambda name: Watcher())
    texts: dict[int, str] = {}
    llm = llmnb.LLM()
    threads = [threading.Thread(target=lambda n=n: texts.update({n: llm(str(n)).text})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {n: f"echo {n}" for n in range(8)}


def test_errors_close_the_view(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API error reaches the view and the caller, the same object."""
    sim.fail("status", status=400, error_type="invalid_request_error")
    watcher = Watcher()
    with shown_in(monkeypatch, watcher), pytest.raises(anthropic.BadRequestError) as caught:
        llmnb.LLM()("Hi")
    assert watcher.closed_with == [caught.value]


@pytest.mark.parametrize("silent", [True, False], ids=["before-the-first-token", "mid-stream"])
def test_ctrl_c(sim: Simulator, monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    """A real SIGINT, also while nothing comes, ends the request at once and raises a one-line KeyboardInterrupt."""
    if silent:
        sim.script(Answer(text="never", fault=Fault("stall", after_events=0)))
    else:
        sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = Watcher()
    seen = threading.Event()
    if not silent:
        watcher.on = lambda event: seen.set()

    def press() -> None:
        _until_asked(sim)
        if not silent:
            seen.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped) as caught:
        llmnb.LLM()("Hi")
    presser.join()
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert watcher.closed_with == [caught.value]
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    assert status() == "cancelled"


def test_stop_button(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view's stop, called from another thread, does the same."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = Watcher()

    def press(event: StreamEvent) -> None:
        assert watcher.stop is not None
        threading.Thread(target=watcher.stop).start()

    watcher.on = press
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped):
        llmnb.LLM()("Hi")
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    assert status() == "cancelled"


def test_a_stopped_chat_is_as_it_was(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped question is no turn of its chat, but what it cost is counted."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    before, spent = chat.messages, chat.usage
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = Watcher()
    watcher.on = lambda event: watcher.stop() if watcher.stop else None
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped):
        chat("More")
    assert chat.messages == before
    assert chat.usage.input_tokens > spent.input_tokens
    assert chat("Still there?").text


def test_stop_after_the_end_does_nothing(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A click that comes too late neither raises nor harms the next answer."""
    watcher = Watcher()
    with shown_in(monkeypatch, watcher):
        llm = llmnb.LLM()
        llm("Hi")
        assert watcher.stop is not None
        watcher.stop()
        assert llm("Hi").text


def test_a_view_that_raises_ends_the_request(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that breaks its promise does not leave a request running unseen."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))

    def fail(event: StreamEvent) -> None:
        raise ZeroDivisionError

    with shown_in(monkeypatch, Watcher(fail)), pytest.raises(ZeroDivisionError):
        llmnb.LLM()("Hi")
    sim.settle()
    assert sim.requests[0].disconnected_at is not None


def test_sync_only_client_is_shown_here(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has no async twin is watched in this thread; its view gets no stop."""
    sim.script(Answer(text="one two", deltas=2))
    watcher = Watcher()
    with sim.client(http_client=anthropic.DefaultHttpxClient()) as client, shown_in(monkeypatch, watcher):
        reply = llmnb.LLM(client=client)("Hi")
    assert reply.text == "one two"
    assert [type(event) for event in watcher.events] == [Text, Text, Done]
    assert watcher.stop is None


def test_a_stopped_view_is_told_what_was_used(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last event before a stopped view is closed is the ledger's estimate."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = Watcher(lambda event: watcher.stop() if isinstance(event, Text) and watcher.stop else None)
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped):
        llmnb.LLM()("Hi")
    last = watcher.events[-1]
    assert isinstance(last, Done)
    (row,) = llmnb.calls().to_dict("records")
    assert last.status == row["status"] == "cancelled"
    assert last.usage.estimated
    assert last.usage.output_tokens == row["output_tokens"] > 0


def test_ctrl_c_with_a_sync_only_client(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, Ctrl-C ends the answer, too."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))

    def press(event: StreamEvent) -> None:
        signal.raise_signal(signal.SIGINT)

    watcher = Watcher(press)
    with sim.client(http_client=anthropic.DefaultHttpxClient()) as client, shown_in(monkeypatch, watcher):
        with pytest.raises(Stopped) as caught:
            llmnb.LLM(client=client)("Hi")
        assert watcher.closed_with == [caught.value]
        sim.settle()
    assert sim.requests[0].disconnected_at is not None


class Unanswered:
    """An exchange that never comes to its end."""

    reply = None
    on_wait: Any = None

    def partial(self) -> None: ...


class Gatherer(Watcher):
    """One that takes events together."""

    def show_all(self, events: Sequence[StreamEvent]) -> None:
        self.events += events
        if self.on is not None:
            self.on(events[-1])

    def rest_s(self) -> float:
        return 0.0


@pytest.mark.parametrize("kind", [Watcher, Gatherer])
def test_what_had_come_at_ctrl_c_is_shown(kind: type[Watcher]) -> None:
    """Words that came while the view was busy are in it when it is closed."""
    words = [Text(f"{number} ") for number in range(50)]
    have_come = threading.Event()

    async def events() -> AsyncGenerator[StreamEvent]:
        for word in words:
            yield word
        have_come.set()
        await asyncio.sleep(60)

    def press(event: StreamEvent) -> None:
        watcher.on = None
        assert have_come.wait(20)
        signal.raise_signal(signal.SIGINT)

    watcher = kind(press)
    with pytest.raises(Stopped):
        runner.watch(Unanswered(), events, watcher, "m")
    assert watcher.events == words


def pressed(times: int) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


class PressedWhileClosing(Watcher):
    """Ctrl-C comes when the first event does, and so often while the view is being closed."""

    def __init__(self, times: int) -> None:
        super().__init__(lambda event: pressed(1))
        self._times = times

    def close(self, error: BaseException | None = None) -> None:
        pressed(self._times)
        super().close(error)


def test_pressed_again_the_view_is_closed_all_the_same(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further presses neither leave a view open nor make more than a line of the end."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = PressedWhileClosing(2)
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped) as caught:
        llmnb.LLM()("Hi")
    assert watcher.closed_with == [caught.value]
    assert isinstance(watcher.events[-1], Done)


def test_pressed_while_a_whole_answer_is_closed(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is closed first; then the cell ends as the person wants it to."""
    watcher = PressedWhileClosing(1)
    watcher.on = None
    with shown_in(monkeypatch, watcher), pytest.raises(KeyboardInterrupt):
        llmnb.LLM()("Hi")
    assert watcher.closed_with == [None]


# In coroutines --------------------------------------------------------------------------------------------------------


async def test_await_shows_in_the_callers_loop(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """`aask` shows from the thread of the loop that awaits it."""
    sim.script(Answer(text="one two", deltas=2))
    watcher = Watcher()
    with shown_in(monkeypatch, watcher):
        reply = await llmnb.LLM().aask("Hi")
    assert [type(event) for event in watcher.events] == [Text, Text, Done]
    assert watcher.closed_with == [None]
    assert watcher.threads == {threading.get_ident()}
    assert reply.text == "one two"


async def test_stop_in_a_coroutine(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view's stop raises a one-line cancellation, which leaves the loop alive."""
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    watcher = Watcher()
    watcher.on = lambda event: watcher.stop() if watcher.stop else None
    with shown_in(monkeypatch, watcher), pytest.raises(Cancelled) as caught:
        await llmnb.LLM().aask("Hi")
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert watcher.closed_with == [caught.value]
    await asyncio.to_thread(sim.settle)
    assert sim.requests[0].disconnected_at is not None
    assert status() == "cancelled"


async def test_cancelled_from_outside(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation of the caller's own passes as it is, after the view was closed."""
    sim.fail("stall", after_events=0)
    watcher = Watcher()
    with shown_in(monkeypatch, watcher):
        task = asyncio.create_task(llmnb.LLM().aask("Hi"))
        await asyncio.to_thread(_until_asked, sim)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert not isinstance(caught.value, Cancelled)
    assert len(watcher.closed_with) == 1
    assert status() == "cancelled"


async def test_errors_in_a_coroutine(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API error reaches view and caller."""
    sim.fail("status", status=400, error_type="invalid_request_error")
    watcher = Watcher()
    with shown_in(monkeypatch, watcher), pytest.raises(anthropic.BadRequestError) as caught:
        await llmnb.LLM().aask("Hi")
    assert watcher.closed_with == [caught.value]


async def test_blocking_ask_inside_a_running_loop(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain call in a cell works although the kernel's loop is running in the same thread."""
    watcher = Watcher()
    with shown_in(monkeypatch, watcher):
        reply: Any = llmnb.LLM()("Hi")
    assert reply.text
    assert watcher.closed_with == [None]
