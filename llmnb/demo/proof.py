"""Proves what the demo shows: the ledger is held against the simulator's bill, the page against the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llmnb
from llmnb.demo import page
from llmnb.errors import LlmnbError

if TYPE_CHECKING:
    from llmnb.simulator import Simulator

TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class ProofError(LlmnbError):
    """Two places that must agree do not."""


def books_agree_with_bill(simulator: Simulator) -> tuple[int, int]:
    """Holds every token and the cost of the ledger against the simulator's own bill; gives calls and nano-dollars.

    Raises:
        ProofError: they differ.
    """
    simulator.settle()
    billed, booked = simulator.billed(), _total()
    bill = {
        "calls": billed.requests,
        "nanousd": billed.price_nanousd,
        **{name: getattr(billed, name) for name in TOKENS},
    }
    books = {
        "calls": int(booked["calls"]),
        "nanousd": _integer(booked["cost_nanousd"]),
        **{name: int(booked[name]) for name in TOKENS},
    }
    _agree("the simulator's bill", bill, "the ledger", books)
    return books["calls"], books["nanousd"]


def page_agrees_with_books(url: str) -> tuple[str, str]:
    """Holds the figures on the dashboard's page, over all time, against the ledger; gives spend and calls as shown.

    Raises:
        ProofError: they differ.
    """
    shown = page.metrics(url, query="period=All")
    booked = _total()
    tokens = sum(int(booked[name]) for name in (*TOKENS, "cache_write_unsplit_tokens"))
    nanousd = _integer(booked["cost_nanousd"])
    exact = {
        "Spend": f"${nanousd // 10**9:,}.{nanousd % 10**9:09}",
        "Calls": f"{int(booked['calls']):,}",
        "Tokens": f"{tokens:,}",
        "Error rate": f"{int(booked['errors']):,} of {int(booked['calls']):,}",
    }
    page_says = {
        label: exact[label] if exact[label] in " ".join(shown.get(label, ())) else shown.get(label) for label in exact
    }
    _agree("the ledger", exact, "the dashboard", page_says)
    return shown["Spend"][0], shown["Calls"][0]


def _total() -> dict[Any, Any]:
    return llmnb.usage(by=[]).to_dict("records")[0]


def _integer(value: Any) -> int:
    return 0 if value is None or value != value else int(value)


def _agree(one: str, left: dict[str, Any], other: str, right: dict[str, Any]) -> None:
    wrong = [
        f"{name}: {one} says {left[name]}, {other} says {right[name]}" for name in left if left[name] != right[name]
    ]
    if wrong:
        raise ProofError("; ".join(wrong))
