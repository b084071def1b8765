"""The page of prices and data: pricing what has no price, versions, export, and demo data."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from conftest import Fill, Show
from shown import call, exact_of, noon, texts
from test_budgets import press

from llmnb import ledger, settings
from llmnb.pricing import set_price


def test_pricing_a_model_and_repricing(show: Show, fill: Fill) -> None:
    """A model gets a price, its calls are booked at it, and the price stays for the calls to come."""
    fill(call("a", noon(1), model="llama", provider="localhost", input_tokens=11, output_tokens=13), call("b", noon(2)))
    page = show("prices")
    assert dict(page.dataframe[0].value[["model", "calls"]].values) == {"llama": 1, "claude-sonnet-5-5": 1}
    page.selectbox(key="price-of").set_value("llama")
    page.text_input(key="price-input").set_value("0.5")
    page.text_input(key="price-output").set_value("$2")
    page = press(page, "Price this model and reprice")
    assert not page.exception
    assert ledger.calls().set_index("uid").loc["a", "cost_nanousd"] == 11 * 500 + 13 * 2_000
    assert settings.load().prices["llama"].output == Decimal(2)
    assert "llama" in page.dataframe[1].value["model"].tolist()
    assert exact_of(show(model="llama"))["Spend"] == "Exactly $0.000031500."


def test_no_price_is_told(show: Show, fill: Fill) -> None:
    """A price that is none is refused in a sentence, and nothing is changed."""
    fill(call("a", noon(1), model="llama", provider="localhost", input_tokens=11))
    page = show("prices")
    page.selectbox(key="price-of").set_value("llama")
    page.text_input(key="price-input").set_value("cheap")
    page = press(page, "Price this model and reprice")
    assert "are no prices" in page.error[0].value
    assert settings.load().prices == {}


def test_own_prices_can_be_forgotten(show: Show, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices set here and in the settings are told apart, and only the former can be forgotten here."""
    fill(call("a", noon(1), cost_nanousd=7, price_id="p 1"))
    set_price("llama", input=1, output=2)
    monkeypatch.setenv("LLMNB_PRICES", '{"qwen": {"input": 3, "output": 4}}')
    page = show("prices")
    rows = page.dataframe[0].value
    assert rows[["model", "input", "cache_read", "set"]].values.tolist() == [
        ["llama", "$1", "as input", "here"],
        ["qwen", "$3", "as input", "in the settings"],
    ]
    assert page.selectbox(key="forget").options == ["llama"]
    press(page, "Forget")
    assert list(settings.load().prices) == ["qwen"]


def test_versions_and_health(show: Show, fill: Fill, llmnb_home: Path) -> None:
    """The versions of prices on the books with their sums, and where the ledger is."""
    fill(
        call("a", noon(1), cost_nanousd=7, price_id="p 1"),
        call("b", noon(2), cost_nanousd=8, price_id="p 1"),
        call("c", noon(3), cost_nanousd=9, price_id="p 2"),
    )
    page = show("prices")
    versions, published, store = (table.value for table in page.dataframe)
    assert versions.values.tolist() == [["p 1", 2, 15], ["p 2", 1, 9]]
    assert published["model"].str.startswith("claude-").all()
    assert dict(zip(store[""], store["Value"], strict=True))["Where"] == str(llmnb_home / "ledger.db")
    said = dict(zip(store[""], store["Value"], strict=True))
    assert said["Calls"] == "3"
    first = noon(3)
    assert said["First call"] == f"{first.day} {first:%b %Y}, 12:00:00"


def test_export_is_what_the_filter_bar_chose(show: Show, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds the chosen calls; beyond a size that fits into a browser the page names the command."""
    import exporting
    import filters
    from period import period_of

    fill(call("a", noon(1), project="thesis"), call("b", noon(2), project="triage"))
    assert len(show("prices").get("download_button")) == 1
    chosen = filters.Filters(period_of("30d", (), now=noon(1)), {"project": ["thesis"]})
    lines = exporting.file_of(chosen, "csv").decode().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("a,")
    monkeypatch.setattr(exporting, "ROWS", 1)
    assert "llmnb export" in texts(show("prices"))


def test_demo_data_is_kept_apart(show: Show, llmnb_home: Path) -> None:
    """Demo data can be looked at from an empty ledger, is marked on every page, and never enters the own books."""
    page = press(show("prices"), "Load demo data")
    assert not page.exception
    assert "demo data" in texts(page)
    page.switch_page("views/overview.py").run()
    assert page.metric
    assert "demo data" in texts(page)
    assert not (llmnb_home / "ledger.db").exists()
    page = press(page.switch_page("views/prices.py").run(), "Back to your own ledger")
    assert "There is no ledger at" in texts(page)
