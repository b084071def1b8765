"""A run in a message batch in a real JupyterLab: what is said while it waits, and that a cell run again waits on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmnb.simulator import Clock, Simulator
from llmnb.testing import serve_simulator

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

SETUP = """
import os
os.environ.update(%r)
import llmnb
llm = llmnb.LLM("claude-sonnet-5-5", project="thesis", cache=False)
rows = [f"row {n}." for n in range(30)]
"""
ASK = "got = llm.map(rows, 'Say {{ value }}', via='batch')"
RUN = ".llmnb-run"


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """It outlives every kernel, as the API does."""
    with serve_simulator(clock=Clock(), batch_seconds=3_000) as simulator:
        simulator.rule(lambda request: "word " * 50 if request.prompt else None)
        yield simulator


def test_a_batch_is_waited_for(lab: Lab, sim: Simulator) -> None:
    """Which one and until when, at what price, and what may be closed: that stands there when the notebook is opened
    again and its kernel is gone. The cell waits on; Stop leaves the batch at the API; it is sent and read once."""
    page = lab.page
    lab.write("batch.ipynb", SETUP % sim.environ(), ASK, ASK)
    lab.open_notebook("batch.ipynb")
    waits = "() => document.querySelector('.jp-Notebook')?.innerText.includes('You can close this notebook')"
    for cell in (0, 1):
        lab.run_cell(cell)
    page.wait_for_function(waits)
    page.locator(RUN).first.get_by_text("30 in progress in batch msgbatch_").first.wait_for()
    screenshot(page, "batch-waiting")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")
    lab.stop_kernels()
    lab.open_notebook("batch.ipynb")
    page.wait_for_function(waits)
    assert "llmnb batches cancel msgbatch_" in page.locator(".jp-Notebook").inner_text()
    screenshot(page, "batch-opened-again")
    for cell in (0, 1):
        lab.run_cell(cell)
    page.wait_for_selector(f"{RUN} button")
    page.wait_for_function(waits)
    page.locator(f"{RUN} button").click()
    lab.wait_idle(1, timeout=10_000)
    kept, beside, error = lab.outputs(1)
    assert kept["data"]["text/plain"].split(" · ")[-2:][0] == "stopped"
    assert beside["data"]["text/plain"] == ""
    assert "The batch goes on at the API" in error["evalue"]
    sim.clock.advance(3_600)
    lab.run_cell(2)
    lab.wait_idle(2)
    assert "half the price: $0.0" in lab.outputs(2)[0]["data"]["text/plain"]
    screenshot(page, "batch-over")
    assert sum(seen.path == "/v1/messages/batches" and seen.method == "POST" for seen in sim.requests) == 1
