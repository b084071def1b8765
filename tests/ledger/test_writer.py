"""Writing: what is stored, in which files, and that a row is whole or not there."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import Ledger, Store, calls, open_ledger
from llmnb.ledger.connection import reading
from llmnb.ledger.schema import COLUMNS, call_from
from llmnb.places import Place
from llmnb.records import Call, made


def stored(path: Place) -> dict[str, Call]:
    """Every row by its uid, read with plain SQL."""
    with reading(path) as connection:
        assert connection is not None
        return {
            row[0]: call_from(row) for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM calls ORDER BY id")
        }


def test_every_field_comes_back_as_it_was_written(store: Store) -> None:
    """A call with a different value in every field survives the round trip."""
    values = {name: f"text of {name}" for name, kind in Call.__annotations__.items() if "str" in kind}
    values |= {"status": "ok", "source": "replay"}
    numbers = {n: i + 1 for i, (n, kind) in enumerate(Call.__annotations__.items()) if "int" in kind}
    times = {n: i + 0.5 for i, (n, kind) in enumerate(Call.__annotations__.items()) if "float" in kind}
    call = Call(**values, **numbers, **times, is_call=True, stream=True, estimated=True)
    store.write(call)
    assert stored(store.path) == {call.uid: call}


def test_writing_again_updates_the_row_and_keeps_its_place(store: Store, make_call) -> None:
    """The provisional row of a stream becomes the final one, with the same id."""
    first = make_call(status="running", output_tokens=0, cost_nanousd=None)
    store.write(first)
    store.write(make_call())
    store.write(replace(first, status="ok", output_tokens=7, cost_nanousd=70_000))
    with reading(store.path) as connection:
        assert connection is not None
        rows = connection.execute("SELECT id, uid, output_tokens, cost_nanousd FROM calls ORDER BY id").fetchall()
    assert rows[0] == (1, first.uid, 7, 70_000)
    assert len(rows) == 2


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_many_calls_are_written_as_each_alone_would_be(store: Store, make_call, count: int) -> None:
    """In their order, whatever each leaves empty, and as often as they are written."""
    kinds: list[dict[str, Any]] = [{}, {}, {"chat": "c"}, {"cost_nanousd": None, "estimated": True}, {"stream": True}]
    rows = [make_call(**kinds[number // 3 % len(kinds)]) for number in range(count)]
    for _ in range(2):
        store.write_all([(row, ()) for row in rows])
        assert list(stored(store.path).values()) == rows
    emptied = [replace(row, model=None, cost_nanousd=None, chat=None) for row in rows]
    store.write_all([(row, ()) for row in emptied])
    assert list(stored(store.path).values()) == emptied


def test_a_record_made_of_few_fields_is_written_with_the_defaults_of_the_others(store: Store) -> None:
    """Such as the row of an answer, which is made of what is known only."""
    known = {"uid": "a", "ts": 1, "model_requested": "m", "chat": None, "estimated": True}
    store.write(made(Call, dict(known)))
    assert stored(store.path) == {"a": Call(**known)}


def test_children_among_many_calls_stay_with_their_parents(store: Store, make_call) -> None:
    """They are replaced, and stand right after their parent."""
    calls = [make_call(uid=uid) for uid in "abcd"]
    for _ in range(2):
        children = [make_call(parent_uid="b", is_call=False) for _ in range(2)]
        store.write_all([(call, children if call.uid == "b" else ()) for call in calls])
    assert set(stored(store.path)) == {*"abcd", *(child.uid for child in children)}


def test_a_late_running_row_does_not_undo_an_end(store: Store, make_call) -> None:
    """What a spool brings late is older than what is on the books."""
    end = make_call(output_tokens=7)
    store.write(end)
    store.write(replace(end, status="running", output_tokens=0))
    assert stored(store.path)[end.uid] == end


def test_children_are_replaced_with_their_parent(store: Store, make_call) -> None:
    """Only child rows go: a call that names a parent of its own is another call."""
    parent = make_call()
    hop = make_call(parent_uid=parent.uid)
    old, new = (make_call(parent_uid=parent.uid, is_call=False) for _ in range(2))
    store.write(hop)
    store.write(parent, [old])
    store.write(parent, [new])
    assert set(stored(store.path)) == {parent.uid, hop.uid, new.uid}


def test_a_call_and_its_children_are_written_together_or_not_at_all(store: Store, make_call) -> None:
    """A child that cannot be stored takes the parent back with it."""
    with pytest.raises(Exception, match=r"(?i)not[- ]null"):
        store.write(make_call(), [make_call(is_call=False, model_requested=None)])
    assert stored(store.path) == {}
    store.write(make_call(uid="next"))
    assert set(stored(store.path)) == {"next"}


def test_home_and_file_are_private(tmp_path: Path) -> None:
    """The folder is 0700 and the files are 0600, so that nobody else on the machine can read them."""
    path = tmp_path / "home" / "ledger.db"
    ledger = Ledger(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("ledger.db*")} == {0o600}
    ledger.close()


def test_the_write_path_is_wal_with_normal_sync(ledger: Ledger) -> None:
    """The measured settings are in force on the connection that writes."""
    connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (
        10,
    )  # for a turn; it takes turns for the whole time


def test_open_ledger_gives_one_ledger_a_path(llmnb_home: Path, tmp_path: Path) -> None:
    """The default is the path of the settings; another path is another ledger."""
    assert open_ledger() is open_ledger(llmnb_home / "ledger.db")
    assert open_ledger(tmp_path / "other.db") is not open_ledger()


def test_threads_lose_no_row(store: Store, make_call) -> None:
    """Eight threads on one ledger: every row is there once."""
    batches = [[make_call() for _ in range(50)] for _ in range(8)]
    threads = [threading.Thread(target=lambda b=batch: [store.write(call) for call in b]) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stored(store.path)) == {call.uid for batch in batches for call in batch}


def test_a_deleted_ledger_is_begun_anew(ledger: Ledger, make_call) -> None:
    """Rows do not vanish into a file that somebody removed under a running kernel."""
    ledger.write(make_call())
    for file in ledger.path.parent.iterdir():
        file.unlink()
    ledger.write(make_call(uid="after"))
    assert set(stored(ledger.path)) == {"after"}


@pytest.mark.parametrize("blocked", ["", "folder/"])
def test_a_path_that_cannot_be_written_is_said(tmp_path: Path, blocked: str) -> None:
    """A ledger under a file, or a ledger that is a folder, cannot be: the message names the setting."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if blocked else tmp_path / "file" / "ledger.db"
    with pytest.raises(StoreError, match=r"cannot be used.*LLMNB_HOME") as caught:
        Ledger(path)
    assert caught.value.path == str(path)


def test_a_ledger_locked_for_too_long_is_said(ledger: Ledger, make_call) -> None:
    """After the busy timeout the write gives up, and works once the lock is gone."""
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process kept it locked"):
            ledger.write(make_call())
        other.execute("ROLLBACK")
    ledger.write(make_call(uid="later"))
    assert list(calls(path=ledger.path)["uid"]) == ["later"]
