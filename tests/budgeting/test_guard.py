"""What the dead hold: let go when their calls are on the books, and not before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmnb import origin
from llmnb.budgeting import set_budget, statuses
from llmnb.budgeting.desk import Granted
from llmnb.budgeting.guard import GIVE_UP_US, SETTLING_US, Guard, guard
from llmnb.budgeting.reservations import Reservations
from llmnb.ledger import Ledger, books
from llmnb.ledger.sessions import is_dead
from llmnb.settings import load

from .. import processes
from .conftest import ask, rows

CENT = 10_000_000
NOW_US = time.time_ns() // 1000


@pytest.fixture
def keeper(ledger: Ledger) -> Guard:
    """The guard of a ledger with one budget of a dollar."""
    set_budget(usd=1, per="total")
    return guard(load())


HOLDER = f"""
import os, signal, sys, time
from llmnb import origin, settings
from llmnb.budgeting.guard import guard
from llmnb.ledger import books
from tests.budgeting.conftest import ask

kept, keeper = books(settings.load()), guard(settings.load())
wanted = ask("dead", 40 * {CENT}, ts=time.time_ns() // 1000)
if "noted" in sys.argv:
    known = {{"input_tokens": 1000, "provider": "anthropic", "session": origin.session(), "attempts": 1}}
    kept.begin({{**wanted.call, **known}})
assert keeper.reservations.reserve(wanted, (1, 0)).budgets
print("holding", flush=True)
signal.pause()
"""


def hold_and_die(*arguments: str) -> None:
    """A process that holds forty cents and is killed."""
    root = Path(__file__).parents[2]
    process = processes.Python(
        ["-c", HOLDER, *arguments],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_a_killed_call_takes_what_it_may_have_cost(keeper: Guard) -> None:
    """Its note becomes a row, an estimate, and the rest of what it held is free."""
    hold_and_die("noted")
    assert statuses()[0].held_amount in (0, 40 * CENT)  # reading the ledger adopts the call already
    keeper.tidy()
    (status,) = statuses()
    assert (status.spent_amount, status.held_amount) == (1000 * 2_000, 0)
    assert rows("SELECT status, estimated FROM calls") == [("interrupted", 1)]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_a_process_that_died_before_it_sent_anything_takes_nothing(keeper: Guard) -> None:
    """No note, no row: what it held is free, also where nobody waits for it and somebody only looks."""
    hold_and_die()
    assert rows("SELECT amount FROM reservations") == [(40 * CENT,)]
    (status,) = statuses()
    assert (status.spent_amount, status.held_amount) == (0, 0)


def dead_session() -> str:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return f"{socket.gethostname().replace(':', '-')}:{process.pid}:0:dead"


def take_over(session: str, *, age_us: int = 0) -> None:
    """Makes what is held somebody else's."""
    with Reservations(load().ledger_path).ledger.transaction() as connection:
        connection.execute("UPDATE reservations SET session = ?, taken_at = taken_at - ?", (session, age_us))


def test_money_stays_held_while_somebody_puts_the_dead_on_the_books(keeper: Guard, llmnb_home: Path) -> None:
    """As long as a note of theirs exists: between it and the row there is no moment without either."""
    keeper.reservations.reserve(ask("a", 40 * CENT, ts=NOW_US), (1, 0))
    session = dead_session()
    take_over(session)
    pid = session.split(":")[1]
    folder = llmnb_home / "spool" / "underway"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{socket.gethostname()}-{pid}-abcd.jsonl"
    note.write_text("")
    locked = os.open(note, os.O_RDWR)
    from llmnb.locks import try_lock

    assert try_lock(locked)  # whoever adopts it holds its lock
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT
    os.close(locked)
    keeper.tidy()
    assert statuses()[0].held_amount == 0


def test_the_living_keep_what_they_hold(keeper: Guard) -> None:
    """This process, others here, and those on other hosts for a day."""
    keeper.reservations.reserve(ask("a", 40 * CENT, ts=NOW_US), (1, 0))
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT
    parent = f"{socket.gethostname().replace(':', '-')}:{os.getppid()}:{int(time.time())}:alive"
    take_over(parent, age_us=10 * GIVE_UP_US)
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT
    take_over("elsewhere:1:2:far")
    with Reservations(load().ledger_path).ledger.transaction() as connection:
        connection.execute("UPDATE reservations SET taken_at = ?", (NOW_US,))
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT
    take_over("elsewhere:1:2:far", age_us=GIVE_UP_US + 3_600_000_000)
    keeper.tidy()
    assert statuses()[0].held_amount == 0


def test_a_clock_that_was_set_forward_kills_nobody(keeper: Guard) -> None:
    """A process looks as if it had begun later then; as long as its notes are locked, it lives."""
    now_us = time.time_ns() // 1000
    call = {**ask("a", 40 * CENT, ts=now_us).call, "session": origin.session(), "provider": "anthropic"}
    books(load()).begin(call)
    keeper.reservations.reserve(ask("a", 40 * CENT, ts=now_us), (1, 0))
    host, pid, started, rest = origin.session().rsplit(":", 3)
    earlier = f"{host}:{pid}:{int(started) - 3600}:{rest}"
    assert is_dead(earlier)
    take_over(earlier)
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT


def test_what_this_process_holds_for_a_call_whose_row_is_lost_is_let_go(keeper: Guard) -> None:
    """The call has ended, everything is written, and the money is held still: something went wrong on the way."""
    store = keeper.reservations
    assert isinstance(store.reserve(ask("lost", 40 * CENT, ts=NOW_US), (1, 0)), Granted)
    store.ended("lost")
    keeper.tidy()
    assert statuses()[0].held_amount == 40 * CENT
    take_over(origin.session(), age_us=2 * SETTLING_US)
    keeper.tidy()
    assert statuses()[0].held_amount == 0


def test_tidying_is_asked_for_at_most_every_second(keeper: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls wait."""
    asked: list[None] = []
    monkeypatch.setattr(keeper._janitor, "ask", lambda: asked.append(None))
    keeper._tidied_at = -10.0
    for _ in range(50):
        keeper.tidy_soon()
    assert len(asked) == 1


def test_there_is_one_guard_a_ledger(llmnb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The money of one is not the money of the other."""
    one = guard(load())
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{llmnb_home}/other.db")
    assert guard(load()) is not one
    assert books(load()) is books(load())


def test_a_forked_child_holds_nothing_of_its_parents(keeper: Guard) -> None:
    """What the parent's calls hold is the parent's."""
    keeper.reservations.reserve(ask("a", 40 * CENT, ts=NOW_US), (1, 0))
    assert "a" in keeper.reservations.open
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        os._exit(0 if not keeper.reservations.open else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert "a" in keeper.reservations.open
