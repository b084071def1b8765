"""The public API as a type checker sees it: this file is checked by `tests/typing/test_typing.py`, and never runs."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import assert_type

import anthropic
from anthropic.types import Message, MessageParam, TextBlock
from pandas import DataFrame

import llmnb
from llmnb.cassette import Cassette, Interaction
from llmnb.events import StreamEvent, ToolCall


@dataclass
class Point:
    """What may be extracted."""

    x: float
    y: float


def asking(llm: llmnb.LLM) -> None:
    """Every kind of prompt, and what asking gives."""
    reply = llm("Hi")
    assert_type(reply, llmnb.Reply)
    assert_type(llm.ask(b"bytes", max_tokens=5, temperature=None), llmnb.Reply)
    llm(Path("plot.png"))
    llm([Path("plot.png"), "What is this?", b"...", {"type": "text", "text": "Hi"}, TextBlock(type="text", text="Hi")])
    assert_type(reply.text, str)
    assert_type(reply.usage, llmnb.Usage)
    assert_type(reply.cost_usd, Decimal | None)
    assert_type(reply.cost, llmnb.Cost)
    assert_type(reply.message, Message)
    assert_type(reply.latency_ms, float | None)


def tools(llm: llmnb.LLM, chat: llmnb.Chat) -> None:
    """Functions that the model may call, and how far that goes."""

    def approve(call: llmnb.ToolCall) -> bool | str:
        return call.name == "len" or "no"

    reply = llm("Hi", tools=[len], max_turns=3, budget_usd=Decimal("0.1"), time_limit="5m", approve=approve)
    assert_type(reply.turns, tuple[llmnb.Reply, ...])
    assert_type(reply.tool_results, list[tuple[llmnb.ToolCall, llmnb.ToolResult | None]])
    chat("Hi", tools=[len], tool_choice="any", approve=True)
    assert_type(llm.chat(tools=[len], when_full="trim", window_tokens=5_000), llmnb.Chat)
    llm("Hi", max_turns="three")  # pyright: ignore[reportArgumentType]
    llm.chat(when_full="cut")  # pyright: ignore[reportArgumentType]


def estimating(llm: llmnb.LLM, chat: llmnb.Chat) -> None:
    """Before asking."""
    assert_type(llm.estimate("Hi", tools=[len], exact=True, max_tokens=5), llmnb.Estimate)
    assert_type(chat.estimate("Hi").cost_usd, Decimal | None)
    llm.estimate("Hi", exakt=True)  # pyright: ignore[reportCallIssue]


async def extracting(llm: llmnb.LLM) -> None:
    """A value is of the type that was asked for; a list makes a frame."""
    assert_type(llm.extract("1, 2", Point), Point)
    assert_type(await llm.aextract("1, 2", Point, retries=0, max_tokens=5), Point)
    assert_type(llm.extract("1, 2", list[Point])[0], Point)
    llm.extract("1, 2", list[Point]).to_frame()
    llm.extract("1, 2", Point | None)
    llm.stream("1, 2", into=Point)
    llm.extract("1, 2", Point, retries="no")  # pyright: ignore[reportArgumentType, reportCallIssue]


def configuring() -> None:
    """Settings are typed, and a misspelled one is an error."""
    llmnb.LLM()
    llmnb.LLM("claude-sonnet-5-5", system="Be brief.", project="thesis", effort="low", thinking=True)
    llmnb.LLM(client=anthropic.Anthropic(), thinking={"type": "adaptive"}, service_tier="auto", timeout=5.0)
    llmnb.LLM(temprature=1)  # pyright: ignore[reportCallIssue]
    llmnb.LLM(effort="huge")  # pyright: ignore[reportArgumentType]
    llmnb.LLM(max_tokens="10")  # pyright: ignore[reportArgumentType]


def misusing(llm: llmnb.LLM, reply: llmnb.Reply) -> None:
    """What is refused when it runs is refused by the type checker, too."""
    llm("Hi", max_token=5)  # pyright: ignore[reportCallIssue]
    llm("Hi", client=None)  # pyright: ignore[reportCallIssue]
    llm(5)  # pyright: ignore[reportArgumentType]
    llm.chat("Hi")  # pyright: ignore[reportArgumentType]
    reply.usage = llmnb.Usage()  # pyright: ignore[reportAttributeAccessIssue]


def streaming(llm: llmnb.LLM) -> None:
    """Events are a closed union."""
    stream = llm.stream("Hi", thinking=True)
    assert_type(stream, Generator[StreamEvent, None, llmnb.Reply])
    for event in stream:
        match event:
            case llmnb.Text(text) | llmnb.Thinking(text):
                assert_type(text, str)
            case llmnb.Done():
                assert_type(event.cost_usd, Decimal | None)
            case ToolCall(input=arguments):
                assert_type(arguments, dict[str, object])
            case _:
                pass


async def awaiting(llm: llmnb.LLM, chat: llmnb.Chat) -> None:
    """The async twins give what their namesakes give."""
    assert_type(await llm.aask("Hi"), llmnb.Reply)
    assert_type(await chat.aask("Hi", effort="low"), llmnb.Reply)
    assert_type(llm.astream("Hi"), AsyncGenerator[StreamEvent, None])
    async for event in chat.astream("Hi"):
        assert_type(event, StreamEvent)


def keeping(llm: llmnb.LLM) -> None:
    """The response cache, looked into and taken along."""
    assert_type(llmnb.cache.entries(model="claude-sonnet-5-5", older="30d"), DataFrame)
    assert_type(llmnb.cache.stats().answers, int)
    assert_type(llmnb.cache.clear(older="30d"), int)
    assert_type(llmnb.cache.export("a.jsonl"), int)
    assert_type(llmnb.cache.import_("a.jsonl", replace=True).added, int)
    assert_type(llm.estimate("Hi").cost_usd, Decimal | None)


def conversing(llm: llmnb.LLM) -> None:
    """A chat, from its beginning to its file."""
    chat = llm.chat(name="review", system="Be brief.")
    assert_type(chat, llmnb.Chat)
    assert_type(chat("Hi"), llmnb.Reply)
    assert_type(chat.messages, list[MessageParam])
    assert_type(chat.undo(), llmnb.Chat)
    assert_type(chat.fork(), llmnb.Chat)
    assert_type(chat.save("c.json"), Path)
    assert_type(llmnb.Chat.load("c.json", llm=llm), llmnb.Chat)
    assert_type(chat.cost_usd, Decimal | None)
    assert_type(chat.usage, llmnb.Usage)


def wrapping(sync: anthropic.Anthropic, asynchronous: anthropic.AsyncAnthropic) -> None:
    """A wrapped client keeps its type."""
    assert_type(llmnb.wrap(sync, project="thesis"), anthropic.Anthropic)
    assert_type(llmnb.wrap(asynchronous), anthropic.AsyncAnthropic)


def recording(sync: anthropic.Anthropic) -> None:
    """A cassette by `with` and without; what it says of itself."""
    with llmnb.record("a.jsonl", redact=["patient_id", re.compile("x")]) as cassette:
        assert_type(cassette, Cassette)
    with llmnb.replay(Path("a.jsonl"), mode="auto", pace="recorded", repeat=False):
        llmnb.wrap(sync)
    opened = llmnb.replay()
    assert_type(opened.interactions, tuple[Interaction, ...])
    opened.stop()
    llmnb.replay(mode="replays")  # pyright: ignore[reportArgumentType]
    llmnb.record(mode="new")  # pyright: ignore[reportCallIssue]
