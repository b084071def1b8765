"""The schema: numbered, transactional, and never older or newer than the code thinks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from llmnb.errors import StoreError, StoreReadOnly
from llmnb.ledger import Ledger, calls, migrations
from llmnb.records import Call


def test_a_new_ledger_records_which_migrations_ran(tmp_path: Path) -> None:
    """user_version and the migrations table agree on the latest number."""
    Ledger(tmp_path / "a.db").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT number FROM migrations").fetchall() == [
            (number,) for number in range(1, migrations.LATEST + 1)
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (migrations.LATEST,)


def test_every_field_of_a_call_has_a_column(tmp_path: Path) -> None:
    """The table holds exactly an id and the fields of `Call`, in their order."""
    Ledger(tmp_path / "a.db").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(calls)")]
    assert columns == ["id", *(f.name for f in fields(Call))]


def test_an_older_ledger_is_read_as_it_is_and_migrated_by_the_next_write(tmp_path: Path, make_call) -> None:
    """Columns it lacks are missing values; a write brings it up to date and keeps its rows."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, ran_at REAL NOT NULL)")
        migrations.STEPS[0](connection)  # pyright: ignore[reportPrivateUsage]
        connection.execute("INSERT INTO migrations VALUES (1, 0)")
        connection.execute("PRAGMA user_version = 1")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(calls)")][1:]
        values = [getattr(make_call(uid="old"), name) for name in columns]
        connection.execute(f"INSERT INTO calls ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)
    assert calls(path=path)["estimated_input_tokens"].isna().all()
    Ledger(path).write(make_call(uid="new", estimated_input_tokens=7, estimated_by="characters"))
    assert calls(path=path).set_index("uid")["estimated_input_tokens"].fillna(0).to_dict() == {"old": 0, "new": 7}


def test_a_migration_that_fails_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a migration is rolled back together with the record that it ran."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (x)")
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations, "STEPS", [half])
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        with pytest.raises(RuntimeError, match="power cut"):
            migrations.migrate(connection)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert migrations.version(connection) == 0


def test_a_newer_ledger_is_read_and_not_written(ledger: Ledger, make_call) -> None:
    """Opening it for writing says that it is read-only and what to do; reading goes on."""
    ledger.write(make_call(uid="old"))
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
        connection.execute("ALTER TABLE calls ADD COLUMN invention TEXT")
    with pytest.raises(StoreReadOnly, match=r"newer llmnb.*can be read but not written.*pip install -U"):
        ledger.write(make_call())
    assert list(calls(path=ledger.path)["uid"]) == ["old"]


def test_an_older_ledger_is_read_without_being_migrated(ledger: Ledger, make_call) -> None:
    """A column that is not there yet is missing in every row."""
    ledger.write(make_call(request_id="req_1"))
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("ALTER TABLE calls DROP COLUMN request_id")
    found = calls(path=ledger.path)
    assert found["request_id"].isna().all()
    assert str(found["request_id"].dtype) == "string"


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A path that names somebody else's database is refused and the file unchanged."""
    path = tmp_path / "firefox.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="some other program"):
        Ledger(path)
    assert path.read_bytes() == before
