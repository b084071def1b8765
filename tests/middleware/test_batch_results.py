"""Results of message batches, read by the user's own client: each message is one row, at the price of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb import settings
from llmnb.ledger import open_ledger
from llmnb.ledger.upkeep import fold
from llmnb.middleware import batch_results
from llmnb.records import calling
from llmnb.simulator import Clock, Simulator

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Say hi"}],
}

REQUESTS: Any = [{"custom_id": "a", "params": QUESTION}]


@pytest.fixture
def clock() -> Clock:
    """Moves over every wait."""
    return Clock.jumping(1_795_000_000.0)


@pytest.fixture
def simulator(clock: Clock) -> Iterator[Simulator]:
    with Simulator(seed=3, clock=clock) as simulator:
        yield simulator
        assert simulator.crashes == []


def made(client: anthropic.Anthropic, *models: str) -> str:
    requests: Any = [
        {"custom_id": f"row-{at}", "params": {**QUESTION, "model": model}} for at, model in enumerate(models)
    ]
    return client.messages.batches.create(requests=requests).id


def booked() -> list[Any]:
    return llmnb.calls().to_dict("records")


def test_results_become_rows_once(simulator: Simulator, clock: Clock) -> None:
    """However often they are read, by whichever client; with what the provider bills, and what failed at no cost."""
    with simulator.client() as plain, simulator.client() as other:
        client = llmnb.wrap(plain, project="thesis", tag="nightly")
        batch = made(client, *["claude-sonnet-5-5"] * 3, "claude-unheard-of")
        assert booked() == []
        clock.advance(61)
        unwrapped = [line.model_dump() for line in plain.messages.batches.results(batch)]
        with calling(run_id="run"):
            assert [line.model_dump() for line in client.messages.batches.results(batch)] == unwrapped
        first = booked()
        list(llmnb.wrap(other, project="else").messages.batches.results(batch))
        assert client.messages.batches.with_raw_response.retrieve(batch).status_code == 200
    assert booked() == first
    assert {row["status"]: row["error_type"] for row in first} == {"ok": None, "error": "not_found_error"}
    assert {(row["project"], row["tag"], row["run_id"], row["batch_id"]) for row in first} == {
        ("thesis", "nightly", "run", batch)
    }
    assert {row["service_tier"] for row in first} == {"batch"}
    assert {row["ts"].timestamp() for row in first} == {1_795_000_000.0}
    billed = simulator.billed()
    with open_ledger().transaction(reading=True) as connection:
        (cost, tokens) = connection.execute("SELECT sum(cost_nanousd), sum(output_tokens) FROM calls").fetchone()
    assert (cost, tokens) == (billed.price_nanousd, billed.output_tokens)
    assert sum(row["status"] == "ok" for row in first) == billed.requests == 3


def test_results_that_two_processes_read_at_once(
    simulator: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither finds the other's rows on the books, and both write them: they are there once, in sums, too."""
    monkeypatch.setattr(batch_results.Booking, "_booked", lambda *_: set())
    with simulator.client() as plain, simulator.client() as other:
        client, its = llmnb.wrap(plain, project="thesis"), llmnb.wrap(other, project="thesis")
        batch = made(client, *["claude-sonnet-5-5"] * 3)
        clock.advance(61)
        mine, theirs = iter(client.messages.batches.results(batch)), iter(its.messages.batches.results(batch))
        for _ in zip(mine, theirs, strict=True):
            pass
        first = booked()
        fold(open_ledger(), settings.load())
        list(its.messages.batches.results(batch))
    assert booked() == first
    billed, usage = simulator.billed(), llmnb.usage().iloc[0]
    assert (len(first), usage["calls"], usage["cost_nanousd"]) == (3, 3, billed.price_nanousd)
    assert usage["output_tokens"] == billed.output_tokens


@pytest.mark.parametrize("kind", ["async", "gzip", "streaming", "left"])
async def test_every_way_of_reading(simulator: Simulator, clock: Clock, kind: str) -> None:
    """Async, compressed, line by line; of what is left unread there are no rows until it is read."""
    async with simulator.async_client() as plain:
        client = llmnb.wrap(plain)
        batch = (await client.messages.batches.create(requests=REQUESTS)).id
        clock.advance(61)
        if kind == "gzip":
            simulator.fail("gzip", any_route=True, times=None)
        if kind == "streaming":
            async with client.messages.batches.with_streaming_response.results(batch) as response:
                assert [line async for line in response.iter_lines()]
        elif kind == "left":
            async with client.messages.batches.with_streaming_response.results(batch):
                pass
            assert booked() == []
            return
        else:
            assert [line.custom_id async for line in await client.messages.batches.results(batch)] == ["a"]
    assert [row["output_tokens"] for row in booked()] == [simulator.billed().output_tokens]
