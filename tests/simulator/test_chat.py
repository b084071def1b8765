"""The chat completions wire, asked by the real openai SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmnb.simulator import Answer, Fault, Simulator

openai = pytest.importorskip("openai")

HI = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def client(sim: Simulator) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{sim.url}/v1", api_key=sim.api_key, max_retries=0) as made:
        yield made


def test_answers_and_bills_what_it_says(sim: Simulator, client: Any) -> None:
    """A reply's counts are those on the books, thoughts inside the completion, at this wire's prices."""
    sim.script(Answer(text="Good morning.", thinking="They greet me."))
    reply = client.chat.completions.create(model="gpt-5.2", messages=HI)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Good morning.", "stop")
    billed = sim.billed()
    assert (billed.input_tokens, billed.output_tokens) == (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    assert 0 < reply.usage.completion_tokens_details.reasoning_tokens == billed.thinking_tokens < billed.output_tokens
    assert billed.price_nanousd == billed.input_tokens * 1750 + billed.output_tokens * 14_000
    assert reply.id.startswith("chatcmpl-")


def test_a_stream_is_the_same_answer_with_the_usage_at_its_end(sim: Simulator, client: Any) -> None:
    """Chunks joined are the text; the usage comes last, with no choice, and only when it was asked for."""
    sim.script(Answer(text="one two three four five six"), times=2)
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": HI, "stream": True}
    chunks = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three four five six"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == sim.billing[-1].output_tokens
    assert all(chunk.usage is None for chunk in client.chat.completions.create(**asked))


def test_tool_calls_come_in_deltas_and_results_go_back(sim: Simulator, client: Any) -> None:
    """A call's id and name come first, its arguments in pieces; the next request must answer each call."""
    sim.script(Answer(tool_calls=[("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})]))
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, tools=[WEATHER], stream=True))
    pieces = [piece for chunk in chunks for piece in (chunk.choices[0].delta.tool_calls or ())]
    assert {(piece.index, piece.function.name) for piece in pieces if piece.id} == {(0, "weather"), (1, "weather")}
    arguments = "".join(piece.function.arguments for piece in pieces if piece.index == 1)
    assert arguments == '{"city":"Rome"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    call = {"id": pieces[0].id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    history = [*HI, {"role": "assistant", "tool_calls": [call]}]
    answered = [*history, {"role": "tool", "tool_call_id": pieces[0].id, "content": "Sunny"}]
    assert client.chat.completions.create(model="gpt-4o", messages=answered).choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="did not have response messages"):
        client.chat.completions.create(model="gpt-4o", messages=[*history, *HI])


def test_structured_output(sim: Simulator, client: Any) -> None:
    """A JSON schema is kept to; a strict one must be closed, and older models take none."""
    schema: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    with pytest.raises(openai.BadRequestError, match="additionalProperties"):
        client.chat.completions.create(model="gpt-4o", messages=HI, response_format=asked)
    schema["additionalProperties"] = False
    reply = client.chat.completions.create(model="gpt-4o", messages=HI, response_format=asked)
    assert reply.choices[0].message.content.startswith('{"n":')
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(model="gpt-4-turbo", messages=HI, response_format=asked)


def test_long_beginnings_are_cached_without_being_asked(sim: Simulator, client: Any) -> None:
    """The second time a long prompt is read in steps of 128 tokens, and writes cost only on the newest models."""
    long = [{"role": "system", "content": "word " * 1500}, *HI]
    first, second = (client.chat.completions.create(model="gpt-4o", messages=long).usage for _ in range(2))
    assert (first.prompt_tokens_details.cached_tokens, first.prompt_tokens) == (0, second.prompt_tokens)
    assert second.prompt_tokens_details.cached_tokens > 1024
    assert second.prompt_tokens_details.cached_tokens % 128 == 0
    assert sim.billing[-1].cache_read_tokens == second.prompt_tokens_details.cached_tokens
    written = client.chat.completions.create(model="gpt-6-sol", messages=long).usage.prompt_tokens_details
    assert written.cache_write_tokens == sim.billing[-1].cache_write_5m_tokens > 1024


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        ("rate_limited", "RateLimitError", 429),
        ("server_error", "InternalServerError", 500),
        ("overloaded", "InternalServerError", 503),
    ],
)
def test_errors_are_this_wires_own(sim: Simulator, client: Any, fault: str, error: str, status: int) -> None:
    """A fault is answered with OpenAI's body and status, and costs nothing."""
    sim.fail(fault)
    with pytest.raises(getattr(openai, error)) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert caught.value.status_code == status
    assert caught.value.body["message"]
    assert sim.billed().price_nanousd == 0
    assert sim.billing[-1].status == status


def test_refuses_what_the_real_one_refuses(client: Any) -> None:
    """Unknown models are 404; reasoning models want their own name of max_tokens, and no temperature."""
    for asked, error in [
        ({"model": "gpt-nope"}, openai.NotFoundError),
        ({"model": "gpt-5.2", "max_tokens": 10}, openai.BadRequestError),
        ({"model": "gpt-5.2", "temperature": 0.5}, openai.BadRequestError),
        ({"model": "gpt-4o", "stop": ["a", "b", "c", "d", "e"]}, openai.BadRequestError),
    ]:
        with pytest.raises(error):
            client.chat.completions.create(messages=HI, **asked)


def test_a_stream_that_breaks_off_or_errs(sim: Simulator, client: Any) -> None:
    """A stream can be cut off before [DONE], or end in an error event; both are billed for what was written."""
    text = "one two three four five six seven eight nine"
    sim.script(*(Answer(text=text, fault=Fault(kind, after_events=2)) for kind in ("error_event", "truncate")))
    with pytest.raises(openai.APIError, match="Overloaded"):
        list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    assert chunks[-1].choices[0].finish_reason is None
    assert all(record.output_tokens > 0 for record in sim.billing)


def test_lists_its_own_models(client: Any) -> None:
    """`/v1/models` answers each wire with its own models."""
    assert {"gpt-4o", "qwen3:8b"} <= {model.id for model in client.models.list()}


@pytest.mark.parametrize("model", ["qwen3:8b", "deepseek-r1"])
def test_local_models_show_what_they_think(sim: Simulator, client: Any, model: str) -> None:
    """Servers of open models give thoughts as text, in a field of their own."""
    sim.script(Answer(text="Hi.", thinking="Hm."))
    message = client.chat.completions.create(model=model, messages=HI).choices[0].message
    assert (getattr(message, "reasoning", None) or message.reasoning_content) == "Hm."
    assert sim.billed().unpriced == 1
