"""Equal questions at once make one request: across threads, tasks and processes, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.cache import flights as flights_room
from llmnb.cache.flights import Flight, Flights
from llmnb.cache.responses import responses
from llmnb.records import Caching, calling
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

from .. import processes
from .conftest import QUESTION, rows
from .test_cache import asked, texts


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped client with the cache."""
    with simulator.client(max_retries=0) as plain:
        yield llmnb.wrap(plain, cache=True)


def read(client: anthropic.Anthropic) -> str:
    """The text of a streamed answer."""
    with client.messages.stream(**QUESTION) as stream:
        return stream.get_final_text()


def create(client: anthropic.Anthropic) -> str:
    """The text of an answer in one piece."""
    return texts(client.messages.create(**QUESTION))[0]


@pytest.mark.parametrize("streamed", [False, True], ids=["create", "stream"])
def test_threads_make_one_request(simulator: Simulator, client: anthropic.Anthropic, streamed: bool) -> None:
    """One is live, the others are hits."""
    simulator.rule(Answer(text="Hello there", first_token_s=0.3))
    with ThreadPoolExecutor(8) as pool:
        found = [
            pool.submit(read if streamed else lambda c: texts(c.messages.create(**QUESTION))[0], client)
            for _ in range(8)
        ]
        assert {one.result() for one in found} == {"Hello there"}
    assert asked(simulator) == 1
    assert sorted(row["source"] for row in rows()) == ["cache"] * 7 + ["live"]


async def test_tasks_make_one_request(simulator: Simulator) -> None:
    """In one event loop, which goes on meanwhile."""
    simulator.rule(Answer(text="Hello there", first_token_s=0.3))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with simulator.async_client() as plain:
        client = llmnb.wrap(plain, cache=True)
        ticking = asyncio.create_task(tick())
        messages = await asyncio.gather(*(client.messages.create(**QUESTION) for _ in range(8)))
        ticking.cancel()
    assert set(texts(*messages)) == {"Hello there"}
    assert asked(simulator) == 1
    assert ticks > 5


def test_kernels_make_one_request(simulator: Simulator) -> None:
    """Three processes ask the same at once; the claim is the operating system's."""
    simulator.rule(Answer(text="Hello there", first_token_s=2.0))
    code = (
        "import llmnb; reply = llmnb.LLM('claude-sonnet-5-5', display='none')('Same question'); "
        "print(reply.source, reply.text)"
    )
    environment = {**os.environ, **simulator.environ()}
    kernels = [processes.Python(["-c", code], stdout=subprocess.PIPE, env=environment) for _ in range(3)]
    told = [kernel.communicate()[0].strip() for kernel in kernels]
    assert sorted(told) == ["cache Hello there", "cache Hello there", "live Hello there"]
    assert asked(simulator) == 1


def test_a_kernel_that_dies_is_not_waited_for(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Its claim dies with it."""
    simulator.script(Answer(text="too late", first_token_s=60))
    code = f"import anthropic, llmnb; llmnb.wrap(anthropic.Anthropic(), cache=True).messages.create(**{QUESTION!r})"
    environment = {**os.environ, **simulator.environ()}
    kernel = processes.Python(["-c", code], env=environment)
    while not simulator.requests:
        assert kernel.poll() is None
        time.sleep(0.01)
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.extend(texts(client.messages.create(**QUESTION))))
    waiting.start()
    time.sleep(0.3)
    assert asked(simulator) == 1  # it waits
    kernel.kill()
    kernel.wait()
    waiting.join(30)
    assert asked(simulator) == 2
    assert len(answers) == 1


def test_when_the_leader_fails_the_others_ask_themselves(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """At once and not one after the other, and each gets an answer or an error of its own."""
    simulator.script(Answer(fault=Fault("status", status=400), first_token_s=0.3))
    simulator.rule(Answer(text="Hello there", first_token_s=0.3))
    begun = threading.Barrier(5)

    def ask() -> str:
        begun.wait()
        try:
            return texts(client.messages.create(**QUESTION))[0]
        except anthropic.BadRequestError:
            return "refused"

    with ThreadPoolExecutor(5) as pool:
        found = [pool.submit(ask) for _ in range(5)]
        said = sorted(one.result() for one in found)
    assert said == ["Hello there"] * 4 + ["refused"]


def test_a_stream_that_is_left_alone_is_not_waited_for(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Its reader may never come back; the other asks, and both have their answer."""
    simulator.rule(Answer(text="one two three four five six", deltas=6))
    slow = client.messages.create(**QUESTION, stream=True)
    next(iter(slow))
    answers: list[str] = []
    other = threading.Thread(target=lambda: answers.append(read(client)))
    other.start()
    other.join(20)
    assert answers == ["one two three four five six"]
    assert asked(simulator) == 2
    assert [event.type for event in slow][-1] == "message_stop"


def test_nobody_waits_for_himself(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The same question asked while its stream is being read, in the same thread."""
    simulator.rule(Answer(text="one two three", deltas=3))
    begin = time.monotonic()
    for event in client.messages.create(**QUESTION, stream=True):
        if event.type == "content_block_start":
            assert read(client) == "one two three"
    pairs = list(
        zip(*(client.messages.create(**{**QUESTION, "system": "x"}, stream=True) for _ in range(2)), strict=True)
    )
    assert len(pairs) > 3
    assert time.monotonic() - begin < 1
    assert asked(simulator) == 4


async def test_a_task_does_not_wait_for_itself_either(simulator: Simulator) -> None:
    """Nor does it keep another task from asking, once its stream is left alone."""
    simulator.rule(Answer(text="one two three", deltas=3))
    async with simulator.async_client() as plain:
        client = llmnb.wrap(plain, cache=True)
        stream = await client.messages.create(**QUESTION, stream=True)
        begin = time.monotonic()
        first = await client.messages.create(**QUESTION)
        assert time.monotonic() - begin < 1
        other = await client.messages.create(**QUESTION, stream=True)  # answered
        another = await client.messages.create(**{**QUESTION, "system": "x"}, stream=True)
        twin = asyncio.create_task(client.messages.create(**{**QUESTION, "system": "x"}))
        assert texts(first, await asyncio.wait_for(twin, 20)) == ["one two three"] * 2
        for left in (other, another):
            await left.close()
        async for _ in stream:
            pass


@pytest.mark.timeout(20)
@pytest.mark.parametrize("display", ["none", "print"])
async def test_who_blocks_a_loop_does_not_wait_for_its_tasks(sim: Simulator, display: str) -> None:
    """As `llm(…)` in a notebook, while a task asks the same: it could not go on, and neither could this."""
    sim.rule(Answer(text="hello", deltas=2, delta_delay_s=0.1))
    llm = llmnb.LLM(QUESTION["model"], display=display)
    task = asyncio.create_task(llm.aask("the same"))
    for _ in range(1_000):
        if responses().flights._under_way:
            break
        await asyncio.sleep(0)
    assert llm("the same").text == (await task).text == "hello"
    assert asked(sim) == 2


def test_different_samples_do_not_wait_for_each_other(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Nor do fresh ones: each asks."""
    simulator.rule(Answer(text="Hello", first_token_s=0.2))

    def ask(caching: Caching) -> None:
        with calling(caching=caching):
            client.messages.create(**QUESTION)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, [Caching(sample=1), Caching(sample=2), *[Caching(fresh=True)] * 3]))
    assert asked(simulator) == 5


def test_one_who_stops_waiting_was_never_sent(simulator: Simulator) -> None:
    """His row has no tokens, and what he waited for goes on."""
    simulator.rule(Answer(text="Hello", first_token_s=1.0))

    async def run() -> None:
        async with simulator.async_client() as plain:
            client = llmnb.wrap(plain, cache=True)
            leading = asyncio.create_task(client.messages.create(**QUESTION))
            await asyncio.sleep(0.2)
            waiting = asyncio.create_task(client.messages.create(**QUESTION))
            await asyncio.sleep(0.2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert texts(await leading) == ["Hello"]

    asyncio.run(run())
    assert asked(simulator) == 1
    by_status = {row["status"]: row for row in rows()}
    assert by_status["cancelled"]["input_tokens"] == 0
    assert by_status["cancelled"]["cost_nanousd"] == 0
    assert not by_status["cancelled"]["estimated"]


def test_the_row_of_one_who_waits_is_not_running(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """What was not sent is not noted as sent, should the process be killed."""
    simulator.rule(Answer(text="Hello", first_token_s=0.6))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.messages.create, **QUESTION) for _ in range(2)]
        time.sleep(0.3)
        noted = b"".join(path.read_bytes() for path in (llmnb.settings.load().home / "spool").rglob("*.jsonl"))
        assert noted.count(b'"uid"') == 1
        assert len({one.result().id for one in both}) == 1


def test_a_stream_that_is_dropped_ends_at_once(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """That others may wait for it does not keep it: the connection closes, and the row says so."""
    simulator.script(Answer(text="one two three " * 100, delta_delay_s=0.001))
    stream = client.messages.create(**QUESTION, stream=True)
    next(iter(stream))
    del stream
    gc.collect()
    assert llmnb.calls()["status"].item() == "cancelled"


@pytest.mark.parametrize("door", ["sync", "async"])
async def test_a_question_inside_its_own_stream_does_not_wait_for_ever(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """It waits for the stream's answer while that comes on, and asks by itself when it stands still."""
    monkeypatch.setattr(flights_room, "STALL_S", 0.05)
    sim.script(Answer(text="one two three", delta_tokens=1, fault=Fault("stall", after_events=1)), "by itself")
    llm = llmnb.LLM("claude-sonnet-5-5")
    if door == "sync":
        stream = llm.stream("Hi")
        next(stream)
        reply = llm("Hi")
        stream.close()
    else:
        coming = llm.astream("Hi")
        await anext(coming)
        reply = await llm.aask("Hi")
        await coming.aclose()
    assert (reply.text, reply.source) == ("by itself", "live")


def test_a_question_inside_its_own_stream_is_not_paid_twice(sim: Simulator) -> None:
    """The answer that is being read is its answer, too."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    stream = llm.stream("Hi")
    next(stream)
    assert llm("Hi").source == "cache"
    assert len(list(stream)) > 1
    assert len(sim.requests) == 1


# The flights by hand --------------------------------------------------------------------------------------------------


class Told:
    """What other processes would be told."""

    def __init__(self, *, free: bool = True) -> None:
        self.free = free
        self.renewed: list[str] = []
        self.released: list[str] = []

    def flights(self) -> Flights:
        return Flights(lambda key: self.free, self.renewed.extend, self.released.append, period_s=0.01)


def test_a_flight_leads_until_it_arrives() -> None:
    """And is released when its answer has landed, not before."""
    told = Told()
    flights = told.flights()
    flight = flights.lead("a")
    assert flight is not None
    assert flights.lead("a") is None
    assert flights.other("a") is flight
    flights.arrived(flight, answered=True)
    assert flight.is_over
    assert told.released == []
    assert flights.other("a") is None
    flights.landed(flight)
    flights.landed(flight)
    assert told.released == ["a"]


def test_what_another_process_asks_is_not_led() -> None:
    """And nothing of it stays behind."""
    flights = Told(free=False).flights()
    assert flights.lead("a") is None
    assert flights.other("a") is None


class Paused:
    def __init__(self) -> None:
        self.chunk_count, self.is_suspended = 3, True


def test_a_flight_stalls_when_nobody_reads_on() -> None:
    """Not while the server is silent, and not while chunks come."""
    flight, reading = Flight("a"), Paused()
    assert not flight.is_stalled(0)
    flight.reading = reading
    assert not flight.is_stalled(10)
    assert not flight.is_stalled(10.9)
    reading.chunk_count = 4
    assert not flight.is_stalled(11.5)
    reading.is_suspended = False
    assert not flight.is_stalled(99)
    reading.is_suspended = True
    assert not flight.is_stalled(100)
    assert flight.is_stalled(101.1)


def test_the_watch_renews_and_gives_up() -> None:
    """While anything is under way."""
    told = Told()
    flights = told.flights()
    flight, stalled = flights.lead("a"), flights.lead("b")
    assert flight is not None
    assert stalled is not None
    paused = Paused()
    stalled.reading = paused
    assert flights.look(0.0)
    assert flights.look(5.0)
    assert stalled.is_over
    assert not stalled.answered
    assert flights.other("a") is flight
    assert "a" in told.renewed
    assert told.released == ["b"]


def test_writing_never_keeps_the_caller(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A disk that takes for ever delays nobody: not who asked, and not who asks next, for this or for anything else."""
    go, begun = threading.Event(), threading.Event()
    backend = responses().backend
    put = backend.put

    def slow(items: Any) -> None:
        begun.set()
        go.wait(30)
        put(items)

    backend.put = slow  # type: ignore[method-assign]
    try:
        first = client.messages.create(**QUESTION)
        assert begun.wait(10)
        assert client.messages.create(**QUESTION).id == first.id
        client.messages.create(**{**QUESTION, "system": "Be brief."})
        assert asked(simulator) == 2
    finally:
        go.set()
        backend.put = put  # type: ignore[method-assign]
    responses().settle()
    assert len(list(backend.names())) == 2
