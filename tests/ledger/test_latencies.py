"""latencies(): counts by time, the same from sketches as from rows."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from llmnb import settings
from llmnb.ledger import Ledger, cover, latencies
from llmnb.ledger.upkeep import fold
from tests.ledger.conftest import NOON_US, MakeCall

DAY_US = 86_400_000_000


def summed(path: object, **asked: object) -> dict[tuple[object, ...], int]:
    """Counts by model, measure and range."""
    found = latencies(path=path, **asked)  # type: ignore[arg-type]
    return {tuple(row[:-1]): row[-1] for row in found.itertuples(index=False)}


def test_every_call_is_in_one_range(ledger: Ledger, make_call: MakeCall) -> None:
    """A call counts where its time lies; what failed has no latency, and what did not stream no first token."""
    ledger.write(make_call(latency_ms=1_000.0, ttft_ms=200.0))
    ledger.write(make_call(latency_ms=1_000.0, model="claude-haiku-5-5"))
    ledger.write(make_call(latency_ms=9.0, status="error"))
    ledger.write(make_call(latency_ms=9.0, source="cache"))
    found = latencies(path=ledger.path)
    assert found[["model", "measure", "calls"]].values.tolist() == [
        ["claude-haiku-5-5", "latency", 1],
        ["claude-sonnet-5-5", "latency", 1],
        ["claude-sonnet-5-5", "ttft", 1],
    ]
    for row, ms in zip(found.itertuples(), (1_000, 1_000, 200), strict=True):
        assert row.from_ms * 0.98 <= ms <= row.to_ms * 1.02
        assert 1.2 < row.to_ms / row.from_ms < 1.3


def test_sketches_and_rows_agree(ledger: Ledger, make_call: MakeCall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded, half folded and unfolded, the counts are the same, in total and by project."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    chance = random.Random(5)

    def write(days_ago: int) -> None:
        ts = NOON_US - days_ago * DAY_US
        facts = {"project": chance.choice(["a", None]), "model": chance.choice(["m", "n"])}
        ledger.write(make_call(ts=ts, latency_ms=chance.lognormvariate(7, 1), ttft_ms=chance.uniform(1, 900), **facts))

    for _ in range(60):
        write(chance.randrange(5))
    asked = [{}, {"by": ["project"]}, {"where": {"project": "a"}}, {"until": datetime(2026, 11, 24, 7, tzinfo=UTC)}]
    unfolded = [summed(ledger.path, **one) for one in asked]
    monkeypatch.setattr(cover, "FEW_ROWS", 0)
    fold(ledger, settings.load())
    assert [summed(ledger.path, **one) for one in asked] == unfolded
    for _ in range(10):
        write(1)
    half = [summed(ledger.path, **one) for one in asked]
    monkeypatch.setattr(cover, "FEW_ROWS", 10_000)
    assert [summed(ledger.path, **one) for one in asked] == half
    assert sum(half[0].values()) == 140
