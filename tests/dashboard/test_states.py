"""What the page says when there is nothing to draw, or no way to read it."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import DASHBOARD, Fill, Show
from shown import call, exact_of, noon, texts

from llmnb.ledger import connection, migrations
from llmnb.ledger.fold import Folder

ROOMS = ("ledger", "pricing", "settings", "records", "errors", "budgeting", "demo", "places", "passwords")


def test_no_ledger_yet(show: Show, llmnb_home: Path) -> None:
    """Without a ledger the page says what to type, with and without a key, and creates nothing."""
    page = show()
    assert not page.exception
    assert not page.metric
    said = texts(page)
    assert "No calls yet" in said
    assert "llmnb.LLM(" in said
    assert "llmnb demo" in said
    assert str(llmnb_home / "ledger.db") in said
    assert not llmnb_home.exists()


def test_the_first_call_fills_the_page(show: Show, fill: Fill) -> None:
    """The empty page becomes the overview with the first call."""
    page = show()
    fill(call("a", noon(1), cost_nanousd=12_300_000_000))
    page.run()
    assert exact_of(page)["Spend"] == "Exactly $12.300000000."


def test_an_empty_ledger_is_no_ledger(show: Show, fill: Fill) -> None:
    """A ledger that was opened but has no call yet reads the same."""
    fill()
    assert "No calls yet" in texts(show())


def test_corrupt_store(show: Show, llmnb_home: Path) -> None:
    """A file that is no database gives one plain sentence with its path, and a way to try again."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").write_bytes(b"this is no database" * 500)
    page = show()
    assert not page.exception
    assert str(llmnb_home / "ledger.db") in page.error[0].value
    assert "Traceback" not in texts(page)
    (llmnb_home / "ledger.db").unlink()
    page.button[0].click().run()
    assert "No calls yet" in texts(page)


def test_locked_store(show: Show, fill: Fill, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that another program keeps for itself gives a plain sentence, and works again once it is free."""
    fill(call("a", noon(1), cost_nanousd=5))
    copy = llmnb_home / "copy.db"
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{copy}")
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(copy, isolation_level=None)) as hog:
        hog.execute("PRAGMA locking_mode = EXCLUSIVE")
        hog.execute("BEGIN EXCLUSIVE")
        page = show()
        assert not page.exception
        assert "locked" in page.error[0].value
    assert exact_of(page.run())["Spend"] == "Exactly $0.000000005."


def test_store_from_a_newer_version(show: Show, fill: Fill, llmnb_home: Path) -> None:
    """What a newer llmnb wrote is shown as far as it is understood, with a badge that says so."""
    fill(call("a", noon(1), cost_nanousd=5))
    assert "newer ledger" not in texts(show())
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        database.execute("PRAGMA user_version = 999")
    page = show()
    assert "newer ledger" in texts(page)
    assert exact_of(page)["Spend"] == "Exactly $0.000000005."


def test_newer_store_that_is_not_understood(show: Show, fill: Fill, llmnb_home: Path) -> None:
    """Where a newer version renamed what is asked for, there is a sentence and no traceback."""
    fill(call("a", noon(1), cost_nanousd=5))
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        database.execute("ALTER TABLE calls RENAME COLUMN output_tokens TO generated_tokens")
        database.execute("PRAGMA user_version = 999")
        database.commit()
    page = show()
    assert not page.exception
    assert "output_tokens" in page.error[0].value


def test_misspelled_setting(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is refused is told with the nearest one that exists."""
    monkeypatch.setenv("LLMNB_TIMEZON", "UTC")
    page = show()
    assert not page.exception
    assert "did you mean LLMNB_TIMEZONE?" in page.error[0].value


def test_it_only_reads(show: Show, fill: Fill, llmnb_home: Path) -> None:
    """Looking at the page leaves the ledger as it was, byte for byte."""
    fill(call("a", noon(1), cost_nanousd=5))
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        before = list(database.iterdump())
    assert show().metric
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        assert list(database.iterdump()) == before


def test_the_dashboard_imports_only_the_reading_rooms() -> None:
    """Of llmnb it names the rooms that read, what sets a budget, and the demo's invented calls; never the SDK."""
    for file in DASHBOARD.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                assert not name.startswith("anthropic"), file
                if name.startswith("llmnb"):
                    assert name.split(".")[1] in ROOMS, (file, name)


def test_slow_imports_stay_out() -> None:
    """Neither the SDK nor Altair is imported by the pages' modules: seconds before the first chart."""
    check = (
        "import sys, books, charts, clock, filters, states, tables; print({'anthropic', 'altair'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=DASHBOARD, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


PAGES = ("overview", "models", "caching", "projects", "calls", "errors", "budgets", "prices")


@pytest.mark.parametrize("page", PAGES)
def test_an_older_ledger_is_shown(show: Show, llmnb_home: Path, page: str) -> None:
    """A ledger from before roll-ups and budgets is read as it is, and not migrated by a reader."""
    llmnb_home.mkdir()
    with closing(sqlite3.connect(llmnb_home / "ledger.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, ran_at REAL NOT NULL)")
        migrations.STEPS[0](database)
        database.execute("PRAGMA user_version = 1")
        row = {**vars(call("a", noon(1), cost_nanousd=5, saved_nanousd=1, cache_read_tokens=3))}
        there = [name for _, name, *_ in database.execute("PRAGMA table_info(calls)") if name in row]
        database.execute(
            f"INSERT INTO calls ({', '.join(there)}) VALUES ({', '.join('?' * len(there))})",
            [row[name] for name in there],
        )
    shown = show(page)
    assert not shown.exception
    assert not shown.error
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


def test_what_may_not_be_written_says_so(show: Show, fill: Fill, llmnb_home: Path) -> None:
    """Setting a budget in a ledger that a newer version writes is a sentence; the page stays."""
    fill(call("a", noon(1), cost_nanousd=5))
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as database:
        database.execute("PRAGMA user_version = 999")
    page = show("budgets")
    page.text_input(key="budget-limit").set_value("1")
    (button,) = [one for one in page.button if one.label == "Set budget"]
    page = button.click().run()
    assert not page.exception
    assert "newer llmnb" in page.error[0].value


def test_a_new_timezone_shows_once_its_sums_are_whole(
    show: Show, fill: Fill, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the page speaks in the one before, says so, and how far it is."""
    fill(call("a", noon(1), cost_nanousd=12_300_000_000))
    with closing(connection.open_writer(llmnb_home / "ledger.db")) as writer:
        Folder(writer, ZoneInfo("UTC")).fold_all()
        monkeypatch.setenv("LLMNB_TIMEZONE", "Asia/Tokyo")
        folder = Folder(writer, ZoneInfo("Asia/Tokyo"), insists=True, few_rows=-1)
        before = show()
        assert not before.exception
        assert "sums made anew: 0%" in texts(before)
        assert "· UTC" in texts(before)
        folder.fold_all()
    after = show()
    assert "sums made anew" not in texts(after)
    assert "Asia/Tokyo (UTC+09:00)" in texts(after)
    assert exact_of(before)["Spend"] == exact_of(after)["Spend"] == "Exactly $12.300000000."
