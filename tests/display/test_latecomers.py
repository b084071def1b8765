"""A page that is loaded again in the middle of an answer: it is told what it asks, once the kernel can hear it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmnb.display import latecomers
from llmnb.display.widget import WidgetView

from .kernels import Kernel, output

CELL = """
import time
from pathlib import Path
from llmnb import display
from llmnb.events import Done, Text
from llmnb.records import Usage
view = display.choose()
view.open("claude", None)
view.show(Text("early "))
while not Path({gate!r}).exists():
    time.sleep(0.01)
view.show(Text("late"))
view.show(Done("claude", Usage(input_tokens=3, output_tokens=4), None))
view.close()
"""
Test = Callable[[dict[str, Any]], bool]


def wait_for(kernel: Kernel, comm_id: str, test: Test) -> dict[str, Any]:
    """What the kernel sends on a comm, the first that passes the test."""
    while True:
        message = kernel.client.get_iopub_msg(timeout=30)
        content = message["content"]
        if message["msg_type"] == "comm_msg" and content["comm_id"] == comm_id and test(content["data"]):
            return content["data"]


def load_again(kernel: Kernel, answer_id: str) -> None:
    """What a page asks first: the state of all widgets, and then an answer's front end for all of the answer."""
    kernel.open_comm("page", {}, target="jupyter.widget.control", metadata={"version": "1.0.0"})
    kernel.send_comm("page", {"method": "request_states"})
    kernel.open_comm("asks", {"resync": answer_id})


def test_a_page_that_comes_late(kernel: Kernel, tmp_path: Path) -> None:
    """It is told of the widget and sent all of the answer, while the cell blocks if the kernel hears it then, and at
    the end the form to keep; afterwards nothing is left of the view.
    """
    gate = tmp_path / "gate"
    hears = kernel.has_subshells()
    cell = kernel.client.execute(CELL.format(gate=str(gate)))
    answer_id = kernel.shown()
    load_again(kernel, answer_id)
    if not hears:
        gate.touch()
    states = wait_for(kernel, "page", lambda data: data["method"] == "update_states")["states"]
    assert states[answer_id]["state"]["answer_id"] == answer_id
    keyframe = wait_for(kernel, answer_id, lambda data: "early" in str(data["content"].get("key")))["content"]
    assert keyframe["elapsed_s"] > 0
    assert ("late" in str(keyframe)) is not hears
    if hears:
        gate.touch()
        messages = kernel.finish(cell)
        sent = [m["content"]["data"] for m in messages if m["content"].get("comm_id") == answer_id]
        assert "late" in str(sent)
    kernel.open_comm("keeps", {"keep": answer_id})
    bundle = wait_for(kernel, answer_id, lambda data: "bundle" in data["content"])["content"]["bundle"]
    assert set(bundle) == {"text/html", "text/markdown", "text/plain"}
    assert bundle["text/plain"].startswith("early late")
    code = """
from ipywidgets.widgets.widget import _instances
from llmnb.display import control, latecomers
latecomers.let_go()
print(len(_instances), control.known())
"""
    if not hears:
        kernel.finish(kernel.client.kernel_info())
    assert output(kernel.run(code)) == "0 0\n"


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to be filled, while nobody else lingers."""
    monkeypatch.setattr(latecomers, "_lingering", {})
    return []


def test_only_the_last_ones_linger(freed: list[int]) -> None:
    """However many end at once, no more than four are kept; one that cannot be freed is in nobody's way."""
    for number in range(8):
        latecomers.linger(lambda number=number: freed.append(10 // number))
    assert freed == [10, 5, 3]
    latecomers.let_go()
    assert freed == [10, 5, 3, 2, 2, 1, 1]


def test_nobody_lingers_for_long(freed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over a view is freed, without another one's coming."""
    monkeypatch.setattr(latecomers, "LINGER_S", 0.01)
    over = threading.Event()
    latecomers.linger(over.set)
    assert over.wait(30)


class Nowhere:
    """An output whose page can be loaded again."""

    reloads = True

    def show(self, widget: object, label: str) -> None:
        """Show nothing."""

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None:
        """Keep nothing."""


def test_a_view_that_lingers_is_free(freed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a view is put among those that linger another thread may free it: many answers end at once in threads."""
    view = WidgetView(output=Nowhere)

    def linger(free: Callable[[], None]) -> None:
        other = threading.Thread(target=free)
        other.start()
        other.join(20)
        freed.append(not other.is_alive())

    monkeypatch.setattr(latecomers, "linger", linger)
    view.open("claude", None)
    view.close()
    assert freed == [True]
