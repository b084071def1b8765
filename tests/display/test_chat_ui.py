"""The box of a chat without a browser: what its front end is told when a person asks, stops, edits and asks again."""

from __future__ import annotations

import gc
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ipywidgets.widgets import widget as widget_module

import llmnb
from llmnb.chat import Chat
from llmnb.display import chat_ui, control, transcript
from llmnb.display.chat_ui import ChatBox
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator

WAIT_S = 20
SLOW = Answer(text="word " * 5000, deltas=5000, delta_delay_s=0.01)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment that answers with an echo."""
    with serve_simulator(environ=True) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}")
        yield simulator
        assert simulator.crashes == []


class Watched:
    """A box whose front end is this test: it notes what it is told, and does what a person does."""

    def __init__(self, chat: Chat) -> None:
        self._changed = threading.Condition()
        self.sent: list[Any] = []
        self.box = ChatBox(chat)
        self.box.widget.send = self._note
        self.box.widget.observe(lambda _: self._wake(), ["status"])

    def do(self, **wish: Any) -> None:
        """A message of the front end."""
        self.box._asked(self.box.widget, wish, [])

    def wait(self, until: Callable[[Watched], bool]) -> None:
        """Until it is so."""
        with self._changed:
            assert self._changed.wait_for(lambda: until(self), WAIT_S)

    def wait_idle(self) -> None:
        """Until nothing is on its way."""
        self.wait(lambda box: box.status["running"] is None)

    @property
    def status(self) -> dict[str, Any]:
        return self.box.widget.status

    @property
    def turns(self) -> list[dict[str, Any]]:
        return self.box.widget.turns

    def _note(self, message: Any) -> None:
        with self._changed:
            self.sent.append(message)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


@pytest.fixture
def chat(sim: Simulator) -> Chat:
    """A chat that shows nothing by itself."""
    return llmnb.LLM("claude-sonnet-5-5", display="none").chat()


@pytest.fixture
def watched(chat: Chat) -> Iterator[Watched]:
    """A watched box of `chat`."""
    made = Watched(chat)
    yield made
    made.box.close()
    made.wait(lambda _: not made.box._asker.busy)


def test_ask(watched: Watched, chat: Chat) -> None:
    """A question becomes a turn of the chat, drawn with the footer of its answer; the headline has its cost."""
    watched.do(ask="Hi <b>")
    assert watched.status["running"]["question"] == transcript.question_html("Hi <b>")
    assert watched.status["running"]["answer"]["model_label"] == "claude-sonnet-5-5"
    watched.wait_idle()
    (turn,) = watched.turns
    assert "echo Hi &lt;b&gt;" in turn["answer"]
    assert "llmnb-footer" in turn["answer"]
    assert "<style>" not in turn["answer"]
    assert (turn["number"], turn["draft"]) == (0, "Hi <b>")
    assert len(chat.messages) == 2
    assert watched.status["headline"].startswith("claude-sonnet-5-5 · 1 turn · ")
    assert watched.status["headline"].endswith(f"${chat.cost_usd:f}")
    assert llmnb.last().text == "echo Hi <b>"


def test_buttons_for_tools(watched: Watched, chat: Chat, sim: Simulator) -> None:
    """A tool waits until a button of its card is pressed; the turn then has what it gave, and no buttons."""

    def look(city: str) -> str:
        """Looks out of the window."""
        return f"rain in {city}"

    chat.llm = llmnb.LLM("claude-sonnet-5-5", display="none", tools=[look], approve=True)
    sim.script(Answer(tool_calls=[("look", {"city": "Oslo"}), ("look", {"city": "Rome"})]), "It rains.")
    watched.do(ask="Umbrella?")
    watched.wait(lambda box: json.dumps(box.sent).count("Don\\u2019t run") >= 2)
    answer_id = watched.status["running"]["answer"]["answer_id"]
    for call, yes in zip(waiting(watched), (True, False), strict=True):
        watched.do(decide=answer_id, call=call, yes=yes)
    watched.wait_idle()
    (turn,) = watched.turns
    assert "rain in Oslo" in turn["answer"]
    assert "rain in Rome" not in turn["answer"]
    assert "llmnb-yes" not in turn["answer"]
    assert len(chat.messages) == 4


def waiting(watched: Watched) -> list[str]:
    """The ids of the calls that wait, as their buttons have them."""
    found = re.findall(r'llmnb-yes\\" data-call=\\"([^"\\]+)', json.dumps(watched.sent))
    return list(dict.fromkeys(found))


def test_stop(watched: Watched, chat: Chat, sim: Simulator) -> None:
    """Stop ends the request; the part that came is left over, the chat is as it was, the question is handed back."""
    sim.script(SLOW)
    watched.do(ask="slow")
    watched.wait(lambda box: any("word" in str(sent["message"]) for sent in box.sent))
    answer_id = watched.status["running"]["answer"]["answer_id"]
    watched.do(ask="impatient")
    assert "still answering" in watched.status["notice"]
    watched.do(stop=answer_id)
    assert watched.sent[-1] == {"answer": answer_id, "message": {"ack": True}}
    watched.wait_idle()
    assert "stopped" in watched.status["leftover"]
    assert "no part of the conversation" in watched.status["leftover"]
    assert watched.status["draft"]["text"] == "slow"
    assert (watched.turns, chat.messages) == ([], [])
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    assert control.known() == 0
    watched.do(ask="again")
    watched.wait_idle()
    assert (watched.status["leftover"], len(watched.turns)) == ("", 1)


def test_regenerate(watched: Watched, chat: Chat, sim: Simulator) -> None:
    """The last question is asked again; its answer is replaced when the new one is whole, and stays when it fails."""
    sim.script("first", "second")
    watched.do(ask="Hi")
    watched.wait_idle()
    watched.do(regenerate=True)
    assert watched.turns == []  # the turn that is being replaced is not shown beside its successor
    watched.wait_idle()
    assert [len(request.body["messages"]) for request in sim.requests] == [1, 1]
    assert chat.messages[-1]["content"][0]["text"] == "second"  # type: ignore[index]
    sim.fail("status", status=400, message="no <script>")
    watched.do(regenerate=True)
    watched.wait_idle()
    assert chat.messages[-1]["content"][0]["text"] == "second"  # type: ignore[index]
    assert len(watched.turns) == 1
    assert "no &lt;script&gt;" in watched.status["leftover"]


def test_edit(watched: Watched, chat: Chat, sim: Simulator) -> None:
    """An edited question replaces its turn and all later ones; what was attached to it stays attached."""
    picture = {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}}
    chat([picture, "What is this?"])
    chat("And now?")
    assert [turn["number"] for turn in watched.turns] == [0, 1]  # asked in cells, shown in the box
    watched.do(ask="What is that?", at=0)
    watched.wait_idle()
    assert len(watched.turns) == 1
    assert sim.requests[-1].body["messages"][0]["content"] == [picture, {"type": "text", "text": "What is that?"}]
    watched.do(ask="gone", at=7)
    assert watched.status["notice"] == "that turn is gone"


def test_what_cannot_be_asked(watched: Watched, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty question is refused with a notice, a missing key is told as a failure; neither breaks the box."""
    watched.do(ask="  ")
    assert "the prompt is empty" in watched.status["notice"]
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    watched.do(ask="Hi")
    watched.wait_idle()
    assert "ANTHROPIC_API_KEY" in watched.status["leftover"]
    assert watched.status["notice"] == ""
    for odd in ({}, {"ask": 7}, {"stop": "nobody"}, {"resync": None}):
        watched.do(**odd)
    watched.box._asked(watched.box.widget, "odd", [])
    assert watched.turns == []


def test_undo_and_clear_are_shown(watched: Watched, chat: Chat) -> None:
    """What code does to the chat is in the box at once."""
    chat("one")
    chat("two")
    chat.undo()
    assert len(watched.turns) == 1
    chat.clear()
    assert watched.turns == []


def test_the_front_end_writes_nothing(watched: Watched) -> None:
    """State that a front end would set is refused."""
    watched.box.widget.set_state({"turns": [{"answer": "<script>"}]})
    assert watched.turns == []


def test_close_frees_it(chat: Chat) -> None:
    """A closed box is gone: no widget, no watcher, no handle."""
    live = widget_module._instances
    before = len(live)
    box = ChatBox(chat)
    assert len(live) > before
    box.close()
    gone = weakref.ref(box)
    del box
    gc.collect()
    assert len(live) == before
    assert gone() is None
    chat("still works")


def test_its_script_is_one_module() -> None:
    """The script of a live answer is a function in it; one export, no import."""
    script = chat_ui.script()
    assert script.count("export default") == 1
    assert "\nimport " not in script
    assert json.dumps(script)
