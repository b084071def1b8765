"""One simulator a test, on a clock that no wait ever waits for, and the SDK clients that talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anthropic
import pytest
import pytest_asyncio

from llmnb.simulator import Clock, Simulator

START = 1_795_000_000.0


@pytest.fixture
def clock() -> Clock:
    """The simulator's time: stands still, and jumps over every wait."""
    return Clock.jumping(START)


@pytest.fixture
def sim(clock: Clock) -> Iterator[Simulator]:
    """A simulator; a test in which it crashed has failed."""
    with Simulator(seed=7, clock=clock) as simulator:
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def client(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    """A sync SDK client without retries."""
    with sim.client(max_retries=0) as made:
        yield made


@pytest_asyncio.fixture
async def aclient(sim: Simulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """An async SDK client without retries."""
    async with sim.async_client(max_retries=0) as made:
        yield made
