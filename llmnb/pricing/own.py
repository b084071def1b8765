"""Prices of one's own, kept in prices.json in the home folder: for models that nobody publishes a price of."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pydantic import ValidationError

from llmnb import locks
from llmnb.errors import InvalidRequest, StoreError
from llmnb.settings import PriceOverride, load, own_prices

Dollars = Decimal | float | str


def set_price(
    model: str,
    *,
    input: Dollars,
    output: Dollars,
    cache_read: Dollars | None = None,
    cache_write_5m: Dollars | None = None,
    cache_write_1h: Dollars | None = None,
    web_search: Dollars = 0,
) -> PriceOverride:
    """Sets the price of a model for every process with this home folder; or changes it.

    A price of `[tool.llmnb.prices]` or LLMNB_PRICES wins over it. Calls already on the books keep theirs until they are
    repriced (`llmnb prices --reprice`).

    Args:
        model: its name as it answers, with or without the date at its end; `name:batch` is another price.
        input, output, cache_read, cache_write_5m, cache_write_1h: dollars per million tokens; what caching costs
            defaults to `input`.
        web_search: dollars per thousand searches.

    Raises:
        InvalidRequest: the name is empty or a price is none.
        StoreError: the file cannot be written.
    """
    if not model.strip():
        raise InvalidRequest("give the model's name, as it stands in the ledger")
    given = {
        "input": input,
        "output": output,
        "cache_read": cache_read,
        "cache_write_5m": cache_write_5m,
        "cache_write_1h": cache_write_1h,
        "web_search": web_search,
    }
    price = _price(given)
    with _changing() as prices:
        prices[model.strip()] = price
    return price


def remove_price(model: str) -> None:
    """Forgets the price that `set_price` kept of a model.

    Raises:
        InvalidRequest: it keeps none.
        StoreError: the file cannot be written.
    """
    with _changing() as prices:
        if model not in prices:
            there = f"; there are: {', '.join(sorted(prices))}" if prices else ""
            raise InvalidRequest(f"no price of {model!r} is kept{there}.")
        del prices[model]


def _price(given: dict[str, Dollars | None]) -> PriceOverride:
    try:
        dollars = {name: Decimal(str(value)) for name, value in given.items() if value is not None}
        return PriceOverride.model_validate(dollars)
    except (InvalidOperation, ValidationError):
        raise InvalidRequest(
            f"{given['input']!r} and {given['output']!r} are no prices: give dollars per million tokens, such as 2 or "
            "0.25, and none below zero"
        ) from None


@contextmanager
def _changing() -> Generator[dict[str, PriceOverride]]:
    """The prices as they are, to be changed inside and then written in one piece; others wait meanwhile."""
    path = load().prices_path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.held(path.with_name(path.name + ".lock")):
            prices = dict(own_prices(path))
            yield prices
            _write(path, {name: price.model_dump(mode="json", exclude_none=True) for name, price in prices.items()})
    except OSError as error:
        raise StoreError(f"the prices cannot be written to {path} ({error}).", path=str(path)) from error


def _write(path: Path, prices: dict[str, object]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(prices, file, indent=2, sort_keys=True)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
