"""The meter in a real JupyterLab: live while cells run and between them, kept when it is closed."""

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
sim.rule(Answer(text="word " * 200))
llmnb.set_budget(usd="0.01", per="day", project="<img src=x onerror=alert(1)>")
llm = llmnb.LLM("claude-sonnet-5-5", project="<img src=x onerror=alert(1)>", display="none", max_tokens=300)
"""
NOTEBOOK = [
    SETUP,
    "meter = llmnb.meter(project='<img src=x onerror=alert(1)>')\nmeter",
    "llm('Count.', fresh=True)\nNone",
    "import time\nfor _ in range(2):\n    llm('Count.', fresh=True)\n    time.sleep(1.5)",
    "meter.close()",
]
METER = ".llmnb-meter"


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.locator(METER).screenshot(path=Path(folder) / f"{name}.png")


def wait_calls(page: Page, count: int) -> None:
    """Until the meter shows so many calls of this kernel."""
    page.wait_for_function(
        "(n) => document.querySelector('.llmnb-meter tbody td')?.textContent === String(n)", arg=count, timeout=20_000
    )


def test_the_meter(lab: Lab, trouble: list[str]) -> None:
    """It shows each call within a moment, also while a cell is running; closed, it needs neither widget nor kernel."""
    page = lab.page
    lab.write("meter.ipynb", *NOTEBOOK)
    lab.open_notebook("meter.ipynb")
    for number in (0, 1):
        lab.run_cell(number)
        lab.wait_idle(number)
    wait_calls(page, 0)
    lab.run_cell(2)
    lab.wait_idle(2)
    wait_calls(page, 1)
    lab.run_cell(3)
    wait_calls(page, 2)  # while the cell sleeps
    screenshot(page, "meter-live")
    lab.wait_idle(3)
    wait_calls(page, 3)
    text = page.locator(METER).inner_text()
    assert "project <img src=x onerror=alert(1)>" in text
    assert "of $0.01 a day" in text
    lab.run_cell(4)
    lab.wait_idle(4)
    page.wait_for_function("() => !document.querySelector('.jp-OutputArea .widget-output, .lm-Widget.jupyter-widgets')")
    (kept,) = lab.outputs(1)
    assert set(kept["data"]) == {"text/html", "text/markdown", "text/plain"}
    assert page.locator(METER).count() == 1
    wait_calls(page, 3)
    screenshot(page, "meter-kept")
    assert trouble == []
