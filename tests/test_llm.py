"""Asking a model: what is sent, what comes back, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest
from anthropic.resources.messages import Messages

import llmnb
from llmnb.asking.exchange import Exchange
from llmnb.asking.params import KNOWN, SdkParams, plan
from llmnb.errors import IncompleteReply, InvalidRequest, MissingKey, SettingsError, UnknownModel
from llmnb.events import Citation, Done, Text, Thinking, ToolCall, ToolResult
from llmnb.middleware import placement
from llmnb.middleware.sightings import Sightings
from llmnb.records import Call, PromptCacheUse, calling
from llmnb.settings import load
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator


def _until_asked(sim: Simulator) -> None:
    while not sim.requests:
        pass


def rows() -> list[dict[str, Any]]:
    """The ledger, oldest call first."""
    return list(reversed(llmnb.calls().to_dict("records")))


# What is sent ---------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_at_construction(sim: Simulator) -> None:
    """Making an LLM asks nothing of the network and needs no key."""
    llmnb.LLM("claude-opus-5-5", system="Be brief.", project="thesis")
    assert sim.requests == []


def test_only_what_was_set_is_sent(sim: Simulator) -> None:
    """A bare question carries model, prompt and the default max_tokens, and nothing else."""
    llmnb.LLM()("Hi")
    assert sim.requests[0].body == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_every_setting_arrives(sim: Simulator) -> None:
    """Settings of the LLM arrive in the request, each where the API wants it."""
    llm = llmnb.LLM(
        "claude-opus-5-5",
        system="Be brief.",
        max_tokens=100,
        thinking={"type": "adaptive"},
        effort="low",
        stop_sequences="END",
        output_config={"format": None},
        metadata={"user_id": "u1"},
        extra_body={"service_tier": "standard_only"},
        extra_headers={"x-mine": "yes"},
    )
    llm("Hi")
    body = sim.requests[0].body
    assert body["system"] == "Be brief."
    assert body["max_tokens"] == 100
    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"] == {"format": None, "effort": "low"}
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": "u1"}
    assert body["service_tier"] == "standard_only"
    assert sim.requests[0].headers["x-mine"] == "yes"


def test_a_call_overrides_and_none_goes_back(sim: Simulator) -> None:
    """A call's own setting wins for that call only, and None brings the default back."""
    llm = llmnb.LLM("claude-opus-5-5", system="Long.", max_tokens=50)
    llm("1", model="claude-haiku-5-5", system="Short.", max_tokens=7)
    llm("2", system=None, max_tokens=None)
    llm("3")
    first, second, third = (request.body for request in sim.requests)
    assert (first["model"], first["system"], first["max_tokens"]) == ("claude-haiku-5-5", "Short.", 7)
    assert "system" not in second
    assert second["max_tokens"] == 8192
    assert (third["model"], third["system"], third["max_tokens"]) == ("claude-opus-5-5", "Long.", 50)


def test_max_tokens_from_the_environment(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting changes the default, and an LLM of its own mind wins over it."""
    monkeypatch.setenv("LLMNB_MAX_TOKENS", "123")
    monkeypatch.setenv("LLMNB_MODEL", "claude-haiku-5-5")
    llmnb.LLM()("Hi")
    llmnb.LLM(max_tokens=5)("Hi")
    assert [request.body["max_tokens"] for request in sim.requests] == [123, 5]
    assert sim.requests[0].body["model"] == "claude-haiku-5-5"


def test_a_picture_and_a_question(sim: Simulator, tmp_path: Path) -> None:
    """A Path becomes a block, next to the text."""
    (tmp_path / "notes.txt").write_text("The cat sat.")
    llmnb.LLM()([tmp_path / "notes.txt", "Who sat?"])
    document, text = sim.requests[0].body["messages"][0]["content"]
    assert document["source"]["data"] == "The cat sat."
    assert text == {"type": "text", "text": "Who sat?"}


def test_sampling_goes_through_extra_body(sim: Simulator) -> None:
    """Where a model takes temperature, it is sent, with the API version that still takes it."""
    llmnb.LLM("claude-sonnet-4-6", temperature=0.2, extra_body={"service_tier": "auto"})("Hi", top_k=5)
    request = sim.requests[0]
    assert {key: request.body[key] for key in ("temperature", "top_k", "service_tier")} == {
        "temperature": 0.2,
        "top_k": 5,
        "service_tier": "auto",
    }
    assert request.headers["anthropic-version"] == "2023-06-01"


def test_temperature_zero_is_a_temperature(sim: Simulator) -> None:
    """0 is sent, and not taken for nothing."""
    llmnb.LLM("claude-haiku-4-5", temperature=0)("Hi")
    assert sim.requests[0].body["temperature"] == 0


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_is_refused_early_where_the_model_refuses_it(sim: Simulator, name: str) -> None:
    """A newer model's refusal is said before anything is sent, at construction and for one call."""
    with pytest.raises(InvalidRequest, match=f"claude-sonnet-5-5 takes no {name}"):
        llmnb.LLM(**{name: 1})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="effort="):
        llmnb.LLM()("Hi", **{name: 1})  # type: ignore[arg-type]
    assert sim.requests == []


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-opus-5-5", True, {"type": "adaptive", "display": "summarized"}),
        ("claude-haiku-4-5", True, {"type": "enabled", "budget_tokens": 4096}),
        ("claude-haiku-5-5", False, {"type": "disabled"}),
        ("claude-sonnet-5-5", False, {"type": "between_tools"}),
    ],
)
def test_thinking_by_true_and_false(sim: Simulator, model: str, thinking: bool, sent: dict[str, Any]) -> None:
    """True and False become what each generation calls it."""
    llmnb.LLM(model, thinking=thinking)("Hi")
    assert sim.requests[0].body["thinking"] == sent


@pytest.mark.parametrize(
    ("model", "thinking", "said"),
    [
        ("claude-fable-5-2", False, "cannot be switched off"),
        ("claude-opus-5-5", {"type": "disabled"}, "cannot be switched off"),
        ("claude-opus-5-5", {"type": "enabled", "budget_tokens": 2000}, "takes no thinking budget"),
        ("claude-opus-5-5", "yes", "must be True, False or a dict"),
    ],
)
def test_impossible_thinking(model: str, thinking: Any, said: str) -> None:
    """What a model is known to refuse is refused before it is sent."""
    with pytest.raises(InvalidRequest, match=said):
        llmnb.LLM(model, thinking=thinking)


@pytest.mark.parametrize("value", [0, -1, "30", True])
def test_impossible_timeout(value: Any) -> None:
    """A timeout that would fail inside the HTTP library is refused before."""
    with pytest.raises(InvalidRequest, match="timeout must be a number of seconds"):
        llmnb.LLM("claude-sonnet-5-5", timeout=value)


def test_timeouts_of_the_http_library_are_taken() -> None:
    """Seconds, or an httpx2.Timeout."""
    import httpx2

    for timeout in (2, 0.5, httpx2.Timeout(5)):
        assert llmnb.LLM("claude-sonnet-5-5", timeout=timeout).options["timeout"] == timeout


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", True])
def test_impossible_max_tokens(value: Any) -> None:
    """max_tokens must be a whole number from 1."""
    with pytest.raises(InvalidRequest, match="max_tokens"):
        llmnb.LLM(max_tokens=value)


def test_unknown_arguments_are_refused(sim: Simulator) -> None:
    """A misspelled argument is refused with the nearest and all known ones, before anything is sent."""
    with pytest.raises(TypeError, match=r"no argument 'temprature'\. Did you mean 'temperature'\? Known: .*max_tokens"):
        llmnb.LLM(temprature=1)  # type: ignore[call-arg]
    llm = llmnb.LLM()
    for ask in (llm, llm.ask, llm.stream, llm.astream):
        with pytest.raises(TypeError, match="Did you mean 'max_tokens'"):
            ask("Hi", max_token=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no argument 'client'"):
        llm("Hi", client=None)  # type: ignore[call-arg]
    assert sim.requests == []


def test_knows_every_parameter_of_the_sdk() -> None:
    """Each parameter of `messages.create` can be given, but those that llmnb fills itself or gets a name for later."""
    real = set(signature(Messages.create).parameters) - {"self"}
    ours = {"messages", "model", "max_tokens", "stop_sequences", "system", "thinking", "stream"}
    later = {"tools", "tool_choice"}
    assert set(SdkParams.__annotations__) == real - ours - later
    assert set(KNOWN) >= set(signature(llmnb.LLM.__init__).parameters) - {"self", "base_url", "client", "params"}


# What comes back ------------------------------------------------------------------------------------------------------


def test_reply_and_ledger_agree(sim: Simulator) -> None:
    """Usage and cost of a reply are those of its ledger row, which are those the simulator billed."""
    reply = llmnb.LLM(project="thesis", tag="draft")("Explain WAL in SQLite")
    (row,) = rows()
    billed = sim.billed()
    assert reply.text.startswith("*Simulated answer")
    assert reply.usage.input_tokens == row["input_tokens"] == billed.input_tokens
    assert reply.usage.output_tokens == row["output_tokens"] == billed.output_tokens
    assert reply.cost_usd == Decimal(row["cost_nanousd"]) / 10**9
    assert (row["project"], row["tag"], row["status"]) == ("thesis", "draft", "ok")
    assert reply.call is not None
    assert reply.call.uid == row["uid"]
    assert reply.request_id == row["request_id"]
    assert isinstance(reply.message, anthropic.types.Message)
    assert reply.source == "live"


@pytest.mark.parametrize("max_tokens", [100, 60_000], ids=["whole", "streamed"])
def test_without_books(sim: Simulator, max_tokens: int) -> None:
    """Where no row comes, usage and cost are read from the message itself, and say the same."""
    booked = llmnb.LLM(max_tokens=max_tokens)("Hi")
    with sim.client() as client:
        bare = Exchange(plan({"max_tokens": max_tokens}, load()), [{"role": "user", "content": "Hi"}], limit=1)
        reply = bare.ask(lambda: client)
    assert reply.call is None
    assert (reply.usage, reply.cost_usd) == (booked.usage, booked.cost_usd)
    assert reply.request_id == (sim.requests[-1].request_id if max_tokens == 100 else None)


def test_incomplete_without_books(sim: Simulator) -> None:
    """There, what is known of a broken answer is the input, and an estimate of the output."""
    sim.script(Answer(text="one two three four five six", deltas=6, fault=Fault("truncate", after_events=3)))
    with sim.client() as client:
        bare = Exchange(plan({"max_tokens": 60_000}, load()), [{"role": "user", "content": "Hi"}], limit=1)
        with pytest.raises(IncompleteReply) as caught:
            bare.ask(lambda: client)
    usage = caught.value.usage
    assert usage is not None
    assert (usage.input_tokens, usage.estimated) == (sim.billed().input_tokens, True)
    assert usage.output_tokens > 0


def test_unpriced_is_none(sim: Simulator) -> None:
    """A model without a price costs None, never 0."""
    sim.script(Answer(text="Hi", model="claude-nova-9"))
    reply = llmnb.LLM()("Hi")
    assert reply.model == "claude-nova-9"
    assert reply.cost_usd is None
    assert reply.usage.output_tokens > 0


@pytest.mark.parametrize("max_tokens", [21_333, 21_334, 60_000])
def test_long_answers_stream_underneath(sim: Simulator, max_tokens: int) -> None:
    """Above the SDK's non-streaming limit the request streams; the reply is the same message."""
    sim.rule(Answer(text="The same.", thinking="Hm."))
    reply = llmnb.LLM(thinking=True, max_tokens=max_tokens)("Hi")
    assert sim.requests[0].body.get("stream", False) is (max_tokens > 21_333)
    assert (reply.text, reply.thinking, reply.stop_reason) == ("The same.", "Hm.", "end_turn")
    assert reply.message.content[0].type == "thinking"
    assert (reply.ttft_ms is not None) == (max_tokens > 21_333)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(text="Plain."),
        Answer(text="Thought over.", thinking="Let me think."),
        Answer(text="Look it up.", tool_calls=[("weather", {"city": "Oslo", "days": [1, 2]}), ("clock", {})]),
        Answer(refusal="cyber"),
        Answer(blocks=[{"type": "redacted_thinking", "data": "abc"}, {"type": "text", "text": "Done."}]),
        Answer(blocks=[]),
        Answer(text="x", usage={"iterations": [{"type": "message", "input_tokens": 1, "output_tokens": 2}]}),
        Answer(text="A long one " * 50, deltas=100),
    ],
    ids=["text", "thinking", "tools", "refusal", "redacted", "empty", "iterations", "long"],
)
def test_streamed_message_equals_the_sdks(sim: Simulator, answer: Answer) -> None:
    """Our message from raw events is the message that the SDK's own accumulator builds from the same stream."""
    sim.rule(answer)
    llm = llmnb.LLM(max_tokens=60_000, extra_body={"tools": [{"name": "weather", "input_schema": {"type": "object"}}]})
    ours = llm("Hi").message.to_dict()
    arguments: Any = {**sim.requests[0].body}
    del arguments["stream"]
    with sim.client() as client, client.messages.stream(**arguments) as stream:
        theirs = stream.get_final_message().to_dict()
    extra = set(ours["usage"]) - set(theirs["usage"])  # type: ignore[arg-type]
    for message in (ours, theirs):
        message.pop("id")
        for block in message["content"]:  # type: ignore[attr-defined]
            block.pop("id", None)
            block.pop("parsed_output", None)
    if extra:
        assert extra == {"iterations"}  # billed, and dropped by the SDK
        ours["usage"].pop("iterations")  # type: ignore[attr-defined]
    assert ours == theirs


def test_truncated(sim: Simulator) -> None:
    """An answer cut off by max_tokens says so, and raises nothing."""
    reply = llmnb.LLM(max_tokens=5)("Explain WAL in SQLite")
    assert reply.truncated
    assert "cut off" in repr(reply)


def test_async_twin(sim: Simulator) -> None:
    """`aask` gives what `ask` gives, in one event loop after another, with the same LLM."""
    llm = llmnb.LLM()
    texts = {asyncio.run(llm.aask("Hi")).text for _ in range(2)}
    assert texts == {llm("Hi").text}
    assert [row["status"] for row in rows()] == ["ok"] * 3


def test_one_llm_in_many_threads(sim: Simulator) -> None:
    """Threads share an LLM; each question gets its own answer and its own row."""
    sim.rule(lambda request: f"echo {request.prompt}")
    llm = llmnb.LLM()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: llm(str(n)), range(40)))
    assert [reply.text for reply in replies] == [f"echo {n}" for n in range(40)]
    assert len({reply.call.uid for reply in replies if reply.call}) == 40
    assert len(rows()) == 40


async def test_many_tasks_keep_their_rows_apart(sim: Simulator) -> None:
    """Concurrent coroutines get each their own row, context variables and all."""
    sim.rule(lambda request: f"echo {request.prompt}")
    llm = llmnb.LLM()

    async def ask(n: int) -> llmnb.Reply:
        return await llm.aask(str(n), tag=f"t{n}")

    replies = await asyncio.gather(*(ask(n) for n in range(20)))
    assert [reply.text for reply in replies] == [f"echo {n}" for n in range(20)]
    assert [reply.call.tag for reply in replies if reply.call] == [f"t{n}" for n in range(20)]


def test_one_connection_for_many_calls(sim: Simulator) -> None:
    """Clients are reused: ten calls of two LLMs open one connection."""
    for _ in range(5):
        llmnb.LLM()("Hi")
        llmnb.LLM("claude-haiku-5-5")("Hi")
    assert sim.open_connections == 1


def test_connections_end_with_their_loop(sim: Simulator) -> None:
    """`asyncio.run` leaves no connection behind, neither of llmnb's own clients nor of a twin."""
    with sim.client() as client:
        for llm in (llmnb.LLM(), llmnb.LLM(client=client)):
            asyncio.run(llm.aask("Hi"))
            while sim.open_connections:  # the server notices in its own time
                pass


def test_another_address_counts_from_the_next_call(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An LLM follows the environment's address and key."""
    llm = llmnb.LLM()
    llm("Hi")
    with serve_simulator(valid_keys={"sk-other"}) as other:
        for name, value in other.environ().items():
            monkeypatch.setenv(name, value)
        llm("Hi")
        assert len(other.requests) == len(sim.requests) == 1


# Streams --------------------------------------------------------------------------------------------------------------


def test_stream_events(sim: Simulator) -> None:
    """A stream says thinking, then text, then Done with what the ledger says."""
    sim.script(Answer(text="One two three four", thinking="Hm, hm.", deltas=4))
    events = list(llmnb.LLM(thinking=True).stream("Hi"))
    done = events[-1]
    assert "".join(event.text for event in events if isinstance(event, Text)) == "One two three four"
    assert "".join(event.text for event in events if isinstance(event, Thinking)) == "Hm, hm."
    assert isinstance(done, Done)
    assert [type(event) for event in events].count(Done) == 1
    (row,) = rows()
    assert done.usage.output_tokens == row["output_tokens"] == sim.billed().output_tokens
    assert done.cost_usd == Decimal(row["cost_nanousd"]) / 10**9
    assert done.ttft_ms is not None
    assert done.latency_ms is not None
    assert done.ttft_ms <= done.latency_ms
    assert done.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("kind", "content", "told", "is_error"),
    [
        (
            "web_search",
            [{"type": "web_search_result", "title": "WAL", "url": "https://x.org/wal", "encrypted_content": "E"}],
            "WAL https://x.org/wal",
            False,
        ),
        (
            "web_search",
            {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
            "max_uses_exceeded",
            True,
        ),
        (
            "bash_code_execution",
            {"type": "bash_code_execution_result", "stdout": "42\n", "stderr": "", "return_code": 0, "content": []},
            "42",
            False,
        ),
    ],
)
def test_tools_of_the_api_are_told(sim: Simulator, kind: str, content: Any, told: str, is_error: bool) -> None:
    """A search or a program that ran on the API's side is a call and its result, in the order they came."""
    blocks = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": kind, "input": {"query": "wal"}},
        {"type": f"{kind}_tool_result", "tool_use_id": "srvtoolu_1", "content": content},
        {"type": "text", "text": "Found."},
    ]
    sim.script(Answer(blocks=blocks))
    call, result, text, done = llmnb.LLM("claude-sonnet-5-5").stream("Look it up")
    assert call == ToolCall("srvtoolu_1", kind, {"query": "wal"})
    assert result == ToolResult("srvtoolu_1", kind, told, is_error=is_error)
    assert (text, type(done)) == (Text("Found."), Done)


async def test_astream_events(sim: Simulator) -> None:
    """The async stream says the same."""
    sim.script(Answer(text="One two", deltas=2))
    events = [event async for event in llmnb.LLM().astream("Hi")]
    assert [type(event).__name__ for event in events] == ["Text", "Text", "Done"]


def test_stream_returns_the_reply(sim: Simulator) -> None:
    """The value of the generator is the whole reply, for who drives it with `yield from`."""
    sim.script("Hello")
    stream = llmnb.LLM().stream("Hi")

    def drive() -> Iterator[object]:
        nonlocal reply
        reply = yield from stream

    reply: llmnb.Reply | None = None
    assert len(list(drive())) == 2
    assert reply is not None
    assert reply.text == "Hello"


def test_tool_calls_are_events(sim: Simulator) -> None:
    """A call of a tool that the user's own extra_body brought is told when it is whole."""
    sim.script(Answer(text="Look.", tool_calls=[("weather", {"city": "Oslo"})]))
    llm = llmnb.LLM(extra_body={"tools": [{"name": "weather", "input_schema": {"type": "object"}}]})
    calls = [event for event in llm.stream("Umbrella?") if isinstance(event, ToolCall)]
    assert [(call.name, call.input) for call in calls] == [("weather", {"city": "Oslo"})]


@pytest.mark.parametrize("way", ["close", "break", "garbage"])
def test_leaving_a_stream_closes_it_at_once(sim: Simulator, way: str) -> None:
    """However the caller leaves, the server sees the connection close, and the row says cancelled."""
    sim.script(Answer(text="word " * 500, deltas=500, delta_delay_s=0.01))
    stream = llmnb.LLM().stream("Hi")
    first = next(stream)
    assert isinstance(first, Text)
    if way == "close":
        stream.close()
    elif way == "break":
        for _ in stream:
            break
    del stream
    gc.collect()
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    (row,) = rows()
    assert (row["status"], row["estimated"]) == ("cancelled", True)
    assert row["input_tokens"] == sim.billed().input_tokens


async def test_leaving_an_async_stream_closes_it(sim: Simulator) -> None:
    """`aclose` ends the HTTP stream, too."""
    sim.script(Answer(text="word " * 500, deltas=500, delta_delay_s=0.01))
    stream = llmnb.LLM().astream("Hi")
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(sim.settle)
    assert sim.requests[0].disconnected_at is not None
    assert rows()[0]["status"] == "cancelled"


async def test_cancelling_a_task_closes_its_request(sim: Simulator) -> None:
    """A cancelled `aask` leaves a cancelled row and no open request."""
    sim.fail("stall", after_events=2)
    task = asyncio.create_task(llmnb.LLM().aask("Hi", max_tokens=60_000))
    await asyncio.to_thread(_until_asked, sim)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rows()[0]["status"] == "cancelled"


@pytest.mark.parametrize("kind", ["truncate", "drop", "reset"])
@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
def test_a_stream_that_ends_early_is_no_success(sim: Simulator, kind: str, way: str) -> None:
    """EOF without message_stop and a broken connection raise IncompleteReply with what came, in every way of asking."""
    sim.script(Answer(text="one two three four five six", deltas=6, fault=Fault(kind, after_events=3)))
    llm = llmnb.LLM(max_tokens=60_000)
    with pytest.raises(IncompleteReply) as caught:
        _run(llm, way)
    assert caught.value.partial
    assert "one two three four five six".startswith(caught.value.partial)
    assert caught.value.usage is not None
    assert caught.value.usage.estimated
    (row,) = rows()
    assert row["status"] == "truncated"
    assert row["output_tokens"] == caught.value.usage.output_tokens


def _run(llm: llmnb.LLM, way: str) -> Any:
    """Asks in one of the four ways."""

    async def drain() -> list[Any]:
        return [event async for event in llm.astream("Hi")]

    if way == "ask":
        return llm("Hi")
    if way == "stream":
        return list(llm.stream("Hi"))
    return asyncio.run(llm.aask("Hi") if way == "aask" else drain())


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
def test_error_event_in_a_stream(sim: Simulator, way: str) -> None:
    """An error of the API after content is an incomplete reply, and the SDK's own error its cause."""
    sim.fail("error_event", after_events=3)
    with pytest.raises(IncompleteReply, match=r"API broke .*overloaded_error") as caught:
        _run(llmnb.LLM(max_tokens=60_000), way)
    assert isinstance(caught.value.__cause__, anthropic.APIStatusError)
    assert caught.value.partial
    assert rows()[0]["status"] == "error"


@pytest.mark.parametrize(("model", "way"), [("claude-sonnet-5-5", "stream"), ("openai:gpt-5.2", "astream")])
def test_how_long_the_api_may_be_silent_is_a_setting(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, model: str, way: str
) -> None:
    """LLMNB_TIMEOUT_S: between two events of a stream it is an answer that broke off, before the first a timeout."""
    if ":" in model:
        pytest.importorskip("openai")
    monkeypatch.setenv("LLMNB_TIMEOUT_S", "0.3")
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
    llm = llmnb.LLM(model, cache=False, max_tokens=4_000)
    # more than once: where the machine is busy an attempt may be late without that
    sim.script(Answer(text="one two three four", deltas=4, fault=Fault("stall", after_events=2)), times=3)
    with pytest.raises(IncompleteReply, match="for as long as `timeout` allows"):
        _run(llm, way)
    sim.reset()
    sim.fail("slow_headers", seconds=3_600, times=3)
    with pytest.raises(anthropic.APITimeoutError):
        _run(llm, way)
    broken, silent = rows()
    assert (broken["status"], broken["estimated"]) == ("truncated", True)
    assert (silent["status"], silent["attempts"], silent["error_type"]) == ("error", 3, "APITimeoutError")
    assert silent["estimated"]  # each attempt may have been read


@pytest.mark.parametrize("kind", ["bad_json", "bad_utf8"])
def test_a_garbled_stream_raises(sim: Simulator, kind: str) -> None:
    """Bytes that are no JSON or no UTF-8 are an error, never a short answer."""
    sim.fail(kind, after_events=3)
    with pytest.raises(IncompleteReply) as caught:
        list(llmnb.LLM().stream("Hi"))
    assert caught.value.partial


@pytest.mark.parametrize("kind", ["unknown_events", "unknown_blocks", "comments", "split_utf8", "gzip"])
def test_streams_with_unusual_but_right_bytes(sim: Simulator, kind: str) -> None:
    """Events and blocks of the future, comments, split characters and compression do not change the answer."""
    sim.script(Answer(text="Blåbær og 苹果", fault=Fault(kind)))
    events = list(llmnb.LLM().stream("Hi"))
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Blåbær og 苹果"


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
def test_json_where_a_stream_was_asked_for(sim: Simulator, way: str) -> None:
    """A server that answers a stream with one JSON message is understood."""
    sim.script(Answer(text="All at once.", thinking="Hm.", fault=Fault("json_for_sse")))
    result = _run(llmnb.LLM(max_tokens=60_000, thinking=True), way)
    if way in ("ask", "aask"):
        assert (result.text, result.thinking) == ("All at once.", "Hm.")
    else:
        assert [type(event).__name__ for event in result] == ["Thinking", "Text", "Done"]
    (row,) = rows()
    assert (row["status"], row["output_tokens"]) == ("ok", sim.billed().output_tokens)


def test_json_where_a_stream_was_asked_for_has_all_pieces(sim: Simulator) -> None:
    """Tools that are asked for, those of the API's side with what they gave, and sources, as in a stream."""
    cited = [{"type": "char_location", "cited_text": "Ann.", "document_index": 0, "document_title": "List"}]
    found = {"type": "web_search_result", "url": "https://example.org", "title": "Ann", "encrypted_content": ""}
    blocks = [
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "Ann"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [found]},
        {"type": "text", "text": "It is Ann.", "citations": cited},
        {"type": "tool_use", "id": "toolu_1", "name": "greet", "input": {"name": "Ann"}},
    ]
    sim.script(Answer(blocks=blocks, stop_reason="tool_use", fault=Fault("json_for_sse")), "Greeted.")

    def greet(name: str) -> str:
        """Greets somebody."""
        return f"Hi {name}"

    *events, last_text, done = llmnb.LLM().stream("Greet Ann", tools=[greet])
    assert events == [
        ToolCall("srv_1", "web_search", {"query": "Ann"}),
        ToolResult("srv_1", "web_search", "Ann https://example.org"),
        Text("It is Ann."),
        Citation("List", cited_text="Ann."),
        ToolCall("toolu_1", "greet", {"name": "Ann"}),
        dataclasses.replace(events[-1], id="toolu_1", name="greet", content="Hi Ann"),
    ]
    assert isinstance(done, Done)
    assert last_text == Text("Greeted.")


def test_events_out_of_order(sim: Simulator) -> None:
    """A piece of a block that never began is an incomplete reply with the text so far."""
    body = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    )
    sim.replay(200, {"content-type": "text/event-stream"}, body)
    with pytest.raises(IncompleteReply, match="broke off"):
        list(llmnb.LLM().stream("Hi"))


@pytest.mark.parametrize("way", ["stream", "shown"])
@pytest.mark.parametrize("kind", ["error_event", "bad_json", "bad_utf8", "out of order"])
def test_a_stream_that_failed_is_closed_where_it_was_read(sim: Simulator, kind: str, way: str) -> None:
    """Whoever keeps the error does not keep the stream, which Python's search for garbage would close in his thread."""
    if kind == "out of order":
        body = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'
        sim.replay(200, {"content-type": "text/event-stream"}, b"event: content_block_delta\n" + body + b"\n\n")
    else:
        sim.script(Answer(text="word " * 50, deltas=50, fault=Fault(kind, after_events=3)))
    llm = llmnb.LLM(display=None if way == "stream" else "print", cache=False)
    before = {id(one) for one in _unfinished()}
    with pytest.raises(IncompleteReply) as kept:
        list(llm.stream("Hi")) if way == "stream" else llm("Hi")
    for _ in range(500):  # the loop's next turns
        if all(id(one) in before for one in _unfinished()):
            break
        time.sleep(0.01)
    assert [one for one in _unfinished() if id(one) not in before] == [], kept


def _unfinished() -> list[Any]:
    """The SDK's generators that wait for somebody to read on."""
    found = [one for one in gc.get_objects() if isinstance(one, AsyncGenerator) and one.ag_frame is not None]
    return [one for one in found if one.ag_code.co_name in ("aiter_raw", "aiter_bytes", "__stream__")]


def test_an_answer_that_is_no_message(sim: Simulator) -> None:
    """A proxy's HTML page with status 200 is not taken for an answer."""
    sim.replay(200, {"content-type": "text/html"}, b"<h1>Log in</h1>", "json")
    with pytest.raises(IncompleteReply, match="Log in"):
        llmnb.LLM()("Hi")


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
def test_no_key(monkeypatch: pytest.MonkeyPatch, way: str, tmp_path: Path) -> None:
    """Without a key every way of asking says how to set one, and that the demo needs none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingKey, match="llmnb demo"):
        _run(llmnb.LLM(), way)


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
def test_unknown_model_gets_a_note(sim: Simulator, way: str) -> None:
    """The SDK's 404 passes unchanged, with a note that names the nearest models."""
    with pytest.raises(anthropic.NotFoundError) as caught:
        _run(llmnb.LLM("claude-sonet-5-5"), way)
    assert any("Did you mean 'claude-sonnet-5-5'" in note for note in caught.value.__notes__)


def test_other_errors_get_no_note(sim: Simulator) -> None:
    """SDK errors pass unchanged."""
    sim.fail("status", status=403, error_type="permission_error")
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        llmnb.LLM()("Hi")
    assert not hasattr(caught.value, "__notes__")


def test_empty_model_is_unknown() -> None:
    """A name that is none is refused before anything is sent."""
    with pytest.raises(UnknownModel):
        llmnb.LLM("")


def test_misspelled_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelled LLMNB_ variable is said when the LLM is made."""
    monkeypatch.setenv("LLMNB_MODLE", "x")
    with pytest.raises(SettingsError, match="LLMNB_MODEL"):
        llmnb.LLM()


def test_unknown_display(sim: Simulator) -> None:
    """A display that does not exist is refused before anything is sent."""
    with pytest.raises(SettingsError):
        llmnb.LLM(display="hologram")("Hi")
    assert sim.requests == []


def test_retries_are_one_reply_and_one_row(sim: Simulator) -> None:
    """The SDK's retries show up as attempts of one call."""
    sim.fail("overloaded", times=2, retry_after_ms=1)
    reply = llmnb.LLM()("Hi")
    assert reply.call is not None
    assert reply.call.attempts == 3
    assert len(rows()) == 1


# Clients of the user's own --------------------------------------------------------------------------------------------


def test_own_sync_client(sim: Simulator) -> None:
    """A client of the user's own is used, kept on the books, and left as it was."""
    with anthropic.Anthropic(base_url=sim.url, api_key=sim.api_key, default_headers={"x-mine": "1"}) as client:
        reply = llmnb.LLM(client=client, project="p")("Hi")
        assert client.middleware == ()
    assert sim.requests[0].headers["x-mine"] == "1"
    assert reply.call is not None
    assert reply.call.project == "p"


def test_own_client_has_an_async_twin(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Async asking through a plain sync client goes through a twin with the same key, address and headers."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    with anthropic.Anthropic(base_url=sim.url, api_key=sim.api_key, default_headers={"x-mine": "1"}) as client:
        reply = asyncio.run(llmnb.LLM(client=client).aask("Hi"))
    assert sim.requests[0].headers["x-mine"] == "1"
    assert reply.call is not None


async def test_own_async_client_has_a_sync_twin(sim: Simulator) -> None:
    """And the other way round."""
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key=sim.api_key) as client:
        llm = llmnb.LLM(client=client)
        assert (await llm.aask("Hi")).text == (await asyncio.to_thread(llm, "Hi")).text


@pytest.mark.parametrize("what", ["http_client", "credentials", "middleware", "bedrock"])
def test_no_twin_where_something_could_be_lost(sim: Simulator, what: str) -> None:
    """A client whose settings cannot be carried over is refused for the other kind of call, with the reason."""
    client: Any
    if what == "bedrock":
        client = anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="a", aws_secret_key="b")
    elif what == "http_client":
        client = anthropic.Anthropic(base_url=sim.url, api_key="k", http_client=anthropic.DefaultHttpxClient())
    elif what == "credentials":
        client = anthropic.Anthropic(base_url=sim.url, credentials=lambda **_: None)  # type: ignore[arg-type, return-value]
    else:
        client = anthropic.Anthropic(base_url=sim.url, api_key="k", middleware=[lambda request, next_: next_(request)])
    with client, pytest.raises(InvalidRequest, match="an async one, which cannot be made from it"):
        asyncio.run(llmnb.LLM(client=client).aask("Hi"))
    assert sim.requests == []


def test_a_client_that_is_none() -> None:
    """Something that is no SDK client is refused when the LLM is made."""
    with pytest.raises(InvalidRequest):
        llmnb.LLM(client="sk-ant-…")


# The rest -------------------------------------------------------------------------------------------------------------


def test_log_content(sim: Simulator) -> None:
    """Prompts and answers are in the ledger only where that was asked for."""
    heard: list[Call] = []
    with calling(tag="outer"):
        quiet = llmnb.LLM()("secret question")
        loud = llmnb.LLM(log_content=True)("open question")
        override = llmnb.LLM(log_content=True)("second secret", log_content=False)
    heard.extend(reply.call for reply in (quiet, loud, override) if reply.call)
    assert [call.content is not None for call in heard] == [False, True, False]
    assert "open question" in str(heard[1].content)
    assert {call.tag for call in heard} == {"outer"}


def test_concurrency_setting(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more requests are under way than the setting allows, sync and async together."""
    monkeypatch.setenv("LLMNB_CONCURRENCY", "2")
    running, most, lock = 0, 0, threading.Lock()

    def answer(request: Any) -> Answer:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        return Answer(text="x", first_token_s=0.02)

    sim.rule(answer)
    llm = llmnb.LLM()

    def ask(n: int) -> None:
        nonlocal running
        if n % 2:
            llm("Hi")
        else:
            asyncio.run(llm.aask("Hi"))
        with lock:
            running -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(16)))
    assert most <= 4  # two under way, and up to two that are over but not yet counted down


def test_a_question_inside_an_open_stream(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a concurrency of 1, asking inside an open stream of the same thread does not wait for itself."""
    monkeypatch.setenv("LLMNB_CONCURRENCY", "1")
    llm = llmnb.LLM()
    stream = llm.stream("Hi")
    next(stream)
    assert llm("Hi").text
    stream.close()


def test_repr_shows_no_secret() -> None:
    """The repr names model and settings, and none of the values that may be secret."""
    llm = llmnb.LLM(system="You are a helpful assistant who knows everything", extra_headers={"x-key": "sk-ant-1"})
    assert repr(llm).startswith("LLM('claude-sonnet-5-5', system='You are")
    assert "sk-ant" not in repr(llm)
    assert len(repr(llm)) < 100


def test_chat_takes_no_text() -> None:
    """`llm.chat("Hi")` is refused with the way to say Hi."""
    with pytest.raises(TypeError, match=r"chat = llm\.chat\(\), then chat"):
        llmnb.LLM().chat("Hi")  # type: ignore[arg-type]


# The prompt cache -----------------------------------------------------------------------------------------------------

GUIDE = "Write plainly, and say what you measured. " * 200


@pytest.fixture
def fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No prompt was sent before."""
    monkeypatch.setattr(placement, "sightings", Sightings())


def ttl(sim: Simulator) -> str | None:
    """For how long the last request asks to cache its system prompt."""
    system = sim.requests[-1].body["system"]
    return None if isinstance(system, str) else system[0]["cache_control"].get("ttl", "5m")


@pytest.mark.usefixtures("fresh_memory")
def test_prompt_cache_by_llm_call_and_setting(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes before the LLM, the LLM before the setting; None is without caching, not the default."""
    hour = llmnb.LLM(system=GUIDE, cache=False, prompt_cache="1h")
    found = []
    for options in ({}, {"prompt_cache": "5m"}, {"prompt_cache": None}, {"max_tokens": 9}):
        hour("Hi", **options)
        found.append(ttl(sim))
    assert found == ["1h", "5m", None, "1h"]
    off = llmnb.LLM(system=GUIDE, cache=False, prompt_cache=None)
    for _ in range(3):
        off("Hi")
        assert ttl(sim) is None
    monkeypatch.setenv("LLMNB_PROMPT_CACHE", "1h")
    llmnb.LLM(system=GUIDE, cache=False)("Hi")
    assert ttl(sim) == "1h"
    assert "prompt_cache='1h'" in repr(hour)
    assert off.options["prompt_cache"] == "off"


@pytest.mark.parametrize("make", [lambda: llmnb.LLM(prompt_cache="10m"), lambda: llmnb.LLM()("Hi", prompt_cache=True)])
def test_a_wrong_prompt_cache_is_refused(sim: Simulator, make: Any) -> None:
    """Before anything is sent, with what there is."""
    with pytest.raises(InvalidRequest, match='prompt_cache must be "5m", "1h", "auto" or None'):
        make()
    assert sim.requests == []


def test_a_wrong_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting names its values."""
    monkeypatch.setenv("LLMNB_PROMPT_CACHE", "always")
    with pytest.raises(SettingsError, match="'5m', '1h', 'auto' or 'off'"):
        llmnb.LLM()


@pytest.mark.usefixtures("fresh_memory")
def test_what_the_prompt_cache_did_is_on_the_reply(sim: Simulator) -> None:
    """Breakpoints, tokens and dollars, as the ledger and the API's bill have them; in every way to ask."""
    llm = llmnb.LLM(system=GUIDE)
    first, second = llm("Hi"), llm("Hi there")
    *_, done = llm.stream("Hi again")
    assert isinstance(done, Done)
    assert dataclasses.replace(first.prompt_cache, bound_nanousd=None) == PromptCacheUse(saved_nanousd=0)
    input_nanousd = 2_000 * first.usage.total_input_tokens
    assert first.prompt_cache.bound_nanousd == pytest.approx(1.5 * input_nanousd, rel=0.25)  # by estimated tokens
    assert second.prompt_cache.bound_usd > first.prompt_cache.bound_usd
    assert llm("Hi", prompt_cache="5m", cache=False).prompt_cache.bound_usd is None
    written = second.prompt_cache
    assert [(point.place, point.ttl, point.yours) for point in written.breakpoints] == [("system", "5m", False)]
    assert written.saved_nanousd == -500 * written.written_5m_tokens
    assert done.prompt_cache is not None
    assert done.prompt_cache.saved_usd == Decimal(1_900 * written.written_tokens) / 10**9
    assert [row["cache_breakpoints"] for row in rows()] == [0, 1, 1, 1]
    assert "saved by caching" in llm("Hi once more")._repr_markdown_()


@pytest.mark.usefixtures("fresh_memory")
def test_why_the_cache_was_missed_is_on_the_reply(sim: Simulator) -> None:
    """In a word for the books, and in a sentence for the reader."""
    chat = llmnb.LLM(system=GUIDE).chat()
    chat("Hi")
    reply = chat("Hi", system=f"Now {GUIDE}")
    assert reply.prompt_cache.miss_reason == "system_changed"
    assert reply.prompt_cache.miss == "the system prompt is not what it was in the request before"
    assert rows()[-1]["cache_miss_reason"] == "system_changed"
    assert "cache missed: system changed" in reply._repr_markdown_()


@pytest.mark.usefixtures("fresh_memory")
def test_a_client_that_was_wrapped_keeps_its_prompt_cache(sim: Simulator) -> None:
    """Unless the LLM says otherwise."""
    with sim.client() as plain:
        client = llmnb.wrap(plain, prompt_cache="1h")
        llmnb.LLM(system=GUIDE, cache=False, client=client)("Hi")
        assert ttl(sim) == "1h"
        llmnb.LLM(system=GUIDE, cache=False, client=client, prompt_cache=None)("Hi")
        assert ttl(sim) is None
        llmnb.LLM(system=GUIDE, cache=False, client=plain, prompt_cache="5m")("Hi")
        assert ttl(sim) == "5m"


@pytest.mark.usefixtures("fresh_memory")
def test_breakpoints_are_no_part_of_the_question(sim: Simulator) -> None:
    """The response cache answers it however it was marked; the API's cache did nothing for an answer from disk."""
    llmnb.LLM(system=GUIDE, prompt_cache="1h")("Hi")
    again = llmnb.LLM(system=GUIDE, prompt_cache=None)("Hi")
    assert (again.source, again.prompt_cache) == ("cache", PromptCacheUse(saved_nanousd=0))
    assert len(sim.requests) == 1
    assert pd.isna(rows()[-1]["cache_breakpoints"])
