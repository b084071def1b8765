"""Live views in whole notebooks: hostile answers in every state, a reload in the middle, Notebook 7 on a phone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Lab
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PRODUCER = (Path(__file__).parent / "producer.py").read_text("utf-8")
CELL_VIEWS = 45  # JupyterLab folds the outputs of a cell after 50
SHOW = """
import json, time
from llmnb.records import Citation, Retry

def show(first):
    corpus = json.loads(Path("corpus.json").read_text())[first:first + 45]
    views = [display.choose("widget") for _ in corpus]
    for view, bad in zip(views, corpus):
        view.open(bad, lambda: None)
        for event in (Thinking(bad), Retry(1, 2, bad), ToolCall("1", bad, {bad: bad}),
                      ToolResult("1", bad, bad, is_error=True), Text(bad), Citation(bad, bad, bad, bad)):
            view.show(event)
    while not Path("seen").exists():
        time.sleep(0.02)
    for view, bad in zip(views, corpus):
        view.show(Done(bad, Usage(), None, stop_reason=bad))
        view.close(RuntimeError(bad))
"""
SIMULATED = """
import llmnb
from llmnb.simulator import Answer
from llmnb.testing import serve_simulator
simulator = serve_simulator(environ=True)
simulator.__enter__().script(Answer("early " + "more " * 120 + "late", deltas=122, delta_delay_s=0.03))
llm = llmnb.LLM("claude-sonnet-5-5")
"""


def corpus() -> list[str]:
    """The strings of tests/display/test_hostile.py."""
    path = Path(__file__).parents[1] / "display" / "test_hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [text.encode("utf-8", "replace").decode() for text in module.CORPUS]


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """A server that hostile answers point to: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def watch(page: Page) -> list[str]:
    """What must not happen: dialogs, errors of the page, other pages."""
    seen: list[str] = []
    page.on("dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: seen.append(f"error {error}"))
    page.on("popup", lambda popup: seen.append(f"popup {popup.url}"))
    page.on("framenavigated", lambda frame: seen.append(f"frame {frame.url}") if frame.parent_frame else None)
    return seen


def touch_everything(page: Page) -> None:
    """Open every fold and move the pointer over the page: what waits for that goes off."""
    page.evaluate("() => document.querySelectorAll('.llmnb details').forEach((fold) => { fold.open = true; })")
    for y in range(100, 800, 70):
        page.mouse.move(400, y)
    page.wait_for_timeout(300)


FOREIGN = """() => [...document.querySelectorAll('.llmnb, .jp-RenderedHTML')].flatMap((answer) => [...answer
    .querySelectorAll('script, img, iframe, object, embed, form, link, base, video, audio, input, dialog, template')]
    .filter((found) => !found.closest('mjx-container')).map((found) => found.outerHTML))"""
COUNT = "([name, count]) => document.querySelectorAll(name).length >= count"


def show_all(page: Page, lab: Lab, count: int) -> None:
    """Run the cells that show the corpus, looking at the live views of each before they end."""
    for cell, first in enumerate(range(0, count, CELL_VIEWS), 2):
        (lab.folder / "seen").unlink(missing_ok=True)
        lab.run_cell(page, cell)
        page.wait_for_function(COUNT, arg=[".llmnb-live .llmnb-tool", min(CELL_VIEWS, count - first)], timeout=30_000)
        touch_everything(page)
        assert page.evaluate(FOREIGN) == []
        (lab.folder / "seen").touch()
        lab.wait_idle(page, cell, timeout=30_000)


def look(page: Page, count: int) -> None:
    """All answers are there, and nothing in them that was not made by us."""
    page.wait_for_function(COUNT, arg=[".llmnb-answer", count], timeout=30_000)
    touch_everything(page)
    assert page.evaluate(FOREIGN) == []


def test_hostile_answers_in_every_state(page: Page, lab: Lab, canary: tuple[str, list[str]], tmp_path: Path) -> None:
    """Live, kept, saved and opened again, converted: nothing runs, and the canary is never asked."""
    address, asked = canary
    texts = [text.replace("canary.example", address) for text in corpus()]
    (lab.folder / "corpus.json").write_text(json.dumps(texts))
    lab.write("hostile.ipynb", PRODUCER, SHOW, *(f"show({first})" for first in range(0, len(texts), CELL_VIEWS)))
    lab.open_notebook(page, "hostile.ipynb")
    seen = watch(page)
    for cell in (0, 1):
        lab.run_cell(page, cell)
    show_all(page, lab, len(texts))
    look(page, len(texts))
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    lab.stop_kernels()
    lab.open_notebook(page, "hostile.ipynb")
    look(page, len(texts))
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets[2].model.trusted")
    assert seen == []

    command = [sys.executable, "-m", "nbconvert", "--to=html", f"--output={tmp_path / 'page.html'}"]
    subprocess.run([*command, str(lab.folder / "hostile.ipynb")], check=True, capture_output=True)
    page.route("https://**", lambda route: route.abort())  # the converter's own libraries
    page.goto((tmp_path / "page.html").as_uri())
    look(page, len(texts))
    assert [what for what in seen if not what.startswith("error")] == []  # its page misses its libraries
    assert asked == []
    page.evaluate("(url) => fetch(url, { mode: 'no-cors' }).catch(() => null)", f"http://{address}/probe")
    assert asked == ["/probe"]  # it does listen


def test_a_reload_in_the_middle(page: Page, lab: Lab) -> None:
    """After a reload in the middle of an answer the kernel goes on, and `llmnb.last()` brings back what was missed."""
    lab.write("reload.ipynb", SIMULATED, "reply = llm('Hi')", "llmnb.last()")
    lab.open_notebook(page, "reload.ipynb")
    lab.run_cell(page, 0)
    lab.wait_idle(page, 0)
    lab.run_cell(page, 1)
    page.wait_for_selector(".llmnb-live .llmnb-block:has-text('early')")
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.info")
    lab.run_cell(page, 2)
    page.wait_for_selector(".llmnb-answer:has-text('late')")
    assert page.locator(".llmnb-stop").count() == 0


def test_notebook_7_on_a_phone(page: Page, lab: Lab) -> None:
    """The classic Notebook shows and stops an answer; on a phone it fits the page, and Stop can be hit."""
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
