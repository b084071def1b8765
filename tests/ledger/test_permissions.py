"""A store that may not be written: said plainly, read all the same, and no call is harmed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import Books, Ledger, calls

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach, unlike pytest's own."""
    found = Path(tempfile.mkdtemp())
    found.chmod(0o755)
    yield found
    found.chmod(0o700)
    shutil.rmtree(found)


def as_nobody(check: Callable[[], None]) -> None:
    """Runs a check in a child without root's rights, which ignore every mode."""

    def child() -> None:
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        check()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_read_only_ledger_is_read_and_not_written(folder: Path, make_call) -> None:
    """Writing says which setting helps; reading needs no write permission, not even for SQLite's own files."""
    path = folder / "ledger.db"
    ledger = Ledger(path)
    ledger.write(make_call(uid="a"))
    ledger.close()
    calls(path=path)  # pandas must be loaded before the rights are gone
    path.chmod(0o444)
    folder.chmod(0o555)
    before = sorted(file.name for file in folder.iterdir())

    def check() -> None:
        assert calls(path=path)["uid"].tolist() == ["a"]
        with pytest.raises(StoreError, match=r"cannot be used.*LLMNB_HOME"):
            Ledger(path)

    as_nobody(check)
    assert sorted(file.name for file in folder.iterdir()) == before


def test_a_home_that_may_not_be_made_harms_no_call(folder: Path, make_call) -> None:
    """Neither ledger nor spool can be made: record warns, keeps the row in memory, and returns."""
    folder.chmod(0o555)

    def check() -> None:
        keeper = Books(lambda: Ledger(folder / "home" / "ledger.db"), folder / "home" / "spool")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            keeper.record(make_call())
            keeper.record(make_call())
        assert keeper.waiting == 2
        assert [("LLMNB_HOME" in str(one.message)) for one in heard] == [True]  # ledger and spool in one

    as_nobody(check)
