"""Notes of calls under way: kept until the call is kept elsewhere, and found by whoever comes after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmnb.ledger.answered import AnsweredCall
from llmnb.ledger.beginning import Origin, encode_beginning, encode_fields
from llmnb.ledger.spool import Record
from llmnb.ledger.underway import SLOT_BYTES, Underway, decode
from llmnb.records import Call


def sent(uid: str, **fields: Any) -> dict[str, Any]:
    """What is known of a call when it is sent."""
    origin = {"project": "thesis", "session": "s", "user": "ann", "notebook": None, "cell": "3", "chat": None}
    origin |= {"run_id": None, "batch_id": None, "template": None, "parent_uid": None, "tag": None}
    own = {"uid": uid, "ts": 1_795_600_000_000_000, "model_requested": "claude-sonnet-5-5", "wait_ms": 0.0}
    own |= {"model": "claude-sonnet-5-5", "stream": False, "attempts": 1, "input_tokens": 10}
    return {**origin, **own, "provider": "anthropic", **fields}


def line(uid: str) -> bytes:
    """The line of such a call."""
    return encode_beginning(sent(uid))


def answer(text: str = "Hello", **usage: Any) -> bytes:
    """The body of an answer."""
    usage = {"input_tokens": 11, "output_tokens": 7, **usage}
    message = {
        "id": "msg_1",
        "type": "message",
        "model": "claude-opus-5-5",
        "content": [{"type": "text", "text": text}],
    }
    message |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
    return json.dumps(message, separators=(",", ":")).encode()


def answered(uid: str, body: bytes, **since: Any) -> AnsweredCall:
    """The call, when the answer came."""
    return AnsweredCall(sent(uid), {"request_id": "req_1", "latency_ms": 12.5, **since}, body, None)


def add(notes: Underway, call: AnsweredCall) -> bool:
    """Notes that the call was answered."""
    added = call.line()
    assert added is not None
    return notes.add(call.uid, call.attempt, added)


def records_left_by(notes: Underway, folder: Path) -> list[Record]:
    """What the next process finds once the owner of the notes is gone without a word."""
    found: list[Record] = []
    notes.forget()  # lets go of the lock, as death does
    Underway(folder).drain_orphans(found.extend)
    return found


def left_by(notes: Underway, folder: Path) -> list[str]:
    """The uids of the calls among it."""
    return sorted(call.uid for call, _ in records_left_by(notes, folder))


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


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True, "wait_ms": 1.5, "attempts": 2, "chat": 'a "quoted" é \\ \ud800', "run_id": "r"},
        {"request_id": "of an earlier attempt"},
        {"tag": ["no text"]},
    ],
)
def test_a_beginning_is_read_as_it_was_noted(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Whatever is in the fields, and with fields that only some calls have."""
    notes = Underway(tmp_path)
    calls = {uid: sent(uid, **fields) for uid in ("a", "b")}
    origin = Origin({name: value for name, value in calls["a"].items() if name not in ("uid", "ts", "input_tokens")})
    for uid, call in calls.items():
        assert notes.note(uid, 1, encode_beginning(call))
        own = {name: call[name] for name in ("uid", "ts", "input_tokens")}
        assert notes.note(uid * 2, 1, encode_beginning({**origin.fields, **own, "uid": uid * 2}, origin))
    left = sorted(records_left_by(notes, tmp_path), key=lambda record: record[0].uid)
    assert left == [(Call(**{**calls[uid[0]], "uid": uid}), ()) for uid in ("a", "aa", "b", "bb")]


def test_what_calls_have_in_common_is_told_of_each_in_full(tmp_path: Path) -> None:
    """Also of one that has more to tell than the others."""
    origin = Origin({"project": "thesis", "tag": None, "model_requested": "m", "stream": False})
    calls = [{**origin.fields, "uid": "a", "ts": 1, "input_tokens": 10}]
    calls.append({**calls[0], "uid": "b", "attempts": 2, "wait_ms": 1.5})
    notes = Underway(tmp_path)
    for call in calls:
        notes.note(call["uid"], 1, encode_beginning(call, origin))
    assert records_left_by(notes, tmp_path) == [(Call(**call), ()) for call in calls]


def test_an_answer_that_was_noted_makes_the_rows_it_would_have_made(tmp_path: Path) -> None:
    """Read by the next process, priced and with the rows of models that worked beside it."""
    compaction = {"type": "compaction", "input_tokens": 5, "output_tokens": 1}
    calls = [
        answered("a", answer("Ünïcode \u2028 and more")),
        answered("b", answer(iterations=[{"type": "message", "input_tokens": 11, "output_tokens": 7}, compaction])),
        answered("c", answer(), request_id=None, source="replay", stream=True, chat='a "chat" é \ud800'),
    ]
    notes = Underway(tmp_path)
    for call in calls:
        notes.note(call.uid, 1, line(call.uid))
        assert add(notes, call)
    assert records_left_by(notes, tmp_path) == [(call.rows[0], call.rows[1:]) for call in calls]
    assert [len(call.rows) for call in calls] == [1, 2, 1]
    assert calls[0].rows[0].cost_nanousd == 11 * 4_000 + 7 * 20_000


def test_an_answer_cut_off_anywhere_leaves_the_call_as_it_was_sent() -> None:
    """A process killed in the middle of noting an end, or one that answered with something that is no JSON."""
    added = answered("a", answer("Wörter")).line()
    assert added is not None
    for length in range(len(added)):
        assert decode(line("a") + added[:length]) == (Call(**sent("a")), ())
    for end in range(len(line("a"))):
        assert decode(line("a")[:end]) is None


def test_what_has_no_place_is_not_added(tmp_path: Path) -> None:
    """Not to a call that is not noted, not to another attempt, not past the end of the slot, and in one line only."""
    notes = Underway(tmp_path)
    call = answered("a", answer())
    assert not add(notes, call)
    notes.note("a", 2, line("a"))
    assert not add(notes, call)
    notes.note("a", 1, line("a"))
    assert not add(notes, answered("a", answer(), chat="x" * SLOT_BYTES))
    assert records_left_by(notes, tmp_path) == [(Call(**sent("a")), ())]


def test_a_slot_is_used_to_its_last_byte(tmp_path: Path) -> None:
    """What fits to the byte is kept, what does not is refused, and the slots beside it are not touched."""
    notes = Underway(tmp_path)
    for uid in "abc":
        notes.note(uid, 1, line(uid))
    room = SLOT_BYTES - 1 - len(line("b")) - len(answered("b", answer(), chat="").line() or b"")
    assert not add(notes, answered("b", answer(), chat="x" * (room + 1)))
    fitting = answered("b", answer(), chat="x" * room)
    assert add(notes, fitting)
    records = records_left_by(notes, tmp_path)
    assert records == [(Call(**sent("a")), ()), (fitting.rows[0], ()), (Call(**sent("c")), ())]


def test_a_shorter_note_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    """In a slot that another call had, and in the slot of the call itself."""
    notes = Underway(tmp_path)
    notes.note("a", 1, line("a"))
    add(notes, answered("a", answer(), chat="x" * 1_000))
    notes.end("a", 1)
    notes.note("b", 1, encode_fields({"uid": "b", "ts": 1, "model_requested": "m"}))
    assert records_left_by(notes, tmp_path) == [(Call(uid="b", ts=1, model_requested="m"), ())]


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
