"""Warnings at 50, 80 and 100 %: once each, in the notebook and at the webhook, and never in the way of a call."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from llmnb.budgeting import set_budget, webhook
from llmnb.budgeting.alerts import Alert, due, say
from llmnb.budgeting.desk import Granted, Refused
from llmnb.budgeting.reservations import Reservations
from llmnb.ledger import Store
from llmnb.settings import load
from llmnb.trouble import BudgetWarning, LlmnbWarning

from .conftest import HOUR_US, NOON_US, ask, in_both, the_budget

CENT = 10_000_000


class Hook:
    """A local server that takes POSTs."""

    def __init__(self, status: int = 200) -> None:
        posts: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posts.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.posts = posts
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook that works."""
    found = Hook()
    yield found
    found.close()


@pytest.mark.parametrize(
    ("spent", "allowance", "percent"),
    [
        (0, 100, 0),
        (49, 100, 0),
        (50, 100, 50),
        (79, 100, 50),
        (80, 100, 80),
        (99, 100, 80),
        (100, 100, 100),
        (0, 0, 100),
    ],
)
def test_levels(spent: int, allowance: int, percent: int) -> None:
    """The highest that is reached counts."""
    assert due(spent, allowance) == percent


def alerts_of(store: Reservations, ts: int = NOON_US) -> list[int]:
    return [alert.percent for alert in store.look(ask("", 0).call, ts)]


@in_both
def test_each_line_is_warned_of_once_by_whoever_sees_it_first(ledger: Store, make_call) -> None:
    """Two processes share what was said; a line that was jumped over is not said later."""
    set_budget(usd=1, per="day")
    here, there = Reservations(ledger.path), Reservations(ledger.path)
    assert alerts_of(here) == []
    ledger.write(make_call(cost_nanousd=55 * CENT))
    assert (alerts_of(here), alerts_of(there), alerts_of(here)) == ([50], [], [])
    ledger.write(make_call(cost_nanousd=50 * CENT))
    assert (alerts_of(there), alerts_of(here)) == ([100], [])


def test_a_new_period_is_warned_of_anew(ledger: Store, store: Reservations, make_call) -> None:
    """Yesterday's warnings are yesterday's."""
    set_budget(usd=1, per="day")
    ledger.write(make_call(cost_nanousd=55 * CENT))
    tomorrow = NOON_US + 24 * HOUR_US
    assert (alerts_of(store), alerts_of(store, tomorrow)) == ([50], [])
    ledger.write(make_call(cost_nanousd=85 * CENT, ts=tomorrow))
    assert (alerts_of(store, tomorrow), alerts_of(store, tomorrow)) == ([80], [])


def test_any_24_hours_are_warned_of_anew_after_a_lull(ledger: Store, store: Reservations, make_call) -> None:
    """Below half everything may be said again; around a line nothing is said twice."""
    set_budget(usd=1, per="rolling 24h")
    ledger.write(make_call(cost_nanousd=55 * CENT))
    assert (alerts_of(store), alerts_of(store, NOON_US + HOUR_US)) == ([50], [])
    later = NOON_US + 30 * HOUR_US
    assert alerts_of(store, later) == []
    assert the_budget().said_percent == 0
    ledger.write(make_call(cost_nanousd=55 * CENT, ts=later))
    assert alerts_of(store, later) == [50]


def test_the_call_that_crosses_a_line_says_so_at_its_end(ledger: Store, store: Reservations, make_call) -> None:
    """Before its row is on the books, and without asking the ledger as long as no line is near."""
    set_budget(usd=1, per="day", project="thesis")
    asked = ask("a", 70 * CENT)
    store.known()
    assert isinstance(store.reserve(asked, (1, 0)), Granted)
    assert store.settled({**asked.call, "uid": "a"}, {"usd": 20 * CENT, "tokens": 0}) == ()
    (alert,) = store.settled({**asked.call, "uid": "a"}, {"usd": 60 * CENT, "tokens": 0})
    assert (alert.percent, alert.spent) == (50, 60 * CENT)
    ledger.write(make_call(uid="a", cost_nanousd=60 * CENT))
    assert alerts_of(store) == []


def test_calls_that_end_together_count_together(ledger: Store, store: Reservations, make_call) -> None:
    """A burst is over before its rows are on the books: the last counts those that ended before, and none twice."""
    set_budget(usd=1, per="day", action="warn")
    store.known()
    call = ask("a", 0).call
    assert alerts_of(store) == []
    assert store.settled({**call, "uid": "a"}, {"usd": 30 * CENT, "tokens": 0}) == ()
    assert store.look(call, NOON_US) == ()
    (alert,) = store.settled({**call, "uid": "b"}, {"usd": 40 * CENT, "tokens": 0})
    assert (alert.percent, alert.spent) == (50, 70 * CENT)
    ledger.write(make_call(uid="a", cost_nanousd=30 * CENT))
    ledger.write(make_call(uid="b", cost_nanousd=40 * CENT))
    assert store.settled({**call, "uid": "c"}, {"usd": 5 * CENT, "tokens": 0}) == ()
    (alert,) = store.settled({**call, "uid": "d"}, {"usd": 5 * CENT, "tokens": 0})
    assert (alert.percent, alert.spent) == (80, 80 * CENT)


def test_a_refusal_near_the_end_says_that_the_budget_is_used_up(ledger: Store, store: Reservations, make_call) -> None:
    """Once; a refusal of one call that is too dear while there is plenty does not."""
    set_budget(usd=1, per="day")
    refused = store.reserve(ask("a", 200 * CENT), (1, 0))
    assert isinstance(refused, Refused)
    assert refused.alerts == ()
    ledger.write(make_call(cost_nanousd=90 * CENT))
    refusals = [store.reserve(ask("b", 20 * CENT), (1, 0)) for _ in range(2)]
    assert [[alert.percent for alert in refusal.alerts] for refusal in refusals] == [[80, 100], []]
    assert "is used up but for $0.10, and a call that needs more was not sent" in refusals[0].alerts[1].text


# How they are said ----------------------------------------------------------------------------------------------------


def an_alert(percent: int, **changes: Any) -> Alert:
    status = set_budget(**{"usd": 5, "per": "total", "project": "thesis", **changes})
    return Alert(status.budget, percent, status.budget.allowance * percent // 100, 0, NOON_US)


def test_a_warning_says_what_is_left() -> None:
    """And when there is more; it is of a class of its own, so that it can be silenced or made an error."""
    with pytest.warns(BudgetWarning) as said:
        say([an_alert(80)], load())
    assert str(said[0].message) == (
        "llmnb: 80 % of the budget of $5.00 in total for project 'thesis' is spent: $4.00, $1.00 is left. "
        "It never begins anew."
    )
    assert said[0].filename == __file__


def test_at_the_end_the_error_of_the_call_says_it_all(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the webhook is told, and a budget that warns still warns."""
    monkeypatch.setenv("LLMNB_BUDGET_WEBHOOK", hook.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say([an_alert(100)], load())
    assert webhook.wait()
    assert "Calls are stopped from here on." in hook.posts[0]["text"]
    with pytest.warns(BudgetWarning, match="100 % of the budget"):
        say([an_alert(100, action="warn")], load())
    assert webhook.wait()


def test_warnings_turned_into_errors_break_no_call() -> None:
    """The call is not the place for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say([an_alert(50)], load())


def test_the_webhook_is_posted_the_facts(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text for people, and numbers for programs."""
    monkeypatch.setenv("LLMNB_BUDGET_WEBHOOK", hook.url)
    with pytest.warns(BudgetWarning):
        say([an_alert(50, tokens=1000, usd=None)], load())
    assert webhook.wait()
    (posted,) = hook.posts
    assert posted["text"].startswith("llmnb: 50 % of the budget of 1,000 tokens in total for project 'thesis'")
    assert (posted["percent"], posted["unit"], posted["limit"], posted["spent"]) == (50, "tokens", 1000, 500)
    assert (posted["project"], posted["resets_at_us"]) == ("thesis", None)


def test_a_webhook_that_fails_is_said_once_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next one, since the thread that posts is no place for a warning."""
    broken = Hook(status=500)
    monkeypatch.setenv("LLMNB_BUDGET_WEBHOOK", broken.url)
    with pytest.warns(BudgetWarning):
        say([an_alert(50)], load())
    assert webhook.wait()
    broken.close()
    with pytest.warns() as said:
        say([an_alert(80)], load())
    assert webhook.wait()
    assert [warning.category for warning in said] == [LlmnbWarning, BudgetWarning]
    assert "check LLMNB_BUDGET_WEBHOOK" in str(said[0].message)
    webhook._failures.clear()
