"""Each page of the dashboard as Streamlit runs it, over a large ledger: how long the script takes, and what it needs.

`python -m benchmarks dashboard_pages --rows 10_000_000 --folder DIR` shares its ledger with `ledger`. A page is run in
a process of its own, like a server's first visitors: once to import what it needs, then, with nothing remembered of the
ledger, as often as told. What is measured is the fastest of them, the last 30 days, unfiltered.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.ledger_write import Row
from benchmarks.synthetic_ledger import ZONE, ledger_of

ROWS = 500_000
PAGES = ("overview", "models", "caching", "projects", "calls", "errors", "budgets", "prices")
RUNS = 5
LONGEST_MS = 400.0
LARGEST_MB = 350.0


def run(rows: int = ROWS, folder: Path | None = None) -> list[Row]:
    """The measurements on a ledger of so many rows."""
    if folder is not None:
        return _measured(ledger_of(folder, rows))
    with tempfile.TemporaryDirectory() as found:
        return _measured(ledger_of(Path(found), rows))


def _measured(path: Path) -> list[Row]:
    rows, largest = [], 0.0
    for page in PAGES:
        told = _in_a_process(page, path)
        rows.append(_row(f"page {page}, its script", told["ms"], "ms", LONGEST_MS))
        largest = max(largest, told["mb"])
    return [*rows, _row("memory of a process that runs a page, at most", largest, "MB", LARGEST_MB)]


def _row(name: str, value: float, unit: str, target: float) -> Row:
    return {"name": name, "value": value, "unit": unit, "target": target, "ok": value <= target}


def _in_a_process(page: str, path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LLMNB_")},
            "LLMNB_HOME": home,
            "LLMNB_STORE_URL": f"sqlite:///{path}",
            "LLMNB_TIMEZONE": ZONE,
        }
        command = [sys.executable, "-m", "benchmarks.dashboard_pages", page]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _run_page(page: str) -> None:
    """In the child: runs the page, and prints what it took."""
    import time

    import streamlit as st
    from streamlit import config
    from streamlit.components.v2 import manifest_scanner
    from streamlit.testing.v1 import AppTest

    dashboard = Path(__file__).parents[1] / "dashboard"
    sys.path.insert(0, str(dashboard))
    config.set_option("server.address", "127.0.0.1")  # at any other it shows nothing without a password
    # a server looks through all installed packages for components once, the test frame before every run: 150 ms
    manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
    took = []
    for _ in range(RUNS + 1):
        app = AppTest.from_file(dashboard / "app.py", default_timeout=120)
        app.switch_page(f"views/{page}.py")
        app.query_params.update({"period": "30d"})
        st.cache_data.clear()
        start = time.perf_counter()
        app.run()
        took.append((time.perf_counter() - start) * 1_000)
        if app.exception or app.error or not app.title:
            raise RuntimeError(f"{page} does not come: {[*app.exception, *app.error]}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(json.dumps({"ms": min(took[1:]), "mb": peak_mb}))


if __name__ == "__main__":
    _run_page(sys.argv[1])
