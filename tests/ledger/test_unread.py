"""unread_writes(): cache writes that nobody read, and newest_from()."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from llmnb.ledger import Ledger, newest_from, unread_writes
from tests.ledger.conftest import NOON_US, MakeCall

MINUTE_US = 60_000_000


def test_a_write_is_read_by_a_later_call_of_its_model_and_project(ledger: Ledger, make_call: MakeCall) -> None:
    """Reads in time, by the same model and project, save a write; the others, and what came before it, do not."""
    for minute, facts in (
        (0, {"project": "a", "cache_read_tokens": 1}),  # before any write
        (1, {"project": "a", "cache_write_5m_tokens": 10}),  # read in the fourth minute after
        (5, {"project": "a", "cache_read_tokens": 1}),
        (6, {"project": "a", "cache_write_5m_tokens": 100}),  # read a minute too late
        (12, {"project": "a", "cache_read_tokens": 1}),
        (13, {"project": "b", "cache_write_unsplit_tokens": 1_000}),  # read by another project only
        (14, {"project": "a", "cache_read_tokens": 1}),
        (20, {"project": "a", "cache_write_1h_tokens": 7, "model": "claude-haiku-5-5"}),  # never
        (21, {"project": "a", "cache_write_1h_tokens": 9}),  # read half an hour later
        (51, {"project": "a", "cache_read_tokens": 1}),
        (52, {"project": "a", "cache_write_5m_tokens": 5, "source": "cache"}),  # no call of the API
    ):
        ledger.write(make_call(ts=NOON_US + minute * MINUTE_US, **facts))
    found = unread_writes(path=ledger.path, now_us=NOON_US + 300 * MINUTE_US)
    assert found.drop(columns="provider").values.tolist() == [
        ["claude-sonnet-5-5", 3, 2, 1_110, 1_100, 1, 0, 9, 0],
        ["claude-haiku-5-5", 0, 0, 0, 0, 1, 1, 7, 7],
    ]
    only_a = unread_writes(path=ledger.path, where={"project": "a"}, now_us=NOON_US + 300 * MINUTE_US)
    assert only_a["unread_5m_tokens"].tolist() == [100, 0]


def test_what_may_still_be_read_is_not_unread(ledger: Ledger, make_call: MakeCall) -> None:
    """A write counts as unread only once its lifetime is over."""
    ledger.write(make_call(cache_write_5m_tokens=10, cache_write_1h_tokens=20))
    for minutes, unread in ((4, [0, 0]), (6, [10, 0]), (61, [10, 20])):
        found = unread_writes(path=ledger.path, now_us=NOON_US + minutes * MINUTE_US)
        assert found[["unread_5m_tokens", "unread_1h_tokens"]].values.tolist() == [unread]


def test_no_ledger_no_writes(ledger: Ledger) -> None:
    """Without a ledger there is an empty frame with the same columns."""
    assert unread_writes(path=ledger.path.with_name("none.db")).columns[0] == "provider"


def test_newest_from(ledger: Ledger, make_call: MakeCall) -> None:
    """The range from the moment given holds just as many rows; None where there are no more than that."""
    for minute in range(10):
        ledger.write(make_call(ts=NOON_US + minute * MINUTE_US))
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert newest_from(None, None, 4, path=ledger.path) == noon + timedelta(minutes=6)
    assert newest_from(None, noon + timedelta(minutes=8), 4, path=ledger.path) == noon + timedelta(minutes=4)
    assert newest_from(None, None, 10, path=ledger.path) is None
    assert newest_from(noon + timedelta(minutes=7), None, 4, path=ledger.path) is None
    assert newest_from(None, None, 4, path=ledger.path.with_name("none.db")) is None
