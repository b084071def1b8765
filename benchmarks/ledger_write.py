"""What a ledger row costs: the time of one write, and whether processes that write at once lose any.

`run()` gives the rows for the common table; `python benchmarks/ledger_write.py` prints them.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from llmnb.ledger import Ledger
from llmnb.pricing import cost_of
from llmnb.records import Call, Usage

WRITES = 5_000
PROCESSES = 4
CALLS_EACH = 1_000
US = 1e6

Row = dict[str, object]
"""name, value, unit, target (None: for information), ok."""


def call(number: int, name: str = "bench") -> Call:
    """A call as a notebook makes it, with every usual field filled."""
    return Call(
        uid=f"{time.time_ns():016x}-{name}-{number}",
        ts=time.time_ns() // 1000,
        model_requested="claude-sonnet-5-5",
        project="thesis",
        session="laptop:4711:1795600000:ab12",
        user="ann",
        notebook="analysis.ipynb",
        cell="3f2c9a10-8d7e-4b57-9a52-3c1e1a7f0b11",
        model="claude-sonnet-5-5",
        status="ok",
        stop_reason="end_turn",
        stream=True,
        latency_ms=1234.5,
        ttft_ms=321.0,
        input_tokens=1_000,
        cache_read_tokens=2_000,
        output_tokens=500,
        service_tier="standard",
        inference_geo="global",
        cost_nanousd=7_200_000,
        price_id="genai-prices 0.2.3:anthropic/claude-sonnet-5-5",
        request_id="req_011CUxyzABCDEFGHijklmnop",
    )


def run() -> list[Row]:
    """The measurements of this room."""
    with tempfile.TemporaryDirectory() as folder:
        p50_us, p99_us = write_times_us(Path(folder) / "one.db")
        kept = rows_of_processes(Path(folder) / "many.db")
    wanted, cost_us = PROCESSES * CALLS_EACH, pricing_us()
    return [
        {"name": "ledger write, p50", "value": p50_us, "unit": "µs", "target": 50.0, "ok": p50_us <= 50},
        {"name": "ledger write, p99", "value": p99_us, "unit": "µs", "target": None, "ok": True},
        {
            "name": f"rows kept of {PROCESSES} processes × {CALLS_EACH:,} calls",
            "value": kept,
            "unit": "rows",
            "target": wanted,
            "ok": kept == wanted,
        },
        {"name": "cost of a call", "value": cost_us, "unit": "µs", "target": 5.0, "ok": cost_us <= 5},
    ]


def write_times_us(path: Path) -> tuple[float, float]:
    """p50 and p99 of a write, from the call object to the commit."""
    ledger = Ledger(path)
    times: list[float] = []
    for number in range(WRITES):
        row = call(number)
        begin = time.perf_counter()
        ledger.write(row)
        times.append((time.perf_counter() - begin) * US)
    ledger.close()
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def rows_of_processes(path: Path) -> int:
    """How many of the rows that several processes wrote at once are there."""
    command = [sys.executable, str(Path(__file__).resolve()), "--write", str(path)]
    running = [subprocess.Popen([*command, str(number)]) for number in range(PROCESSES)]
    for process in running:
        if process.wait() != 0:
            raise RuntimeError("a writing process failed")
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(DISTINCT uid) FROM calls").fetchone()[0])


def pricing_us() -> float:
    """The mean time of pricing a usage whose rates are known."""
    usage = Usage(input_tokens=1_000, cache_read_tokens=2_000, output_tokens=500)
    cost_of(usage, "claude-sonnet-5-5")
    begin = time.perf_counter()
    for _ in range(20_000):
        cost_of(usage, "claude-sonnet-5-5", service_tier="standard", inference_geo="global")
    return (time.perf_counter() - begin) / 20_000 * US


def _write(path: Path, name: str) -> None:
    ledger = Ledger(path)
    for number in range(CALLS_EACH):
        ledger.write(call(number, name))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        _write(Path(sys.argv[2]), sys.argv[3])
    else:
        for line in run():
            print(line)
