"""Live views in whole notebooks: a page loaded again, in the middle and with a dead kernel; Notebook 7 on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PRODUCER = (Path(__file__).parent / "producer.py").read_text("utf-8")
SIMULATED = """
import llmnb
from llmnb.simulator import Answer
from llmnb.testing import serve_simulator
simulator = serve_simulator(environ=True)
simulator.__enter__().script(Answer("".join(f"word{n} " for n in range(3_000)), deltas=3_000, delta_delay_s=0.05))
llm = llmnb.LLM("claude-sonnet-5-5")
"""
WORDS = "() => [...document.querySelector('.llmnb-live')?.innerText.matchAll(/word/g) ?? []].length"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"


def test_a_reload_in_the_middle(lab: Lab) -> None:
    """After a reload in the middle of an answer it goes on live, Stop stops it, and it stays: also when the kernel is
    dead and the page loaded once more.
    """
    page = lab.page
    lab.write("reload.ipynb", SIMULATED, "reply = llm('Hi')", "llmnb.last().status")
    lab.open_notebook("reload.ipynb")
    lab.run_cell(0)
    lab.wait_idle(0)
    lab.run_cell(1)
    page.wait_for_selector(".llmnb-live .llmnb-block:has-text('word')")
    page.evaluate(SAVE)
    page.reload()
    page.wait_for_selector(".llmnb-live .llmnb-block:has-text('word')", timeout=60_000)
    seen = page.evaluate(WORDS)
    page.wait_for_function(f"(seen) => ({WORDS})() > seen + 20", arg=seen)
    assert int(page.inner_text(".llmnb-running").split()[-2]) >= 2  # since the question, not since the reload
    page.click(".llmnb-stop")
    page.wait_for_selector(".llmnb-answer .llmnb-footer:has-text('stopped')")
    answer, *_ = lab.outputs(1)
    assert set(answer["data"]) == {"text/html", "text/markdown", "text/plain"}
    lab.run_cell(2)
    lab.wait_idle(2)
    assert lab.outputs(2)[0]["data"]["text/plain"] == "'cancelled'"

    page.evaluate(SAVE)
    lab.stop_kernels()
    page.reload()
    page.wait_for_selector(".llmnb-answer .llmnb-body:has-text('word')", timeout=60_000)
    assert "stopped" in page.inner_text(".llmnb-answer .llmnb-footer")
    assert page.locator(".llmnb-live").count() == 0
    lab.wait_ready("reload.ipynb")  # a file that goes while it is loaded leaves an error on the page


def test_notebook_7_on_a_phone(page: Page, lab: Lab) -> None:
    """The classic Notebook shows and stops an answer; on a phone it fits the page, and Stop can be hit."""
    # fonts and icons have the same names in both applications, and the server remembers only a name: what Notebook was
    # served it refuses JupyterLab from then on (403, "not in root static directory")
    page.route(re.compile(r"/static/notebook/.*\.(woff2?|ttf|eot|svg)"), lambda route: route.abort())
    page.set_viewport_size({"width": 390, "height": 844})
    lab.write("phone.ipynb", PRODUCER, "ask(RICH, gate='never')")
    page.goto(f"{lab.url}/notebooks/phone.ipynb")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached")
    page.click(".jp-CodeCell >> nth=0")
    page.wait_for_timeout(1_000)
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".jp-InputPrompt:text('[1]:')", state="attached")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".llmnb-live td")
    live = page.locator(".llmnb-live").bounding_box()
    button = page.locator(".llmnb-stop").bounding_box()
    assert live is not None
    assert button is not None
    assert live["x"] >= 0
    assert live["x"] + live["width"] <= 390
    assert button["height"] >= 24
    page.click(".llmnb-stop")
    page.wait_for_selector(".llmnb-answer .llmnb-footer:has-text('stopped')")
