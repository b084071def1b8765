"""The live view in a real kernel, without a browser: its messages, Stop while the cell blocks, and what it leaves."""

from __future__ import annotations

import time

import pytest

from .kernels import Kernel, output

PRODUCER = """
import queue, threading
from decimal import Decimal
from llmnb import display
from llmnb.events import *
from llmnb.records import Usage

DONE = Done("claude", Usage(input_tokens=3, output_tokens=4), Decimal("0.01"))

def next_of(events):
    "As llmnb's runner does: a signal that comes in the instant before a wait without a limit is lost."
    while True:
        try:
            return events.get(timeout=0.1)
        except queue.Empty:
            pass

def ask(texts, name=None):
    "What an LLM does: the cell's thread waits on one queue, and stop puts a sentinel into it."
    events, view = queue.Queue(), display.choose(name)
    for text in texts:
        events.put(Text(text))
    if texts:
        events.put(None)
    error = None
    try:
        view.open("claude", lambda: events.put(None))
        while (event := next_of(events)) is not None:
            view.show(event)
    except KeyboardInterrupt as stopped:
        error = stopped
    if error is None:
        view.show(DONE)
    view.close(error)
"""


@pytest.fixture(scope="module")
def asking(kernel: Kernel) -> Kernel:
    """A kernel with `ask` defined in it."""
    kernel.run(PRODUCER)
    return kernel


def test_the_kernel_is_the_one_asked_for(kernel: Kernel) -> None:
    """The older kernels are really the older ones."""
    version = output(kernel.run("import ipykernel; print(ipykernel.__version__)")).strip()
    assert version == kernel.version or kernel.version == "installed"


def test_an_answer_from_widget_to_bundle(asking: Kernel) -> None:
    """A widget is shown, is sent numbered messages, and is replaced by a bundle without it."""
    messages = asking.run("ask(['# Hi\\n\\n', 'there ', '**you**'])")
    shown = [m["content"] for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
    assert set(shown[-1]["data"]) == {"text/html", "text/markdown", "text/plain"}
    assert shown[0]["transient"]["display_id"] == shown[-1]["transient"]["display_id"]
    assert "<strong>you</strong>" in shown[-1]["data"]["text/html"]
    sent = [m for m in messages if m["content"].get("data", {}).get("method") == "custom"]
    assert all(m["parent_header"] == {} for m in sent)  # each would be twice as long with it
    custom = [m["content"]["data"]["content"] for m in sent]
    assert [message["n"] for message in custom] == list(range(len(custom)))
    asking.run("from llmnb.display import latecomers")
    messages += asking.run("latecomers.let_go()")
    opened = {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_open"}
    closed = {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_close"}
    assert opened == closed


def test_where_pages_may_go_by_the_request_it_is_named(asking: Kernel) -> None:
    """In Colab, which has a page for each cell, every message names the cell's request."""
    mark = "import os; os.environ['COLAB_RELEASE_TAG'] = 'release'"
    messages = asking.run(f"{mark}\nask(['# Hi'])\ndel os.environ['COLAB_RELEASE_TAG']")
    sent = [m for m in messages if m["content"].get("data", {}).get("method") == "custom"]
    assert sent
    assert all(m["parent_header"]["msg_type"] == "execute_request" for m in sent)


@pytest.mark.parametrize("asks", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_nothing_is_left_behind(asking: Kernel, asks: int) -> None:
    """Of many answers only the last few's widgets (and layouts) linger; then no widget, no control and no widget object
    is alive, and the kernel is no larger.
    """
    code = f"""
import gc, psutil
from ipywidgets.widgets.widget import _instances
from llmnb.display import control, latecomers, widget
def many(count):
    most = 0
    for number in range(count):
        ask([f"answer {{number}} with **words** and `code`"])
        most = max(most, len(_instances))
    latecomers.let_go()
    gc.collect()
    return most, psutil.Process().memory_info().rss
many(30)
before = psutil.Process().memory_info().rss
most, after = many({asks})
alive = sum(isinstance(thing, widget.ResponseView) for thing in gc.get_objects())
print(len(_instances), control.known(), alive, after - before < 20e6, most, after - before)
"""
    assert output(asking.run(code)).split()[:5] == ["0", "0", "0", "True", "8"]


def test_stop_reaches_a_blocked_cell(asking: Kernel) -> None:
    """A stop sent as JupyterLab sends it, to a subshell, ends a cell that waits for the first token, and is acked."""
    if not asking.has_subshells():
        pytest.skip("this ipykernel has no subshells: there the front end interrupts")
    subshell = asking.subshell()
    cell = asking.client.execute("ask([])")
    answer_id = asking.shown()
    start = time.monotonic()
    asking.open_comm("stop-1", {"stop": answer_id}, subshell)
    messages = asking.finish(cell)
    assert time.monotonic() - start < 5
    acks = [
        m["content"]["data"] for m in messages if m["msg_type"] == "comm_msg" and m["content"]["comm_id"] == "stop-1"
    ]
    assert acks == [{"ack": True}]
    assert output(asking.run("print('next')")) == "next\n"


def test_interrupt_is_a_stop(asking: Kernel) -> None:
    """The notebook's own interrupt leaves the bundle with its text and 'stopped'."""
    cell = asking.client.execute("ask([])")
    asking.shown()
    asking.manager.interrupt_kernel()
    messages = asking.finish(cell)
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "update_display_data"]
    assert updates[-1]["text/plain"] == "stopped · claude"


def test_an_answer_in_a_thread(asking: Kernel) -> None:
    """Views of parallel threads stay apart: each ends as its own bundle."""
    code = """
threads = [threading.Thread(target=ask, args=([f"number-{n} "] * 20,)) for n in range(12)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    messages = asking.run(code)
    texts = [m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] == "update_display_data"]
    assert len(texts) == 12
    assert all(len({word for word in text.split() if word.startswith("number-")}) == 1 for text in texts)


def test_the_fallback_without_widgets(asking: Kernel) -> None:
    """Asked for by name, plain HTML outputs do: no comm is opened."""
    messages = asking.run("ask(['some ', 'text'], 'html')")
    assert not [m for m in messages if m["msg_type"] == "comm_open"]
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "update_display_data"]
    assert "some text" in updates[-1]["text/html"]


@pytest.mark.parametrize("mark", ["VSCODE_PID", "COLAB_RELEASE_TAG"])
def test_no_dead_stop_button(asking: Kernel, mark: str) -> None:
    """Where clicks on widgets do not reach a busy kernel there is no Stop button, but a hint at the interrupt."""
    messages = asking.run(f"import os; os.environ[{mark!r}] = '1'; ask(['text']); del os.environ[{mark!r}]")
    states = [m["content"]["data"]["state"] for m in messages if m["msg_type"] == "comm_open"]
    (view,) = [state for state in states if "can_stop" in state]
    assert view["can_stop"] is False
    assert "interrupt button" in view["stop_hint"]
