"""A run in a message batch in a real JupyterLab: what is said while it waits, and that a cell run again waits on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Lab
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SETUP = """
import llmnb
from llmnb.simulator import Clock
from llmnb.testing import serve_simulator
clock = Clock()
simulator = serve_simulator(environ=True, clock=clock, batch_seconds=3_000)
sim = simulator.__enter__()
sim.rule(lambda request: "word " * 50 if request.prompt else None)
llm = llmnb.LLM("claude-sonnet-5-5", project="thesis", cache=False)
rows = [f"row {n}." for n in range(30)]
"""
ASK = "got = llm.map(rows, 'Say {{ value }}', via='batch')"
NOTEBOOK = [SETUP, ASK, "clock.advance(3_600)\n" + ASK + "\nlen([r for r in sim.requests if r.method == 'POST'])"]
RUN = ".llmnb-run"


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_batch_is_waited_for(page: Page, lab: Lab) -> None:
    """Which one and until when, at what price, and what may be closed; Stop leaves it at the API; it is read once."""
    lab.write("batch.ipynb", *NOTEBOOK)
    lab.open_notebook(page, "batch.ipynb")
    lab.run_cell(page, 0)
    lab.wait_idle(page, 0)
    lab.run_cell(page, 1)
    page.wait_for_function("() => document.querySelector('.llmnb-run')?.innerText.includes('in progress in batch')")
    text = page.locator(RUN).inner_text()
    assert "30 in progress in batch msgbatch_" in text
    assert "Half the price" in text
    assert "You can close this notebook" in text
    screenshot(page, "batch-waiting")
    page.locator(f"{RUN} button").click()
    lab.wait_idle(page, 1, timeout=10_000)
    kept, error = lab.outputs(page, 1)
    assert kept["data"]["text/plain"].split(" · ")[-2:][0] == "stopped"
    assert "The batch goes on at the API" in error["evalue"]
    screenshot(page, "batch-stopped")
    lab.run_cell(page, 2)
    lab.wait_idle(page, 2)
    *_, over, asked = lab.outputs(page, 2)
    assert "half the price: $0.0" in over["data"]["text/plain"]
    assert asked["data"]["text/plain"] == "2"  # one that counts tokens, one batch
    screenshot(page, "batch-over")
