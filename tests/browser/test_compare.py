"""A comparison in a real JupyterLab: two answers come side by side, and one button stops both."""

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
slow = Answer(text="slow *words* and <img src=x onerror=alert(1)> " * 900, deltas=2000, delta_delay_s=0.02)
late = Answer(text="late", first_token_s=60)
sim.rule(late, match=lambda request: "late" in request.prompt)
sim.rule(lambda request: slow if "slowly" in request.prompt else f"**echo** of {request.body['model']}")
models = ["claude-sonnet-5-5", "claude-opus-5-5"]
"""
NOTEBOOK = [
    SETUP,
    "llmnb.compare('Tell me slowly.', models)",
    "llmnb.compare('Hi', models, score=len)",
    "llmnb.compare([f'row {n}' for n in range(30)] + ['late'], models, score=len, concurrency=4)",
    "llmnb.compare([f'row {n}' for n in range(30)], models, score=len)",
]
COLUMN = ".llmnb-compare .llmnb-column"


def screenshot(page: Page, name: str) -> None:
    """A picture for people, where LLMNB_TEST_SCREENSHOTS names a folder."""
    if folder := os.environ.get("LLMNB_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_comparison(lab: Lab, trouble: list[str]) -> None:
    """Both columns grow while the cell blocks, stand side by side, on a phone below each other; Stop, reached by the
    keyboard, ends both; in the file there is no widget. Many prompts are a table that fills, and a button."""
    page = lab.page
    lab.write("compare.ipynb", *NOTEBOOK)
    lab.open_notebook("compare.ipynb")
    lab.run_cell(0)
    lab.wait_idle(0)
    lab.run_cell(1)
    page.wait_for_function(
        "() => { const bodies = [...document.querySelectorAll('.llmnb-compare .llmnb-column .llmnb-body')];"
        " return bodies.length === 2 && bodies.every((body) => body.innerText.length > 80); }"
    )
    screenshot(page, "compare-live")
    first, second = (page.locator(COLUMN).nth(n).bounding_box() for n in (0, 1))
    assert first is not None
    assert second is not None
    assert first["y"] == second["y"]
    assert second["x"] >= first["x"] + first["width"]
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function(
        "() => { const [a, b] = [...document.querySelectorAll('.llmnb-compare .llmnb-column')]"
        ".map((one) => one.getBoundingClientRect()); return a.left === b.left && b.top >= a.bottom; }"
    )
    page.set_viewport_size({"width": 1100, "height": 900})
    page.focus(".llmnb-compare .llmnb-stop")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.llmnb-compare .llmnb-footer').length === 2")
    lab.wait_idle(1)
    assert "Stopped. What was answered by then is kept" in str(lab.outputs(1))
    assert page.inner_text(".llmnb-compare").count("stopped") == 2

    lab.run_cell(2)
    lab.wait_idle(2)
    page.wait_for_function("() => document.querySelectorAll('.llmnb-scored').length === 2")
    screenshot(page, "compare-done")
    [output] = lab.outputs(2)
    assert sorted(output["data"]) == ["text/html", "text/markdown", "text/plain"]
    assert "echo of claude-opus-5-5" in page.locator(COLUMN).nth(3).inner_text()

    lab.run_cell(3)
    table = ".llmnb-run .llmnb-many"
    page.wait_for_function(
        "() => document.querySelector('.llmnb-run .llmnb-standings')?.innerText.match(/30 of 31/g)?.length === 2"
    )
    assert "echo** of claude-opus-5-5" in page.inner_text(f"{table} .llmnb-answers")
    page.focus(f"{table} .llmnb-table >> nth=1")
    html = page.evaluate("() => document.querySelector('.llmnb-run .llmnb-more').innerText")
    page.wait_for_function("(old) => document.querySelector('.llmnb-run .llmnb-more').innerText !== old", arg=html)
    assert page.evaluate("() => document.activeElement.className") == "llmnb-table"  # also once it is drawn again
    screenshot(page, "compare-many-live")
    page.focus(".llmnb-run .llmnb-stop")
    page.keyboard.press("Enter")
    lab.wait_idle(3)
    kept, error = lab.outputs(3)
    assert sorted(kept["data"]) == ["text/html", "text/plain"]
    assert kept["data"]["text/plain"].endswith("stopped")
    assert "What was answered by then is kept" in error["evalue"]
    lab.run_cell(4)
    lab.wait_idle(4)
    [output] = lab.outputs(4)  # once, and without a widget
    assert sorted(output["data"]) == ["text/html", "text/markdown", "text/plain"]
    screenshot(page, "compare-many-done")
    assert trouble == []
