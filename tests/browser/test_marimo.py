"""Live answers in a real marimo notebook."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

NOTEBOOK = """
import marimo
app = marimo.App()

@app.cell
def _():
    import llmnb
    from llmnb.simulator import Answer
    from llmnb.testing import serve_simulator
    simulator = serve_simulator(environ=True)
    sim = simulator.__enter__()
    sim.rule(Answer("early **bold** " + "slow " * 2000, deltas=2000, delta_delay_s=0.05), match="slowly")
    sim.rule(lambda r: Answer(f"early {r.prompt} " + "more " * 20 + "late", deltas=20, delta_delay_s=0.03))
    llm = llmnb.LLM("claude-sonnet-5-5")
    return (llm,)

@app.cell
def _(llm):
    one = llm("one")
    two = llm("two")
    return (two,)

@app.cell
def _(llm, two):
    llm("three")
    return

@app.cell
def _(llm, two):
    llm("slowly")
    return
"""
TEXTS = """(name) => { const find = (root) => [...root.querySelectorAll('*')].flatMap((el) =>
    [...(el.classList?.contains(name) ? [el.innerText] : []), ...(el.shadowRoot ? find(el.shadowRoot) : [])]);
    return find(document); }"""
"""The texts of all elements of a class; marimo's are in shadow roots."""


@pytest.fixture
def marimo(tmp_path: Path) -> Iterator[str]:
    """The address of a marimo server with the notebook."""
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "marimo",
        "-q",
        "edit",
        "notebook.py",
        "--headless",
        "--no-token",
        f"--port={port}",
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "LLMNB_HOME": str(tmp_path / "llmnb")}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, f"--port={port}", "--skip-update-check"], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    server.terminate()
    server.wait(20)


def wait(page: Page, name: str, *parts: str) -> list[str]:
    """Wait until elements of a class hold these texts, one each; all their texts."""
    deadline = time.monotonic() + 60
    while True:
        texts: list[str] = [text.replace("\xa0", " ") for text in page.evaluate(TEXTS, name)]
        if all(any(part in text for text in texts) for part in parts):
            return texts
        assert time.monotonic() < deadline, (name, parts, texts)
        page.wait_for_timeout(100)


def run_all(page: Page) -> None:
    """Run all cells; a page whose kernel is not there yet does not hear of it, and is told again."""
    deadline = time.monotonic() + 60
    while not page.evaluate(TEXTS, "llmnb-live"):
        assert time.monotonic() < deadline
        page.keyboard.press("Control+Shift+R")
        page.wait_for_timeout(1000)


def test_answers_in_marimo(page: Page, marimo: str) -> None:
    """Answers come live inside mo.ui.anywidget, with a hint in place of a button that no click could reach, and stay as
    HTML, each once.
    """
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(marimo)
    page.wait_for_selector("[data-testid=run-button]")
    run_all(page)
    wait(page, "llmnb-body", "early one more")
    wait(page, "llmnb-hint", "interrupt button")
    assert page.evaluate(TEXTS, "llmnb-stop") == []
    texts = wait(page, "llmnb-answer", "one more", "two more", "three more")
    assert [text.split()[1] for text in texts] == ["one", "two", "three"]
    assert all("late" in text for text in texts)
    wait(page, "llmnb-body", "slow slow")
    assert errors == []


@pytest.mark.soak
def test_marimos_own_button_stops_an_answer(page: Page, marimo: str) -> None:
    """The answer under way is stopped; marimo takes away what a cell has put out, so what came of it is printed."""
    page.goto(marimo)
    page.wait_for_selector("[data-testid=run-button]")
    run_all(page)
    wait(page, "llmnb-body", "slow slow")
    page.click("[data-testid=interrupt-button]")
    page.get_by_text("This cell was interrupted").wait_for()
    page.get_by_text("stopped · claude-sonnet-5-5").wait_for()
    assert page.evaluate(TEXTS, "llmnb-live") == []
