"""Tool use through the real SDK, up to its own tool runner, which uses message threads."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_async_tool, beta_tool

from llmnb.simulator import Answer, Simulator

from .asking import MODEL, ask, text_of

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: dict[str, Any] = {
    "name": "local_time",
    "description": "The local time in a timezone.",
    "input_schema": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]},
}


def calls_of(message: Any) -> list[tuple[str, Any]]:
    """The tool calls of a message."""
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def test_a_tool_is_called_when_the_prompt_calls_for_it(client: anthropic.Anthropic) -> None:
    """An umbrella question is one for the weather tool, with the city of the question."""
    message = client.messages.create(**ask("Umbrella in Oslo?", tools=[WEATHER]))
    assert message.stop_reason == "tool_use"
    assert calls_of(message) == [("get_weather", {"city": "Oslo"})]


def test_no_tool_is_called_when_none_fits_or_none_may(client: anthropic.Anthropic) -> None:
    """Another topic, or tool_choice none, is answered in text."""
    assert calls_of(client.messages.create(**ask("Explain Bayes", tools=[WEATHER]))) == []
    message = client.messages.create(**ask("Weather in Oslo?", tools=[WEATHER], tool_choice={"type": "none"}))
    assert calls_of(message) == []


def test_several_tools_and_places_are_called_in_parallel(client: anthropic.Anthropic) -> None:
    """Two cities are two calls, two fitting tools are both called, with ids of their own."""
    cities = client.messages.create(**ask("What is the weather in Oslo and in Bergen?", tools=[WEATHER]))
    assert calls_of(cities) == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bergen"})]
    both = client.messages.create(**ask("the weather and the local time, CET, for Oslo", tools=[WEATHER, CLOCK]))
    assert calls_of(both) == [("get_weather", {"city": "Oslo"}), ("local_time", {"zone": "CET"})]
    ids = [block.id for block in both.content if block.type == "tool_use"]
    assert len(set(ids)) == 2


def test_tool_choice_forces_and_limits(client: anthropic.Anthropic) -> None:
    """`any` calls one even when none fits, `tool` calls that one, and parallel use can be switched off."""
    forced = client.messages.create(**ask("Hello there", tools=[WEATHER, CLOCK], tool_choice={"type": "any"}))
    assert [name for name, _ in calls_of(forced)] == ["get_weather"]
    named = client.messages.create(
        **ask("Hello there", tools=[WEATHER, CLOCK], tool_choice={"type": "tool", "name": "local_time"})
    )
    assert [name for name, _ in calls_of(named)] == ["local_time"]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    single = client.messages.create(**ask("Weather in Oslo and in Bergen?", tools=[WEATHER], tool_choice=choice))
    assert len(calls_of(single)) == 1


def test_results_are_answered_in_text(client: anthropic.Anthropic) -> None:
    """The turn after the results quotes them, errors included."""
    first = client.messages.create(**ask("Umbrella in Oslo?", tools=[WEATHER]))
    call = next(block for block in first.content if block.type == "tool_use")
    messages = [
        {"role": "user", "content": "Umbrella in Oslo?"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain, 4 °C"}]},
    ]
    second = client.messages.create(**ask(messages=messages, tools=[WEATHER]))
    assert second.stop_reason == "end_turn"
    assert "`get_weather` returned: rain, 4 °C" in text_of(second)


def test_tool_input_streams_as_partial_json(client: anthropic.Anthropic) -> None:
    """The partial JSON of the deltas joins up to the input."""
    events = client.messages.create(**ask("Umbrella in Oslo?", tools=[WEATHER]), stream=True)
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    parts = [delta.partial_json for delta in deltas if delta.type == "input_json_delta"]
    assert parts[0] == ""
    assert json.loads("".join(parts)) == {"city": "Oslo"}


def test_the_tool_runner_runs_on_threads(sim: Simulator, client: anthropic.Anthropic) -> None:
    """The SDK's runner calls the tools and gets the answer; its second turn sends only what is new."""

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=500,
        tools=[get_weather],
        messages=[{"role": "user", "content": "What is the weather in Oslo and in Bergen?"}],
    )
    final = runner.until_done()
    assert "sunny in Oslo" in text_of(final)
    assert "sunny in Bergen" in text_of(final)
    first, second = (seen.body for seen in sim.requests)
    assert first["thread"] == {"type": "create"}
    assert second["thread"]["type"] == "continue"
    assert len(second["messages"]) == 1
    assert "tools" not in second


async def test_the_async_streaming_tool_runner(aclient: anthropic.AsyncAnthropic) -> None:
    """The async runner with streaming gets the same."""

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"snow in {city}"

    runner = aclient.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=500,
        tools=[get_weather],
        messages=[{"role": "user", "content": "Weather in Tromsø Norway?"}],
        stream=True,
    )
    final = None
    async for stream in runner:
        final = await stream.get_final_message()
    assert "snow in" in text_of(final)


def test_threads_hold_a_conversation(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A thread remembers what earlier turns said, and the whole input is counted."""
    thread = client.beta.messages.thread(model=MODEL, max_tokens=300, system="Be kind.")
    first = thread.send({"role": "user", "content": "Hi, my name is Ann."})
    second = thread.send({"role": "user", "content": "What is my name?"})
    assert "**Ann**" in text_of(second)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert "system" not in sim.requests[-1].body


def test_a_lost_thread_is_replayed_by_the_sdk(sim: Simulator, client: anthropic.Anthropic) -> None:
    """thread_not_found makes the helper send the conversation again under a new thread."""
    thread = client.beta.messages.thread(model=MODEL, max_tokens=300)
    thread.send({"role": "user", "content": "Hi, my name is Ann."})
    sim.forget_threads()
    assert "**Ann**" in text_of(thread.send({"role": "user", "content": "What is my name?"}))
    assert [seen.status for seen in sim.requests] == [200, 404, 200]


def test_thread_errors_carry_their_codes(client: anthropic.Anthropic) -> None:
    """Continuing twice, another model and unsupported fields are refused with the code the SDK knows."""
    betas = ["message-threads-2026-08-12"]
    create = client.beta.messages.create
    first = create(**ask("Hi"), betas=betas, thread={"type": "create"})
    onward: Any = {"type": "continue", "previous_message_id": first.id}
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(**ask("More", model="claude-opus-5-5"), betas=betas, thread=onward)
    assert caught.value.error_code == "thread_fingerprint_mismatch"
    create(**ask("More"), betas=betas, thread=onward)
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(**ask("More"), betas=betas, thread=onward)
    assert caught.value.error_code == "thread_already_continued"
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(**ask("Hi"), betas=betas, thread={"type": "create"}, context_management={"edits": []})
    assert caught.value.error_code == "thread_unsupported_request"
    with pytest.raises(anthropic.BadRequestError, match="Extra inputs"):
        create(**ask("Hi"), extra_body={"thread": {"type": "create"}})


def test_a_thread_caches_what_each_turn_marks(client: anthropic.Anthropic) -> None:
    """Breakpoints work on threads, at most three a request; those of earlier turns do not add up."""
    mark = {"type": "ephemeral"}
    thread = client.beta.messages.thread(
        model=MODEL, max_tokens=100, cache_control=mark, system=[{"type": "text", "text": "Note. " * 900}]
    )
    cached = 0
    for turn in range(6):
        usage = thread.send({"role": "user", "content": f"Question {turn}?"}).usage
        assert usage.cache_read_input_tokens == cached
        cached += usage.cache_creation_input_tokens
    assert cached > 900
    part: Any = {"type": "text", "text": "x", "cache_control": mark}
    with pytest.raises(anthropic.BadRequestError, match="maximum of 3 blocks") as caught:
        client.beta.messages.create(
            **ask(messages=[{"role": "user", "content": [part] * 4}]),
            betas=["message-threads-2026-08-12"],
            thread={"type": "create"},
        )
    assert caught.value.error_code == "thread_unsupported_request"


def test_a_failed_turn_may_continue_the_thread_again(sim: Simulator, client: anthropic.Anthropic) -> None:
    """An error leaves the thread where it was."""
    thread = client.beta.messages.thread(model=MODEL, max_tokens=300)
    thread.send({"role": "user", "content": "Hi, my name is Ann."})
    sim.fail("overloaded")
    with pytest.raises(anthropic.APIStatusError):
        thread.send({"role": "user", "content": "What is my name?"})
    with pytest.raises(anthropic.BadRequestError):
        thread.send({"role": "user", "content": "What is my name?"}, stop_sequences=[" "])
    assert "**Ann**" in text_of(thread.send({"role": "user", "content": "What is my name?"}))


def test_strict_tools_get_input_that_satisfies_them(client: anthropic.Anthropic) -> None:
    """A strict tool's input validates against the model its schema came from."""

    class Booking(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        guests: int
        email: str
        room: str | None

    schema = anthropic.transform_schema(Booking)
    tool = {"name": "book", "description": "Book a room.", "input_schema": schema, "strict": True}
    message = client.messages.create(**ask("Book a room for 3", tools=[tool], tool_choice={"type": "any"}))
    assert Booking.model_validate(calls_of(message)[0][1]).guests == 3


def test_scripted_tool_calls_drive_a_longer_loop(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A script can ask for tools turn after turn."""

    @beta_tool
    def add(a: int, b: int) -> str:
        """Add."""
        return str(a + b)

    sim.script(Answer(tool_calls=[("add", {"a": 1, "b": 2})]), Answer(tool_calls=[("add", {"a": 3, "b": 3})]), "six")
    runner = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=500, tools=[add], messages=[{"role": "user", "content": "Go"}]
    )
    assert text_of(runner.until_done()) == "six"
    assert len(sim.requests) == 3
