"""A run over many rows in a real JupyterLab: how far it is while the cell blocks, and a Stop that keeps everything."""

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
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator
simulator = serve_simulator(environ=True)
sim = simulator.__enter__()
bad = Answer(fault=Fault("status", status=400, error_type="invalid_request_error", message="<img src=x> $1 and $2"))
sim.rule(lambda request: bad if "row 3." in request.prompt
         else Answer(text="word " * 50, first_token_s=60 if "slow" in request.prompt else 0))
llm = llmnb.LLM("claude-sonnet-5-5", project="thesis", cache=False)
rows = [f"row {n}." for n in range(30)]
"""
NOTEBOOK = [
    SETUP,
    "llm.map(rows + ['slow 1', 'slow 2'], 'Say {{ value }}', concurrency=4)",
    "got = llm.map(rows, 'Say {{ value }}')\ngot.status.kept, got.status.failed",
]
RUN = ".llmnb-run"


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_run_is_stopped(lab: Lab) -> None:
    """Rows, dollars and the first error while the cell blocks; Stop ends it, what is finished stays, and goes on."""
    page = lab.page
    lab.write("run.ipynb", *NOTEBOOK)
    lab.open_notebook("run.ipynb")
    lab.run_cell(0)
    lab.wait_idle(0)
    lab.run_cell(1)
    page.wait_for_function("() => document.querySelector('.llmnb-run')?.innerText.includes('30 of 32 rows')")
    text = page.locator(RUN).inner_text()
    assert "1 failed" in text
    assert "in all" in text
    assert "first error: BadRequestError" in text
    assert "<img src=x>" in text
    assert page.locator(f"{RUN} img").count() == 0
    top = "document.querySelector(`.llmnb-run ${name}`).getBoundingClientRect().top"
    tops = f"() => ['button', '.llmnb-error'].map((name) => {top})"
    button, words = page.evaluate(tops)  # at once: both are drawn anew each moment
    assert button < words  # where it was before there was an error
    screenshot(page, "run-live")
    page.locator(f"{RUN} button").click()
    lab.wait_idle(1, timeout=10_000)
    kept, error = lab.outputs(1)
    assert set(kept["data"]) == {"text/html", "text/plain"}
    assert "30 of 32 rows" in kept["data"]["text/plain"]
    assert kept["data"]["text/plain"].split(" · ")[-2:][0] == "stopped"
    assert "29 of 32 rows are answered and kept" in error["evalue"]
    page.wait_for_function("() => !document.querySelector('.llmnb-run button')")
    lab.run_cell(2)
    lab.wait_idle(2)
    assert lab.outputs(2)[-1]["data"]["text/plain"] == "(29, 1)"
    screenshot(page, "run-kept")
