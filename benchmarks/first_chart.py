"""From `llmnb dashboard` to the first chart in a real browser: a new server, and a browser that has nothing of it yet.

Chromium runs already, as the browser of whoever types the command does. The middle of three; the ledger is that of
`dashboard_pages`, and is read for the first time by each server.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ledger_write import Row
from benchmarks.synthetic_ledger import ZONE, ledger_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROWS = 500_000
RUNS = 3
LONGEST_S = 4.0
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-background-networking", "--no-first-run", "--no-proxy-server"]


def run(rows: int = ROWS, folder: Path | None = None) -> list[Row]:
    """The measurements on a ledger of so many rows; none without a Chromium."""
    chromium = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return []
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        os.environ |= {"LLMNB_HOME": home, "LLMNB_TIMEZONE": ZONE}
        path = ledger_of(Path(home) if folder is None else folder, rows)
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        took = statistics.median(_first_chart_s(browser, path) for _ in range(RUNS))
        browser.close()
    row: Row = {
        "name": "first chart in a browser, cold",
        "value": took,
        "unit": "s",
        "target": LONGEST_S,
        "ok": took <= LONGEST_S,
    }
    return [row]


def _first_chart_s(browser: Browser, path: Path) -> float:
    from llmnb.commands.dashboard_launcher import launch

    context = browser.new_context()  # with no cache
    begun = time.perf_counter()
    with launch(ledger=path) as running:
        page = context.new_page()
        page.goto(running.url)
        page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg)").first.wait_for(timeout=60_000)
        took = time.perf_counter() - begun
    context.close()
    return took
