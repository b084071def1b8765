"""The page of budgets: what it shows of them, and that its forms set, change and remove them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Fill, Show
from shown import call, noon, texts
from streamlit.testing.v1 import AppTest

import llmnb
from llmnb.budgeting import course, statuses


def press(page: AppTest, label: str) -> AppTest:
    """Click a button and give the page that follows."""
    (found,) = [one for one in page.button if one.label == label]
    return found.click().run()


def test_no_budget_says_what_one_does(show: Show) -> None:
    """Without a budget, and without a ledger, the page tells what one is for and has the form of a new one."""
    page = show("budgets")
    assert not page.exception
    assert "No budget is set." in texts(page)


def test_setting_editing_and_removing(show: Show, fill: Fill) -> None:
    """The forms do what set_budget and remove_budget do."""
    fill(call("a", noon(40), project="thesis"))
    page = show("budgets")
    page.text_input(key="budget-limit").set_value("12.50")
    page.selectbox(key="budget-per").set_value("month")
    page.selectbox(key="budget-project").set_value("thesis")
    page = press(page, "Set budget")
    (status,) = statuses()
    assert str(status.budget) == "$12.50 a month for project 'thesis'"
    assert "thesis" in "".join(str(one.value) for one in page.markdown)

    page.text_input(key=f"limit-{status.id}").set_value("20")
    page.selectbox(key=f"action-{status.id}").set_value("warn")
    page = press(page, "Save")
    (status,) = statuses()
    assert (status.budget.allowance, status.budget.action) == (20_000_000_000, "warn")

    page = press(page, "Remove it")
    assert statuses() == []
    assert "No budget is set." in texts(page)


@pytest.mark.parametrize(("unit", "limit", "said"), [("dollars", "much", "no amount"), ("tokens", "1.5", "no whole")])
def test_an_impossible_limit_is_told(show: Show, unit: str, limit: str, said: str) -> None:
    """What set_budget refuses is a sentence on the page, and no budget is set."""
    page = show("budgets")
    page.selectbox(key="budget-unit").set_value(unit)
    page.text_input(key="budget-limit").set_value(limit)
    page = press(page, "Set budget")
    assert not page.exception
    assert said in page.error[0].value
    assert statuses() == []


def test_what_is_spent_is_what_the_budget_says(show: Show, fill: Fill) -> None:
    """The bar has the ledger's own numbers, and the line of what is left ends where the bar does."""
    llmnb.set_budget(usd=1, per="total")
    (status,) = [llmnb.set_budget(usd="0.01", per="rolling 24h", project="thesis")]
    now = datetime.now(UTC)
    fill(
        call("a", now - timedelta(hours=3), project="thesis", cost_nanousd=2_000_000),
        call("b", now - timedelta(minutes=50), project="thesis", cost_nanousd=6_500_000),
        call("c", now - timedelta(hours=2), project="triage", cost_nanousd=1_000_000),
        call("old", noon(3), project="thesis", cost_nanousd=9),
    )
    page = show("budgets")
    assert "$0.0085 of $0.0100 in any 24 hours" in texts(page)
    assert "$0.0095 of $1.00 in total" in texts(page)
    status = statuses()[1]
    rows = course(status)
    assert rows[["spent", "left"]].values.tolist() == [[2_000_000, 8_000_000], [8_500_000, 1_500_000]]
    spec = json.loads(page.get("vega_lite_chart")[0].proto.spec)
    points = spec["layer"][0]["data"]["values"]
    assert [point["said"] for point in points] == ["$0.0100", "$0.0080", "$0.0015", "$0.0015"]


def test_the_filter_bar_hides_budgets_of_others(show: Show, fill: Fill) -> None:
    """A budget for another project or model is left out, one for everything stays."""
    fill(call("a", noon(1), project="thesis"), call("b", noon(1), project="triage", model="claude-haiku-5-5"))
    llmnb.set_budget(usd=1, per="total")
    llmnb.set_budget(usd=1, per="total", project="triage")
    llmnb.set_budget(usd=1, per="total", model="claude-haiku-*")
    said = texts(show("budgets", project="thesis"))
    assert "**everything**" in said
    assert "triage" not in said
    assert "1 budget for other projects" in said
    assert "2 budgets for other projects" in texts(show("budgets", project="thesis", model="claude-sonnet-5-5"))
