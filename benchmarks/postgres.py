"""What a team's ledger takes: rows a second into PostgreSQL, from several processes at once, each through its queue.

A server is started for it, with its usual durability (fsync on). `run()` gives the rows for the common table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.ledger_write import call
from llmnb.ledger import books, calls, new_ledger
from llmnb.places import PostgresPlace
from tests.postgres_server import PostgresServer

PROCESSES = 4
CALLS_EACH = 10_000
BUDGET = "INSERT INTO llmnb.budgets (per, unit, allowance, action, unpriced) VALUES ('day', 'usd', 1000, 'warn', '[]')"
TARGET = 5_000
"""Rows a second."""

Row = dict[str, object]


def run() -> list[Row]:
    """The measurements of this room."""
    server = PostgresServer(fsync=True)
    try:
        place = PostgresPlace(server.new_database())
        new_ledger(place).close()
        rate, slowest_us = rows_a_second(place)
        with_budget = PostgresPlace(server.new_database())
        new_ledger(with_budget).close()
        server.execute(BUDGET, with_budget.url)
        with_budget_rate, _ = rows_a_second(with_budget)
    finally:
        server.remove()
    what = f"rows into PostgreSQL, {PROCESSES} processes × {CALLS_EACH:,} calls"
    slowest = "time of one record, mean of the slowest process"
    return [
        {"name": what, "value": rate, "unit": "rows/s", "target": TARGET, "ok": rate >= TARGET},
        {"name": "the same under a budget", "value": with_budget_rate, "unit": "rows/s", "target": None, "ok": True},
        {"name": slowest, "value": slowest_us, "unit": "µs", "target": None, "ok": True},
    ]


def rows_a_second(place: PostgresPlace) -> tuple[float, float]:
    """Rows by the time from the first record of any process until all are committed; and µs a record."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LLMNB_HOME": home, "LLMNB_STORE_URL": place.url}
        command = [sys.executable, "-m", "benchmarks.postgres", "--write"]
        running = [
            subprocess.Popen(
                [*command, str(number)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for number in range(PROCESSES)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate()[0].split() for process in running]
    kept = len(calls(path=place))
    if kept != PROCESSES * CALLS_EACH:
        raise RuntimeError(f"{kept:,} rows of {PROCESSES * CALLS_EACH:,} are there")
    begun, ended = min(float(line[0]) for line in told), max(float(line[1]) for line in told)
    return kept / (ended - begun), max(float(line[2]) for line in told)


def _write(name: str) -> None:
    rows = [call(number, name) for number in range(CALLS_EACH)]
    kept = books()
    kept.record(call(0, f"{name}-first"))
    kept.settle()  # connected, and what is imported on first use is
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.time()
    for row in rows[1:]:
        kept.record(row)
    recorded = time.time()
    kept.settle()
    print(begun, time.time(), (recorded - begun) / len(rows) * 1e6)


if __name__ == "__main__":
    _write(sys.argv[2])
