"""A notebook in a browser that plays one cell at a time, and what was seen of it: traffic, tasks, frames, times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

    from llmnb.demo.lab import Lab

PLAYER = Path(__file__).with_name("live_view_player.py")
_BEGIN = "llmnb-begin"
_TIDYING = "V8.GCFinalizeMCReduceMemory"
_WATCH = """() => {
  const seen = window.seen = { first: 0, last: 0, idle: 0, begin: Date.now() / 1000, views: [] };
  performance.mark("llmnb-begin");
  const first = document.getElementsByTagName("em"), last = document.getElementsByTagName("strong");
  const prompts = document.getElementsByClassName("jp-InputPrompt");
  const bodies = document.getElementsByClassName("llmnb-body"), views = new Map();
  const watch = (body) => {
    const view = { frames: 0, changed: false, from: performance.now(), to: 0 };
    new MutationObserver(() => { view.changed = true; }).observe(body,
      { childList: true, subtree: true, characterData: true });
    views.set(body, view);
    seen.views.push(view);
  };
  const look = (now) => {
    if (!seen.first && first.length) seen.first = Date.now() / 1000;
    if (!seen.last && last.length) seen.last = Date.now() / 1000;
    if (!seen.idle && prompts[1].textContent === "[2]:") seen.idle = Date.now() / 1000;
    for (const body of bodies) if (!views.has(body) && body.closest(".llmnb-live")) watch(body);
    for (const view of views.values()) if (view.changed) {
      view.changed = false;
      view.frames += 1;
      view.to = now;
    }
    requestAnimationFrame(look);
  };
  look(performance.now());
}"""


class Task(NamedTuple):
    """A task of the page's main thread: when it began (seconds since 1970), how long it took, and of that on a CPU.

    `tidying_ms`, and `tidying_cpu_ms`, are what it was held up by the browser's collection of the whole page's garbage
    "to reduce memory": no garbage asks for it, the browser has it when a page has been quiet for some seconds.
    """

    at_s: float
    ms: float
    cpu_ms: float
    tidying_ms: float
    tidying_cpu_ms: float

    @property
    def own_ms(self) -> float:
        """How long it took without that."""
        return self.ms - self.tidying_ms


@contextmanager
def notebook_pages() -> Iterator[NotebookPage]:
    """JupyterLab with its own folders; it ends with the context."""
    from playwright.sync_api import sync_playwright

    from llmnb.demo.lab import Lab

    with tempfile.TemporaryDirectory(prefix="llmnb-bench-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        os.environ["LLMNB_HOME"] = str(Path(scratch) / "llmnb")
        lab = Lab(folder, Path(scratch) / "jupyter")
        try:
            lab.wait()
            with sync_playwright() as playwright:
                yield NotebookPage(lab, Path(scratch), playwright)
        finally:
            lab.stop()


class NotebookPage:
    """Plays one cell at a time, each in a browser that has just been started, and a kernel of its own."""

    def __init__(self, lab: Lab, scratch: Path, playwright: Playwright) -> None:
        self._lab = lab
        self._scratch = scratch
        self._playwright = playwright
        self._count = 0

    def play(
        self,
        cell: str,
        *,
        kernel: str = "installed",
        open_for_s: float = 0,
        stop_after_ms: float | None = None,
        patience_s: float = 60,
    ) -> dict[str, Any]:
        """What was seen of the cell, in the browser and in the kernel (which prints it as JSON).

        `open_for_s` is how long the page was open already when the cell was run.
        """
        with _chromium(self._playwright) as browser:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            self._open(page, cell, self._kernel(kernel))
            page.wait_for_timeout(open_for_s * 1_000)
            browser.start_tracing(page=page, categories=["toplevel", "blink.user_timing", "v8"])
            seen = self._play(page, stop_after_ms, patience_s * 1000)
            trace = json.loads(browser.stop_tracing())
            return {**seen, "tasks": _tasks(trace["traceEvents"], seen["begin"])}

    def _play(self, page: Page, stop_after_ms: float | None, patience_ms: float) -> dict[str, Any]:
        page.evaluate(_WATCH)
        self._traffic.update(bytes=0, messages=0)
        page.keyboard.press("Control+Enter")  # Shift would have JupyterLab make another cell, which takes it 100 ms
        clicked = self._stop(page, stop_after_ms) if stop_after_ms else 0.0
        page.wait_for_function("() => window.seen.idle", timeout=patience_ms, polling=200)
        page.wait_for_timeout(2_000)  # the browser may still be drawing
        stdout = page.locator(".jp-OutputArea-output[data-mime-type$=stdout]").last.inner_text()
        told = json.loads(stdout.splitlines()[-1])
        seen = page.evaluate("() => window.seen")
        rates = [1e3 * view["frames"] / (view["to"] - view["from"]) for view in seen["views"]]
        return {**told, **seen, **self._traffic, "clicked": clicked, "rates": rates}

    def _open(self, page: Page, cell: str, kernel: str) -> None:
        self._count += 1
        self._traffic = {"bytes": 0, "messages": 0}
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))
        name = f"bench-{self._count}.ipynb"
        source = PLAYER.read_text("utf-8")
        (self._scratch / "notebooks" / name).write_text(json.dumps(_notebook(kernel, source, cell)))
        page.goto(self._lab.url(name) + "&reset")
        page.wait_for_selector("text=| Idle", timeout=60_000)
        page.wait_for_timeout(1_000)  # idle is said a little before the kernel takes cells
        page.click(".jp-CodeCell >> nth=0")
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".jp-InputPrompt:text('[1]:')", timeout=60_000)
        page.wait_for_timeout(500)

    def _received(self, data: str | bytes) -> None:
        self._traffic["bytes"] += len(data) if isinstance(data, bytes) else len(data.encode())
        self._traffic["messages"] += 1

    def _stop(self, page: Page, after_ms: float) -> float:
        page.wait_for_selector(".llmnb-stop")
        page.wait_for_timeout(after_ms)
        script = "() => { document.querySelector('.llmnb-stop').click(); return Date.now() / 1000; }"
        return float(page.evaluate(script))

    def _kernel(self, ipykernel: str) -> str:
        """The name of a kernel with this version of ipykernel, fetched when it is not the installed one."""
        if ipykernel == "installed":
            return "python3"
        spec = self._scratch / "jupyter" / "data" / "kernels" / ipykernel / "kernel.json"
        if not spec.exists():
            packages = self._scratch / f"ipykernel-{ipykernel}"
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={packages}"]
            subprocess.run([*pip, f"ipykernel=={ipykernel}"], check=True)
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            spec.parent.mkdir(parents=True)
            content = {"argv": argv, "display_name": ipykernel, "language": "python"}
            spec.write_text(json.dumps({**content, "env": {"PYTHONPATH": str(packages)}}))
        return ipykernel


def _tasks(events: list[dict[str, Any]], begin_s: float) -> list[Task]:
    """The tasks of the thread that made the mark, since the mark."""
    mark = next(event for event in events if event["name"] == _BEGIN)
    mine = [
        event
        for event in events
        if event["ph"] == "X"
        and (event["pid"], event["tid"]) == (mark["pid"], mark["tid"])
        and event["ts"] > mark["ts"]
    ]
    collections = [event for event in mine if event["name"] == _TIDYING]

    def task(event: dict[str, Any]) -> Task:
        began, ended = event["ts"], event["ts"] + event["dur"]
        inside = [found for found in collections if began <= found["ts"] < ended]
        at_s = begin_s + (began - mark["ts"]) / 1e6
        return Task(at_s, _ms([event], "dur"), _ms([event], "tdur"), _ms(inside, "dur"), _ms(inside, "tdur"))

    return [task(event) for event in mine if event["name"].endswith("RunTask")]


def _ms(events: list[dict[str, Any]], kind: str) -> float:
    """How long they took: "dur" on the wall, "tdur" on a CPU (which short ones lack)."""
    return sum(event.get(kind, 0) for event in events) / 1e3


def _notebook(kernel: str, *sources: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "id": f"cell-{number}", "source": source} for number, source in enumerate(sources)]
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": cells}


@contextmanager
def _chromium(playwright: Playwright) -> Iterator[Browser]:
    path = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-proxy-server"])
    try:
        yield browser
    finally:
        browser.close()
