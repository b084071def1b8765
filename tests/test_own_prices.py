"""Prices of one's own in prices.json: set, changed, forgotten, and never half written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from llmnb import settings
from llmnb.errors import InvalidRequest, SettingsError
from llmnb.pricing import cost_of, remove_price, set_price
from llmnb.records import Usage


def test_a_price_that_was_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It prices calls from then on; what the settings say of the same model wins; forgotten it is gone."""
    set_price("mine", input="0.25", output=2, cache_read="0.025")
    prices = settings.load().prices
    used = Usage(input_tokens=1_000, cache_read_tokens=1_000, cache_write_1h_tokens=1_000, output_tokens=1_000)
    # 250 + 25 + 250 (as input) + 2,000 nano-dollars a token
    assert cost_of(used, "mine", overrides=prices).nanousd == 1_000 * 2_525
    monkeypatch.setenv("LLMNB_PRICES", '{"mine": {"input": 1, "output": 1}, "other": {"input": 1, "output": 1}}')
    assert settings.load().prices["mine"].input == 1
    monkeypatch.delenv("LLMNB_PRICES")
    set_price("mine", input=3, output=3)
    assert settings.load().prices["mine"].input == 3
    remove_price("mine")
    assert settings.load().prices == {}
    with pytest.raises(InvalidRequest, match="no price of 'mine' is kept"):
        remove_price("mine")


@pytest.mark.parametrize(("model", "dollars"), [("", "1"), ("mine", "-1"), ("mine", "cheap"), ("mine", "NaN")])
def test_what_is_no_price_is_refused(model: str, dollars: str, llmnb_home: Path) -> None:
    """Nothing is written of it."""
    with pytest.raises(InvalidRequest):
        set_price(model, input=dollars, output=1)
    assert not (llmnb_home / "prices.json").exists()


def test_a_file_that_cannot_be_read_names_itself(llmnb_home: Path) -> None:
    """A broken file is an error with its path, since prices that are left out in silence are wrong money."""
    llmnb_home.mkdir(exist_ok=True)
    for text in ("no json", '{"mine": {"inptu": 1}}', "[1]"):
        (llmnb_home / "prices.json").write_text(text)
        with pytest.raises(SettingsError, match=r"prices\.json"):
            settings.load()


def test_many_at_once_lose_nothing() -> None:
    """Prices that are set at the same time are all kept, since the file is held while it is changed."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: set_price(f"model-{number}", input=number, output=1), range(24)))
    assert {name: price.input for name, price in settings.load().prices.items()} == {
        f"model-{number}": Decimal(number) for number in range(24)
    }
