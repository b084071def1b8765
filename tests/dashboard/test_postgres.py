"""The pages on a team's ledger in PostgreSQL."""

from __future__ import annotations

import pytest
from conftest import Show
from shown import call, exact_of, noon

from llmnb.ledger import open_ledger
from llmnb.places import PostgresPlace


def test_every_page_reads_a_team_ledger(show: Show, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages are drawn from PostgreSQL, with the same exact sums, and pages of calls follow each other."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    store = open_ledger()
    for n in range(60):
        facts = {"project": "thesis", "notebook": f"{n:02}", "session": "s", "cell": "c", "ttft_ms": 100.0}
        money = {"cost_nanousd": 1_000 + n, "price_id": "p 1", "cache_write_5m_tokens": 10, "saved_nanousd": -2}
        store.write(call(f"{n}", noon(1), input_tokens=5, output_tokens=7, **facts, **money))
    store.write(call("bad", noon(2), status="error", error_type="rate_limit_error", cost_nanousd=0))
    for page in ("overview", "models", "caching", "projects", "calls", "errors", "budgets", "prices"):
        shown = show(page, call="7") if page == "calls" else show(page)
        assert not shown.exception, (page, [error.message for error in shown.exception])
        assert not shown.error, (page, shown.error[0].value)
    assert exact_of(show())["Spend"] == f"Exactly $0.{60 * 1_000 + sum(range(60)):09}."
    explorer = show("calls", before="10", project="thesis")
    assert explorer.dataframe[0].value["notebook"].tolist() == [f"{n:02}" for n in range(9, -1, -1)]
