"""Holding money: what is granted, what waits, what is refused, and that no money is in two hands."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llmnb.budgeting import counting, set_budget, statuses
from llmnb.budgeting.budget import Unit, all_budgets
from llmnb.budgeting.desk import Granted, MustWait, Refused
from llmnb.budgeting.reservations import LOOK_S, Reservations
from llmnb.errors import StoreBusy
from llmnb.ledger import Ledger, Store
from llmnb.ledger.zones import to_us
from llmnb.records import Call

from .conftest import HOUR_US, NOON_US, ask, in_both, rows

ME = (1, 0)
CENT = 10_000_000


def held() -> list[tuple[str, int]]:
    return rows("SELECT uid, amount FROM reservations ORDER BY uid")


@pytest.fixture(autouse=True)
def a_dollar_a_day(ledger: Store) -> None:
    """One budget, of a hundred cents."""
    set_budget(usd=1, per="day", project="thesis")


# One call -------------------------------------------------------------------------------------------------------------


@in_both
def test_a_call_that_fits_holds_what_it_needs(store: Reservations) -> None:
    """Until its row is on the books, which takes its place."""
    granted = store.reserve(ask("a", 40 * CENT), ME)
    assert isinstance(granted, Granted)
    assert [budget.id for budget in granted.budgets] == [1]
    assert held() == [("a", 40 * CENT)]


def test_a_call_that_no_budget_is_for_holds_nothing(store: Reservations) -> None:
    """Whatever it needs."""
    assert store.reserve(ask("a", 400 * CENT, project="other"), ME) == Granted()
    assert held() == []


def test_a_call_that_cannot_fit_is_refused(store: Reservations, ledger: Store, make_call) -> None:
    """By what is spent alone; what others hold does not count against it, and it holds nothing itself."""
    ledger.write(make_call(cost_nanousd=61 * CENT))
    refused = store.reserve(ask("a", 40 * CENT), ME)
    assert isinstance(refused, Refused)
    assert (refused.left, refused.needed) == (39 * CENT, 40 * CENT)
    assert refused.free_us == NOON_US + 12 * HOUR_US
    assert held() == []
    assert isinstance(store.reserve(ask("b", 39 * CENT), ME), Granted)


@in_both
def test_a_call_waits_for_what_others_hold(store: Reservations, ledger: Store, make_call) -> None:
    """It fits as soon as they end with less than they hold, and is refused if they do not."""
    store.reserve(ask("a", 70 * CENT), ME)
    wait = store.reserve(ask("b", 40 * CENT), ME)
    assert isinstance(wait, MustWait)
    assert (wait.held, wait.uids, wait.left, wait.needed) == (70 * CENT, ("a",), 100 * CENT, 40 * CENT)
    ledger.write(make_call(uid="a", cost_nanousd=10 * CENT))
    assert isinstance(store.reserve(ask("b", 40 * CENT), ME), Granted)
    ledger.write(make_call(uid="c", cost_nanousd=60 * CENT))
    assert isinstance(store.reserve(ask("d", 40 * CENT), ME), Refused)


def test_calls_of_another_period_do_not_compete(store: Reservations) -> None:
    """A call belongs to the period in which it began."""
    store.reserve(ask("a", 100 * CENT), ME)
    assert isinstance(store.reserve(ask("b", 100 * CENT, ts=NOON_US + 12 * HOUR_US), ME), Granted)
    assert isinstance(store.reserve(ask("c", 1, ts=NOON_US + 11 * HOUR_US), ME), MustWait)


@in_both
def test_all_budgets_hold_or_none(store: Reservations, ledger: Store) -> None:
    """A call that one of them refuses holds nothing of the others."""
    set_budget(usd="0.10", per="hour")
    refused = store.reserve(ask("a", 40 * CENT), ME)
    assert isinstance(refused, Refused)
    assert refused.budget.per == "hour"
    assert held() == []
    store.reserve(ask("b", 5 * CENT), ME)
    assert [amount for _, amount in held()] == [5 * CENT, 5 * CENT]


def test_a_refusal_goes_before_a_wait(store: Reservations) -> None:
    """Where one budget can never allow it, there is nothing to wait for."""
    store.reserve(ask("a", 70 * CENT), ME)
    set_budget(usd="0.10", per="total")
    assert isinstance(store.reserve(ask("b", 40 * CENT), ME), Refused)


def test_a_budget_that_warns_holds_nothing(store: Reservations) -> None:
    """And refuses nothing."""
    set_budget(usd="1", per="day", project="thesis", action="warn")
    assert store.reserve(ask("a", 400 * CENT), ME) == Granted()
    assert held() == []


def test_a_budget_of_nothing_stops_everything(store: Reservations) -> None:
    """Even a call that needs next to nothing."""
    set_budget(usd=0, per="day", project="thesis")
    assert isinstance(store.reserve(ask("a", 1), ME), Refused)


def test_a_call_without_a_price_is_refused_unless_it_is_allowed_by_name(store: Reservations) -> None:
    """Under a budget in dollars; one in tokens counts it like any other."""
    unpriced = replace(
        ask("a", 10, model_requested="my-model-2"), needs={"usd": None, "tokens": ask("a", 10).needs["tokens"]}
    )
    refused = store.reserve(unpriced, ME)
    assert isinstance(refused, Refused)
    assert refused.needed is None
    set_budget(usd=1, per="day", project="thesis", allow_unpriced="my-*")
    set_budget(tokens=100, per="day")
    assert isinstance(store.reserve(unpriced, ME), Granted)
    assert held() == [("a", 10)]


def test_a_budget_that_is_being_counted_is_waited_for(store: Reservations, ledger: Store) -> None:
    """What is left of it is not known before."""
    with ledger.transaction() as connection:
        connection.execute("UPDATE budgets SET counting = 'somebody'")
    wait = store.reserve(ask("a", 1), ME)
    assert isinstance(wait, MustWait)
    assert wait.uids == ()


# Answers that cannot be cut off ---------------------------------------------------------------------------------------


def test_room_is_kept_for_one_answer_that_gets_longer(store: Reservations) -> None:
    """The largest of the excesses stays free, while more than one call is under way."""
    assert isinstance(store.reserve(ask("a", 40 * CENT, excess=30 * CENT), ME), Granted)
    assert isinstance(store.reserve(ask("b", 31 * CENT), ME), MustWait)
    assert isinstance(store.reserve(ask("c", 30 * CENT), ME), Granted)


@in_both
def test_the_last_of_the_money_goes_to_one_call_alone(store: Reservations, ledger: Store, make_call) -> None:
    """What is expected fits, and nobody else can exceed at the same time."""
    ledger.write(make_call(cost_nanousd=80 * CENT))
    assert isinstance(store.reserve(ask("a", 10 * CENT, excess=80 * CENT), ME), Granted)
    assert isinstance(store.reserve(ask("b", 1 * CENT, excess=80 * CENT), ME), MustWait)


# Calls that are tried again -------------------------------------------------------------------------------------------


@in_both
def test_the_row_of_an_attempt_lets_go_of_that_attempt_only(store: Reservations, ledger: Store, make_call) -> None:
    """It may come when the next attempt is under way already."""
    store.reserve(ask("a", 40 * CENT), ME)
    store.reserve(ask("a", 45 * CENT, attempt=2), ME)
    ledger.write(make_call(uid="a", status="error", attempts=1, cost_nanousd=0))
    assert held() == [("a", 45 * CENT)]
    ledger.write(make_call(uid="a", status="ok", attempts=2, cost_nanousd=20 * CENT))
    assert held() == []


@in_both
def test_what_a_lost_attempt_may_be_billed_counts_once(store: Reservations, ledger: Store, make_call) -> None:
    """On the books, held, or in between: the call takes as much as it is bounded by, and then what it cost."""

    def taken() -> int:
        with ledger.transaction(reading=True) as connection:
            (budget,) = all_budgets(connection)
            period = budget.period(NOON_US)
            return counting.spent(connection, budget, period).amount + counting.held(connection, budget, period).amount

    store.reserve(ask("a", 40 * CENT), ME)
    store.reserve(ask("a", 55 * CENT, attempt=2), ME)  # with 15 that the first may be billed
    assert taken() == 55 * CENT
    ledger.write(make_call(uid="a", status="error", attempts=1, cost_nanousd=15 * CENT))
    assert taken() == 55 * CENT
    ledger.write(make_call(uid="a", status="running", attempts=2, cost_nanousd=20 * CENT))
    assert taken() == 55 * CENT
    ledger.write(make_call(uid="a", status="ok", attempts=2, cost_nanousd=35 * CENT))
    assert taken() == 35 * CENT
    with ledger.transaction(reading=True) as connection:
        assert connection.execute("SELECT count(*) FROM reservations").fetchone() == (0,)


@in_both
def test_a_row_that_says_running_lets_nothing_go(store: Reservations, ledger: Store, make_call) -> None:
    """The call is not over."""
    store.reserve(ask("a", 40 * CENT), ME)
    ledger.write(make_call(uid="a", status="running", cost_nanousd=39 * CENT))
    assert held() == [("a", 40 * CENT)]
    assert statuses(at_us=NOON_US)[0].spent_amount == 0


@in_both
def test_what_is_reserved_in_all_is_no_less_than_what_is_held(store: Reservations, ledger: Store, make_call) -> None:
    """It is looked at first, which is quick; an earlier attempt on the books is taken off what is held only."""
    store.reserve(ask("a", 40 * CENT), ME)
    store.reserve(ask("a", 40 * CENT, attempt=2), ME)
    store.reserve(ask("b", 10 * CENT), ME)
    ledger.write(make_call(uid="a", status="error", attempts=1, cost_nanousd=15 * CENT))
    with ledger.transaction(reading=True) as connection:
        [budget] = all_budgets(connection)
        most = counting.held_at_most(connection, budget, besides="c")
        exactly = counting.held(connection, budget, budget.period(NOON_US), besides="c")
    assert most[0] >= exactly.amount > 0
    assert most[1] == exactly.excess
    assert isinstance(store.reserve(ask("c", 45 * CENT), ME), Granted)  # by a closer look


# Answers that go on ---------------------------------------------------------------------------------------------------


def by_the_token(unit: Unit, tokens: int) -> int:
    return 10 * CENT + tokens * CENT


@in_both
def test_an_answer_that_goes_on_holds_more(store: Reservations) -> None:
    """As far as there is money, and it is told how far that is."""
    store.reserve(ask("a", 30 * CENT), ME)
    store.reserve(ask("b", 20 * CENT), ME)
    assert store.stretch(ask("a", 30 * CENT), 20, 40, by_the_token).output_tokens == 40
    assert held() == [("a", 50 * CENT), ("b", 20 * CENT)]
    short = store.stretch(ask("a", 30 * CENT), 40, 100, by_the_token)
    assert (short.output_tokens, short.left, short.needed) == (70, 80 * CENT, 110 * CENT)
    assert short.budget is not None
    assert held() == [("a", 80 * CENT), ("b", 20 * CENT)]


def test_an_answer_can_hold_less(store: Reservations) -> None:
    """What turns out not to be needed is free for others."""
    store.reserve(ask("a", 90 * CENT), ME)
    store.stretch(ask("a", 90 * CENT), 0, 10, by_the_token)
    assert held() == [("a", 20 * CENT)]


def test_what_was_used_stays_held(store: Reservations) -> None:
    """Also where a lowered limit leaves no room for it."""
    store.reserve(ask("a", 30 * CENT), ME)
    set_budget(usd="0.05", per="day", project="thesis")
    assert store.stretch(ask("a", 30 * CENT), 25, 40, by_the_token).output_tokens == 0
    assert held() == [("a", 35 * CENT)]


# What is known --------------------------------------------------------------------------------------------------------


def test_budgets_of_other_processes_are_known_within_a_moment(store: Reservations) -> None:
    """They are looked for at most every `LOOK_S` seconds, so that a call without budgets costs nothing."""
    now = [0.0]
    other = Reservations(store.path, clock=lambda: now[0])
    assert len(other.known()) == 1
    with closing(sqlite3.connect(store.path)) as elsewhere:
        elsewhere.execute("DELETE FROM budgets")
        elsewhere.commit()
    now[0] = LOOK_S * 0.99
    assert len(other.known()) == 1
    now[0] = LOOK_S
    assert other.known() == ()


def test_no_ledger_is_no_budget_and_makes_none(tmp_path: Any) -> None:
    """Looking creates nothing."""
    store = Reservations(tmp_path / "none" / "ledger.db")
    assert store.known() == ()
    assert store.trouble is None
    assert list(tmp_path.glob("none*")) == []


def test_a_locked_ledger_is_said_at_once(store: Reservations) -> None:
    """Whoever waits does so elsewhere, where it can be interrupted; nothing is held."""
    store.known()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            store.reserve(ask("a", 1), ME)
        assert time.monotonic() - began < 1
        assert len(store.known()) == 1
    assert held() == []


def test_what_cannot_be_written_can_still_be_known(store: Reservations, ledger: Store) -> None:
    """A ledger of a newer llmnb is not written, but what it forbids is forbidden."""
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert len(Reservations(store.path).known()) == 1


def test_a_ledger_that_cannot_be_read_is_left_alone_for_a_while(tmp_path: Any) -> None:
    """Longer each time, and what was known of it stays known."""
    (tmp_path / "ledger.db").mkdir()
    now = [0.0]
    looks: list[float] = []

    class Counted(Reservations):
        def _read(self) -> Any:
            looks.append(now[0])
            return super()._read()

    store = Counted(tmp_path / "ledger.db", clock=lambda: now[0])
    for step in range(200):
        now[0] = step / 10
        assert store.known() == ()
    assert store.trouble is not None
    assert looks == [0.0, 1.0, 3.0, 7.0, 15.0]


# Any sequence ---------------------------------------------------------------------------------------------------------


class Bank(RuleBasedStateMachine):
    """Calls that hold, end, are tried again or die, held against a model in plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.db")
        self.store = Reservations(self.ledger.path)
        self.number = 0
        self.under_way: dict[str, tuple[int, int, int]] = {}  # attempt, bound with what was lost, lost
        self.between: dict[str, tuple[int, int]] = {}  # attempts so far, lost
        self.on_books: dict[str, int] = {}
        self.limit = 0

    @initialize(limit=st.integers(0, 100), other=st.integers(0, 200))
    def set_budgets(self, limit: int, other: int) -> None:
        self.limit = min(limit, other)
        with self.ledger.transaction() as connection:
            for per, allowance in (("day", limit), ("total", other)):
                connection.execute(
                    "INSERT INTO budgets (per, unit, allowance, action, timezone, unpriced)"
                    " VALUES (?, 'usd', ?, 'stop', 'UTC', '[]')",
                    (per, allowance),
                )

    def asked(self, uid: str, attempt: int, bound: int, lost: int) -> None:
        verdict = self.store.reserve(ask(uid, bound + lost, attempt=attempt), ME)
        before = self.on_books.get(uid, 0)
        spent = sum(self.on_books.values())
        needed = max(0, bound + lost - before)
        open_calls = {other: held for other, held in self.under_way.items() if other != uid}
        held = sum(max(0, held - self.on_books.get(other, 0)) for other, (_, held, _) in open_calls.items())
        if spent + needed > self.limit:
            assert isinstance(verdict, Refused)
        elif open_calls and spent + held + needed > self.limit:
            assert isinstance(verdict, MustWait)
            assert set(verdict.uids) == set(open_calls)
        else:
            assert isinstance(verdict, Granted)
            self.under_way[uid] = attempt, bound + lost, lost

    @rule(bound=st.integers(0, 40))
    def a_new_call(self, bound: int) -> None:
        self.number += 1
        self.asked(f"call-{self.number}", 1, bound, 0)

    @rule(data=st.data())
    def a_call_ends(self, data: st.DataObject) -> None:
        """Within its bound, whichever way."""
        if self.under_way:
            uid = data.draw(st.sampled_from(sorted(self.under_way)))
            attempt, bound, lost = self.under_way.pop(uid)
            cost = data.draw(st.integers(lost, max(lost, bound)))
            self.write(uid, data.draw(st.sampled_from(["ok", "cancelled", "truncated", "interrupted"])), attempt, cost)

    @rule(data=st.data())
    def an_attempt_fails(self, data: st.DataObject) -> None:
        """It may be billed all the same, and may be tried again."""
        if self.under_way:
            uid = data.draw(st.sampled_from(sorted(self.under_way)))
            attempt, bound, lost = self.under_way.pop(uid)
            lost = data.draw(st.integers(lost, max(lost, bound)))
            self.between[uid] = attempt, lost
            self.write(uid, "error", attempt, lost)

    @rule(data=st.data(), bound=st.integers(0, 40))
    def it_is_tried_again(self, data: st.DataObject, bound: int) -> None:
        if self.between:
            uid = data.draw(st.sampled_from(sorted(self.between)))
            attempt, lost = self.between[uid]
            self.asked(uid, attempt + 1, bound, lost)
            if uid in self.under_way:
                del self.between[uid]

    @rule(data=st.data(), cost=st.integers(0, 40))
    def a_stream_is_noted(self, data: st.DataObject, cost: int) -> None:
        """A provisional row changes nothing but that an earlier attempt's is gone."""
        if self.under_way:
            uid = data.draw(st.sampled_from(sorted(self.under_way)))
            self.write(uid, "running", self.under_way[uid][0], cost)

    @rule(data=st.data())
    def an_old_row_comes_late(self, data: st.DataObject) -> None:
        """The spool writes the row of an attempt when the next is under way: it lets go of nothing."""
        if self.under_way:
            uid = data.draw(st.sampled_from(sorted(self.under_way)))
            attempt, _, lost = self.under_way[uid]
            if attempt > 1:
                self.write(uid, "error", attempt - 1, lost)

    def write(self, uid: str, status: Any, attempt: int, cost: int) -> None:
        self.ledger.write(
            Call(
                uid, NOON_US, "claude-sonnet-5-5", project="thesis", status=status, attempts=attempt, cost_nanousd=cost
            )
        )
        self.on_books[uid] = 0 if status == "running" else cost

    @invariant()
    def the_ledger_says_the_same(self) -> None:
        if not self.limit and not self.number:
            return
        with self.ledger.transaction(reading=True) as connection:
            for budget in all_budgets(connection):
                period = budget.period(NOON_US)
                spent = counting.spent(connection, budget, period).amount
                held = counting.held(connection, budget, period)
                assert spent == sum(self.on_books.values())
                assert set(held.uids) == set(self.under_way)
                assert spent + held.amount <= max(budget.allowance, spent)

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


def test_no_sequence_spends_or_holds_more_than_there_is() -> None:
    """Granted, waiting and refused are exactly what they should be, and nothing is counted twice or lost."""
    run_state_machine_as_test(
        Bank, settings=hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


# Clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["day", "rolling 24h", "total"])
def test_a_clock_that_is_set_back_gives_no_money_back(ledger: Store, store: Reservations, make_call, per: Any) -> None:
    """What was spent ahead of it counts, within the same day, in any 24 hours and in total."""
    set_budget(usd=1, per=per, project="thesis")
    ledger.write(make_call(cost_nanousd=90 * CENT, ts=NOON_US + 5 * HOUR_US))
    assert isinstance(store.reserve(ask("a", 20 * CENT), ME), Refused)


def test_a_day_begins_anew_at_midnight_of_its_timezone(
    ledger: Store, store: Reservations, make_call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on the day that has 23 hours, to the microsecond."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "Europe/Oslo")
    set_budget(usd=1, per="day", project="thesis")
    midnight = to_us(datetime(2027, 3, 29, tzinfo=ZoneInfo("Europe/Oslo")))
    ledger.write(make_call(cost_nanousd=90 * CENT, ts=midnight - 23 * HOUR_US))
    refused = store.reserve(ask("a", 20 * CENT, ts=midnight - 1), ME)
    assert isinstance(refused, Refused)
    assert refused.free_us == midnight
    assert isinstance(store.reserve(ask("b", 100 * CENT, ts=midnight), ME), Granted)
    assert isinstance(store.reserve(ask("c", 20 * CENT, ts=midnight - 23 * HOUR_US - 1), ME), Granted)


@in_both
def test_any_24_hours_let_go_in_quarters_of_an_hour(ledger: Store, store: Reservations, make_call) -> None:
    """A refusal says when enough will be free, and then it is."""
    set_budget(usd="0.5", per="rolling 24h", project="thesis")
    for number, cents in enumerate((10, 20, 15)):
        ledger.write(make_call(cost_nanousd=cents * CENT, ts=NOON_US + number * HOUR_US))
    now = NOON_US + 3 * HOUR_US
    refused = store.reserve(ask("a", 30 * CENT, ts=now), ME)
    assert isinstance(refused, Refused)
    assert refused.free_us == NOON_US + 25 * HOUR_US + HOUR_US // 4
    assert isinstance(store.reserve(ask("a", 30 * CENT, ts=refused.free_us - 1), ME), Refused)
    assert isinstance(store.reserve(ask("a", 30 * CENT, ts=refused.free_us), ME), Granted)
