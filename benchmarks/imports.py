"""What `import llmnb` costs over an empty Python, and what it must not import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
HEAVY = ("anthropic", "pandas", "ipywidgets", "streamlit", "IPython", "pydantic")


def run() -> list[dict[str, object]]:
    """The measurements."""
    empty, ours = [], []
    for _ in range(RUNS):  # in turn, so that a drift of the machine hits both
        empty.append(_seconds("pass"))
        ours.append(_seconds("import llmnb"))
    over_ms = (statistics.median(ours) - statistics.median(empty)) * 1000
    loaded = _loaded()
    name = "import llmnb, over an empty Python"
    return [
        {"name": name, "value": over_ms, "unit": "ms", "target": 60, "ok": over_ms <= 60},
        {"name": "heavy packages it imports", "value": len(loaded), "unit": "", "target": 0, "ok": not loaded},
    ]


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def _loaded() -> list[str]:
    code = f"import llmnb, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return eval(done.stdout)  # a list of names, printed by ourselves
