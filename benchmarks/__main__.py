"""Runs every benchmark and prints one table; `--json` for a machine, a name for one of them.

Each figure that names a target is a ratio against the raw SDK, or an absolute time where the issue is one of our own;
on a busy machine ratios hold where times drift.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "imports",
    "calls",
    "cache",
    "ledger_write",
    "ledger",
    "dashboard_pages",
    "first_chart",
    "postgres",
    "live_view",
    "token_counts",
    "pacing",
    "map",
)
OF_A_LEDGER = ("ledger", "dashboard_pages", "first_chart")
OF_ROWS = (*OF_A_LEDGER, "map")


def main(arguments: list[str]) -> int:
    """Runs what is asked for; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS), metavar="name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, help="of the synthetic ledger, or of the long run of map")
    parser.add_argument("--live-rows", type=int, help="only the long run of map, with so many rows")
    parser.add_argument("--folder", type=Path, help="where synthetic ledgers are kept from run to run")
    given = parser.parse_args(arguments)
    given_rows = {} if given.rows is None else {"rows": given.rows}
    of_ledger = given_rows if given.folder is None else {**given_rows, "folder": given.folder}
    rows: list[dict[str, object]] = []
    if given.live_rows is not None:
        given.names = [name for name in given.names if name != "map"]
        rows += importlib.import_module("benchmarks.map").run(given.live_rows, only_long=True)
    for name in given.names or (BENCHMARKS if given.live_rows is None else ()):
        options = of_ledger if name in OF_A_LEDGER else given_rows if name in OF_ROWS else {}
        rows += importlib.import_module(f"benchmarks.{name}").run(**options)
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows))
    return 0 if all(row["ok"] for row in rows) else 1


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table("what", "measured", "target", "")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:,g}"
        verdict = "" if row["target"] is None else "✓" if row["ok"] else "✗ missed"
        table.add_row(str(row["name"]), f"{row['value']:,.4g} {row['unit']}", target, verdict)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
