"""`LLM` and `Chat` under a cassette: the author records with a key, the reviewer runs again with nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import anthropic
import pytest

import llmnb
from llmnb.cassette import read
from llmnb.errors import MissingKey
from llmnb.events import Done, Text
from llmnb.testing import serve_simulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the cassette of a test is."""
    return tmp_path / "test.cassette.jsonl"


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the network was tried")


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A key and a server in the environment; calling it takes both away, and the network."""
    with serve_simulator(environ=True) as simulator:

        def leave() -> None:
            simulator.stop()
            for name in simulator.environ():
                monkeypatch.delenv(name)
            monkeypatch.setattr(socket.socket, "connect", refuse)
            monkeypatch.setattr(socket, "getaddrinfo", refuse)

        yield leave


def asked(llm: llmnb.LLM) -> list[Any]:
    """Every way to ask."""
    seen: list[Any] = [llm("Name a river.").message, llm("Name a river.", display="static").text]
    events = list(llm.stream("Name a lake."))
    assert isinstance(events[-1], Done)
    seen += [event.text for event in events if isinstance(event, Text)]
    chat = llm.chat()
    seen += [chat("Hi").text, chat("And now?", display="print").text, len(chat.messages)]

    async def later() -> list[Any]:
        reply = await llm.aask("Name a sea.")
        return [reply.message, *[event async for event in llm.astream("Name a bay.") if isinstance(event, Text)]]

    return [*seen, *asyncio.run(later())]


def test_every_way_to_ask_works_without_a_key(path: Path, author: Callable[[], None]) -> None:
    """The same answers, shown live or not, in one piece or streamed, from this thread and from the loop thread."""
    with llmnb.record(path):
        first = asked(llmnb.LLM(display="none"))
    author()
    with llmnb.replay(path, repeat=False) as cassette:
        assert asked(llmnb.LLM(display="none")) == first
    assert cassette.unused == ()
    with pytest.raises(MissingKey):  # and without the cassette it is as it was before
        llmnb.LLM(display="none")("Name a river.")


def test_a_reply_from_a_cassette(path: Path, author: Callable[[], None]) -> None:
    """It cost nothing, says what it saved and where it comes from, and has the usage it had."""
    with llmnb.record(path):
        first = llmnb.LLM(display="none")("Name a river.")
    author()
    with llmnb.replay(path):
        reply = llmnb.LLM(display="none")("Name a river.")
    assert (first.source, reply.source) == ("live", "replay")
    assert reply.usage == first.usage
    assert reply.cost_usd == 0
    assert first.cost_usd
    assert reply.done().saved_usd == first.cost_usd


def test_what_the_cache_knows_is_recorded_without_asking_again(path: Path) -> None:
    """Recording a notebook that was run before costs nothing, and the cassette is complete."""
    with serve_simulator(environ=True) as simulator:
        llm = llmnb.LLM(display="none")
        first = llm("Name a river.")
        with llmnb.record(path) as cassette:
            assert llm("Name a river.").source == "cache"
            assert [event.text for event in llm.stream("Name a river.") if isinstance(event, Text)] == [first.text]
        assert len(simulator.requests) == 1
    assert cassette.recorded == 2
    assert {one.source for one in read(path).interactions} == {"cache"}
    with llmnb.replay(path):
        reply = llm("Name a river.")
    assert (reply.source, reply.message) == ("replay", first.message)


def test_an_llm_that_was_made_before(path: Path, author: Callable[[], None]) -> None:
    """With a key of before or none, with a client of the user's or llmnb's own, as it is."""
    with anthropic.Anthropic() as plain:
        ours, own = llmnb.LLM(display="none"), llmnb.LLM(client=plain, display="none")
        with llmnb.record(path):
            first = [ours("Name a river.").text, own("Name a river.").text]
    author()
    keyless = llmnb.LLM(client=anthropic.Anthropic(), display="none")
    with llmnb.replay(path):
        assert [ours("Name a river.").text, own("Name a river.").text] == first
        assert keyless("Name a river.").text == first[1]
        made_inside = llmnb.LLM(client=anthropic.AsyncAnthropic(), display="static")
        assert made_inside("Name a river.").text == first[1]


def test_tasks_and_threads_of_a_block(path: Path, author: Callable[[], None]) -> None:
    """Many at once through the live view's loop thread and through a pool of threads."""

    async def many(llm: llmnb.LLM) -> list[str]:
        replies = await asyncio.gather(*(llm.aask(f"Question {number}") for number in range(10)))
        texts = [reply.text for reply in replies]
        loop = asyncio.get_running_loop()
        more = [loop.run_in_executor(None, lambda n=n: llm(f"Question {n}").text) for n in range(10, 20)]
        return [*texts, *await asyncio.gather(*more)]

    with llmnb.record(path):
        first = asyncio.run(many(llmnb.LLM(display="none")))
    author()
    with llmnb.replay(path):
        assert asyncio.run(many(llmnb.LLM(display="none"))) == first


def test_a_tools_turns(path: Path, author: Callable[[], None]) -> None:
    """The tool runner of the SDK, turn by turn; a tool that answers otherwise is a miss that shows it."""

    def run(answer: str) -> list[Any]:
        @anthropic.beta_tool
        def weather(city: str) -> str:
            """Today's weather in a city.

            Args:
                city: its name.
            """
            return f"{answer} in {city}."

        with anthropic.Anthropic() as plain:
            runner = llmnb.wrap(plain).beta.messages.tool_runner(
                model="claude-sonnet-5-5",
                max_tokens=300,
                tools=[weather],
                messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
            )
            return [message.model_dump() for message in runner]

    with llmnb.record(path):
        first = run("Sunny")
    assert [turn["stop_reason"] for turn in first] == ["tool_use", "end_turn"]
    author()
    with llmnb.replay(path):
        assert run("Sunny") == first
        with pytest.raises(llmnb.ReplayMiss, match=r"recorded 'Sunny in .*', asked 'Rainy in"):
            run("Rainy")
