"""The box of a chat in a real JupyterLab: typed into, stopped, asked again, edited, closed; and seen in both themes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SETUP = """
import llmnb
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator
simulator = serve_simulator(environ=True)
sim = simulator.__enter__()
sim.rule(Answer(text="slow words " * 2000, deltas=2000, delta_delay_s=0.02), match="slowly")
sim.rule(lambda request: f"**echo** {request.prompt} with $x^2$ <img src=x onerror=alert(1)>")
chat = llmnb.LLM("claude-sonnet-5-5").chat(name="box")
"""
NOTEBOOK = [
    SETUP,
    "chat.ui()",
    "print('free')",
    "chat('from a cell')",
    "asked, answered = chat.messages\nprint(asked['content'], answered['content'][0]['text'])",
    "llmnb.last().status",
]
TURN = ".llmnb-chat article"
INPUT = ".llmnb-chat textarea"


@pytest.fixture
def box(lab: Lab) -> Page:
    """JupyterLab with the box on the page."""
    lab.write("box.ipynb", *NOTEBOOK)
    lab.open_notebook("box.ipynb")
    for number in (0, 1):
        lab.run_cell(number)
        lab.wait_idle(number)
    lab.page.wait_for_selector(INPUT)
    return lab.page


def send(page: Page, text: str) -> None:
    """Type a message and press Enter."""
    page.focus(INPUT)
    page.keyboard.insert_text(text)
    page.keyboard.press("Enter")


def wait_turns(page: Page, count: int) -> None:
    """Wait until so many turns are there and nothing is on its way."""
    page.wait_for_function(
        "(n) => document.querySelectorAll('.llmnb-chat article').length === n"
        " && !document.querySelector('.llmnb-chat .llmnb-primary').disabled",
        arg=count,
    )


def printed(lab: Lab, number: int) -> str:
    """Run a cell; what it printed."""
    lab.run_cell(number)
    lab.wait_idle(number)
    return "".join(output.get("text", "") for output in lab.outputs(number))


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.locator(".llmnb-chat").screenshot(path=Path(folder) / f"{name}.png")


def test_the_box_of_a_chat(box: Page, lab: Lab, trouble: list[str]) -> None:
    """Enter asks, Shift+Enter does not; Stop, regenerate and edit work while the kernel is free; Close keeps it all."""
    page = box
    page.focus(INPUT)
    page.keyboard.insert_text("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.insert_text("<b>two</b>")
    page.keyboard.press("Enter")
    wait_turns(page, 1)
    assert page.inner_text(f"{TURN} .llmnb-question") == "one\n<b>two</b>"
    assert "echo one" in page.inner_text(f"{TURN} .llmnb-reply")
    page.wait_for_selector(f"{TURN} .MathJax")
    assert page.inner_text(f"{TURN} .llmnb-footer").startswith("claude-sonnet-5-5")
    assert "$0.000" in page.inner_text(".llmnb-chat .llmnb-headline")

    send(page, "slowly, please")
    page.wait_for_selector(".llmnb-chat .llmnb-body p:has-text('slow words')")  # one before it has come to its end
    assert printed(lab, 2) == "free\n"  # while the answer comes
    screenshot(page, "chat-running")
    page.focus(INPUT)
    page.keyboard.press("Escape")
    page.wait_for_selector(".llmnb-chat .llmnb-left-over .llmnb-warning")
    assert page.inner_text(".llmnb-left-over .llmnb-warning") == "stopped"
    assert page.input_value(INPUT) == "slowly, please"  # to be edited
    assert printed(lab, 5) == ""
    assert lab.outputs(5)[0]["data"]["text/plain"] == "'cancelled'"

    page.fill(INPUT, "")
    lab.run_cell(3)
    lab.wait_idle(3)
    wait_turns(page, 2)  # what a cell asks is in the box, too
    page.click(".llmnb-chat button:text('Regenerate')")
    wait_turns(page, 2)
    page.hover(f"{TURN} .llmnb-question")
    page.click(f"{TURN} .llmnb-edit >> nth=0")
    assert page.input_value(INPUT) == "one\n<b>two</b>"
    page.fill(INPUT, "three")
    page.press(INPUT, "Enter")
    wait_turns(page, 1)
    assert printed(lab, 4).startswith("three **echo** three")
    screenshot(page, "chat-light")
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    screenshot(page, "chat-dark")

    page.click(".llmnb-chat button:text('Close')")
    page.wait_for_selector("details.llmnb-turn")
    (kept,) = lab.outputs(1)
    assert set(kept["data"]) == {"text/html", "text/markdown", "text/plain"}
    assert "three" in kept["data"]["text/markdown"]
    assert trouble == []
