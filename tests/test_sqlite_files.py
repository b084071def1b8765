"""SQLite's files: making one harms nobody who has it open, and a replaced one is noticed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmnb import sqlite_files


def test_making_a_file_that_is_there_takes_no_locks_away(tmp_path: Path) -> None:
    """To open and close it would: another process then deletes the log under the connections of this one."""
    path = tmp_path / "a.db"
    sqlite_files.create(path)
    ours = sqlite3.connect(path, isolation_level=None)
    ours.execute("PRAGMA journal_mode = WAL")
    ours.execute("CREATE TABLE t (x)")
    sqlite_files.create(path)
    theirs = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT * FROM t').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", theirs], check=True, timeout=60)
    ours.execute("INSERT INTO t VALUES (1)")
    count = f"import sqlite3; print(sqlite3.connect({str(path)!r}).execute('SELECT count(*) FROM t').fetchone()[0])"
    told = subprocess.run([sys.executable, "-c", count], check=True, timeout=60, capture_output=True, text=True)
    ours.close()
    assert told.stdout.strip() == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """With the folders above it."""
    path = tmp_path / "a" / "b.db"
    sqlite_files.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_replaced_file_is_another_one(tmp_path: Path) -> None:
    """Also under the same name."""
    path = tmp_path / "a.db"
    assert sqlite_files.identity(path) is None
    path.write_bytes(b"one")
    before = sqlite_files.identity(path)
    (tmp_path / "b.db").write_bytes(b"two")
    (tmp_path / "b.db").rename(path)
    assert sqlite_files.identity(path) not in (None, before)


def test_damage_is_told_from_trouble(tmp_path: Path) -> None:
    """No file is sound, random bytes are damaged, a locked one is not."""
    path = tmp_path / "a.db"
    assert not sqlite_files.is_damaged(path)
    path.write_bytes(b"no database at all" * 1_000)
    assert sqlite_files.is_damaged(path)
    sqlite_files.remove(path)
    assert not path.exists()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert not sqlite_files.is_damaged(path)
    assert not sqlite_files.is_corrupt(ValueError())


@pytest.mark.parametrize("goes", [True, False], ids=["for a moment", "for good"])
def test_what_looks_like_a_crash_while_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes: bool
) -> None:
    """A reader that comes between a commit and the end of its journal must not stay blind for what is written next."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (x)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    journal = Path(f"{path}-journal")
    journal.write_bytes(b"\xd9" * 600)  # nobody holds a lock: a reader takes it for one of a process that died

    def pause(seconds: float) -> None:
        if goes:
            journal.unlink(missing_ok=True)

    monkeypatch.setattr(sqlite_files, "time", SimpleNamespace(sleep=pause))
    with closing(sqlite_files.open_reader(path, 1.0)) as reader:
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
        journal.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("INSERT INTO t VALUES (2)")
            writer.commit()
        assert reader.execute("SELECT count(*) FROM t").fetchone() == ((2,) if goes else (1,))
