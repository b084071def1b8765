"""Runs every benchmark and prints one table; `--json` for a machine, a name for one of them.

Each figure that names a target is a ratio against the raw SDK, or an absolute time where the issue is one of our own;
on a busy machine ratios hold where times drift.
"""

from __future__ import annotations

import importlib
import json
import sys

from rich.console import Console
from rich.table import Table

BENCHMARKS = ("imports", "calls", "cache", "ledger_write", "live_view", "token_counts")


def main(arguments: list[str]) -> int:
    """Runs what is asked for; 1 when a target is missed."""
    names = [name for name in arguments if not name.startswith("-")] or list(BENCHMARKS)
    rows = [row for name in names for row in importlib.import_module(f"benchmarks.{name}").run()]
    if "--json" in arguments:
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
