"""The live view where it is used: a real JupyterLab in a real Chromium, both cut off from anything but this machine.

A long answer comes in 3,000 pieces over 30 s, with thinking, a tool card, tables, coloured code and math. Counted are
the bytes of the page's own WebSocket, the browser's long tasks, the kernel's CPU, and the time until a token is drawn.
The way of the peers, `update_display(Markdown(all so far))`, is measured beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from llmnb.demo.lab import Lab

CHARS, DELTAS, SECONDS = 45_000, 3_000, 30
PLAYER = Path(__file__).with_name("live_view_player.py")
_WATCH = """() => {
  const seen = window.seen = { tasks: [], first: 0, last: 0, idle: 0 };
  new PerformanceObserver((list) => list.getEntries().forEach((task) => {
    seen.tasks.push([(performance.timeOrigin + task.startTime) / 1000, task.duration]);
  })).observe({ type: "longtask" });
  const first = document.getElementsByTagName("em"), last = document.getElementsByTagName("strong");
  const prompts = document.getElementsByClassName("jp-InputPrompt");
  const look = () => {
    if (!seen.first && first.length) seen.first = Date.now() / 1000;
    if (!seen.last && last.length) seen.last = Date.now() / 1000;
    if (!seen.idle && prompts[1].textContent === "[2]:") seen.idle = Date.now() / 1000;
    requestAnimationFrame(look);
  };
  look();
}"""


def run() -> list[dict[str, object]]:
    """The measurements."""
    with _jupyter() as (lab, folder), _chromium() as browser:
        bench = Bench(lab, folder, browser)
        return [*_stream(bench), *_stops(bench), *_large(bench), *_many(bench), *_peers(bench)]


def _stream(bench: Bench) -> Iterator[dict[str, object]]:
    seen = bench.play(f"play({CHARS}, {DELTAS}, {SECONDS})")
    yield _row("live view, bytes on the wire ÷ text", seen["bytes"] / CHARS, "×", 16)
    yield _row("live view, messages", seen["messages"], "", None)
    yield _row("live view, longest browser task while it streams", _longest(seen), "ms", 50)
    yield _row("live view, longest browser task when the bundle takes its place", _longest(seen, end=True), "ms", 50)
    yield _row("live view, kernel CPU", seen["cpu_s"], "s", 1.2)
    yield _row("live view, first token on screen", (seen["first"] - seen["first_sent"]) * 1e3, "ms", 100)
    yield _row("live view, last token on screen", (seen["last"] - seen["last_sent"]) * 1e3, "ms", 150)


def _stops(bench: Bench) -> Iterator[dict[str, object]]:
    seen = bench.play(f"play({CHARS}, {DELTAS}, {SECONDS})", stop_after_ms=3_000)
    yield _row("Stop to idle cell", (seen["idle"] - seen["clicked"]) * 1e3, "ms", 400)


def _large(bench: Bench) -> Iterator[dict[str, object]]:
    seen = bench.play("play(200_000, 2_000, 20)")
    yield _row("200 kB answer, longest browser task while it streams", _longest(seen), "ms", 100)
    yield _row(
        "200 kB answer, longest browser task when the bundle takes its place", _longest(seen, end=True), "ms", 100
    )
    seen = bench.play("play_code(60_000, 1_500, 15)")
    yield _row("60 kB code block, longest browser task", max(_longest(seen), _longest(seen, end=True)), "ms", 100)


def _many(bench: Bench) -> Iterator[dict[str, object]]:
    seen = bench.play("play_many(8, 12_000, 800, 10)")
    name = "8 streams in one cell, frames a second of the slowest"
    yield _row(name, seen["fewest_frames"] / 10, "/s", 10, most=False)


def _peers(bench: Bench) -> Iterator[dict[str, object]]:
    seen = bench.play(f"play({CHARS}, {DELTAS}, {SECONDS}, peers=True)", patience_s=180)
    yield _row("update_display(Markdown) at 10/s, bytes on the wire ÷ text", seen["bytes"] / CHARS, "×", None)
    yield _row(
        "update_display(Markdown) at 10/s, longest browser task",
        max(_longest(seen), _longest(seen, end=True)),
        "ms",
        None,
    )
    yield _row("update_display(Markdown) at 10/s, sum of long tasks", sum(ms for _, ms in seen["tasks"]), "ms", None)
    yield _row("update_display(Markdown) at 10/s, kernel CPU", seen["cpu_s"], "s", None)
    last_ms = (seen["last"] - seen["last_sent"]) * 1e3
    yield _row("update_display(Markdown) at 10/s, last token on screen", last_ms, "ms", None)


def _longest(seen: dict[str, Any], *, end: bool = False) -> float:
    """Milliseconds of the longest task before, or after, the view is closed (half a second after the last piece)."""
    closed = seen["last_sent"] + 0.45
    return max((ms for when, ms in seen["tasks"] if (when >= closed) == end), default=0.0)


def _row(name: str, value: float, unit: str, target: float | None, *, most: bool = True) -> dict[str, object]:
    ok = target is None or (value <= target if most else value >= target)
    return {"name": name, "value": value, "unit": unit, "target": target, "ok": ok}


# A notebook in a browser ----------------------------------------------------------------------------------------------


class Bench:
    """Plays one cell at a time, each in a page and a kernel of its own."""

    def __init__(self, lab: Lab, folder: Path, browser: Browser) -> None:
        self._lab = lab
        self._folder = folder
        self._browser = browser
        self._count = 0

    def play(self, cell: str, *, stop_after_ms: float | None = None, patience_s: float = 60) -> dict[str, Any]:
        """What was seen of the cell, in the browser and in the kernel (which prints it as JSON)."""
        context = self._browser.new_context(viewport={"width": 1200, "height": 900})
        try:
            return self._play(context.new_page(), cell, stop_after_ms, patience_s * 1000)
        finally:
            context.close()

    def _play(self, page: Page, cell: str, stop_after_ms: float | None, patience_ms: float) -> dict[str, Any]:
        traffic = {"bytes": 0, "messages": 0}
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: _count(traffic, data)))
        self._open(page, cell)
        page.evaluate(_WATCH)
        traffic.update(bytes=0, messages=0)
        page.keyboard.press("Control+Enter")  # Shift would have JupyterLab make another cell, which takes it 100 ms
        clicked = self._stop(page, stop_after_ms) if stop_after_ms else 0.0
        page.wait_for_function("() => window.seen.idle", timeout=patience_ms, polling=200)
        page.wait_for_timeout(1_000)  # the browser may still be drawing
        told = json.loads(page.locator(".jp-OutputArea-output[data-mime-type$=stdout]").last.inner_text())
        return {**told, **page.evaluate("() => window.seen"), **traffic, "clicked": clicked}

    def _open(self, page: Page, cell: str) -> None:
        self._count += 1
        name = f"bench-{self._count}.ipynb"
        (self._folder / name).write_text(json.dumps(_notebook(PLAYER.read_text("utf-8"), cell)))
        page.goto(self._lab.url(name) + "&reset")
        page.wait_for_selector("text=| Idle", timeout=60_000)
        page.wait_for_timeout(1_000)  # idle is said a little before the kernel takes cells
        page.click(".jp-CodeCell >> nth=0")
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".jp-InputPrompt:text('[1]:')", timeout=60_000)
        page.wait_for_timeout(500)

    def _stop(self, page: Page, after_ms: float) -> float:
        page.wait_for_selector(".llmnb-stop")
        page.wait_for_timeout(after_ms)
        script = "() => { document.querySelector('.llmnb-stop').click(); return Date.now() / 1000; }"
        return float(page.evaluate(script))


def _count(traffic: dict[str, int], data: str | bytes) -> None:
    traffic["bytes"] += len(data) if isinstance(data, bytes) else len(data.encode())
    traffic["messages"] += 1


def _notebook(*sources: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "id": f"cell-{number}", "source": source} for number, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


@contextmanager
def _jupyter() -> Iterator[tuple[Lab, Path]]:
    from llmnb.demo.lab import Lab

    with tempfile.TemporaryDirectory(prefix="llmnb-bench-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        os.environ["LLMNB_HOME"] = str(Path(scratch) / "llmnb")
        lab = Lab(folder, Path(scratch) / "jupyter")
        try:
            lab.wait()
            yield lab, folder
        finally:
            lab.stop()


@contextmanager
def _chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-proxy-server"])
        yield browser
        browser.close()
