"""A person's word on a tool call: the buttons of its card, and what a click on one does while the cell blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llmnb.display.scene import Scene
from llmnb.events import Approval, ToolCall

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SETUP = """
import os, llmnb
from llmnb.simulator import Simulator, Answer
api = Simulator(tokens_per_second=300).start()
os.environ.update(api.environ())
def email(to: str, text: str) -> str:
    "Sends an email."
    return f"sent to {to}"
llm = llmnb.LLM()
"""
ASK = """
calls = [("email", {"to": who, "text": "Hi <b>there</b>"}) for who in ("ann@example.org", "bob@example.org")]
api.script(Answer(text="I will write to both.", tool_calls=calls), Answer(text="Ann has it, Bob does not."))
"""
QUESTION = 'llm("Write to Ann and Bob.", tools=[email], approve=True, fresh=True)'


def test_a_click_decides(bare: Page, scene: Scene) -> None:
    """The card stands open with its arguments; one click is told by both ways, and cannot be made twice."""
    scene.answer.apply(Approval(ToolCall("toolu_1", "email", {"to": "<b>ann</b>"}), lambda yes: None))
    bare.evaluate("(message) => window.receive(message)", scene.frame())
    bare.evaluate("() => window.frames_drawn()")
    assert "<b>ann</b>" in bare.inner_text(".llmnb-asking[open] pre")
    bare.click(".llmnb-no")
    request = {"decide": "answer-1", "call": "toolu_1", "yes": False}
    bare.wait_for_function("() => window.log.filter(([what]) => what === 'open').length === 1")
    log = bare.evaluate("() => window.log")
    assert ["send", request] in log
    assert ["open", "llmnb.control", request] in log
    assert bare.is_disabled(".llmnb-yes")


@pytest.mark.parametrize("way", ["blocking", pytest.param("awaiting", marks=pytest.mark.soak)])
def test_buttons_in_a_cell(way: str, lab: Lab) -> None:
    """In a cell that blocks and in one that awaits the tool waits for the click, and what is refused does not run."""
    page = lab.page
    asked = f"r = {QUESTION}" if way == "blocking" else f"r = await {QUESTION}".replace("llm(", "llm.aask(")
    lab.write("a.ipynb", SETUP + ASK + asked, "[x.is_error for _, x in r.tool_results]")
    lab.open_notebook("a.ipynb")
    lab.run_cell(0)
    page.wait_for_selector(".llmnb-live .llmnb-ask >> nth=1", timeout=60_000)
    page.click(".llmnb-live .llmnb-yes >> nth=0")
    page.click(".llmnb-live .llmnb-no:enabled >> nth=0")
    lab.wait_idle(0)
    lab.run_cell(1)
    lab.wait_idle(1)
    assert lab.outputs(1)[-1]["data"]["text/plain"] == "[False, True]"
    shown = lab.outputs(0)[0]["data"]["text/html"]
    assert "sent to ann@example.org" in shown
    assert "llmnb-yes" not in shown
