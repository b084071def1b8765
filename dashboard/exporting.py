"""The calls that the filter bar chose, as a file for the browser."""

from __future__ import annotations

import tempfile
from pathlib import Path

import books
from filters import Filters

from llmnb import ledger
from llmnb.ledger.export import export

ROWS = 200_000
"""More than this is a file for the command line: the browser's copy is held in memory."""
FORMATS = {"csv": "text/csv", "jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
"""Endings and their media types."""


def is_too_much(chosen: Filters) -> bool:
    """Whether there are more calls than a browser should be handed."""
    period = chosen.period
    return ledger.newest_from(period.since, period.until, ROWS, path=books.location()) is not None


def file_of(chosen: Filters, ending: str) -> bytes:
    """The file, written by `llmnb.ledger.export` as on the command line."""
    with tempfile.TemporaryDirectory(prefix="llmnb-export-") as folder:
        path, period = Path(folder) / f"calls.{ending}", chosen.period
        export(path, since=period.since, until=period.until, where=chosen.where, ledger=books.location())
        return path.read_bytes()
