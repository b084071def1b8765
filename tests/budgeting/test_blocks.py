"""Money held for many calls at once: never given out twice, let go when it is not needed, exact near the limit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llmnb.budgeting import blocks, set_budget, statuses
from llmnb.budgeting.blocks import FEW, LEASE_S, SHARE, STALE_US, WINDOW_S, is_block, let_go_of_stale
from llmnb.budgeting.budget import Budget, Unit, all_budgets
from llmnb.budgeting.desk import Ask, Granted, MustWait, Refused, Verdict
from llmnb.budgeting.guard import SETTLING_US
from llmnb.budgeting.reservations import Reservations
from llmnb.errors import StoreError
from llmnb.ledger import Ledger, Store
from llmnb.places import Place
from llmnb.records import Call
from llmnb.slots import Owner

from .conftest import NOON_US, ask, in_both, rows

ME = (1, 0)
CENT = 10_000_000


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Teller(Reservations):
    """The reservations of one process, on a clock of its own, which nobody renews behind one's back."""

    def __init__(self, path: Place) -> None:
        self.clock = Clock()
        super().__init__(path, clock=self.clock)
        self._renewing = type("Never", (), {"ask": lambda _: None, "ask_after": lambda *_: None})()  # pyright: ignore[reportAttributeAccessIssue]

    def takes(self, wanted: Ask, owner: Owner = ME) -> Verdict:
        """As a call does: from what is at hand, else from the ledger."""
        stops = tuple(budget for budget in self.known() if budget.concerns(wanted.call))
        return self.given(wanted, owner, stops) or self.draw(wanted, owner)

    def ends(self, uid: str, cost: int) -> None:
        """A call of it has ended; its row is not on the books yet."""
        self.ended(uid)
        self.settled(ask(uid, 0).call, {"usd": cost, "tokens": cost})

    def renews(self, *, keeps: bool = True) -> None:
        """What the thread behind does."""
        self._renew(keeps=keeps)


@pytest.fixture
def teller(ledger: Store) -> Teller:
    """A process that makes calls, and a budget of a thousand cents."""
    set_budget(usd=10, per="day", project="thesis")
    return Teller(ledger.path)


def busy(teller: Teller, amount: int = CENT, **more: Any) -> list[str]:
    """So many calls that there is a block, one after the other; their uids."""
    uids = [f"busy-{number}" for number in range(FEW)]
    for uid in uids:
        assert isinstance(teller.takes(ask(uid, amount, **more)), Granted)
    return uids


def held() -> dict[str, int]:
    return dict(rows("SELECT uid, amount FROM reservations"))


def in_blocks() -> int:
    return sum(amount for uid, amount in held().items() if is_block(uid))


# One process ----------------------------------------------------------------------------------------------------------


@in_both
def test_many_calls_ask_the_ledger_once(teller: Teller, ledger: Store, make_call) -> None:
    """From the eighth within a moment on money is held for those to come; they hold nothing of their own."""
    busy(teller)
    assert in_blocks() == FEW * CENT
    before = held()
    for number in range(FEW):
        assert isinstance(teller.takes(ask(f"next-{number}", CENT)), Granted)
    assert held() == before
    teller.takes(ask("one-more", CENT))
    assert held() != before
    assert statuses(at_us=NOON_US)[0].held_amount == sum(held().values())


def test_calls_that_come_slowly_hold_for_themselves_alone(teller: Teller) -> None:
    """However many they are."""
    for number in range(3 * FEW):
        teller.clock.now += WINDOW_S / 4
        teller.takes(ask(f"slow-{number}", CENT))
    assert in_blocks() == 0
    assert len(held()) == 3 * FEW


@in_both
def test_what_a_call_took_stays_held_until_its_row_is_there(teller: Teller, ledger: Store, make_call) -> None:
    """And what it did not take is free for the next at once."""
    busy(teller)
    for number in range(FEW):
        teller.takes(ask(f"next-{number}", CENT))
    teller.ends("next-0", CENT // 4)
    assert isinstance(teller.given(ask("a", CENT // 2), ME, teller.known()), Granted)
    assert teller.given(ask("b", CENT // 2), ME, teller.known()) is None
    teller.clock.now += 1
    teller.renews()
    assert in_blocks() == (FEW - 1) * CENT + CENT // 4 + CENT // 2
    ledger.write(make_call(uid="next-0", cost_nanousd=CENT // 4))
    teller.renews()
    assert in_blocks() == (FEW - 1) * CENT + CENT // 2


def test_a_call_that_took_more_than_it_held_takes_it_from_what_is_free(teller: Teller) -> None:
    """So that the block as a whole stays what it is on the books."""
    busy(teller)
    teller.takes(ask("long", CENT))
    teller.ends("long", 5 * CENT)
    given = [teller.given(ask(f"next-{n}", CENT), ME, teller.known()) for n in range(FEW)]
    assert sum(one is not None for one in given) == FEW - 5


def test_room_is_kept_for_an_answer_that_gets_longer(teller: Teller) -> None:
    """A call that can exceed by more than the block knows asks for itself."""
    busy(teller, excess=CENT)
    assert teller.given(ask("a", CENT, excess=2 * CENT), ME, teller.known()) is None
    assert isinstance(teller.given(ask("b", CENT, excess=CENT), ME, teller.known()), Granted)
    assert {row[0] for row in rows("SELECT excess FROM reservations")} == {CENT}


def test_a_block_takes_a_small_part_of_what_is_left(teller: Teller, ledger: Store, make_call) -> None:
    """Near the limit calls hold for themselves, and the last of the money is used, too."""
    ledger.write(make_call(cost_nanousd=960 * CENT))
    busy(teller)
    left = 40 - FEW
    assert in_blocks() <= left * CENT // SHARE
    number = 0
    while isinstance(teller.takes(ask(f"more-{number}", CENT)), Granted):
        number += 1
    assert number == left
    assert in_blocks() == number * CENT or all(not is_block(uid) or amount for uid, amount in held().items())
    wait = teller.takes(ask("last", CENT))
    assert isinstance(wait, MustWait)
    assert not any(map(is_block, wait.uids))
    assert isinstance(teller.takes(ask("never", 41 * CENT)), Refused)


def test_a_call_that_is_tried_again_holds_for_itself(teller: Teller, ledger: Store, make_call) -> None:
    """What its first attempt may be billed stays held until it is on the books, once."""
    busy(teller)
    teller.takes(ask("a", CENT))
    teller.ends("a", CENT // 2)
    assert isinstance(teller.takes(ask("a", 2 * CENT, attempt=2)), Granted)
    assert held()["a"] == 2 * CENT
    ledger.write(make_call(uid="a", status="error", attempts=1, cost_nanousd=CENT // 2))
    assert held()["a"] == 2 * CENT
    ledger.write(make_call(uid="a", attempts=2, cost_nanousd=CENT))
    assert "a" not in held()


def test_an_answer_that_goes_on_takes_more_of_the_block(teller: Teller) -> None:
    """And of the ledger where that is not enough; then it holds for itself."""
    busy(teller)
    teller.takes(ask("a", CENT))
    before = held()
    assert teller.stretch(ask("a", CENT), 0, 3, lambda _, tokens: tokens * CENT).output_tokens == 3
    assert held() == before
    assert teller.stretch(ask("a", CENT), 0, 100, lambda _, tokens: tokens * CENT).output_tokens == 100
    assert held()["a"] == 100 * CENT
    assert in_blocks() == (FEW - 3) * CENT


def test_a_lowered_limit_ends_what_is_given_out(teller: Teller) -> None:
    """As soon as this process knows of it."""
    busy(teller)
    set_budget(usd="0.01", per="day", project="thesis")
    teller.forget()
    assert isinstance(teller.takes(ask("a", CENT + 1)), Refused)
    assert in_blocks() == 0


def test_all_budgets_have_their_part_in_a_block(teller: Teller, ledger: Store, make_call) -> None:
    """The one that is nearly used up decides."""
    set_budget(usd="0.20", per="hour")
    teller.forget()
    busy(teller)
    assert in_blocks() == 0
    set_budget(usd=5, per="hour")
    teller.forget()
    teller.takes(ask("a", CENT))
    assert {row[0] for row in rows("SELECT budget_id FROM reservations WHERE uid LIKE 'block:%'")} == {1, 2}


@pytest.mark.parametrize("how", ["give_back", "close"])
def test_nothing_is_held_once_nobody_calls(teller: Teller, ledger: Store, make_call, how: str) -> None:
    """What is under way or not on the books stays held, and is let go by its row."""
    uids = busy(teller)
    teller.takes(ask("under way", CENT))
    teller.takes(ask("ended", CENT))
    teller.ends("ended", CENT // 2)
    getattr(teller, how)()
    for uid in [*uids, "under way"]:
        teller.ends(uid, CENT)
    assert sum(held().values()) == (FEW + 1) * CENT + CENT // 2
    for uid in [*uids, "under way", "ended"]:
        ledger.write(make_call(uid=uid, cost_nanousd=CENT))
    teller.renews()
    assert held() == {}


def test_what_a_call_held_whose_row_is_lost_is_let_go(teller: Teller) -> None:
    """After a while, when everything is written."""
    busy(teller)
    teller.takes(ask("lost", CENT))
    teller.ends("lost", CENT)
    teller.blocks.drop_lost(SETTLING_US / 1e6)
    teller.renews(keeps=False)
    assert in_blocks() == CENT
    teller.clock.now += SETTLING_US / 1e6 + 1
    teller.blocks.drop_lost(SETTLING_US / 1e6)
    teller.renews(keeps=False)
    assert in_blocks() == 0


@in_both
def test_a_block_whose_renewal_failed_is_let_go_all_the_same(
    teller: Teller, ledger: Store, make_call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was rolled back is held as before: a block is forgotten when it is gone from the ledger, and not before."""
    uids = [*busy(teller), "given"]
    assert isinstance(teller.takes(ask("given", CENT)), Granted)
    for uid in uids:
        teller.ends(uid, CENT // 10)
        ledger.write(make_call(uid=uid, cost_nanousd=CENT // 10))
    fail_once(monkeypatch)
    with pytest.raises(StoreError):
        teller.renews()
    teller.clock.now += 60
    assert isinstance(teller.takes(ask("next", CENT)), Granted)  # the next transaction succeeds
    assert in_blocks() > 0
    teller.ends("next", CENT)
    ledger.write(make_call(uid="next", cost_nanousd=CENT))
    teller.renews()
    assert held() == {}
    assert not teller.blocks


@in_both
@pytest.mark.parametrize("how", ["stretch", "close"])
def test_a_call_goes_on_holding_when_the_ledger_fails_while_it_is_singled_out(
    teller: Teller, ledger: Store, make_call, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An answer gets longer, or a client is closed, and the disk is full just then: the money is the call's still."""
    busy(teller)
    teller.takes(ask("under way", CENT))
    fail_once(monkeypatch)
    if how == "close":
        teller.close()
    else:
        with pytest.raises(StoreError):
            teller.stretch(ask("under way", CENT), 10, 10_000, lambda unit, tokens: 100 * CENT)
    teller.renews(keeps=False)
    assert sum(held().values()) == (FEW + 1) * CENT
    teller.ends("under way", CENT // 2)
    ledger.write(make_call(uid="under way", cost_nanousd=CENT // 2))
    teller.renews(keeps=False)
    assert sum(held().values()) == FEW * CENT


# A machine that is gone, or asleep ------------------------------------------------------------------------------------


def nobody_writes(teller: Teller, ledger: Store, age_us: int) -> None:
    """So much time goes by for the ledger and for the process, which does nothing in it."""
    teller.clock.now += age_us / 1e6
    with ledger.transaction() as connection:
        connection.execute("UPDATE reservations SET taken_at = taken_at - ?", (age_us,))


@in_both
def test_what_a_killed_process_elsewhere_held_for_calls_to_come_is_free(teller: Teller, ledger: Store) -> None:
    """By the clock of the ledger, a while after it was last written down; what its calls held stays held."""
    busy(teller)
    for number in range(2):
        assert isinstance(teller.given(ask(f"under way {number}", CENT), ME, teller.known()), Granted)
    teller.renews()
    with ledger.transaction() as connection:
        connection.execute("UPDATE reservations SET session = 'elsewhere:1:2:far'")
    free = sum(amount for uid, amount in held().items() if uid.endswith(":free"))
    assert free >= (FEW - 2) * CENT
    nobody_writes(teller, ledger, STALE_US - 60_000_000)
    assert statuses(at_us=NOON_US)[0].held_amount == (FEW + 2) * CENT + free
    nobody_writes(teller, ledger, 61_000_000)
    assert statuses(at_us=NOON_US)[0].held_amount == (FEW + 2) * CENT


@in_both
def test_a_process_that_was_away_gives_nothing_of_what_others_have_taken(teller: Teller, ledger: Store) -> None:
    """After a sleep it asks the ledger; and what it holds for a call by itself brings nothing of the rest back."""
    busy(teller)
    assert isinstance(teller.given(ask("a", CENT), ME, teller.known()), Granted)
    teller.clock.now += LEASE_S - 1
    assert isinstance(teller.given(ask("b", CENT), ME, teller.known()), Granted)
    nobody_writes(teller, ledger, STALE_US + 1_000_000)
    with ledger.transaction() as connection:
        let_go_of_stale(connection)
    other = Teller(ledger.path)
    assert isinstance(other.takes(ask("the rest", (1000 - FEW - 2) * CENT)), Granted)
    assert teller.given(ask("c", CENT), ME, teller.known()) is None
    assert not teller.blocks.stretch(ask("a", CENT), teller.known(), 2, lambda _, tokens: tokens * CENT)
    assert teller.stretch(ask("a", CENT), 0, 2, lambda _, tokens: tokens * CENT).output_tokens == 1
    assert isinstance(teller.takes(ask("d", CENT)), MustWait)
    assert sum(held().values()) == 1000 * CENT
    other.let_go("the rest")
    assert isinstance(teller.takes(ask("e", CENT)), Granted)
    other.close()


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full, or the server gone, when what a block or a call of it holds is written down the next time."""
    hold = blocks._hold
    failures = [StoreError("no room on the disk")]

    def hold_or_fail(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        hold(*arguments)

    monkeypatch.setattr(blocks, "_hold", hold_or_fail)


def test_a_call_is_not_lost_because_it_just_began(teller: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks for what is lost when it has its money, and is not known to be under way yet."""
    busy(teller)
    give = teller.blocks.give

    def give_and_look(*arguments: Any) -> bool:
        is_given = give(*arguments)
        teller.blocks.drop_lost(SETTLING_US / 1e6)
        return is_given

    with monkeypatch.context() as patch:
        patch.setattr(teller.blocks, "give", give_and_look)
        assert isinstance(teller.given(ask("slow", CENT), ME, teller.known()), Granted)
    teller.clock.now += 60
    teller.blocks.drop_lost(SETTLING_US / 1e6)
    teller.renews(keeps=False)
    assert in_blocks() == CENT


def test_an_answer_goes_on_while_a_client_is_closed(teller: Teller) -> None:
    """What it had of a block it holds for itself from one moment to the next, and more of the ledger then."""
    busy(teller)
    teller.takes(ask("long", CENT))

    def needs(unit: Unit, tokens: int) -> int:
        if teller.blocks:
            teller.close()  # as another thread may, just now
        return 2 * CENT

    assert teller.stretch(ask("long", CENT), 10, 100, needs).output_tokens == 100
    assert held()["long"] == 2 * CENT


@in_both
def test_what_is_let_go_for_a_longer_answer_is_given_to_no_other_call(teller: Teller, ledger: Store) -> None:
    """The answer has all that is left then: what the block had for calls to come is written down twice in between."""
    busy(teller)
    assert isinstance(teller.takes(ask("long", CENT)), Granted)
    assert sum(amount for uid, amount in held().items() if uid.endswith(":free")) >= CENT
    assert teller.stretch(ask("long", CENT), 0, 10_000, lambda _, tokens: tokens * CENT).output_tokens < 10_000
    assert teller.given(ask("next", CENT), ME, teller.known()) is None
    assert isinstance(teller.takes(ask("next", CENT)), MustWait)
    assert sum(held().values()) == 1000 * CENT


# Any sequence of several processes ------------------------------------------------------------------------------------


class Town(RuleBasedStateMachine):
    """Processes that spend one budget, each as it likes, until they die: held against what they really do."""

    LIMIT = 300

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.db")
        self.tellers = [Teller(self.ledger.path) for _ in range(3)]
        self.number = 0
        self.under_way: dict[str, tuple[int, int]] = {}  # whose, and what it is bounded by
        self.unwritten: dict[str, tuple[int, int]] = {}  # whose, and what it cost
        self.spent = 0

    @initialize(other=st.integers(200, 400))
    def set_budgets(self, other: int) -> None:
        with self.ledger.transaction() as connection:
            for per, allowance in (("day", self.LIMIT), ("total", other)):
                connection.execute(
                    "INSERT INTO budgets (per, unit, allowance, action, timezone, unpriced)"
                    " VALUES (?, 'usd', ?, 'stop', 'UTC', '[]')",
                    (per, allowance),
                )
        self.limit = min(self.LIMIT, other)

    @rule(who=st.integers(0, 2), bound=st.integers(0, 4), calls=st.integers(1, 20))
    def calls_come(self, who: int, bound: int, calls: int) -> None:
        for _ in range(calls):
            self.number += 1
            uid = f"call-{self.number}"
            verdict = self.tellers[who].takes(ask(uid, bound))
            if isinstance(verdict, Refused):
                assert self.spent + bound > self.limit
                return
            if isinstance(verdict, MustWait):
                assert self.under_way or self.unwritten or any(t.blocks for t in self.tellers)
                assert not self.tellers[who].blocks or all(not any(b.free) for b in self.tellers[who].blocks._blocks)
                return
            self.under_way[uid] = who, bound

    @rule(data=st.data(), calls=st.integers(1, 20))
    def calls_end(self, data: st.DataObject, calls: int) -> None:
        """Within their bounds."""
        for uid in sorted(self.under_way)[:calls]:
            who, bound = self.under_way.pop(uid)
            cost = data.draw(st.integers(0, bound))
            self.unwritten[uid] = who, cost
            self.tellers[who].ends(uid, cost)

    @rule(calls=st.integers(1, 40))
    def rows_are_written(self, calls: int) -> None:
        for uid in sorted(self.unwritten)[:calls]:
            self._write(uid, "ok", self.unwritten.pop(uid)[1])

    @rule(who=st.integers(0, 2), keeps=st.booleans())
    def a_process_renews(self, who: int, keeps: bool) -> None:
        self.tellers[who].renews(keeps=keeps)

    @rule(who=st.integers(0, 2), data=st.data())
    def an_answer_gets_longer(self, who: int, data: st.DataObject) -> None:
        mine = sorted(uid for uid, (whose, _) in self.under_way.items() if whose == who)
        if mine:
            uid = data.draw(st.sampled_from(mine))
            wanted = data.draw(st.integers(0, 12))
            stretched = self.tellers[who].stretch(ask(uid, 0), 0, wanted, lambda _, tokens: tokens)
            self.under_way[uid] = who, stretched.output_tokens

    @rule(who=st.integers(0, 2))
    def time_passes(self, who: int) -> None:
        self.tellers[who].clock.now += WINDOW_S

    @rule(who=st.integers(0, 2))
    def a_machine_sleeps(self, who: int) -> None:
        """Once its thread has written down who has what; others let go of what its process held for calls to come."""
        teller = self.tellers[who]
        teller.renews()
        teller.clock.now += STALE_US / 1e6 + 1
        mine = [(STALE_US + 1_000_000, block.free_uid) for block in teller.blocks._blocks]
        with self.ledger.transaction() as connection:
            connection.executemany("UPDATE reservations SET taken_at = taken_at - ? WHERE uid = ?", mine)
            let_go_of_stale(connection)

    @rule(who=st.integers(0, 2))
    def a_process_is_killed(self, who: int) -> None:
        """What it had under way is put on the books by its notes, and then what it held is let go, as by a guard."""
        for calls in (self.under_way, self.unwritten):
            for uid in [uid for uid, (whose, _) in calls.items() if whose == who]:
                self._write(uid, "interrupted", calls.pop(uid)[1])
        teller = self.tellers[who]
        mine = [*teller.open, *(uid for block in teller.blocks._blocks for uid in (block.uid, block.free_uid))]
        with self.ledger.transaction() as connection:
            connection.executemany("DELETE FROM reservations WHERE uid = ?", [(uid,) for uid in mine])
        self.tellers[who] = Teller(self.ledger.path)

    @rule(who=st.integers(0, 2))
    def a_process_ends_well(self, who: int) -> None:
        if not any(whose == who for whose, _ in self.under_way.values()):
            self.tellers[who].close()
            self.tellers[who] = Teller(self.ledger.path)

    def _write(self, uid: str, status: Any, cost: int) -> None:
        self.ledger.write(Call(uid, NOON_US, "claude-sonnet-5-5", project="thesis", status=status, cost_nanousd=cost))
        self.spent += cost

    @invariant()
    def no_money_is_in_two_hands(self) -> None:
        """The limit holds for all that calls are allowed; and no block gives out more than the ledger holds for it."""
        if not hasattr(self, "limit"):
            return
        allowed = sum(bound for _, bound in self.under_way.values()) + sum(cost for _, cost in self.unwritten.values())
        with self.ledger.transaction(reading=True) as connection:
            budgets: tuple[Budget, ...] = all_budgets(connection)
            held = connection.execute("SELECT uid, budget_id, amount FROM reservations").fetchall()
        in_ledger = {(uid, budget_id): amount for uid, budget_id, amount in held}
        assert len(budgets) == 2
        free = 0
        for teller in self.tellers:
            for block in teller.blocks._blocks:
                for budget, slices, more in zip(block.budgets, block.in_slices(), block.free, strict=True):
                    if not teller.blocks._is_late(block):
                        mine = [in_ledger.get((uid, budget.id), 0) for uid in (block.uid, block.free_uid)]
                        assert slices + more <= sum(mine)
                free += 0 if teller.blocks._is_late(block) else max(0, min(block.free))
        assert self.spent + allowed + free <= self.limit
        assert {uid for uid, _ in in_ledger if not is_block(uid)} <= {*self.under_way, *self.unwritten}

    def teardown(self) -> None:
        """Once all have ended, nothing is held; so that all of the money can be spent."""
        if hasattr(self, "limit"):
            for uid, (who, bound) in list(self.under_way.items()):
                self.tellers[who].ends(uid, bound)
                self._write(uid, "ok", bound)
            for uid in list(self.unwritten):
                self._write(uid, "ok", self.unwritten.pop(uid)[1])
            for teller in self.tellers:
                teller.renews(keeps=False)
            with self.ledger.transaction(reading=True) as connection:
                assert connection.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
        self.ledger.close()
        self.folder.cleanup()


def test_no_sequence_of_processes_gives_money_out_twice() -> None:
    """Blocks of several processes, calls that end, rows that come late, answers that grow, and kills."""
    run_state_machine_as_test(
        Town, settings=hypothesis_settings(max_examples=15, stateful_step_count=20, deadline=None)
    )


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_long_sequence_of_processes_gives_money_out_twice() -> None:
    """The same with bigger numbers."""
    run_state_machine_as_test(
        Town, settings=hypothesis_settings(max_examples=1_000, stateful_step_count=60, deadline=None)
    )
