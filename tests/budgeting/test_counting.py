"""What is spent: however rows come and change, the counters say what a sum over the rows says."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from llmnb.budgeting import counting
from llmnb.budgeting.budget import Budget, all_budgets
from llmnb.ledger import Ledger, Store
from llmnb.pricing import reprice
from llmnb.records import Call, Status
from llmnb.settings import PriceOverride

from .conftest import HOUR_US, NOON_US, in_both

SCOPES: list[dict[str, Any]] = [
    {},
    {"project": "thesis"},
    {"user": "ann", "project": "thesis"},
    {"notebook": "a.ipynb"},
    {"model": "claude-opus-*"},
    {"model": "claude-sonnet-5-5"},
    {"per": "total"},
    {"per": "hour"},
    {"unit": "tokens"},
]


def set_plainly(ledger: Store, **scope: Any) -> None:
    """Writes a budget as `set_budget` does, on a ledger without calls."""
    row = {
        "per": "day",
        "unit": "usd",
        "allowance": 10**12,
        "action": "stop",
        "timezone": "UTC",
        "unpriced": "[]",
        **scope,
    }
    with ledger.transaction() as connection:
        names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO budgets ({names}) VALUES ({places})", row)


def summed(ledger: Store, budget: Budget, at_us: int) -> tuple[int, int, int]:
    """The same as the counters, from the rows themselves, by Python alone."""
    period = budget.period(at_us)
    with ledger.transaction(reading=True) as connection:
        cursor = connection.execute("SELECT * FROM calls")
        names = [column[0] for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in cursor]
    amount = calls = unpriced = 0
    for row in found:
        in_time = (period.start_us is None or row["ts"] >= period.start_us) and (
            period.end_us is None or row["ts"] < period.end_us
        )
        if in_time and row["status"] != "running" and row["source"] == "live" and budget.concerns(row):
            tokens = sum(row[name] for name in row if name.endswith("_tokens") and name not in UNCOUNTED and row[name])
            amount += (row["cost_nanousd"] or 0) if budget.unit == "usd" else tokens
            calls += row["is_call"]
            unpriced += row["cost_nanousd"] is None
    return amount, calls, unpriced


UNCOUNTED = ("thinking_tokens", "estimated_input_tokens")
STATUSES: list[Status] = ["running", "ok", "error", "cancelled", "truncated", "interrupted"]

calls = st.builds(
    Call,
    uid=st.sampled_from([f"call-{number}" for number in range(6)]),
    ts=st.sampled_from([NOON_US - 24 * HOUR_US, NOON_US - HOUR_US, NOON_US, NOON_US + 14 * HOUR_US]),
    model_requested=st.sampled_from(["claude-sonnet-5-5", "claude-sonnet-5-5-20261101", "claude-opus-5-5"]),
    model=st.sampled_from(["claude-sonnet-5-5", "claude-opus-5-5", "claude-opus-5-5@20261101", None]),
    project=st.sampled_from(["thesis", "other", None]),
    user=st.sampled_from(["ann", None]),
    notebook=st.sampled_from(["a.ipynb", None]),
    status=st.sampled_from(STATUSES),
    source=st.sampled_from(["live", "live", "cache"]),
    attempts=st.integers(1, 3),
    input_tokens=st.integers(0, 1000),
    cache_read_tokens=st.integers(0, 1000),
    cache_write_1h_tokens=st.integers(0, 1000),
    output_tokens=st.integers(0, 1000),
    thinking_tokens=st.one_of(st.none(), st.integers(0, 100)),
    cost_nanousd=st.one_of(st.none(), st.integers(0, 10**9)),
)
steps = st.one_of(
    st.tuples(st.just("write"), calls, st.lists(calls, max_size=2)),
    st.tuples(st.just("reprice"), st.integers(1, 50), st.just(None)),
    st.tuples(st.just("sweep"), st.just(None), st.just(None)),
    st.tuples(st.just("new budget"), st.sampled_from(SCOPES), st.just(None)),
)


def take(step: tuple[str, Any, Any], ledger: Store) -> None:
    kind, what, more = step
    if kind == "write":
        children = [
            replace(child, uid=f"{what.uid}.{index}", parent_uid=what.uid, is_call=False, status=what.status)
            for index, child in enumerate(more)
        ]
        ledger.write(what, children)
    elif kind == "reprice":
        price = PriceOverride(input=what, output=what)
        reprice(ledger, overrides=dict.fromkeys(("claude-sonnet-5-5", "claude-opus-5-5"), price))
    elif kind == "sweep":
        with ledger.transaction() as connection:
            connection.execute("UPDATE calls SET status = 'interrupted', estimated = 1 WHERE status = 'running'")


@settings(max_examples=60)
@given(st.lists(steps, min_size=1, max_size=25))
def test_the_counters_are_the_sums_of_the_rows(sequence: list[tuple[str, Any, Any]]) -> None:
    """Whatever is written, written again, repriced or swept, in any order, with child rows or without."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        for scope in SCOPES:
            set_plainly(ledger, **scope)
        for step in sequence:
            take(step, ledger)
        agree(ledger)
        ledger.close()


@settings(max_examples=30)
@given(st.lists(steps, max_size=15), st.lists(steps, max_size=15))
def test_a_first_count_and_what_changes_meanwhile_are_all_there_is(
    before: list[tuple[str, Any, Any]], meanwhile: list[tuple[str, Any, Any]]
) -> None:
    """The count is of the ledger as it was when the budget was set, and is added after others have gone on writing."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        for step in before:
            take(step, ledger)
        for scope in SCOPES:
            set_plainly(ledger, **scope)
        with ledger.transaction(reading=True) as connection:
            counts = [(b, counting.before(connection, b, None)) for b in all_budgets(connection)]
        for step in meanwhile:
            take(step, ledger)
        with ledger.transaction() as connection:
            for budget, count in counts:
                counting.add(connection, budget, count)
        agree(ledger)
        ledger.close()


def agree(ledger: Store) -> None:
    with ledger.transaction(reading=True) as connection:
        budgets = all_budgets(connection)
        at = (NOON_US - 24 * HOUR_US, NOON_US - HOUR_US, NOON_US, NOON_US + 14 * HOUR_US)
        counted = {(b, ts): tuple(counting.spent(connection, b, b.period(ts))) for b in budgets for ts in at}
    for (budget, ts), count in counted.items():
        assert count == summed(ledger, budget, ts), f"{budget} at {ts}"


@in_both
def test_rows_that_are_forgotten_stay_spent(ledger: Store, make_call) -> None:
    """Deleting old rows from the ledger does not give their money back."""
    set_plainly(ledger, per="total")
    ledger.write(make_call(), [make_call(uid="child", parent_uid="call-000000", is_call=False)])
    with ledger.transaction() as connection:
        connection.execute("DELETE FROM calls")
        (budget,) = all_budgets(connection)
        assert counting.spent(connection, budget, budget.period(NOON_US)).amount == 440_000


@in_both
def test_children_that_are_written_again_count_once(ledger: Store, make_call) -> None:
    """They are dropped and written anew with their call, with fewer of them too."""
    set_plainly(ledger)
    parent = make_call(uid="parent")
    children = [make_call(uid=f"parent.{n}", parent_uid="parent", is_call=False) for n in range(3)]
    for kept in (3, 3, 1):
        ledger.write(parent, children[:kept])
        with ledger.transaction(reading=True) as connection:
            (budget,) = all_budgets(connection)
            assert counting.spent(connection, budget, budget.period(NOON_US)) == (220_000 * (1 + kept), 1, 0)


@pytest.mark.parametrize("per", ["day", "total"])
def test_a_ledger_without_budgets_counts_nothing(ledger: Store, make_call, per: str) -> None:
    """The triggers leave no trace of calls that no budget is for."""
    set_plainly(ledger, per=per, project="other")
    ledger.write(make_call())
    with ledger.transaction(reading=True) as connection:
        assert connection.execute("SELECT count(*) FROM budget_spent").fetchone() == (0,)
