"""Every use of the SDK goes through a wrapped client unchanged: what comes out equals what the plain client gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.middleware.ledger import LedgerPart
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

from .conftest import QUESTION, row, rows


class City(BaseModel):
    """A schema for structured output."""

    name: str
    inhabitants: int


@anthropic.beta_tool
def weather(city: str) -> str:
    """Today's weather in a city.

    Args:
        city: its name.
    """
    return f"Sunny in {city}."


TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Today's weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WEATHER: dict[str, Any] = {**QUESTION, "messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}


def create(client: anthropic.Anthropic) -> Any:
    return client.messages.create(**QUESTION).model_dump()


def create_with_everything(client: anthropic.Anthropic) -> Any:
    return client.messages.create(
        **QUESTION,
        system=[{"type": "text", "text": "Be brief. " * 500, "cache_control": {"type": "ephemeral"}}],
        stop_sequences=["STOP"],
        metadata={"user_id": "u1"},
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
    ).model_dump()


def create_stream(client: anthropic.Anthropic) -> Any:
    return [event.model_dump() for event in client.messages.create(**QUESTION, stream=True)]


def stream_helper(client: anthropic.Anthropic) -> Any:
    with client.messages.stream(**QUESTION) as stream:
        texts = list(stream.text_stream)
        return texts, stream.get_final_message().model_dump(), stream.request_id is not None


def parse(client: anthropic.Anthropic) -> Any:
    parsed = client.messages.parse(**QUESTION, output_format=City)
    return parsed.parsed_output, type(parsed.parsed_output).__name__


def tools(client: anthropic.Anthropic) -> Any:
    return client.messages.create(**WEATHER, tools=[TOOL]).model_dump()


def tool_runner(client: anthropic.Anthropic) -> Any:
    runner = client.beta.messages.tool_runner(**WEATHER, tools=[weather])
    return [message.model_dump() for message in runner]


def raw_response(client: anthropic.Anthropic) -> Any:
    response = client.messages.with_raw_response.create(**QUESTION)
    return response.status_code, json.loads(response.text()), response.parse().model_dump(), type(response).__name__


def raw_stream(client: anthropic.Anthropic) -> Any:
    response = client.messages.with_raw_response.create(**QUESTION, stream=True)
    return [event.model_dump() for event in response.parse()]


def streaming_response(client: anthropic.Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**QUESTION) as response:
        return response.json()


def streaming_lines(client: anthropic.Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**QUESTION, stream=True) as response:
        return list(response.iter_lines())


def beta(client: anthropic.Anthropic) -> Any:
    return client.beta.messages.create(**QUESTION).model_dump()


def beta_stream(client: anthropic.Anthropic) -> Any:
    with client.beta.messages.stream(**QUESTION) as stream:
        return stream.get_final_message().model_dump()


def with_options(client: anthropic.Anthropic) -> Any:
    return client.with_options(timeout=20, max_retries=0).messages.create(**QUESTION).model_dump()


BILLABLE: dict[Callable[[anthropic.Anthropic], Any], int] = {
    create: 1,
    create_with_everything: 1,
    create_stream: 1,
    stream_helper: 1,
    parse: 1,
    tools: 1,
    tool_runner: 2,
    raw_response: 1,
    raw_stream: 1,
    streaming_response: 1,
    streaming_lines: 1,
    beta: 1,
    beta_stream: 1,
    with_options: 1,
}


def count_tokens(client: anthropic.Anthropic) -> Any:
    question = {name: value for name, value in QUESTION.items() if name != "max_tokens"}
    return client.messages.count_tokens(**question).model_dump()


def models(client: anthropic.Anthropic) -> Any:
    return [model.model_dump() for model in client.models.list()], client.models.retrieve("claude-opus-5-5").id


def batch(client: anthropic.Anthropic) -> Any:
    made = client.messages.batches.create(requests=[{"custom_id": "a", "params": QUESTION}])
    return made.model_dump(exclude={"created_at", "expires_at"}), client.messages.batches.retrieve(made.id).id


FREE = [count_tokens, models, batch]


def on_a_fresh_server(use: Callable[[anthropic.Anthropic], Any], *, wrapped: bool) -> Any:
    """What a use gives; simulators of one seed give the same answers and ids to the same requests."""
    with serve_simulator() as simulator, simulator.client() as plain:
        result = use(llmnb.wrap(plain) if wrapped else plain)
        assert simulator.crashes == []
        return _without_addresses(result, simulator.url)


def _without_addresses(result: Any, url: str) -> str:
    return repr(result).replace(url, "")


@pytest.mark.parametrize("use", BILLABLE, ids=lambda use: use.__name__)
def test_a_billable_use_comes_out_unchanged_and_leaves_its_rows(use: Callable[[anthropic.Anthropic], Any]) -> None:
    """The same objects as without llmnb, and one row a request that made the model write."""
    assert on_a_fresh_server(use, wrapped=True) == on_a_fresh_server(use, wrapped=False)
    assert [written["status"] for written in rows()] == ["ok"] * BILLABLE[use]


@pytest.mark.parametrize("use", FREE, ids=lambda use: use.__name__)
def test_a_free_use_comes_out_unchanged_and_leaves_no_row(use: Callable[[anthropic.Anthropic], Any]) -> None:
    """Counting tokens, looking at models and submitting a batch are on nobody's bill."""
    assert on_a_fresh_server(use, wrapped=True) == on_a_fresh_server(use, wrapped=False)
    assert rows() == []


async def test_the_async_client_gives_the_same(simulator: Simulator) -> None:
    """parse, stream helper, tool runner and raw responses of AsyncAnthropic."""

    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """Today's weather in a city."""
        return f"Sunny in {city}."

    async with simulator.async_client() as plain:
        client = llmnb.wrap(plain)
        parsed = await client.messages.parse(**QUESTION, output_format=City)
        assert isinstance(parsed.parsed_output, City)
        async with client.messages.stream(**QUESTION) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            assert text == (await stream.get_final_message()).content[-1].text
        raw = await client.messages.with_raw_response.create(**QUESTION)
        assert (await raw.parse()).usage.output_tokens > 0
        turns = [message async for message in client.beta.messages.tool_runner(**WEATHER, tools=[weather])]
        assert [turn.stop_reason for turn in turns] == ["tool_use", "end_turn"]
        async with client.messages.with_streaming_response.create(**QUESTION) as response:
            assert (await response.json())["type"] == "message"
    assert [written["status"] for written in rows()] == ["ok"] * 6
    simulator.settle()
    assert sum(written["cost_nanousd"] for written in rows()) == simulator.billed().price_nanousd


def test_a_streaming_response_is_not_read_by_llmnb(simulator: Simulator) -> None:
    """with_streaming_response hands over an unread body; reading it is the caller's."""
    with (
        simulator.client() as plain,
        llmnb.wrap(plain).messages.with_streaming_response.create(**QUESTION) as response,
    ):
        assert not response.is_closed
        assert not response.http_response.is_stream_consumed
        response.read()
    assert row()["status"] == "ok"


# wrap itself ----------------------------------------------------------------------------------------------------------


def _clients() -> list[Any]:
    google = {"region": "eu", "project_id": "p", "access_token": "t"}
    aws = {"aws_region": "eu-north-1", "aws_access_key": "a", "aws_secret_key": "s"}
    return [
        anthropic.Anthropic(api_key="k"),
        anthropic.AsyncAnthropic(api_key="k"),
        anthropic.AnthropicBedrock(**aws),
        anthropic.AsyncAnthropicBedrock(**aws),
        anthropic.AnthropicBedrockMantle(**aws),
        anthropic.AsyncAnthropicBedrockMantle(**aws),
        anthropic.AnthropicVertex(**google),
        anthropic.AsyncAnthropicVertex(**google),
        anthropic.AnthropicFoundry(api_key="k", resource="r"),
        anthropic.AsyncAnthropicFoundry(api_key="k", resource="r"),
        anthropic.AnthropicAWS(api_key="k", aws_region="eu-north-1", workspace_id="w"),
        anthropic.AsyncAnthropicAWS(api_key="k", aws_region="eu-north-1", workspace_id="w"),
    ]


PROVIDERS = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai", "Foundry": "azure.ai.inference"}


def test_wrap_takes_every_client_class_of_the_sdk() -> None:
    """The same class comes out, with one ledger part that knows its provider; the client given is not changed."""
    for client in _clients():
        wrapped = llmnb.wrap(client)
        assert type(wrapped) is type(client)
        [part] = [part for part in wrapped.middleware if isinstance(part, LedgerPart)]
        name = type(client).__name__
        expected = next((provider for mark, provider in PROVIDERS.items() if mark in name), "anthropic")
        assert part.ledgered.provider == expected, name
        assert client.middleware == ()


def test_wrapping_twice_keeps_one_part(simulator: Simulator) -> None:
    """A second wrap changes the labels it names, keeps the others, and never books a call twice."""
    with simulator.client() as plain:
        twice = llmnb.wrap(llmnb.wrap(plain, project="a", tag="t"), project="b")
        assert sum(isinstance(part, LedgerPart) for part in twice.middleware) == 1
        twice.messages.create(**QUESTION)
    assert (row()["project"], row()["tag"]) == ("b", "t")


@pytest.mark.parametrize("wrong", [anthropic.Anthropic, anthropic, "claude-sonnet-5-5", None])
def test_wrap_says_what_it_takes(wrong: Any) -> None:
    """A class, the module or a model name is a likely slip."""
    with pytest.raises(llmnb.InvalidRequest, match=r"llmnb\.wrap\(\) takes a client of the anthropic SDK"):
        llmnb.wrap(wrong)
