"""Every page shows a team's ledger in PostgreSQL with the figures of the same calls in a file."""

from __future__ import annotations

import random

import pytest
from streamlit.testing.v1 import AppTest

from llmnb.budgeting import set_budget
from llmnb.ledger import new_ledger
from llmnb.places import Place, PostgresPlace
from llmnb.records import Call
from llmnb.settings import load

from .conftest import DASHBOARD, Show

PAGES = sorted(path.stem for path in (DASHBOARD / "views").glob("*.py"))
FIRST_US = 1_795_000_000_000_000


def calls() -> list[Call]:
    """Calls of a few weeks, of which some failed, some came from the cache and some are unpriced."""
    dice = random.Random(5)
    return [
        Call(
            uid=f"call-{number:03d}",
            ts=FIRST_US + number * 7_200_000_000,
            model_requested="claude-sonnet-5-5",
            model=dice.choice(["claude-sonnet-5-5", "claude-haiku-5-5", "mystery"]),
            project=dice.choice(["thesis", "side", None]),
            user=dice.choice(["ann", "bob"]),
            notebook=dice.choice(["a.ipynb", None]),
            session="laptop:1:1:ab",
            status=dice.choice(["ok", "ok", "ok", "error"]),
            error_type=dice.choice([None, "overloaded_error"]),
            source=dice.choice(["live", "live", "cache"]),
            attempts=dice.randrange(1, 3),
            input_tokens=dice.randrange(5_000),
            cache_read_tokens=dice.randrange(5_000),
            cache_write_5m_tokens=dice.randrange(2_000),
            output_tokens=dice.randrange(900),
            latency_ms=dice.random() * 4_000,
            ttft_ms=dice.random() * 900,
            cost_nanousd=dice.choice([None, dice.randrange(10**9)]),
            saved_nanousd=dice.choice([None, dice.randrange(10**8)]),
            price_id="settings:x",
        )
        for number in range(120)
    ]


def shown(app: AppTest) -> list[tuple[str, str]]:
    """Every figure on a page."""
    assert not app.exception
    assert not app.error
    return [(metric.label, metric.value) for metric in app.metric]


@pytest.fixture
def both(postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> tuple[Place, Place]:
    """The same ledger in a file and in a database."""
    places = (load().ledger_path, postgres)
    for place in places:
        monkeypatch.setenv("LLMNB_STORE_URL", place.url if isinstance(place, PostgresPlace) else f"sqlite:///{place}")
        ledger = new_ledger(place)
        ledger.write_all([(call, ()) for call in calls()])
        ledger.close()
        set_budget(usd=5, per="total")
    return places


def test_every_page_of_a_team(both: tuple[Place, Place], show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page fails, and none shows another figure."""
    figures: list[list[list[tuple[str, str]]]] = []
    for place in both:
        monkeypatch.setenv("LLMNB_STORE_URL", place.url if isinstance(place, PostgresPlace) else f"sqlite:///{place}")
        figures.append([shown(show(page, period="all")) for page in PAGES])
    assert figures[0] == figures[1]
    assert sum(map(len, figures[0])) > 10
