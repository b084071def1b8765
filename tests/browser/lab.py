"""JupyterLab on this machine and a page that it is open in: notebooks are written, opened, run and closed there."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

VIEWPORT: ViewportSize = {"width": 1100, "height": 900}

# one notebook at a time: tests look for what is anywhere on the page
OPEN = """async (path) => {
  const app = window.jupyterapp;
  await app.restored;
  const { context } = await app.commands.execute("docmanager:open", { path });
  await context.ready;
}"""
CLOSE = """async () => {
  for (const widget of [...window.jupyterapp.shell.widgets("main")]) {
    await widget.context?.sessionContext.shutdown().catch(() => null);
    widget.dispose(); // close() would ask whether to save
  }
}"""
# idle, current and alone: where nothing is open a launcher comes, in its own time
IS_READY = """(path) => {
  const { shell } = window.jupyterapp, widgets = [...shell.widgets("main")];
  const notebook = widgets.find(({ context }) => context?.path === path);
  const kernel = notebook?.sessionContext?.session?.kernel;
  if (kernel?.status !== "idle" || !kernel.info) return false;
  if (widgets.length === 1 && shell.currentWidget === notebook) return true;
  widgets.forEach((widget) => widget === notebook || widget.dispose());
  shell.activateById(notebook.id);
  return false;
}"""
LIGHT = """() => document.body.dataset.jpThemeLight === "false"
  && window.jupyterapp.commands.execute("apputils:change-theme", { theme: "JupyterLab Light" })"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: write notebooks into `folder`, open them with `open_notebook`; they are shown on `page`."""

    url: str
    folder: Path
    page: Page

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

    def open_notebook(self, name: str) -> None:
        """Open a notebook instead of what is open, and wait until its kernel is idle.

        JupyterLab stays where it is on the page already: to load it costs three times what the notebook does.
        """
        if self._is_open():
            self.page.evaluate(CLOSE)
        else:
            self.page.goto(f"{self.url}/lab/workspaces/tests?reset")
            self.page.wait_for_function("() => window.jupyterapp", timeout=30_000)
        self.page.evaluate(OPEN, name)
        self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Wait until a notebook's kernel is idle, and no other is open."""
        self.page.wait_for_function(IS_READY, arg=name, timeout=30_000)

    def _is_open(self) -> bool:
        """Whether JupyterLab is on the page; one that asks something, which takes the focus, is loaded anew."""
        asks = "() => !window.jupyterapp || Boolean(document.querySelector('.jp-Dialog'))"
        return self.page.url.startswith(f"{self.url}/lab") and not self.page.evaluate(asks)

    def run_cell(self, number: int) -> None:
        """Start a cell; does not wait for its end."""
        self.page.evaluate(
            "(n) => { const app = window.jupyterapp; const nb = app.shell.currentWidget.content;"
            " nb.activeCellIndex = n; nb.deselectAll(); app.commands.execute('notebook:run-cell'); }",
            number,
        )

    def wait_idle(self, number: int, timeout: float = 20_000) -> None:
        """Wait until a cell has run (it shows its execution count)."""
        self.page.wait_for_function(
            "(n) => /\\[\\d+\\]/.test(window.jupyterapp.shell.currentWidget.content.widgets[n].promptNode.textContent)",
            arg=number,
            timeout=timeout,
        )

    def outputs(self, number: int) -> list[dict[str, Any]]:
        """The outputs of a cell as nbformat has them."""
        return self.page.evaluate(
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

    def tidy(self) -> None:
        """As it was when it began: kernels end, and what they wrote and what was set is gone."""
        if self._is_open():
            self.page.evaluate(CLOSE)
            self.page.evaluate(LIGHT)
            self.page.set_viewport_size(VIEWPORT)
        self.stop_kernels()
        home = self.folder.parent
        for left in self.folder.iterdir():  # not the folder itself: the server runs in it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.rmtree(home / "llmnb-home", ignore_errors=True)
        _write_settings(home)


_SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@contextmanager
def running_lab(home: Path, page: Page) -> Iterator[Lab]:
    """JupyterLab on a free port of the loopback interface, with empty configuration folders."""
    folder = home / "notebooks"
    folder.mkdir()
    _write_settings(home)
    lab = Lab(f"http://127.0.0.1:{_free_port()}", folder, page)
    with (home / "lab.log").open("w") as log:
        process = subprocess.Popen(_command(lab), cwd=folder, env=_environment(home), stdout=log, stderr=log)
        try:
            _wait_until_up(lab, process, home / "lab.log")
            yield lab
        finally:
            process.terminate()
            process.wait(20)


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
