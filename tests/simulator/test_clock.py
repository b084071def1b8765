"""The clock: real, scaled, frozen, jumping."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llmnb.simulator import Clock
from llmnb.simulator.clock import rfc3339


def test_a_frozen_clock_moves_only_by_hand() -> None:
    """Time stands still until it is advanced, and never goes back."""
    clock = Clock.frozen(1000.0)
    assert clock.now() == 1000.0
    clock.advance(5.5)
    assert clock.now() == 1005.5
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="backwards"):
        Clock(scale=-1)


def test_a_scaled_clock_runs_faster() -> None:
    """At a scale of a million, a wait of an hour is over at once."""
    clock = Clock(0.0, scale=1_000_000)
    began = time.monotonic()
    asyncio.run(clock.sleep(3600))
    assert clock.now() >= 3600
    assert time.monotonic() - began < 1


def test_a_jumping_clock_skips_every_wait() -> None:
    """A wait moves the time by its length and takes none."""
    clock = Clock.jumping(0.0)
    asyncio.run(clock.sleep(3600))
    assert clock.now() == 3600


def test_advancing_from_another_thread_ends_a_wait() -> None:
    """A wait on a frozen clock ends once the clock has moved far enough, not before."""
    clock = Clock.frozen(0.0)
    waited: list[float] = []

    async def wait() -> None:
        await clock.sleep(10)
        waited.append(clock.now())

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    while not clock.waits:
        time.sleep(0.001)
    clock.advance(4)
    clock.advance(6)
    thread.join(5)
    assert waited == [10.0]


def test_a_real_clock_tells_the_time() -> None:
    """Left alone, it is the wall clock."""
    assert Clock().now() == pytest.approx(time.time(), abs=1)
    assert Clock().scale == 1.0


def test_times_are_written_as_the_api_does() -> None:
    """RFC 3339 in UTC, seconds."""
    assert rfc3339(1_795_245_162.9) == "2026-11-21T07:12:42Z"
