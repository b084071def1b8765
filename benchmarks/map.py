"""What `llm.map` makes of a server: its rate against a bare gather over the SDK, its memory, and how fast it resumes.

The server is a process of its own that answers with the same bytes (`lean_server`), and each contestant is one, too
(`map_contestant`); they take turns, and the median of the ratios of a turn is given. `--rows` is how many rows the long
run has, and `--live-rows` the same without all the rest: a million take some 20 minutes, and 3 GB of disk.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CALLS, TURNS = 5_000, 3
ROWS = 100_000
FEW = 20_000
MORE_MB, MOST_MB = 40, 600
RESUMED_S = 5.0
DRAWN = 0.01


def run(rows: int = ROWS, *, only_long: bool = False) -> list[dict[str, object]]:
    """The measurements."""
    with tempfile.TemporaryDirectory() as home, server() as (url, pid):
        os.environ.update(ANTHROPIC_API_KEY="sk-ant-benchmark", LLMNB_DISPLAY="none")
        os.environ["LLMNB_HOME"] = home
        if only_long:
            return list(_long(url, rows, Path(home)))
        return [*_rates(url, pid), *_progress(url, Path(home)), *_long(url, rows, Path(home))]


def _rates(url: str, server_pid: int) -> Iterator[dict[str, object]]:
    with ExitStack() as stack:
        names = ("default", "aiohttp", "same", "map", "map_day")
        contestants = {name: stack.enter_context(Contestant(name)) for name in names}
        for each in contestants.values():
            each.ask(f"{url}/0", 200, 64)  # whatever is made on first use
        before = _cpu_s(server_pid)
        took = _in_turn(contestants, f"{url}/0", 64)
        served = _cpu_s(server_pid) - before
        what = "zero-delay calls at 64, map ÷ a bare gather"
        yield _compared(took, "map", "aiohttp", f"{what} over the SDK's aiohttp", 0.85)
        yield _compared(took, "map", "same", f"{what} over the same client of aiohttp", 0.85)
        yield _compared(took, "map_day", "aiohttp", "the same with a budget of the day, too ÷ the SDK's aiohttp", 0.85)
        yield _compared(took, "map", "default", f"{what} over the default AsyncAnthropic", None)
        more = [took[name][0]["peak_mb"] for name in ("map", "aiohttp")]  # of the first turn: later ones add their own
        yield figure(f"peak memory of {CALLS:,} calls, map − bare gather", more[0] - more[1], "MB", most=MORE_MB)
        yield figure("peak memory, map", more[0], "MB")
        for name, turns in took.items():
            cpu = min(turn["cpu_s"] for turn in turns) / CALLS
            yield figure(f"CPU of a call, {name}", cpu * 1e6, "µs")
            yield figure(f"rate at 64, {name}", max(CALLS / turn["wall_s"] for turn in turns), "calls/s")
        yield figure("most that the server could answer", CALLS * TURNS * len(contestants) / served, "calls/s")
        pair = {name: contestants[name] for name in ("default", "map")}
        for delay_ms, target in ((0, 2.0), (200, 1.4)):
            took = _in_turn(pair, f"{url}/{delay_ms}", 256)
            what = f"calls of {delay_ms} ms at 256, map ÷ a bare gather over the default AsyncAnthropic"
            yield _compared(took, "map", "default", what, target)
            for name, turns in took.items():
                rate = max(CALLS / turn["wall_s"] for turn in turns)
                yield figure(f"rate at 256, {delay_ms} ms, {name}", rate, "calls/s")


def _in_turn(contestants: dict[str, Contestant], url: str, concurrency: int) -> dict[str, list[dict[str, float]]]:
    took: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(TURNS):
        for name, contestant in contestants.items():
            took[name].append(contestant.ask(url, CALLS, concurrency))
    return took


def _compared(
    took: dict[str, list[dict[str, float]]], ours: str, theirs: str, name: str, target: float | None
) -> dict[str, object]:
    ratios = [other["wall_s"] / own["wall_s"] for own, other in zip(took[ours], took[theirs], strict=True)]
    return figure(name, statistics.median(ratios), "×", least=target)


# A long run -----------------------------------------------------------------------------------------------------------


def _long(url: str, rows: int, folder: Path) -> Iterator[dict[str, object]]:
    """A Parquet file to another one, by map in a process of its own, and the same again by another one."""
    few, many = min(FEW, rows // 2), rows
    _write(folder / "few.parquet", few)
    _write(folder / "many.parquet", many)
    small = _file_through_map(f"{url}/0", folder / "few.parquet")
    first, again = (_file_through_map(f"{url}/0", folder / "many.parquet") for _ in range(2))
    yield figure(f"peak memory, {rows:,} live rows from Parquet to Parquet", first["peak_mb"], "MB", most=MOST_MB)
    yield figure(f"the same, {few:,} rows", small["peak_mb"], "MB")
    if rows >= 2 * FEW:  # below, what is made once is more than the rows
        slope = (first["peak_mb"] - small["peak_mb"]) * 2**20 / (many - few)
        yield figure("memory that each row more takes", slope, "bytes")
    yield figure(f"rate, {rows:,} rows", rows / first["wall_s"], "rows/s")
    most = RESUMED_S if rows <= ROWS else None
    yield figure(f"a finished run of {rows:,} rows again", again["wall_s"], "s", most=most)
    yield figure("peak memory of that", again["peak_mb"], "MB")


def _write(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.map_contestant import TEXT

    with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
        for first in range(0, rows, 10_000):
            texts = [f"{row}: {TEXT}" for row in range(first, min(first + 10_000, rows))]
            writer.write_table(pa.table({"text": texts}))


def _file_through_map(url: str, path: Path) -> dict[str, float]:
    code = f"""
import json, sys, time
from pathlib import Path
import pandas, anthropic, llmnb
from benchmarks.map_contestant import ask_all, peak_mb
began = time.perf_counter()
result = ask_all(Path({str(path)!r}), 64, out=Path({str(path)!r}).with_name("out.parquet"))
told = {{"wall_s": time.perf_counter() - began, "peak_mb": peak_mb()}}
print(json.dumps({{**told, "failed": result.status.failed, "rows": result.status.rows}}))
"""
    environment = {**os.environ, "ANTHROPIC_BASE_URL": url, "LLMNB_HOME": f"{path.parent}/{path.stem}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["rows"]
    assert not told["failed"]
    return told


# The display ----------------------------------------------------------------------------------------------------------

_IN_A_KERNEL = """
import os, json, time
from contextlib import contextmanager
os.environ.update({environment})
import pandas as pd
from llmnb.display import run_progress
from benchmarks.map_contestant import TEXT, mapped
spent, plain = [0.0], run_progress.progress

@contextmanager
def timed(**options):
    with plain(**options) as told:
        def tell(status):
            began = time.thread_time()
            told(status)
            spent[0] += time.thread_time() - began
        yield tell

run_progress.progress = timed
frame = pd.DataFrame({{"text": [f"shown {{row}}: {{TEXT}}" for row in range({rows})]}})
began = time.perf_counter()
mapped(frame, 64, progress=True)
print(json.dumps(spent[0] / (time.perf_counter() - began)))
"""


def _progress(url: str, folder: Path) -> Iterator[dict[str, object]]:
    """How much of one core the display takes in a real kernel, while rows are answered as fast as can be."""
    from jupyter_client.manager import start_new_kernel

    environment = {"ANTHROPIC_BASE_URL": f"{url}/0", "LLMNB_HOME": f"{folder}/shown", "LLMNB_DISPLAY": "widget"}
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(Path(__file__).parents[1]))
    printed: list[str] = []
    drawn = [0]

    def hear(message: dict[str, Any]) -> None:
        kind = message["header"]["msg_type"]
        printed.extend([message["content"]["text"]] if kind == "stream" else [])
        drawn[0] += kind in ("display_data", "update_display_data", "comm_msg")

    try:
        code = _IN_A_KERNEL.format(environment=environment, rows=CALLS)
        answer = client.execute_interactive(code, timeout=600, output_hook=hear)
        assert answer["content"]["status"] == "ok", answer["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert drawn[0]
    share = json.loads("".join(printed).strip().splitlines()[-1])
    yield figure("CPU of the progress display ÷ time of the run", share, "", most=DRAWN)


# Processes ------------------------------------------------------------------------------------------------------------


class Contestant:
    """One of `map_contestant`, which asks when it is told to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._round = 0

    def __enter__(self) -> Contestant:
        command = [sys.executable, "-m", "benchmarks.map_contestant", self._name]
        home = f"{os.environ['LLMNB_HOME']}/{self._name}"  # each on a ledger and a cache of its own
        environment = {**os.environ, "LLMNB_HOME": home}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, url: str, rows: int, concurrency: int) -> dict[str, float]:
        """How long it took for so many rows, none of which was asked before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._round += 1
        told = {"url": url, "rows": rows, "concurrency": concurrency, "round": self._round}
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The address of a server whose path begins with how many milliseconds an answer takes, and its process."""
    command = [sys.executable, "-m", "benchmarks.lean_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figure(
    name: str, value: float, unit: str, *, least: float | None = None, most: float | None = None
) -> dict[str, object]:
    """A line of the table; with a target, which it has to reach or may not pass."""
    ok = (least is None or value >= least) and (most is None or value <= most)
    name = name if least is None else f"{name} (at least)"
    return {"name": name, "value": value, "unit": unit, "target": most if least is None else least, "ok": ok}
