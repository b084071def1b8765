"""Damaged files: moved aside and said, a new ledger begun, the call recorded."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import Ledger, books, calls
from llmnb.ledger.connection import set_aside
from llmnb.records import Call
from llmnb.trouble import LlmnbWarning

from .. import processes


def recorded(call: Call) -> bool:
    """Records a call with the books of this process; whether it is in the ledger."""
    books().record(call)
    return books().settle()


def uids(path: Path) -> list[str]:
    """The uids of all rows."""
    with closing(sqlite3.connect(path)) as connection:
        return [uid for (uid,) in connection.execute("SELECT uid FROM calls ORDER BY id")]


@pytest.mark.parametrize("length", [600, 4096, 20_000])
def test_random_bytes_are_moved_aside_and_the_call_recorded(llmnb_home: Path, make_call, length: int) -> None:
    """One warning names the place of the old file, which is kept byte for byte."""
    llmnb_home.mkdir()
    noise = random.Random(length).randbytes(length)
    (llmnb_home / "ledger.db").write_bytes(noise)
    with pytest.warns(LlmnbWarning, match=r"was damaged; it was moved to .*ledger\.db\.corrupt-\d{8}T\d{6}") as heard:
        assert recorded(make_call(uid="a"))
    assert len(heard) == 1
    assert uids(llmnb_home / "ledger.db") == ["a"]
    (aside,) = llmnb_home.glob("ledger.db.corrupt-*")
    assert aside.read_bytes() == noise


def test_a_sound_ledger_is_not_moved(ledger: Ledger, make_call) -> None:
    """Whoever comes second to a damaged ledger finds the new one of whoever came first, and leaves it."""
    ledger.write(make_call(uid="a"))
    assert set_aside(ledger.path) is None
    assert uids(ledger.path) == ["a"]


def test_damage_under_a_running_process_is_found_and_the_call_recorded(ledger: Ledger, make_call) -> None:
    """Pages overwritten while the kernel lives: the next write that notices begins a new ledger."""
    for _ in range(300):
        ledger.write(make_call(content="x" * 500))
    ledger.close()
    size = ledger.path.stat().st_size
    with open(ledger.path, "r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (size - 4096))
    rows = [make_call(uid=f"after-{number}") for number in range(5)]
    with pytest.warns(LlmnbWarning, match="was damaged"):
        ledger.write(rows[0])
    for row in rows[1:]:
        ledger.write(row)
    assert [uid for uid in uids(ledger.path) if uid.startswith("after")] == [f"after-{number}" for number in range(5)]
    assert len(list(ledger.path.parent.glob("*.corrupt-*"))) == 1


def test_a_reader_of_a_damaged_ledger_is_told(llmnb_home: Path) -> None:
    """Reading moves nothing; the message says what will happen."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="no database; the next recorded call moves it aside"):
        calls()
    assert [file.name for file in llmnb_home.iterdir()] == ["ledger.db"]


def test_a_truncated_log_costs_only_what_was_in_it(ledger: Ledger, make_call, tmp_path: Path) -> None:
    """A -wal cut in the middle, as after a power cut, opens without a warning and keeps every whole transaction."""
    for number in range(20):
        ledger.write(make_call(uid=f"{number:02d}"))
    copy = tmp_path / "copy" / "ledger.db"
    copy.parent.mkdir()
    log = Path(f"{ledger.path}-wal").read_bytes()
    copy.write_bytes(ledger.path.read_bytes())
    Path(f"{copy}-wal").write_bytes(log[: len(log) * 2 // 3])
    other = Ledger(copy)
    kept = uids(copy)
    assert 0 < len(kept) < 20
    assert kept == [f"{number:02d}" for number in range(len(kept))]
    other.write(make_call(uid="new"))
    assert uids(copy) == [*kept, "new"]
    other.close()


def test_an_empty_file_is_a_new_ledger(tmp_path: Path, make_call) -> None:
    """A file of no bytes, as a crash between creating and writing leaves it, is no damage."""
    (tmp_path / "ledger.db").touch()
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.write(make_call(uid="a"))
    assert uids(ledger.path) == ["a"]
    ledger.close()


def test_several_processes_that_find_the_damage_move_it_once(tmp_path: Path) -> None:
    """None takes another's new ledger for the damaged one: all rows are in one file."""
    path = tmp_path / "ledger.db"
    path.write_bytes(random.Random(1).randbytes(9000))
    program = (
        "import sys; from pathlib import Path; from llmnb.ledger import Ledger; from llmnb.records import Call\n"
        "Ledger(Path(sys.argv[1])).write(Call(uid=sys.argv[2], ts=0, model_requested='m'))"
    )
    running = [processes.Python(["-c", program, str(path), str(number)]) for number in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert sorted(uids(path)) == ["0", "1", "2", "3"]
    assert len(list(tmp_path.glob("*.corrupt-*"))) == 1
