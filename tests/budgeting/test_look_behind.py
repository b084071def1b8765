"""Looking at what is far away: only the first look is waited for, and not for long; budgets of a team stand without."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llmnb.budgeting import look_behind
from llmnb.budgeting.look_behind import LookBehind
from llmnb.budgeting.reservations import Reservations
from llmnb.errors import StoreError
from llmnb.ledger import Store
from llmnb.places import PostgresPlace

from ..postgres_server import PostgresServer
from .conftest import ask
from .test_counting import set_plainly


def test_the_first_look_is_waited_for() -> None:
    """By all who ask; later ones by nobody."""
    gate, seen = threading.Event(), list[int]()

    def work() -> None:
        gate.wait(20)
        seen.append(1)

    behind = LookBehind(work)
    behind.look()
    threading.Timer(0.05, gate.set).start()
    behind.wait()
    assert seen == [1]
    gate.clear()
    behind.look()
    begun = time.monotonic()
    behind.wait()
    assert time.monotonic() - begun < 0.5
    gate.set()


def test_one_that_takes_too_long_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is sent without having seen anything waited long, the next not at all."""
    monkeypatch.setattr(look_behind, "FIRST_LOOK_S", 0.05)
    gate = threading.Event()
    behind = LookBehind(lambda: gate.wait(20))
    behind.look()
    behind.wait()
    monkeypatch.setattr(look_behind, "FIRST_LOOK_S", 20)
    behind.wait()
    gate.set()


def test_what_was_seen_before_it_was_forgotten_does_not_count() -> None:
    """A look that began before a budget was set may not have seen it: it is looked again."""
    gate, begun, looks = threading.Event(), threading.Event(), list[int]()

    def work() -> None:
        looks.append(1)
        begun.set()
        gate.wait(20)

    behind = LookBehind(work)
    behind.look()
    assert begun.wait(20)
    behind.forget()
    gate.set()
    behind.wait()
    assert len(looks) == 2


def test_without_its_server_a_budget_stands_and_nobody_waits(
    postgres: PostgresPlace, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known to be forbidden stays so, and what is left of it cannot be told: that is said at once."""
    from llmnb.ledger import new_ledger

    ledger: Store = new_ledger(postgres)
    set_plainly(ledger)
    ledger.close()
    known = Reservations(postgres)
    assert len(known.known()) == 1
    postgres_server.stop()
    with pytest.raises(StoreError):
        known.reserve(ask("a", 1), known)
    known.forget()
    assert len(known.known()) == 1
    monkeypatch.setattr(type(known), "ledger", None)  # it is not even tried
    with pytest.raises(StoreError, match="is the server running"):
        known.reserve(ask("b", 1), known)
    strange = Reservations(PostgresPlace(postgres.url + "?application_name=other"))
    assert strange.known() == ()
    assert isinstance(strange.trouble, StoreError)


def test_it_looks_before_the_first_call() -> None:
    """A server that answers nothing is waited for while the notebook is still being read, and the call goes at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        found = Reservations(PostgresPlace(f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/y"))
        found.look_ahead()
        silent.accept()[0].close()
    while not found._behind.has_looked:
        time.sleep(0.01)
    assert found.known() == ()
    assert found.trouble is not None


@pytest.mark.parametrize("ledger", ["postgres"], indirect=True)
def test_what_was_seen_ahead_is_no_excuse(ledger: Store) -> None:
    """A budget that was set between the client and its first call counts."""
    found = Reservations(ledger.path)
    found.look_ahead()
    while not found._behind.has_looked:
        time.sleep(0.01)
    set_plainly(ledger, per="total")
    assert [budget.per for budget in found.known()] == ["total"]
    found.close()
