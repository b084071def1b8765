"""A simulator and wrapped clients of it, and a look into the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Explain write-ahead logging in SQLite."}],
}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A simulator of one test."""
    with serve_simulator() as running:
        yield running
        assert running.crashes == []


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped sync client that does not wait between attempts any longer than it must."""
    with simulator.client() as plain:
        yield llmnb.wrap(plain, project="thesis")


@pytest.fixture
async def async_client(simulator: Simulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """A wrapped async client."""
    async with simulator.async_client() as plain:
        yield llmnb.wrap(plain, project="thesis")


def rows() -> list[dict[str, Any]]:
    """All calls on the books, oldest first."""
    return llmnb.calls().to_dict("records")[::-1]


def row() -> dict[str, Any]:
    """The one call on the books."""
    [only] = rows()
    return only
