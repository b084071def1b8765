"""What the ledger tells of how soon calls followed each other, and that reading it is cheap and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmnb.ledger import Store
from llmnb.ledger.rereads import ROWS, rereads
from llmnb.prompt_cache import Gaps

from .conftest import NOON_US, MakeCall

MINUTE = 60_000_000
LATER = NOON_US + 26 * 60 * MINUTE
CHAT = ("p", "claude-sonnet-5-5", True)
SINGLE = ("p", "claude-sonnet-5-5", False)


@pytest.fixture
def ledger(store: Store) -> Store:
    """What is said here holds in either database."""
    return store


def write(ledger: Store, make_call: MakeCall, minutes: list[float], **more: Any) -> None:
    """Calls at these minutes after noon."""
    known = {"project": "p", "session": "s", **more}
    ledger.write_all([(make_call(ts=NOON_US + int(minute * MINUTE), **known), ()) for minute in minutes])


def test_no_ledger_has_no_history(tmp_path: Path) -> None:
    """A file that is not there is not made."""
    assert rereads(tmp_path / "none.db", NOON_US) == {}
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "llmnb-home"])


def test_turns_of_chats(ledger: Store, make_call: MakeCall) -> None:
    """Gaps are counted within each chat, and the last turn of each was followed by none."""
    write(ledger, make_call, [0, 1, 3, 20], chat="a")
    write(ledger, make_call, [0, 200], chat="b")
    assert rereads(ledger.path, LATER) == {CHAT: Gaps(within_5m=2, within_1h=1, later=1 + 2)}


def test_a_chat_that_may_go_on(ledger: Store, make_call: MakeCall) -> None:
    """Within an hour of its last turn nothing is known of the next one."""
    write(ledger, make_call, [0, 1], chat="a")
    assert rereads(ledger.path, NOON_US + 30 * MINUTE) == {CHAT: Gaps(within_5m=1)}


def test_other_calls_count_where_they_had_a_breakpoint(ledger: Store, make_call: MakeCall) -> None:
    """Read: soon enough. Not read although soon: another prompt, which no TTL would have helped."""
    write(ledger, make_call, [0], cache_breakpoints=1, cache_write_5m_tokens=900)
    write(ledger, make_call, [1, 2], cache_breakpoints=1, cache_read_tokens=900)
    write(ledger, make_call, [3], cache_breakpoints=1, cache_write_5m_tokens=900)
    write(ledger, make_call, [20], cache_breakpoints=1, cache_write_5m_tokens=900)
    write(ledger, make_call, [21, 22], cache_breakpoints=0)
    assert rereads(ledger.path, LATER) == {SINGLE: Gaps(within_5m=2, within_1h=1, later=1)}


def test_an_hours_entry_read_late(ledger: Store, make_call: MakeCall) -> None:
    """A read after twenty minutes says that the next one came within an hour."""
    write(ledger, make_call, [0], cache_breakpoints=1, cache_write_1h_tokens=900)
    write(ledger, make_call, [20], cache_breakpoints=1, cache_read_tokens=900, cache_write_1h_tokens=5)
    assert rereads(ledger.path, LATER)[SINGLE] == Gaps(within_1h=1, later=1)


def test_what_counts(ledger: Store, make_call: MakeCall) -> None:
    """Not this session, nothing old, no hits from disk, nothing that failed, no child rows; projects are apart."""
    write(ledger, make_call, [0, 1], chat="own", session="mine")
    write(ledger, make_call, [-60 * 24 * 40, -60 * 24 * 40 + 1], chat="old")
    write(ledger, make_call, [0, 1], chat="hit", source="cache")
    write(ledger, make_call, [0, 1], chat="bad", status="error")
    write(ledger, make_call, [0, 1], chat="other", project="q")
    found = rereads(ledger.path, LATER, without_session="mine")
    assert found == {("q", "claude-sonnet-5-5", True): Gaps(within_5m=1, later=1)}


def test_calls_without_a_session_count(ledger: Store, make_call: MakeCall) -> None:
    """A missing session is another one."""
    write(ledger, make_call, [0, 1], chat="a", session=None)
    assert rereads(ledger.path, LATER, without_session="mine") == {CHAT: Gaps(within_5m=1, later=1)}


def test_only_the_latest_rows_are_read(ledger: Store, make_call: MakeCall) -> None:
    """However many there are, the question has a bound."""
    calls = [make_call(ts=NOON_US + number, chat="a", project="p") for number in range(ROWS + 500)]
    ledger.write_all([(call, ()) for call in calls])
    assert rereads(ledger.path, NOON_US + MINUTE)[CHAT].total == ROWS - 1


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    """It is an error, which whoever asks has to expect."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    with pytest.raises(Exception, match=r"ledger\.db"):
        rereads(path, NOON_US)
