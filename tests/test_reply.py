"""What a reply says of itself, and how and when it is shown."""

from __future__ import annotations

import atexit
import copy
import dataclasses
import importlib
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message
from IPython.core.interactiveshell import InteractiveShell

from llmnb import reply as reply_module
from llmnb.records import Call, Cost, PromptCacheUse, Usage
from llmnb.reply import Figures, Reply
from llmnb.views import views


def message(*content: dict[str, Any], stop_reason: str = "end_turn") -> Message:
    """A message of the SDK with this content."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    return Message.construct(
        id="msg_1",
        type="message",
        role="assistant",
        model="claude-sonnet-5-5",
        content=list(content),
        stop_reason=stop_reason,
        usage=usage,
    )


def text(value: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value}


USAGE = Usage(input_tokens=10, cache_read_tokens=7, output_tokens=5)


def test_text_and_thinking() -> None:
    """Text blocks are joined, thinking is apart."""
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("One "), text("two")]
    reply = Reply(message(*blocks), USAGE, Cost(1_500_000))
    assert (reply.text, str(reply), reply.thinking) == ("One two", "One two", "Hm.")
    assert reply.cost_usd == Decimal("0.0015")
    assert reply.model == "claude-sonnet-5-5"


def test_repr_is_short_and_says_what_matters() -> None:
    """The repr has the beginning of the text, tokens and cost on one line."""
    reply = Reply(message(text("A\nlong " * 100)), USAGE, Cost(1_500_000))
    assert repr(reply) == (
        "<Reply 'A long A long A long A long A long A long A long A long A l…' "
        "claude-sonnet-5-5, 17 in, 5 out, $0.001500>"
    )


@pytest.mark.parametrize(
    ("stop_reason", "truncated", "refused", "said"),
    [
        ("end_turn", False, False, ""),
        ("max_tokens", True, False, "cut off: stop_reason is max_tokens"),
        ("model_context_window_exceeded", True, False, "cut off"),
        ("refusal", False, True, "refused"),
    ],
)
def test_how_it_stopped(stop_reason: str, truncated: bool, refused: bool, said: str) -> None:
    """An answer that is not whole says so in its repr and in its Markdown."""
    reply = Reply(message(text("Hi"), stop_reason=stop_reason), USAGE)
    assert (reply.truncated, reply.refused, reply.stop_reason) == (truncated, refused, stop_reason)
    assert said in repr(reply)
    whole = Reply(message(text("Hi")), USAGE)._repr_markdown_()
    assert (reply._repr_markdown_() == whole) is (stop_reason == "end_turn")


def test_among_others() -> None:
    """In a list it is its short form, in a frame its text, cut to the column."""
    import pandas as pd

    reply = Reply(message(text("A long " * 100)), USAGE, Cost(1))
    assert "<Reply 'A long" in repr([reply])
    assert len(repr([reply])) < 160
    assert max(map(len, repr(pd.DataFrame({"answer": [reply]})).splitlines())) < 80


@pytest.mark.parametrize(
    ("call", "stop_reason", "status"),
    [
        (Call(uid="u", ts=1, model_requested="m", status="cancelled"), None, "cancelled"),
        (Call(uid="u", ts=1, model_requested="m", status="ok"), "end_turn", "ok"),
        (None, "end_turn", "ok"),
        (None, None, "truncated"),
    ],
)
def test_status(call: Call | None, stop_reason: Any, status: str) -> None:
    """How the call ended, from its row or, without one, from whether the model stopped; a part says so."""
    reply = Reply(message(text("Hi"), stop_reason=stop_reason), USAGE, call=call)
    assert reply.status == reply.done().status == status
    assert (f"the call was {status}" in repr(reply)) is (status != "ok")


def test_unpriced() -> None:
    """Without a price there is no cost, and the repr says so."""
    reply = Reply(message(text("Hi")), USAGE)
    assert reply.cost_usd is None
    assert "unpriced" in repr(reply)


def test_frozen() -> None:
    """A reply cannot be changed."""
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        Reply(message(text("Hi")), USAGE).usage = USAGE  # type: ignore[misc]


def test_figures_are_worked_out_when_they_are_asked_for() -> None:
    """Once, and not for who wants no more than the text."""
    asked: list[str] = []

    def figures() -> Figures:
        asked.append("asked")
        return Figures(USAGE, Cost(1_500_000))

    reply = Reply.of(message(text("Hi")), figures)
    assert (reply.text, str(reply), asked) == ("Hi", "Hi", [])
    assert (reply.usage, reply.cost, reply.call, reply.prompt_cache) == (USAGE, Cost(1_500_000), None, PromptCacheUse())
    assert asked == ["asked"]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda reply: pickle.loads(pickle.dumps(reply))])
def test_a_reply_can_be_copied(again: Callable[[Reply], Reply]) -> None:
    """And sent to another process, with its figures."""
    reply = again(Reply.of(message(text("Hi")), lambda: Figures(USAGE, Cost(1_500_000)), "cell"))
    assert (reply.text, reply.usage, reply.cost, reply.shown_in) == ("Hi", USAGE, Cost(1_500_000), "cell")


def test_row_facts() -> None:
    """Latency, source and request id come from the ledger row; without one they are None or live."""
    call = Call(uid="u", ts=1, model_requested="m", latency_ms=9.0, ttft_ms=4.0, source="cache", request_id="req_1")
    with_row, without = Reply(message(), USAGE, call=call), Reply(message(), USAGE)
    assert (with_row.latency_ms, with_row.ttft_ms, with_row.source, with_row.request_id) == (9.0, 4.0, "cache", "req_1")
    assert (without.latency_ms, without.ttft_ms, without.source, without.request_id) == (None, None, "live", None)


HOSTILE = "<script>alert(1)</script> ![x](http://evil/x.png) `<b>`"


@pytest.mark.parametrize("with_display", [True, False])
def test_markdown_is_safe(with_display: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTML in an answer is shown and not run, and no image is fetched; with the display room and without it."""
    if not with_display:
        monkeypatch.setattr(views, "_bundle", None)
        monkeypatch.setattr(views, "load", None)
    else:
        importlib.import_module("llmnb.display")  # fills the registry
    bundle = Reply(message(text(HOSTILE)), USAGE)._repr_mimebundle_()
    assert bundle["text/plain"].startswith(HOSTILE)
    assert "<script>" not in bundle["text/markdown"]
    assert "![x]" not in bundle["text/markdown"]
    assert "<script>alert" not in bundle.get("text/html", "")


# In a cell ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A real IPython shell, which `get_ipython` finds."""
    made = InteractiveShell.instance()
    made.display_formatter.active_types = ["text/plain", "text/markdown"]
    yield made
    atexit.unregister(made.atexit_operations)
    made.atexit_operations()
    InteractiveShell.clear_instance()


def shown(shell: InteractiveShell, cell: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What IPython publishes as the results of a cell, and what its `display()` does."""
    published: list[dict[str, Any]] = []
    monkeypatch.setattr(shell.displayhook, "write_output_prompt", lambda: None)
    monkeypatch.setattr(shell.displayhook, "write_format_data", lambda data, md=None: published.append(data))
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **rest: published.append(data))
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return published


def test_shown_once(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just shown live is not shown again as the cell's value; later, and by display(), it is."""
    made = message(text("Hello"))
    shell.user_ns["ask"] = lambda: Reply(made, USAGE, shown_in=reply_module.running_cell())
    assert shown(shell, "r = ask()\nr", monkeypatch) == []
    assert shown(shell, "1", monkeypatch) == [{"text/plain": "1"}]
    (later,) = shown(shell, "r", monkeypatch)
    assert later["text/plain"].startswith("Hello")
    assert "Hello" in later["text/markdown"]
    (displayed,) = shown(shell, "from IPython.display import display\nr = ask()\ndisplay(r)", monkeypatch)
    assert displayed["text/plain"].startswith("Hello")


def test_not_shown_live_is_shown(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the display off the value of the cell is the answer."""
    shell.user_ns["r"] = Reply(message(text("Hello")), USAGE)
    (result,) = shown(shell, "r", monkeypatch)
    assert "Hello" in result["text/markdown"]


def test_running_cell_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel a run of a cell is known by the message that asked for it."""
    kernel = SimpleNamespace(get_parent=lambda: {"header": {"msg_id": "m-1"}})
    monkeypatch.setattr(reply_module, "_shell", lambda: SimpleNamespace(kernel=kernel, execution_count=3))
    assert reply_module.running_cell() == "m-1"
    monkeypatch.setattr(reply_module, "_shell", lambda: None)
    assert reply_module.running_cell() is None


def test_a_message_without_usage_is_shown() -> None:
    """A program may make one, and a server that is like the API may leave it out."""
    message = Message.model_construct(
        id="msg_1", type="message", role="assistant", model="m", content=[], stop_reason="end_turn"
    )
    assert not Reply(message, Usage()).done().input_estimated
