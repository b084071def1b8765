"""Answered calls: the rows they leave, made once, whoever asks, and whatever was answered."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmnb.ledger import Books, Ledger
from llmnb.ledger.answered import AnsweredCall, rows_of
from llmnb.messages.wire import Iteration, Outcome
from llmnb.records import Call, Usage
from llmnb.trouble import LlmnbWarning

SENT: dict[str, Any] = {
    "uid": "a", "ts": 1_795_600_000_000_000, "model_requested": "claude-sonnet-5-5", "model": "claude-sonnet-5-5",
    "provider": "anthropic", "project": None, "stream": False, "attempts": 1, "input_tokens": 10,
}  # fmt: skip
USAGE = {"input_tokens": 100, "output_tokens": 10}


def body(compact: bool = True, **fields: Any) -> bytes:
    """An answer."""
    message = {"id": "msg_1", "type": "message", "model": "claude-opus-5-5", "content": [{"text": "Hello"}]}
    message |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": USAGE, **fields}
    return json.dumps(message, indent=None if compact else 2, separators=(",", ":") if compact else None).encode()


def answered(answer: bytes, **since: Any) -> AnsweredCall:
    """The call with this answer."""
    return AnsweredCall(SENT, {"latency_ms": 12.5, **since}, answer, None)


@pytest.mark.parametrize("compact", [True, False])
def test_the_row_says_what_the_answer_says(compact: bool) -> None:
    """The model that served, the tokens and their price, however the JSON is written."""
    [call] = answered(body(compact, usage={**USAGE, "service_tier": "standard"})).rows
    assert (call.uid, call.status, call.model, call.latency_ms) == ("a", "ok", "claude-opus-5-5", 12.5)
    assert (call.usage, call.service_tier, call.stop_reason) == (Usage(100, output_tokens=10), "standard", "end_turn")
    assert call.cost_nanousd == 100 * 4_000 + 10 * 20_000


def test_everybody_is_given_the_same_rows() -> None:
    """So that a reply and the books agree."""
    call = answered(body())
    assert call.rows is call.rows


@pytest.mark.parametrize(
    ("answer", "status", "error_type"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error"}}', "error", "overloaded_error"),
        (b"<html>a gateway's</html>", "truncated", None),
        (b'{"type":"message"}', "truncated", None),
        (b"", "truncated", None),
    ],
)
def test_an_answer_that_is_no_message_leaves_an_estimate(answer: bytes, status: str, error_type: str | None) -> None:
    """The input was sent, and may be billed."""
    [call] = answered(answer).rows
    assert (call.status, call.error_type, call.usage) == (status, error_type, Usage(10, estimated=True))


def test_an_answer_from_disk_costs_nothing_and_saves_all() -> None:
    """What it would have cost is on the row."""
    [call] = answered(body(), source="cache").rows
    assert (call.cost_nanousd, call.saved_nanousd, call.source) == (0, 600_000, "cache")


def test_rows_of_other_models_name_their_parent() -> None:
    """And are no calls of their own."""
    outcome = Outcome(complete=True, iterations=(Iteration("compaction", "claude-opus-5-5", Usage(1_000)),))
    call, child = rows_of(SENT, "ok", Usage(100), None, outcome=outcome)
    assert (child.parent_uid, child.is_call, child.model) == (call.uid, False, "claude-opus-5-5")
    assert (child.tag, child.usage, child.cost_nanousd) == ("compaction", Usage(1_000), 1_000 * 4_000)


def rows(path: Path) -> list[tuple[Any, ...]]:
    """What is in the ledger."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT uid, status, output_tokens FROM calls ORDER BY id").fetchall()


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("answer", [body(), body(compact=False), body(content=[{"text": "x" * 9_000}])])
def test_an_answered_call_is_put_on_the_books(tmp_path: Path, behind: bool, answer: bytes) -> None:
    """By a thread or at once, once, and nothing of it is left in the notes."""
    ledger = Ledger(tmp_path / "ledger.db")
    keeper = Books(lambda: ledger, tmp_path / "spool", behind=behind)
    keeper.begin(SENT)
    keeper.answered(answered(answer))
    assert keeper.settle()
    assert rows(ledger.path) == [("a", "ok", 10)]
    keeper.close()
    assert list(tmp_path.glob("spool/**/*.jsonl")) == []
    ledger.close()


def test_a_call_whose_answer_cannot_be_read_is_on_the_books_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of llmnb's own is said once, and costs no row, not its own and not the next one's."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault")

    ledger = Ledger(tmp_path / "ledger.db")
    keeper = Books(lambda: ledger, tmp_path / "spool", behind=True)
    broken = answered(body())
    keeper.begin(SENT)
    monkeypatch.setattr("llmnb.ledger.answered.rows_of_answer", fail)
    keeper.answered(broken)
    keeper.record(Call(uid="b", ts=1, model_requested="m", status="ok"))
    with pytest.warns(LlmnbWarning, match="ZeroDivisionError: a fault"):
        keeper.settle()
    assert rows(ledger.path) == [("a", "truncated", 0), ("b", "ok", 0)]
    ledger.close()
