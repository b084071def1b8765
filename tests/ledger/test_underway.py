"""Notes of calls under way: kept until the call is kept elsewhere, and found by whoever comes after a kill."""

from __future__ import annotations

from pathlib import Path

from llmnb.ledger.spool import Record, encode_row
from llmnb.ledger.underway import SLOT_BYTES, Underway
from llmnb.records import Call


def line(uid: str) -> bytes:
    """A note of a call."""
    return encode_row(Call(uid=uid, ts=1, model_requested="m", attempts=1))


def left_by(notes: Underway, folder: Path) -> list[str]:
    """The calls that the next process finds once the owner of the notes is gone without a word."""
    found: list[str] = []

    def write(record: Record) -> None:
        found.append(record[0].uid)

    notes.forget()  # lets go of the lock, as death does
    Underway(folder).drain_orphans(write)
    return sorted(found)


def test_what_has_not_ended_is_found(tmp_path: Path) -> None:
    """Ended calls leave nothing, whatever the order they end in."""
    notes = Underway(tmp_path)
    for uid in "abcd":
        assert notes.note(uid, 1, line(uid))
    notes.end("c", 1)
    notes.end("a", 1)
    assert notes.note("e", 1, line("e"))
    assert left_by(notes, tmp_path) == ["b", "d", "e"]
    assert list(tmp_path.iterdir()) == []


def test_a_later_attempt_is_not_ended_by_the_end_of_an_earlier_one(tmp_path: Path) -> None:
    """The row of a failed attempt may be written after its retry has begun."""
    notes = Underway(tmp_path)
    notes.note("a", 1, line("a"))
    notes.note("a", 2, line("a"))
    notes.end("a", 1)
    assert left_by(notes, tmp_path) == ["a"]


def test_more_calls_at_once_than_there_are_slots(tmp_path: Path) -> None:
    """The file grows, keeps what it held, and is gone when the last call has ended."""
    notes = Underway(tmp_path)
    uids = [f"{number:04}" for number in range(300)]
    for uid in uids:
        notes.note(uid, 1, line(uid))
    for uid in uids[::2]:
        notes.end(uid, 1)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size <= 512 * SLOT_BYTES
    assert left_by(notes, tmp_path) == uids[1::2]


def test_a_note_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """It is written to the ledger at once instead."""
    assert not Underway(tmp_path).note("a", 1, b"x" * SLOT_BYTES + b"\n")


def test_closing_removes_an_empty_file_only(tmp_path: Path) -> None:
    """A call that is under way at exit is left for the next process."""
    notes = Underway(tmp_path)
    notes.note("a", 1, line("a"))
    notes.end("a", 1)
    notes.close()
    assert list(tmp_path.iterdir()) == []
    notes.note("b", 1, line("b"))
    notes.close()
    assert left_by(notes, tmp_path) == ["b"]
