"""The live view in a real kernel, without a browser: its messages, Stop while the cell blocks, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

PRODUCER = """
import queue, threading
from decimal import Decimal
from llmnb import display
from llmnb.records import *

DONE = Done("claude", Usage(input_tokens=3, output_tokens=4), Decimal("0.01"))

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
        while (event := events.get()) is not None:
            view.show(event)
    except KeyboardInterrupt as stopped:
        error = stopped
    if error is None:
        view.show(DONE)
    view.close(error)
"""


OLDER = [pytest.param(version, marks=pytest.mark.soak) for version in ("6.31.0", "7.3.0")]


@pytest.fixture(scope="module", params=["installed", *OLDER])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """A kernel as a notebook server starts it, of the ipykernel installed, and of older ones fetched for the test."""
    home = tmp_path_factory.mktemp("kernel")
    folders = {"IPYTHONDIR": str(home / "ipython"), "LLMNB_HOME": str(home / "llmnb"), "JPY_SESSION_NAME": "/a.ipynb"}
    if request.param != "installed":
        folders["PYTHONPATH"] = str(fetched(request.param, home / "older"))
    manager = KernelManager()
    manager.start_kernel(env={**os.environ, **folders})
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    """A client of the kernel, with `ask` defined in it."""
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    run(client, PRODUCER)
    yield client
    client.stop_channels()


def fetched(version: str, folder: Path) -> Path:
    """An ipykernel from the package index, in a folder that goes before the installed one."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    found = subprocess.run([*pip, f"--target={folder}", f"ipykernel=={version}"], capture_output=True, text=True)
    if found.returncode:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no ipykernel {version}: {found.stderr}")
    return folder


def test_the_kernel_is_the_one_asked_for(kernel: BlockingKernelClient, request: pytest.FixtureRequest) -> None:
    """The older kernels are really the older ones."""
    wanted = request.node.callspec.params["manager"]
    version = output(run(kernel, "import ipykernel; print(ipykernel.__version__)")).strip()
    assert version == wanted or wanted == "installed"


def run(client: BlockingKernelClient, code: str) -> list[dict[str, Any]]:
    """Execute a cell; all iopub messages it caused."""
    return until_idle(client, client.execute(code))


def until_idle(client: BlockingKernelClient, message_id: str) -> list[dict[str, Any]]:
    """The iopub messages up to the end of a request."""
    found: list[dict[str, Any]] = []
    while True:
        message = client.get_iopub_msg(timeout=20)
        found.append(message)
        if message["parent_header"].get("msg_id") == message_id and message["content"].get("execution_state") == "idle":
            return found


def answer_of(client: BlockingKernelClient) -> str:
    """Wait until the view of a running cell is there; its answer's id."""
    answer_id = ""
    while True:
        message = client.get_iopub_msg(timeout=20)
        answer_id = message["content"].get("data", {}).get("state", {}).get("answer_id", answer_id)
        if message["msg_type"] == "display_data":
            return answer_id


def output(messages: list[dict[str, Any]]) -> str:
    """What a cell printed."""
    assert not [m["content"] for m in messages if m["msg_type"] == "error"]
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


def test_an_answer_from_widget_to_bundle(kernel: BlockingKernelClient) -> None:
    """A widget is shown, is sent numbered messages, and is replaced by a bundle without it."""
    messages = run(kernel, "ask(['# Hi\\n\\n', 'there ', '**you**'])")
    shown = [m["content"] for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
    assert set(shown[-1]["data"]) == {"text/html", "text/markdown", "text/plain"}
    assert shown[0]["transient"]["display_id"] == shown[-1]["transient"]["display_id"]
    assert "<strong>you</strong>" in shown[-1]["data"]["text/html"]
    custom = [
        m["content"]["data"]["content"] for m in messages if m["content"].get("data", {}).get("method") == "custom"
    ]
    assert [message["n"] for message in custom] == list(range(len(custom)))
    opened = {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_open"}
    closed = {m["content"]["comm_id"] for m in messages if m["msg_type"] == "comm_close"}
    assert opened == closed


@pytest.mark.parametrize("asks", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_nothing_is_left_behind(kernel: BlockingKernelClient, asks: int) -> None:
    """After many answers no widget, no control and no widget object is alive, and the kernel is no larger."""
    code = f"""
import gc, psutil
from ipywidgets.widgets.widget import _instances
from llmnb.display import control, widget
def many(count):
    for number in range(count):
        ask([f"answer {{number}} with **words** and `code`"])
    gc.collect()
    return psutil.Process().memory_info().rss
many(30)
before = psutil.Process().memory_info().rss
grown = many({asks}) - before
alive = sum(isinstance(thing, widget.ResponseView) for thing in gc.get_objects())
print(len(_instances), control.running(), alive, grown < 20e6, grown)
"""
    assert output(run(kernel, code)).split()[:4] == ["0", "0", "0", "True"]


def test_stop_reaches_a_blocked_cell(kernel: BlockingKernelClient) -> None:
    """A stop sent as JupyterLab sends it, to a subshell, ends a cell that waits for the first token, and is acked."""
    features = kernel.kernel_info(reply=True, timeout=20)["content"].get("supported_features", [])
    if "kernel subshells" not in features:
        pytest.skip("this ipykernel has no subshells: there the front end interrupts")
    request = kernel.session.msg("create_subshell_request", {})
    kernel.control_channel.send(request)
    subshell = kernel.get_control_msg(timeout=20)["content"]["subshell_id"]
    cell = kernel.execute("ask([])")
    answer_id = answer_of(kernel)
    open_comm = kernel.session.msg(
        "comm_open", {"comm_id": "stop-1", "target_name": "llmnb.control", "data": {"stop": answer_id}}
    )
    open_comm["header"]["subshell_id"] = subshell
    start = time.monotonic()
    kernel.shell_channel.send(open_comm)
    messages = until_idle(kernel, cell)
    assert time.monotonic() - start < 5
    acks = [
        m["content"]["data"] for m in messages if m["msg_type"] == "comm_msg" and m["content"]["comm_id"] == "stop-1"
    ]
    assert acks == [{"ack": True}]
    assert output(run(kernel, "print('next')")) == "next\n"


def test_interrupt_is_a_stop(kernel: BlockingKernelClient, manager: KernelManager) -> None:
    """The notebook's own interrupt leaves the bundle with its text and 'stopped'."""
    cell = kernel.execute("ask([])")
    answer_of(kernel)
    manager.interrupt_kernel()
    messages = until_idle(kernel, cell)
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "update_display_data"]
    assert updates[-1]["text/plain"] == "stopped · claude"


def test_an_answer_in_a_thread(kernel: BlockingKernelClient) -> None:
    """Views of parallel threads stay apart: each ends as its own bundle."""
    code = """
threads = [threading.Thread(target=ask, args=([f"number-{n} "] * 20,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    messages = run(kernel, code)
    texts = [m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] == "update_display_data"]
    assert len(texts) == 4
    assert all(len({word for word in text.split() if word.startswith("number-")}) == 1 for text in texts)


def test_the_fallback_without_widgets(kernel: BlockingKernelClient) -> None:
    """Asked for by name, plain HTML outputs do: no comm is opened."""
    messages = run(kernel, "ask(['some ', 'text'], 'html')")
    assert not [m for m in messages if m["msg_type"] == "comm_open"]
    updates = [m["content"]["data"] for m in messages if m["msg_type"] == "update_display_data"]
    assert "some text" in updates[-1]["text/html"]


@pytest.mark.parametrize("mark", ["VSCODE_PID", "COLAB_RELEASE_TAG"])
def test_no_dead_stop_button(kernel: BlockingKernelClient, mark: str) -> None:
    """Where clicks on widgets do not reach a busy kernel there is no Stop button, but a hint at the interrupt."""
    messages = run(kernel, f"import os; os.environ[{mark!r}] = '1'; ask(['text']); del os.environ[{mark!r}]")
    states = [m["content"]["data"]["state"] for m in messages if m["msg_type"] == "comm_open"]
    (view,) = [state for state in states if "can_stop" in state]
    assert view["can_stop"] is False
    assert "interrupt button" in view["stop_hint"]
