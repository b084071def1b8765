"""A large ledger: the first screen of the dashboard, writes with their share of folding, a rebuild, eight writers.

`python -m benchmarks ledger --rows 10_000_000 --folder DIR` builds the ledger once, in minutes, and finds it there the
next time. What is measured is written into it and taken out again.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.ledger_write import US, Row, call
from benchmarks.synthetic_ledger import ZONE, ledger_of
from llmnb import ledger as ledger_room
from llmnb.ledger import Ledger, upkeep
from llmnb.ledger.connection import open_writer
from llmnb.ledger.fold import Folder
from llmnb.ledger.zones import reporting_zone
from llmnb.settings import Settings

ROWS = 500_000
WRITES = 20_000
TO_FOLD = 12_000
PROCESSES = 8
WRITES_EACH = 2_000
SCREENS = 7
MB = 1_024  # the kernel tells kilobytes
SETTINGS = Settings(timezone=ZONE)
Verdict = tuple[str, float, str, float | None]
"""What, how much, of what, and what it may be at most; negative: at least."""


def run(rows: int = ROWS, folder: Path | None = None) -> list[Row]:
    """The measurements on a ledger of so many rows."""
    if folder is not None:
        return _measured(ledger_of(folder, rows))
    with tempfile.TemporaryDirectory() as found:
        return _measured(ledger_of(Path(found), rows))


def _measured(path: Path) -> list[Row]:
    verdicts = [*first_screen(path), *writes(path), *many_writers(path), *rebuild(path)]
    return [
        {
            "name": name,
            "value": value,
            "unit": unit,
            "target": None if target is None else abs(target),
            "ok": target is None or (value >= -target if target <= 0 else value <= target),
        }
        for name, value, unit, target in verdicts
    ]


def first_screen(path: Path) -> list[Verdict]:
    """All that the dashboard asks the ledger before its first page stands, in a process of its own."""
    found = _in_another(("--screen", str(path)))[0]
    return [
        ("first screen, 30 days", found["plain_ms"], "ms", 50.0),
        ("first screen, 90 days, one project", found["project_ms"], "ms", 250.0),
        ("first screen, 90 days, one user", found["user_ms"], "ms", 250.0),
        ("memory of that process at most", found["peak_mb"], "MB", 350.0),
    ]


def writes(path: Path) -> list[Verdict]:
    """Writes one by one, with the folds that fall to the process, and the write lock as folds hold it."""
    ledger = Ledger(path)
    keeper, times = upkeep.Upkeep(lambda: ledger, SETTINGS), list[float]()
    begin = time.perf_counter()
    for number in range(WRITES):
        row = call(number)
        begun = time.perf_counter()
        ledger.write(row)
        times.append((time.perf_counter() - begun) * US)
        keeper.wrote(1)
    mean_us = (time.perf_counter() - begin) / WRITES * US
    upkeep.fold(ledger, SETTINGS)
    ledger.write_all([(call(number), ()) for number in range(TO_FOLD)])
    with closing(open_writer(path)) as connection:
        folder = Folder(connection, reporting_zone(SETTINGS))
        folder.fold_all()
    _take_out(path)
    ledger.close()
    return [
        ("ledger write, p50", statistics.median(times), "µs", 50.0),
        ("ledger write with its share of folding, mean", mean_us, "µs", 200.0),
        ("write lock as a fold holds it, at most", folder.longest_lock_s * 1e3, "ms", 15.0),
    ]


def rebuild(path: Path) -> list[Verdict]:
    """All roll-ups made anew."""
    ledger, begin = Ledger(path), time.perf_counter()
    *_, rows = upkeep.rebuild(ledger, SETTINGS)
    per_s = rows / (time.perf_counter() - begin)
    ledger.close()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
    return [
        ("ledger rebuild", per_s, "rows/s", -100_000.0),
        ("memory of the process that rebuilds, at most", peak_mb, "MB", None),
    ]


def many_writers(path: Path) -> list[Verdict]:
    """Processes that write as fast as they can, each row a transaction of its own."""
    found = _in_another(*[("--write", str(path), str(number)) for number in range(PROCESSES)])
    times = [number for one in found for number in one["times_us"]]
    with closing(open_writer(path)) as connection:
        kept = connection.execute("SELECT count(*) FROM calls WHERE uid GLOB '*-bench-w*'").fetchone()[0]
    _take_out(path)
    wanted = PROCESSES * WRITES_EACH
    p99_ms = statistics.quantiles(times, n=100)[98] / 1e3
    return [
        (f"rows lost by {PROCESSES} writers of {WRITES_EACH:,}", wanted - kept, "rows", 0.0),
        (f"write of {PROCESSES} writers, p99", p99_ms, "ms", 25.0),
        (f"write of {PROCESSES} writers, slowest", max(times) / 1e3, "ms", None),
    ]


# In processes of their own --------------------------------------------------------------------------------------------


def _in_another(*commands: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each of these runs of this module prints; they begin together, once all of them are ready."""
    command = [sys.executable, "-m", "benchmarks.ledger"]
    running = [
        subprocess.Popen([*command, *one], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in commands
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def _ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _write(path: Path, name: str) -> dict[str, Any]:
    ledger, times = Ledger(path), list[float]()
    keeper = upkeep.Upkeep(lambda: ledger, SETTINGS)
    rows = [call(number, f"bench-w{name}") for number in range(WRITES_EACH)]
    _ready()
    for row in rows:
        begin = time.perf_counter()
        ledger.write(row)
        times.append((time.perf_counter() - begin) * US)
        keeper.wrote(1)
    return {"times_us": times}


def _screen(path: Path) -> dict[str, Any]:
    os.environ |= {"LLMNB_STORE_URL": f"sqlite:///{path.absolute()}", "LLMNB_TIMEZONE": ZONE}
    logging.disable()  # Streamlit misses its server
    sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))
    books, filters, periods = (importlib.import_module(name) for name in ("books", "filters", "period"))
    now = ledger_room.calls(limit=1)["ts"].iloc[0].to_pydatetime()

    def screen_ms(preset: str, where: dict[str, list[str]]) -> float:
        chosen = filters.Filters(periods.period_of(preset, (), now=now), where)
        times: list[float] = []
        for _ in range(SCREENS):
            begin = time.perf_counter()
            books.is_empty()
            books.choices()
            books.overview(chosen)
            books.recent(chosen, 12)
            times.append((time.perf_counter() - begin) * 1e3)
        return statistics.median(times)

    _ready()
    return {
        "plain_ms": screen_ms("30d", {}),
        "project_ms": screen_ms("90d", {"project": ["thesis"]}),
        "user_ms": screen_ms("90d", {"user": ["ann"]}),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB,
    }


def _take_out(path: Path) -> None:
    """Deletes the calls that were measured, so that the ledger is as it was."""
    with closing(open_writer(path)) as connection:
        connection.execute(
            "DELETE FROM calls WHERE id > (SELECT max(id) FROM calls WHERE request_id GLOB 'req_011CU0*')"
        )
        Folder(connection, reporting_zone(SETTINGS), insists=True).fold_all()


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    print(json.dumps(_screen(Path(where)) if what == "--screen" else _write(Path(where), *more)))
