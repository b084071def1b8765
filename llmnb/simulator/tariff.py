"""The simulator's own price list, so that what it bills checks another program's sums and does not repeat them.

Source: the list prices that genai-prices 0.2.3 ships, copied by hand in November 2026 (dollars per million tokens), so
this is an independent check of token classes and arithmetic, and not of the prices themselves. Cache writes cost 1.25
(5 minutes) and 2 (1 hour) times the input price on every model, a batch half of everything, fast mode double; a web
search is a cent. Cache reads differ by model.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

NANOUSD_PER_WEB_SEARCH = 10_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens; past `long_over_tokens` of prompt, the whole request costs `long_factor` times."""

    input: Fraction
    output: Fraction
    read: Fraction
    long_over_tokens: int | None = None
    long_factor: int = 1
    fast: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is priced: tokens in disjoint classes (thinking is inside output), and web searches."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    web_search_requests: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Everything the model read."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens


def _price(dollars_in: str, dollars_out: str, dollars_read: str, **more: int | bool) -> Price:
    return Price(Fraction(dollars_in), Fraction(dollars_out), Fraction(dollars_read), **more)  # pyright: ignore[reportArgumentType]


PRICES = {
    "claude-sonnet-5-5": _price("2", "10", "0.1"),
    "claude-haiku-5-5": _price("0.1", "0.5", "0.01", long_over_tokens=100_000, long_factor=5),
    "claude-opus-5-5": _price("4", "20", "0.2", fast=True),
    "claude-fable-5-2": _price("8", "40", "0.2", fast=True),
    "claude-mythos-5-2": _price("8", "40", "0.2", fast=True),
    "claude-fable-5-1": _price("10", "50", "0.25"),
    "claude-sonnet-5": _price("2", "10", "0.2"),
    "claude-fable-5": _price("10", "50", "1"),
    "claude-opus-5": _price("5", "25", "0.5", fast=True),
    "claude-opus-4-8": _price("5", "25", "0.5", fast=True),
    "claude-opus-4-7": _price("5", "25", "0.5"),
    "claude-opus-4-6": _price("5", "25", "0.5"),
    "claude-sonnet-4-6": _price("3", "15", "0.3"),
    "claude-opus-4-5-20251101": _price("5", "25", "0.5"),
    "claude-haiku-4-5-20251001": _price("1", "5", "0.1"),
    "claude-sonnet-4-5-20250929": _price("3", "15", "0.3"),
    # over the chat completions wire; only the newest of these charge for cache writes
    "gpt-6-sol": _price("2", "10", "0.2"),
    "gpt-5.2": _price("1.75", "14", "0.175"),
    "gpt-5-mini": _price("0.25", "2", "0.025"),
    "gpt-4o": _price("2.5", "10", "1.25"),
    "gpt-4o-mini": _price("0.15", "0.6", "0.075"),
    "gpt-4-turbo": _price("10", "30", "10"),
    "gemini-2.5-flash": _price("0.3", "2.5", "0.03"),
}


def charge_nanousd(quantity: Quantity, model_id: str, *, batch: bool = False, fast: bool = False) -> int | None:
    """The charge in nano-dollars (half a nano-dollar rounds to even), or None for a model without a price."""
    price = PRICES.get(model_id)
    if price is None:
        return None
    factor = Fraction(1, 2) if batch else Fraction(1)
    if fast and price.fast:
        factor *= 2
    if price.long_over_tokens is not None and quantity.prompt_tokens > price.long_over_tokens:
        factor *= price.long_factor
    dollars_per_million = (
        quantity.input_tokens * price.input
        + quantity.cache_read_tokens * price.read
        + quantity.cache_write_5m_tokens * price.input * Fraction(5, 4)
        + quantity.cache_write_1h_tokens * price.input * 2
        + quantity.output_tokens * price.output
    )
    return round(dollars_per_million * factor * 1000) + quantity.web_search_requests * NANOUSD_PER_WEB_SEARCH
