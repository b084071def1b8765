"""A real Chromium and a real JupyterLab, both cut off from anything but this machine.

A laptop without Chromium or Playwright skips these tests and says so; where CI=true they fail instead.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmnb.display import style
from llmnb.display.answer import Answer
from llmnb.display.scene import Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_FLAGS = [
    "--no-sandbox",  # root in a container has no other way
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
]


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: browser tests must run in CI")
    pytest.skip(f"{what}: browser tests need `pip install playwright` and a Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, driven by Playwright (for one module: Playwright's loop would be in the way of asynchronous tests)."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed")
        raise
    chromium = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        _missing("no Chromium found (set LLMNB_TEST_CHROMIUM to its path)")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page in a context of its own."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    yield context.new_page()
    context.close()


# a model as anywidget hands it to a front end, and a kernel that notes what it is asked
BARE_PAGE = """<!doctype html><html><body><div id="place"></div><script type="module">
import make from "/response.js";
const handlers = [];
window.log = [];
const traits = { answer_id: "answer-1", model_label: "claude", can_stop: true, stop_hint: "" };
window.kernel = {
  supportsSubshells: true,
  createComm(target) {
    return { subshellStarted: Promise.resolve(), open: (data) => window.log.push(["open", target, data]) };
  },
  interrupt: () => window.log.push(["interrupt"]),
};
window.model = {
  get: (name) => traits[name],
  on: (event, handler) => handlers.push(handler),
  off() {},
  send: (content) => window.log.push(["send", content]),
  widget_manager: { kernel: window.kernel, rendermime: { latexTypesetter: {
    typeset: (node) => window.log.push(["typeset", node.textContent]) } } },
};
window.receive = (message) => handlers.forEach((handler) => handler(message));
window.frames_drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const widget = make();
widget.initialize({ model });
widget.render({ model, el: document.getElementById("place") });
window.receive({ n: -1, key: [] }); // the kernel is heard of at once: the page need not ask
window.make = make;
window.ready = true;
</script></body></html>"""


@pytest.fixture
def bare(page: Page) -> Page:
    """The front end with a fake model; any other request than the page and the script fails the test."""
    requests: list[str] = []

    def serve(route: Any) -> None:
        path = route.request.url.removeprefix("http://llmnb.test")
        requests.append(path)
        if path == "/response.js":
            route.fulfill(body=style.script(), content_type="text/javascript")
        elif path == "/":
            styles = f"<style>{style.live_css()}</style>"
            route.fulfill(body=styles + BARE_PAGE, content_type="text/html; charset=utf-8")
        else:
            route.abort()

    page.route("**/*", serve)
    page.goto("http://llmnb.test/")
    page.wait_for_function("() => window.ready")
    yield_requests = [path for path in requests if path not in ("/", "/response.js", "/favicon.ico")]
    assert yield_requests == []
    return page


@pytest.fixture
def scene() -> Scene:
    """A scene with an empty answer."""
    return Scene(Answer("claude"))


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: write notebooks into `folder`, open them with `open_notebook`."""

    url: str
    folder: Path

    def write(self, name: str, *cells: str) -> None:
        """A notebook with these code cells."""
        made = [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": cell,
                "outputs": [],
                "execution_count": None,
            }
            for number, cell in enumerate(cells)
        ]
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": made}
        (self.folder / name).write_text(json.dumps(notebook))

    def open_notebook(self, page: Page, name: str) -> None:
        """Open a notebook and wait until its kernel is idle."""
        page.goto(f"{self.url}/lab/workspaces/{Path(name).stem}-{time.monotonic_ns()}/tree/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=30_000)
        page.wait_for_function(
            "() => { const w = window.jupyterapp?.shell.currentWidget; const k = w?.sessionContext?.session?.kernel;"
            " return k?.status === 'idle' && k?.info; }",
            timeout=30_000,
        )

    def run_cell(self, page: Page, number: int) -> None:
        """Start a cell; does not wait for its end."""
        page.evaluate(
            "(n) => { const app = window.jupyterapp; const nb = app.shell.currentWidget.content;"
            " nb.activeCellIndex = n; nb.deselectAll(); app.commands.execute('notebook:run-cell'); }",
            number,
        )

    def wait_idle(self, page: Page, number: int, timeout: float = 20_000) -> None:
        """Wait until a cell has run (it shows its execution count)."""
        page.wait_for_function(
            "(n) => /\\[\\d+\\]/.test(window.jupyterapp.shell.currentWidget.content.widgets[n].promptNode.textContent)",
            arg=number,
            timeout=timeout,
        )

    def outputs(self, page: Page, number: int) -> list[dict[str, Any]]:
        """The outputs of a cell as nbformat has them."""
        return page.evaluate(
            "(n) => window.jupyterapp.shell.currentWidget.content.widgets[n].model.outputs.toJSON()", number
        )

    def stop_kernels(self) -> None:
        """End every session."""
        for session in self._api("GET", "/api/sessions"):
            self._api("DELETE", f"/api/sessions/{session['id']}")

    def _api(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            body = response.read()
        return json.loads(body) if body else None


_SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="session")
def jupyter_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a free port of the loopback interface, with empty configuration folders."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    folder.mkdir()
    _write_settings(home)
    lab = Lab(f"http://127.0.0.1:{_free_port()}", folder)
    with (home / "lab.log").open("w") as log:
        process = subprocess.Popen(_command(lab), cwd=folder, env=_environment(home), stdout=log, stderr=log)
        try:
            _wait_until_up(lab, process, home / "lab.log")
            yield lab
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def lab(jupyter_lab: Lab) -> Iterator[Lab]:
    """JupyterLab as it was when it began: its kernels end with the test, and what it wrote and set is gone."""
    yield jupyter_lab
    jupyter_lab.stop_kernels()
    home = jupyter_lab.folder.parent
    for left in jupyter_lab.folder.iterdir():  # not the folder itself: the server runs in it
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    shutil.rmtree(home / "llmnb-home", ignore_errors=True)
    _write_settings(home)


def _write_settings(home: Path) -> None:
    """The settings of a new JupyterLab, and no others: a theme that a test chose does not stay."""
    shutil.rmtree(home / "settings", ignore_errors=True)
    for name, content in _SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


def _command(lab: Lab) -> list[str]:
    port = lab.url.rpartition(":")[2]
    options = [
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        f"--port={port}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={lab.folder}",
        "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True",
        "--LabApp.extension_manager=readonly",
    ]
    return [sys.executable, "-m", "jupyterlab", *options]


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_", "ANTHROPIC_"))}
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "LLMNB_HOME": "llmnb-home",
    }
    return {**kept, **{name: str(home / folder) for name, folder in folders.items()}, "JUPYTER_PREFER_ENV_PATH": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(lab.url + "/api/status", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
