"""Stop in the middle of a chat's loop with tools: what the history, the tools and the books are like afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import llmnb
from llmnb.asking.runner import Cancelled, Stopped
from llmnb.chat import Chat
from llmnb.events import Approval, StreamEvent, Text, ToolResult
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.views import views

from .test_runner import Watcher, shown_in

CALLS = [("quick", {}), ("slow", {})]
LONG = "word " * 2_000
PLACES = ("the first answer", "a tool", "the second answer")


class Tools:
    """One that ends at once and counts, and one that ends when it is let, or cancelled."""

    def __init__(self, waits: bool) -> None:
        self.ran = 0
        self.waits = waits
        self.begun: Callable[[], Any] = lambda: None
        self.ended = threading.Event()

    def quick(self) -> str:
        """Ends at once."""
        self.ran += 1
        return "done"

    async def slow(self) -> str:
        """Takes its time."""
        try:
            if self.waits:
                self.begun()
                await asyncio.sleep(60)
            return "done"
        finally:
            self.ended.set()


def _stopper(place: str, stop: Callable[[], Any]) -> Callable[[StreamEvent], None]:
    """Stops at the first text of the first answer, or of the one after the tools."""
    results: list[StreamEvent] = []

    def on(event: StreamEvent) -> None:
        results.extend([event] if isinstance(event, ToolResult) else [])
        if isinstance(event, Text) and (place == PLACES[0] or (place == PLACES[2] and results)):
            stop()

    return on


def _shown(chat: Chat, tools: Tools, place: str, patch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()

    def press() -> None:
        assert watcher.stop is not None
        watcher.stop()

    watcher.on, tools.begun = _stopper(place, press), press
    with shown_in(patch, watcher), pytest.raises(Stopped):
        chat("Go")


def _ashown(chat: Chat, tools: Tools, place: str, patch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()

    def press() -> None:
        assert watcher.stop is not None
        watcher.stop()

    watcher.on, tools.begun = _stopper(place, press), press

    async def ask() -> None:
        with pytest.raises(Cancelled):
            await chat.aask("Go")

    with shown_in(patch, watcher):
        asyncio.run(ask())


def _closed(chat: Chat, tools: Tools, place: str, patch: pytest.MonkeyPatch) -> None:
    stream = chat.stream("Go")
    on = _stopper(place, stream.close)
    with contextlib.suppress(StopIteration, ValueError):
        while True:
            on(next(stream))


def _interrupted(chat: Chat, tools: Tools, place: str, patch: pytest.MonkeyPatch) -> None:
    tools.begun = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        chat("Go")


def _cancelled(chat: Chat, tools: Tools, place: str, patch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        task = asyncio.create_task(chat.aask("Go"))
        tools.begun = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())


WAYS = {"shown": _shown, "ashown": _ashown, "closed": _closed, "interrupted": _interrupted, "cancelled": _cancelled}


@pytest.mark.parametrize(
    ("way", "place"),
    [
        *((way, place) for way in ("shown", "ashown") for place in PLACES),
        *(("closed", place) for place in PLACES[::2]),
        *((way, PLACES[1]) for way in ("interrupted", "cancelled")),
    ],
)
def test_stop_in_a_chats_loop(way: str, place: str, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat is as it was, the running tool is ended, the rows say what was stopped; and it goes on where it was."""
    at = PLACES.index(place)
    slow: dict[str, Any] = {"text": LONG, "deltas": 2_000, "delta_delay_s": 0.01}
    tools = Tools(waits=at == 1)
    chat = llmnb.LLM().chat(tools=[tools.quick, tools.slow])
    sim.script("Hello.")
    chat("Hi")
    before = chat.messages
    calls = Answer(tool_calls=CALLS, **(slow if at == 0 else {"text": "Let me see."}))
    sim.script(calls, *([Answer(**slow)] if at == 2 else []))
    WAYS[way](chat, tools, place, monkeypatch)
    sim.settle()
    assert chat.messages == before
    assert tools.ended.wait(30) if at else tools.ran == 0
    rows = llmnb.calls().sort_values("ts").to_dict("records")[1:]
    assert [row["status"] for row in rows] == [["cancelled"], ["ok"], ["ok", "cancelled"]][at]
    assert chat.usage.total_input_tokens == sim.billed().input_tokens
    assert int(chat.cost_usd * 10**9) == llmnb.usage(by=[]).iloc[0]["cost_nanousd"]

    for thread in threading.enumerate():  # what was given up is kept when it is done
        if thread.name.startswith("llmnb-tool"):
            thread.join(30)
    requests, tools.waits = len(sim.requests), False
    sim.script(*([Answer(text="Let me see.", tool_calls=CALLS)] if at == 0 else []), "At last.")
    assert chat("Go").text == "At last."
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 3
    assert (tools.ran, len(sim.requests)) == (1, requests + (2 if at == 0 else 1))


@pytest.mark.parametrize("way", ["shown", "ashown"])
def test_stop_while_a_person_is_asked(way: str, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Stop in the place of a button has said no to all of it: nothing runs, and the chat is as it was."""
    monkeypatch.setattr("llmnb.display.prompt.can_ask", lambda: True)
    views.view("none")  # the display room is there
    tools, watcher = Tools(waits=False), Watcher()

    def on(event: StreamEvent) -> None:
        if isinstance(event, Approval):
            assert watcher.stop is not None
            watcher.stop()

    watcher.on = on
    chat = llmnb.LLM().chat(tools=[tools.quick])
    sim.script(Answer(text="Let me see.", tool_calls=CALLS[:1]))
    with shown_in(monkeypatch, watcher), pytest.raises(Stopped if way == "shown" else Cancelled):
        chat("Go", approve=True) if way == "shown" else asyncio.run(chat.aask("Go", approve=True))
    assert (tools.ran, chat.messages) == (0, [])
    assert llmnb.calls()["status"].tolist() == ["ok"]
    assert chat.usage.total_input_tokens == sim.billed().input_tokens
