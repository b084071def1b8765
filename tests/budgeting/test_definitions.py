"""`set_budget`, `budgets` and `remove_budget`."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmnb.budgeting import budgets, definitions, remove_budget, set_budget, statuses
from llmnb.budgeting.guard import guard
from llmnb.errors import InvalidRequest
from llmnb.ledger import Ledger, Store, migrations
from llmnb.settings import load

from .. import processes
from .conftest import in_both, rows, the_budget


def now_us() -> int:
    return time.time_ns() // 1000


# What may be given ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either usd= or tokens="),
        ({"usd": 5, "tokens": 5}, "either usd= or tokens="),
        ({"usd": -1}, "no amount of dollars"),
        ({"usd": "a lot"}, "no amount of dollars"),
        ({"usd": float("nan")}, "no amount of dollars"),
        ({"usd": float("inf")}, "no amount of dollars"),
        ({"usd": True}, "no amount of dollars"),
        ({"usd": "0.00000000001"}, "no amount of dollars"),
        ({"usd": 10**12}, "no amount of dollars"),
        ({"tokens": 1.5}, "no whole number"),
        ({"tokens": -5}, "no whole number"),
        ({"tokens": True}, "no whole number"),
        ({"usd": 5, "per": "dya"}, "did you mean 'day'"),
        ({"usd": 5, "per": "24h"}, "rolling 24h"),
        ({"usd": 5, "action": "block"}, "stop, warn"),
        ({"usd": 5, "project": ""}, "project='' is no name"),
        ({"usd": 5, "user": 3}, "user=3 is no name"),
        ({"usd": 5, "model": "claude-[45]"}, "only * stands for anything"),
        ({"usd": 5, "allow_unpriced": [""]}, "no model's name"),
    ],
)
def test_what_cannot_be_a_budget_is_refused(given: dict[str, Any], says: str) -> None:
    """Before anything is written, with what to give instead."""
    with pytest.raises(InvalidRequest) as refused:
        set_budget(**{"per": "day", **given})
    assert says in str(refused.value)
    assert budgets().empty


@pytest.mark.parametrize(
    ("usd", "nanousd"), [(5, 5 * 10**9), (0.1, 10**8), ("12.345678901", 12_345_678_901), (Decimal("0"), 0)]
)
def test_amounts_are_exact(usd: Any, nanousd: int) -> None:
    """A float means what it prints as."""
    assert set_budget(usd=usd, per="day").budget.allowance == nanousd


def test_a_misspelled_argument_is_refused() -> None:
    """As everywhere in Python, and nothing is given by position."""
    with pytest.raises(TypeError):
        set_budget(usd=5, per="day", projekt="thesis")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        set_budget(5)  # pyright: ignore[reportCallIssue]


# Setting, changing, removing ------------------------------------------------------------------------------------------


@in_both
def test_what_was_spent_before_counts(ledger: Store, make_call) -> None:
    """In the current period, of the calls it is for; what is under way counts when it has ended."""
    ledger.write(make_call(ts=now_us()))
    ledger.write(make_call(ts=now_us(), project="other"))
    ledger.write(make_call(ts=now_us() - 40 * 24 * 3_600_000_000))
    ledger.write(make_call(ts=now_us(), uid="later", status="running"))
    assert set_budget(usd=1, per="day", project="thesis").spent == Decimal("0.00022")
    assert set_budget(usd=1, per="month").spent == Decimal("0.00044")
    assert set_budget(tokens=1000, per="total").spent == 90
    ledger.write(make_call(ts=now_us(), uid="later"))
    assert [status.calls for status in statuses()] == [2, 3, 4]


@in_both
def test_setting_it_again_changes_it(ledger: Store, make_call) -> None:
    """The same period, unit and scope is the same budget; its count goes on."""
    ledger.write(make_call(ts=now_us()))
    first = set_budget(usd=1, per="day", project="thesis")
    again = set_budget(usd=2, per="day", project="thesis", action="warn", allow_unpriced="my-*")
    assert (first.id, first.limit, again.id, again.limit) == (1, 1, 1, 2)
    assert (again.spent, again.budget.action, again.budget.unpriced) == (first.spent, "warn", ("my-*",))
    others = [
        set_budget(usd=1, per="day"),
        set_budget(usd=1, per="week", project="thesis"),
        set_budget(tokens=1, per="day", project="thesis"),
        set_budget(usd=1, per="day", project="thesis", user="ann"),
    ]
    assert [other.id for other in others] == [2, 3, 4, 5]


@in_both
def test_another_timezone_counts_anew(ledger: Store, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its days begin elsewhere then, and what was spent in them is found."""
    ledger.write(make_call(ts=now_us()))
    set_budget(usd=1, per="day")
    monkeypatch.setenv("LLMNB_TIMEZONE", "Asia/Tokyo")
    again = set_budget(usd=1, per="day")
    assert (again.id, again.budget.timezone, again.spent) == (1, "Asia/Tokyo", Decimal("0.00022"))


@in_both
def test_raising_a_budget_lets_the_same_lines_be_warned_of_again(ledger: Store) -> None:
    """What lay behind lies ahead again."""
    set_budget(usd=1, per="day")
    with ledger.transaction() as connection:
        connection.execute("UPDATE budgets SET said_percent = 80")
        connection.execute("INSERT INTO budget_spent VALUES (1, ?, 850000000, 1, 0)", (now_us() // 900_000_000,))
    assert set_budget(usd="1.5", per="day").budget.said_percent == 50
    assert set_budget(usd="0.5", per="day").budget.said_percent == 50


def test_a_budget_is_removed_by_its_id_or_by_itself() -> None:
    """What was counted and held of it goes with it."""
    first, second = set_budget(usd=1, per="day"), set_budget(usd=1, per="week")
    remove_budget(first)
    remove_budget(second.id)
    assert budgets().empty
    with pytest.raises(InvalidRequest, match="no budget has the id 1; none is set"):
        remove_budget(1)
    set_budget(usd=1, per="day")
    with pytest.raises(InvalidRequest, match="there are: 3"):
        remove_budget(2)
    with pytest.raises(InvalidRequest, match="takes the id"):
        remove_budget("1")  # pyright: ignore[reportArgumentType]


def test_budgets_is_a_tidy_frame() -> None:
    """Dollars and tokens in columns of their own, missing where they do not apply, also without any budget."""
    assert list(budgets().columns) == list(definitions.budgets().columns)
    set_budget(usd=5, per="day", project="thesis")
    set_budget(tokens=1000, per="total", action="warn")
    frame = budgets()
    assert frame.dtypes.equals(budgets().iloc[:0].dtypes)
    assert frame["limit_usd"].tolist()[0] == 5.0
    assert frame["limit_tokens"].isna().tolist() == [True, False]
    assert frame["resets_at"].isna().tolist() == [False, True]
    assert frame["timezone"].tolist() == ["UTC", "UTC"]


def test_a_budget_says_how_it_stands() -> None:
    """In one line, in a notebook without a dollar sign that could begin a formula."""
    status = set_budget(usd=5, per="total", project="<b>thesis")
    text = "Budget 1: $5.00 in total for project '<b>thesis'. $0.00 spent, $5.00 left. It never begins anew."
    assert repr(status) == str(status) == text
    assert status._repr_html_().startswith("<div>Budget 1: <span>$</span>5.00 in total for project &#x27;&lt;b&gt;")
    assert (status.share, set_budget(usd=0, per="day").share) == (0.0, 1.0)


def test_a_ledger_of_before_budgets_has_none(ledger: Store) -> None:
    """It is read without being changed."""
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        for table in ("budgets", "budget_spent", "reservations"):
            connection.execute(f"DROP TABLE {table}")
    assert budgets().empty
    assert statuses() == []


def test_an_older_ledger_is_migrated(tmp_path: Path, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was written before there were budgets can have them."""
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/old.db")
    with monkeypatch.context() as older:
        older.setattr(migrations, "STEPS", migrations.STEPS[:2])
        older.setattr(migrations, "LATEST", 2)
        old = Ledger(tmp_path / "old.db")
        old.write(make_call(ts=now_us()))
        old.close()
    assert set_budget(usd=1, per="day").spent == Decimal("0.00022")


# At once, and killed --------------------------------------------------------------------------------------------------

SETTER = """
import sys
from llmnb.budgeting import set_budget
for number in range(20):
    set_budget(usd=int(sys.argv[1]), per="day", project="thesis")
    set_budget(usd=int(sys.argv[1]), per="day", project=f"of {number}")
"""


def test_processes_that_set_the_same_budget_at_once_make_one(ledger: Store, make_call) -> None:
    """The last one counts, none fails, and what was spent is counted once."""
    for _ in range(50):
        ledger.write(make_call(ts=now_us()))
    setters = [processes.Python(["-c", SETTER, str(usd)]) for usd in (1, 2, 3)]
    assert [setter.wait() for setter in setters] == [0, 0, 0]
    found = statuses()
    assert len(found) == 21
    assert found[0].spent == Decimal("0.011")
    assert {status.limit for status in found} <= {1, 2, 3}
    assert all(status.budget.counting is None for status in found)


KILLED = """
import os, signal
from llmnb.budgeting import counting, set_budget
counting.before = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
set_budget(usd=1, per="day")
"""


@in_both
def test_a_count_that_was_never_finished_is_done_again(ledger: Store, make_call) -> None:
    """By whoever waits for it; until then the budget says that it is being counted."""
    ledger.write(make_call(ts=now_us()))
    processes.Python(["-c", KILLED]).wait()
    assert the_budget().counting is not None
    ledger.write(make_call(ts=now_us()))
    guard(load()).tidy()
    assert the_budget().counting is None
    assert statuses()[0].spent == Decimal("0.00044")
    assert rows("SELECT count(*) FROM budgets") == [(1,)]


@in_both
def test_setting_a_budget_whose_count_was_never_finished_counts(ledger: Store, make_call) -> None:
    """Nobody has to wait for the tidying up."""
    ledger.write(make_call(ts=now_us()))
    processes.Python(["-c", KILLED]).wait()
    assert set_budget(usd=1, per="day").spent == Decimal("0.00022")
    assert the_budget().counting is None
