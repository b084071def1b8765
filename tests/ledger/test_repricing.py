"""Repricing: old rows get the price that was valid then, and nothing else changes."""

from __future__ import annotations

from decimal import Decimal

import genai_prices
import pytest

from llmnb.ledger import Store
from llmnb.ledger.connection import reading
from llmnb.places import Place
from llmnb.pricing import Repricing, reprice
from llmnb.settings import PriceOverride

SONNET = f"genai-prices {genai_prices.__version__}:anthropic/claude-sonnet-5-5"
RIGHT = 10 * 2_000 + 20 * 10_000  # what make_call's 10 and 20 tokens cost


@pytest.fixture
def ledger(store: Store) -> Store:
    """What is said here holds in either database."""
    return store


def costs(path: Place) -> dict[str, tuple[int | None, str | None]]:
    """Cost and price id by uid."""
    with reading(path) as connection:
        assert connection is not None
        rows = connection.execute("SELECT uid, cost_nanousd, price_id FROM calls ORDER BY id").fetchall()
    return {uid: (cost, price_id) for uid, cost, price_id in rows}


def test_only_what_differs_is_written(ledger: Store, make_call) -> None:
    """A row without a price gets one, a wrong one is corrected, a right one and an unknown one stay."""
    ledger.write(make_call(uid="unpriced", cost_nanousd=None))
    ledger.write(make_call(uid="wrong", cost_nanousd=1, price_id="genai-prices 0.0.1:x"))
    ledger.write(make_call(uid="right", cost_nanousd=RIGHT, price_id=SONNET))
    ledger.write(make_call(uid="unknown", model="mystery", cost_nanousd=None))
    ledger.write(make_call(uid="lost", model="mystery", cost_nanousd=5, price_id="settings:mystery"))
    found = reprice(ledger)
    assert found == Repricing(
        looked_at=5,
        changed=2,
        newly_priced=1,
        kept=1,
        unpriced=1,
        before_nanousd=1 + RIGHT + 5,
        after_nanousd=3 * RIGHT + 5,
    )
    assert costs(ledger.path) == {
        "unpriced": (RIGHT, SONNET),
        "wrong": (RIGHT, SONNET),
        "right": (RIGHT, SONNET),
        "unknown": (None, None),
        "lost": (5, "settings:mystery"),
    }
    assert reprice(ledger).changed == 0


def test_what_the_cache_saved_is_priced_anew(ledger: Store, make_call) -> None:
    """A row that read from the prompt cache gets, with its cost, what that saved; others have nothing to say."""
    ledger.write(make_call(uid="read", cost_nanousd=None, cache_read_tokens=1_000))
    ledger.write(make_call(uid="plain", cost_nanousd=None))
    reprice(ledger)
    with reading(ledger.path) as connection:
        assert connection is not None
        rows = connection.execute("SELECT uid, cost_nanousd, saved_nanousd FROM calls ORDER BY id").fetchall()
    assert rows == [("read", RIGHT + 100_000, 1_900_000), ("plain", RIGHT, None)]


def test_a_dry_run_says_and_changes_nothing(ledger: Store, make_call) -> None:
    """The totals are those of the real run."""
    ledger.write(make_call(uid="a", cost_nanousd=None))
    said = reprice(ledger, dry_run=True)
    assert (said.changed, said.before_nanousd, said.after_nanousd, said.dry_run) == (1, 0, RIGHT, True)
    assert costs(ledger.path) == {"a": (None, None)}


def test_what_cost_nothing_stays_free(ledger: Store, make_call) -> None:
    """Cache hits, and calls that are still running, are not priced."""
    ledger.write(make_call(uid="hit", source="cache", cost_nanousd=0, saved_nanousd=RIGHT))
    ledger.write(make_call(uid="running", status="running", cost_nanousd=None))
    ledger.write(make_call(uid="refused", status="error", input_tokens=0, output_tokens=0, cost_nanousd=0))
    assert reprice(ledger).changed == 0
    assert {cost for cost, _ in costs(ledger.path).values()} == {0, None}


def test_child_rows_are_repriced_on_their_own_model(ledger: Store, make_call) -> None:
    """An advisor's tokens cost what its model costs."""
    child = make_call(uid="b", parent_uid="a", is_call=False, model="claude-opus-5-5", cost_nanousd=None)
    ledger.write(make_call(uid="a", cost_nanousd=None), [child])
    reprice(ledger)
    assert [cost for cost, _ in costs(ledger.path).values()] == [RIGHT, 10 * 4_000 + 20 * 20_000]


def test_model_and_since_choose_rows(ledger: Store, make_call) -> None:
    """A model is meant as requested or as served."""
    ledger.write(make_call(uid="old", ts=1_700_000_000_000_000, cost_nanousd=None))
    ledger.write(make_call(uid="alias", model_requested="latest", cost_nanousd=None))
    ledger.write(make_call(uid="other", model_requested="x", model="claude-opus-5-5", cost_nanousd=None))
    assert reprice(ledger, model="claude-sonnet-5-5", since=1_750_000_000_000_000).changed == 1
    assert reprice(ledger, model="latest").looked_at == 1
    assert [cost for cost, _ in costs(ledger.path).values()] == [None, RIGHT, None]


def test_prices_of_the_settings_are_used(ledger: Store, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting a price and repricing gives it to old rows; passing other prices wins over the settings."""
    monkeypatch.setenv("LLMNB_PRICES", '{"mystery": {"input": 1, "output": 2}}')
    ledger.write(make_call(uid="a", model="mystery", cost_nanousd=None))
    reprice(ledger)
    assert costs(ledger.path) == {"a": (10 * 1_000 + 20 * 2_000, "settings:mystery")}
    reprice(ledger, overrides={"mystery": PriceOverride(input=Decimal(0), output=Decimal(0))})
    assert costs(ledger.path) == {"a": (0, "settings:mystery")}


def test_many_rows_are_done_in_short_transactions(ledger: Store, make_call) -> None:
    """More rows than a page: all are done, once, while another connection writes in between."""
    for _ in range(1_203):
        ledger.write(make_call(cost_nanousd=None))
    with ledger.repricing() as rows:
        page = rows.after(0, 500, None, None)
        ledger.write(make_call(uid="meanwhile", cost_nanousd=None))
        assert [row.id for row in page] == list(range(1, 501))
    found = reprice(ledger)
    assert (found.looked_at, found.changed, found.after_nanousd) == (1_204, 1_204, 1_204 * RIGHT)


def test_a_row_that_changed_meanwhile_keeps_its_own_cost(ledger: Store, make_call) -> None:
    """A cost computed from old tokens is not written over new ones."""
    from llmnb.pricing.repricing import Repriced
    from llmnb.records import Cost

    ledger.write(make_call(uid="a", cost_nanousd=None))
    with ledger.repricing() as rows:
        (row,) = rows.after(0, 10, None, None)
        ledger.write(make_call(uid="a", output_tokens=99, cost_nanousd=42))
        rows.set_costs([Repriced(row, Cost(RIGHT, SONNET))])
    assert costs(ledger.path) == {"a": (42, None)}
