"""`llmnb.last()`: the latest answer of the kernel, whole or as far as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest

import llmnb
from llmnb.asking import recent
from llmnb.errors import IncompleteReply, InvalidRequest
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator

LONG = Answer(text="word " * 500, deltas=500, delta_delay_s=0.005)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment; nothing was answered before."""
    recent.forget()
    with serve_simulator(environ=True) as simulator:
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def llm(sim: Simulator) -> llmnb.LLM:
    """An LLM that shows nothing."""
    return llmnb.LLM(display="none")


def test_nothing_yet(sim: Simulator) -> None:
    """Before the first answer there is none, and the error says so."""
    with pytest.raises(InvalidRequest, match="nothing was answered"):
        llmnb.last()


async def test_every_way_to_ask(llm: llmnb.LLM) -> None:
    """Whole answers are the very replies that were returned, of ask, stream and chat and their async twins."""
    reply = llm("one")
    assert llmnb.last() is reply
    reply = await llm.aask("two")
    assert llmnb.last() is reply
    for event in llm.stream("three"):
        if isinstance(event, llmnb.Done):
            assert llmnb.last() is not reply  # already there when the end is told
    reply = llm.chat()("four")
    assert llmnb.last() is reply
    async for _ in llm.astream("five"):
        pass
    assert llmnb.last() is not reply
    assert llmnb.last().status == "ok"


def test_a_stream_that_was_left(llm: llmnb.LLM, sim: Simulator) -> None:
    """Closed early: the text so far, marked as cancelled, with the estimate that the ledger has."""
    sim.script(LONG)
    stream = llm.stream("Hi")
    text = "".join(event.text for event in (next(stream), next(stream)) if isinstance(event, llmnb.Text))
    stream.close()
    reply = llmnb.last()
    assert text == "word word "
    assert reply.text.startswith(text)  # more may have come than was looked at
    assert (reply.status, reply.usage.estimated, reply.stop_reason) == ("cancelled", True, None)
    (row,) = llmnb.calls().to_dict("records")
    assert (row["status"], row["output_tokens"]) == ("cancelled", reply.usage.output_tokens)
    assert reply.cost_usd == Decimal(int(row["cost_nanousd"])) / 10**9
    bundle = reply._repr_mimebundle_()
    assert "stopped" in bundle["text/plain"]
    assert "word word" in bundle["text/html"]


async def test_a_task_that_was_cancelled(llm: llmnb.LLM, sim: Simulator) -> None:
    """A cancelled coroutine leaves what it had read."""
    sim.script(LONG)
    seen = asyncio.Event()

    async def read() -> None:
        async for event in llm.astream("Hi"):
            if isinstance(event, llmnb.Text):
                seen.set()

    task = asyncio.create_task(read())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert llmnb.last().text.startswith("word")
    assert llmnb.last().status == "cancelled"


def test_a_stream_that_broke_off(llm: llmnb.LLM, sim: Simulator) -> None:
    """A truncated stream raises, and last() has what its `.partial` has."""
    sim.fail("truncate", after_events=2)
    with pytest.raises(IncompleteReply) as caught:
        llm("Hi", max_tokens=30_000)
    assert llmnb.last().text == caught.value.partial != ""
    assert llmnb.last().status == "truncated"
    assert "cut off" in repr(llmnb.last())


def test_before_the_first_token(llm: llmnb.LLM, sim: Simulator) -> None:
    """A call that failed with nothing to show leaves the answer before it."""
    reply = llm("Hi")
    sim.fail("status", status=400)
    with pytest.raises(Exception, match="400"):
        llm("Hi", fresh=True)
    assert llmnb.last() is reply
