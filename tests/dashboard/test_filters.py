"""The filter bar: what it lets through. That a click ends up in the URL is seen in a browser (tests/browser)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import Fill, Show
from shown import call, exact_of, figures_of, noon, texts


@pytest.fixture
def filled(fill: Fill) -> None:
    """One call each to two models in two projects and in none, a week apart."""
    fill(
        call("a", noon(1), project="thesis", cost_nanousd=1),
        call("b", noon(8), project="thesis", model="claude-haiku-5-5", cost_nanousd=10),
        call("c", noon(40), project="triage", cost_nanousd=100),
        call("d", noon(200), cost_nanousd=1_000),
        call("e", noon(1), model=None, status="error", cost_nanousd=10_000),
    )


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("query", "nanousd", "calls"),
    [
        ({}, 10_011, 3),
        ({"period": "7d"}, 10_001, 2),
        ({"period": "30d"}, 10_011, 3),
        ({"period": "90d"}, 10_111, 4),
        ({"period": "All"}, 11_111, 5),
        ({"period": "never"}, 10_011, 3),
        ({"period": "All", "project": "thesis"}, 11, 2),
        ({"period": "All", "project": ["thesis", "triage"]}, 111, 3),
        ({"period": "All", "project": "(no project)"}, 11_000, 2),
        ({"period": "All", "model": "claude-haiku-5-5"}, 10, 1),
        ({"period": "All", "model": "(no model answered)"}, 10_000, 1),
        ({"period": "All", "project": "thesis", "model": "claude-sonnet-5-5"}, 1, 1),
        ({"period": "All", "project": ["thesis", "gone"]}, 11, 2),
    ],
)
def test_urls(show: Show, query: dict[str, str | list[str]], nanousd: int, calls: int) -> None:
    """A URL shows exactly its period, projects and models."""
    page = show(**query)
    assert not page.exception
    assert exact_of(page)["Spend"] == f"Exactly $0.{nanousd:09}."
    assert figures_of(page)["Calls"] == str(calls)


@pytest.mark.usefixtures("filled")
def test_month_is_the_calendar_month(show: Show) -> None:
    """The month shows what happened since midnight of its first day, and nothing older."""
    today = noon(1).date() + timedelta(days=1)
    expected = sum(cost for days, cost in ((1, 10_001), (8, 10), (40, 100)) if days < today.day)
    page = show(period="Month")
    assert "This month vs as much of last month · UTC" in texts(page)
    assert bool(page.metric) == bool(expected)
    if expected:  # on the first of a month there is nothing yet
        assert exact_of(page)["Spend"] == f"Exactly $0.{expected:09}."


@pytest.mark.usefixtures("filled")
def test_custom_days(show: Show) -> None:
    """Custom days are shown from the first one's midnight to the last one's end."""
    first, last = (noon(n).date().isoformat() for n in (41, 8))
    page = show(period="Custom", dates=[first, last])
    assert exact_of(page)["Spend"] == "Exactly $0.000000110."


@pytest.mark.usefixtures("filled")
def test_one_custom_day(show: Show) -> None:
    """A single date is that day, held against the one before it."""
    page = show(period="Custom", dates=[noon(8).date().isoformat()])
    assert exact_of(page)["Spend"] == "Exactly $0.000000010."
    assert "vs the day before" in texts(page)


@pytest.mark.usefixtures("filled")
def test_choosing(show: Show) -> None:
    """What is chosen in the bar narrows the numbers, one thing after the other."""
    page = show()
    page.segmented_control(key="period").set_value("All").run()
    page.multiselect(key="project").set_value(["thesis"]).run()
    page.multiselect(key="model").set_value(["claude-haiku-5-5"]).run()
    assert exact_of(page)["Spend"] == "Exactly $0.000000010."


@pytest.mark.usefixtures("filled")
def test_custom_without_dates_is_today(show: Show) -> None:
    """Choosing Custom asks for days and shows today until there are some; nothing happened today."""
    page = show()
    page.segmented_control(key="period").set_value("Custom").run()
    assert "Nothing was called in" in texts(page)
    page.date_input(key="dates").set_value((noon(8).date(), noon(1).date())).run()
    assert exact_of(page)["Spend"] == "Exactly $0.000010011."


@pytest.mark.usefixtures("filled")
def test_choices_are_all_there_ever_were(show: Show) -> None:
    """The bar offers what the whole ledger holds, also what the period leaves out, by alphabet."""
    page = show(period="7d")
    assert page.multiselect(key="project").options == ["thesis", "triage", "(no project)"]
    assert page.multiselect(key="model").options == ["claude-haiku-5-5", "claude-sonnet-5-5", "(no model answered)"]


@pytest.mark.usefixtures("filled")
def test_a_link_to_a_project_that_is_gone_shows_nothing_else(show: Show) -> None:
    """An unknown project in the URL stays chosen: the totals of everything would be a lie under such a link."""
    page = show(project="gone")
    assert not page.metric
    assert "No calls match" in texts(page)
    assert "the last 30 days with project gone" in texts(page)


@pytest.mark.usefixtures("filled")
def test_reset(show: Show) -> None:
    """The way out of filters that match nothing is one button, which empties the URL, too."""
    page = show(period="7d", project="gone", model="claude-haiku-5-5")
    assert "No calls match" in texts(page)
    page.button[0].click().run()
    assert figures_of(page)["Calls"] == "3"
    assert page.query_params == {}
