"""Whatever happens to a ledger, in whatever order: what anybody is shown adds up to the calls, to the nano-dollar.

A second ledger is told of the same calls and never folded, pruned or interrupted: its rows are what is true.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmnb.ledger import Ledger, choices, cover, usage
from llmnb.ledger.connection import open_writer
from llmnb.ledger.costs import StoredCosts
from llmnb.ledger.fold import Folder, prune
from llmnb.ledger.remaking import make_anew
from llmnb.ledger.zones import start_of_day_us
from llmnb.pricing.repricing import Repriced
from llmnb.records import Call, Cost

from .test_rollups import DAY_US, FIRST_US, KATHMANDU, OSLO, TOKYO, some_calls

FIGURES = ["calls", "errors", "retries", "input_tokens", "cache_read_tokens", "output_tokens", "cost_nanousd"]
ASKED: list[dict[str, Any]] = [
    {"by": []},
    {"by": ["model"]},
    {"by": ["day", "project"]},
    {"by": ["user", "tag"], "where": {"project": ["a", None]}},
]


class History(RuleBasedStateMachine):
    """A ledger that is written, killed at, folded, pruned, repriced and cut anew, beside one that only is written."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self._folder.name) / "ledger.db")
        self.truth = Ledger(Path(self._folder.name) / "truth.db")
        self.zone, self.pruned_us, self.steps = OSLO, 0, 0

    @initialize(rows=some_calls)
    def some_are_there(self, rows: list[Call]) -> None:
        self.write(rows)

    @rule(rows=some_calls)
    def write(self, rows: list[Call]) -> None:
        """New calls, late ones for days that were pruned, and later words on those that are still there."""
        gone = self._uids(self.truth) - self._uids(self.ledger)
        kept = [(replace(call, is_call=True), ()) for call in rows if call.uid not in gone]
        self.ledger.write_all(kept)
        self.truth.write_all(kept)

    @rule(rows=some_calls)
    def writer_is_killed(self, rows: list[Call]) -> None:
        """In the middle of a transaction: nothing of it is there, and the calls come again."""
        with closing(open_writer(self.ledger.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE calls SET cost_nanousd = 1, ts = ts + 1")
        self.write(rows)

    @rule(rows=st.integers(1, 30), dies=st.booleans())
    def fold(self, rows: int, dies: bool) -> None:
        """Some of what waits; or dies on the way."""
        with closing(open_writer(self.ledger.path)) as connection:
            folder = Folder(connection, self.zone)
            folder.rows = rows
            with pytest.MonkeyPatch.context() as patch:
                if dies and folder.pending():
                    patch.setattr("llmnb.ledger.fold._write", _die)
                    with pytest.raises(KeyboardInterrupt):
                        folder.fold()
                else:
                    folder.fold()

    @rule(days=st.integers(1, 9), steps=st.integers(1, 9))
    def prune(self, days: int, steps: int) -> None:
        """Old calls, a few at a time; or killed on the way."""
        with closing(open_writer(self.ledger.path)) as connection:
            Folder(connection, self.zone).fold_all()
            before_us = start_of_day_us(FIRST_US + days * DAY_US, self.zone)
            self.pruned_us = max(self.pruned_us, before_us)
            for _, _ in zip(range(steps), prune(connection, before_us, rows=3), strict=False):
                pass

    @rule(chance=st.randoms(use_true_random=False))
    def reprice(self, chance: random.Random) -> None:
        """Prices changed: what is still there is priced anew."""
        with closing(open_writer(self.ledger.path)) as connection, closing(open_writer(self.truth.path)) as true:
            costs = {uid: chance.randrange(10**12) for uid in sorted(self._uids(self.ledger)) if chance.random() < 0.5}
            for one in (connection, true):
                stored = StoredCosts(one)
                uids = dict(one.execute("SELECT id, uid FROM calls"))
                found = [row for row in stored.after(0, 10_000, None, None) if uids[row.id] in costs]
                stored.set_costs([Repriced(row, Cost(costs[uids[row.id]], "new")) for row in found])

    @rule(zone=st.sampled_from([OSLO, TOKYO, KATHMANDU]), beside=st.booleans())
    def cut_anew(self, zone: ZoneInfo, beside: bool) -> None:
        """The reporting timezone changed; not once calls were pruned, whose days are those they were cut in."""
        if not self.pruned_us:
            self.zone = zone
            with closing(open_writer(self.ledger.path)) as connection:
                make_anew(connection, zone, few_rows=-1 if beside else 10**9)

    @rule()
    def sweep(self) -> None:
        """Calls of the dead are over."""
        for ledger in (self.ledger, self.truth):
            with ledger.transaction() as connection:
                connection.execute("UPDATE calls SET status = 'interrupted' WHERE status = 'running'")

    @invariant()
    def everybody_sees_the_truth(self) -> None:
        """`usage()` of a new session, which is all that the dashboard asks."""
        self.steps += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LLMNB_TIMEZONE", self.zone.key)
            for asked in ASKED[self.steps % 2 :: 2]:
                patch.setattr(cover, "FEW_ROWS", 0)
                shown = usage(percentiles=False, path=self.ledger.path, **asked)
                patch.setattr(cover, "FEW_ROWS", 10**12)
                true = usage(percentiles=False, path=self.truth.path, **asked)
                columns = [*asked["by"], *FIGURES]
                assert table(shown[columns]) == table(true[columns]), asked
            assert set(choices(["project"], path=self.ledger.path)["project"]) >= set(self._projects())

    def _uids(self, ledger: Ledger) -> set[str]:
        with ledger.transaction(reading=True) as connection:
            return {uid for (uid,) in connection.execute("SELECT uid FROM calls")}

    def _projects(self) -> list[str | None]:
        with self.truth.transaction(reading=True) as connection:
            return [project for (project,) in connection.execute("SELECT DISTINCT project FROM calls")]

    def teardown(self) -> None:
        self.ledger.close()
        self.truth.close()
        self._folder.cleanup()


def _die(*_: Any) -> Any:
    raise KeyboardInterrupt


def table(frame: Any) -> list[tuple[str, ...]]:
    """The rows of a frame in an order of their own."""
    return sorted(tuple(map(str, row)) for row in frame.itertuples(index=False))


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=10, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_any_long_history() -> None:
    """The same, longer."""
    from hypothesis.stateful import run_state_machine_as_test

    long = settings(max_examples=300, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(History, settings=long)
