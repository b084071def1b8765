"""What the API refuses, with its error types and words, and what it lets through."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from llmnb.simulator import Clock, Simulator
from llmnb.simulator.catalog import MODELS

from .asking import ask, text_of

TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
USER = {"role": "user", "content": "Hi"}

BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": -1}, "greater than or equal to 0"),
    ({"max_tokens": 1_000_000}, "1000000 > 128000, which is the maximum allowed number of output tokens"),
    ({"messages": []}, "at least one message is required"),
    ({"messages": "Hi"}, "messages: Input should be a valid list"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        "text content blocks must be non-empty",
    ),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "content.0.type: Field required"),
    ({"messages": [{"role": "assistant", "content": "x"}, USER]}, "first message must use"),
    ({"messages": [USER, {"role": "assistant", "content": "Well,"}]}, "does not support assistant message prefill"),
    ({"temperature": 0.5}, "`temperature` is deprecated for this model"),
    ({"top_k": 5}, "`top_k` is deprecated for this model"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, '"thinking.type.enabled" is not supported'),
    ({"thinking": {"type": "sometimes"}}, "expected tags"),
    ({"model": "claude-fable-5-2", "thinking": {"type": "disabled"}}, "cannot be turned off"),
    ({"model": "claude-haiku-4-5", "thinking": {"type": "adaptive"}}, "not supported for this model"),
    ({"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 10}}, "equal to 1024"),
    ({"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 3000}}, "must be greater than"),
    ({"model": "claude-haiku-4-5", "output_config": {"effort": "low"}}, "does not support the effort parameter"),
    ({"model": "claude-opus-4-6", "output_config": {"effort": "xhigh"}}, "Supported levels: high, low, max, medium"),
    ({"model": "claude-haiku-4-5", "temperature": 0.5, "top_p": 0.5}, "cannot both be specified"),
    ({"model": "claude-haiku-4-5", "temperature": 3}, "range: 0..1"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
    ({"output_config": {"format": {"type": "grammar"}}}, "'json_schema'"),
    ({"tool_choice": {"type": "any"}}, "only be specified while providing tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "never"}}, "'auto', 'any', 'tool', 'none'"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "dig"}}, "Tool 'dig' not found"),
    ({"tools": [TOOL, TOOL]}, "names must be unique"),
    ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "should match pattern"),
    ({"tools": [{"name": "look"}]}, "input_schema: Field required"),
    ({"tools": [TOOL | {"strict": True}]}, "additionalProperties"),
    ({"stop_sequences": ["  "]}, "non-whitespace"),
    ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks must be non-empty"),
    ({"speed": "fast"}, "not supported for claude-sonnet-5-5"),
    ({"nonsense": 1}, "nonsense: Extra inputs are not permitted"),
    ({"model": ""}, "at least 1 character"),
]


@pytest.mark.parametrize(("change", "message"), BAD_BODIES, ids=[message for _, message in BAD_BODIES])
def test_a_bad_body_is_refused(client: anthropic.Anthropic, change: dict[str, Any], message: str) -> None:
    """400 invalid_request_error, and the message says what is wrong."""
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**ask(), extra_body=change)
    assert caught.value.type == "invalid_request_error"
    assert message in str(caught.value)


@pytest.mark.parametrize("field", ["max_tokens", "model", "messages"])
def test_required_fields_are_required(sim: Simulator, field: str) -> None:
    """A body without one of them is refused by name."""
    body = {key: value for key, value in ask().items() if key != field}
    reply = httpx2.post(f"{sim.url}/v1/messages", json=body, headers={"x-api-key": "k"})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == f"{field}: Field required"
    assert reply.json()["request_id"] == reply.headers["request-id"]


def test_what_older_models_take(client: anthropic.Anthropic) -> None:
    """Temperature, prefill and a thinking budget work where the real models still take them."""
    old = ask(model="claude-haiku-4-5")
    prefilled = old | {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]}
    assert client.messages.create(**prefilled).content
    assert client.messages.create(**old, extra_body={"temperature": 0.2}).content
    thinking = old | {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    assert client.messages.create(**thinking).content[0].type == "thinking"


def test_an_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    """404 not_found_error names the model."""
    with pytest.raises(anthropic.NotFoundError, match="claude-unheard-of"):
        client.messages.create(**ask(model="claude-unheard-of"))
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-unheard-of")


def test_keys(clock: Clock) -> None:
    """Any key is let in but those that say they are invalid; with a list, only those on it."""
    with Simulator(clock=clock) as sim:
        for key in ("sk-ant-anything", "x"):
            with sim.client(api_key=key) as client:
                assert client.messages.create(**ask("Say hi")).content
        with sim.client(api_key="sk-ant-invalid-1") as client, pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(**ask())
        assert caught.value.type == "authentication_error"
        assert httpx2.post(f"{sim.url}/v1/messages", json=ask()).status_code == 401
    with Simulator(clock=clock, valid_keys={"sk-good"}) as sim:
        assert sim.api_key == "sk-good"
        with sim.client() as client:
            assert client.models.list().data
        with sim.client(api_key="sk-other") as client, pytest.raises(anthropic.AuthenticationError):
            client.models.list()


def test_tool_results_must_answer_tool_calls(client: anthropic.Anthropic) -> None:
    """A result without a call and a call without a result are both refused."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_2", "content": "x"}
    turns = [USER, {"role": "assistant", "content": [call]}]
    with pytest.raises(anthropic.BadRequestError, match="unexpected `tool_use_id`"):
        client.messages.create(**ask(messages=[*turns, {"role": "user", "content": [result]}], tools=[TOOL]))
    with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks"):
        client.messages.create(**ask(messages=[*turns, USER], tools=[TOOL]))


def test_a_prompt_past_the_context_window_is_refused(client: anthropic.Anthropic) -> None:
    """Too long a prompt is a 400 with both numbers."""
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 200000 maximum"):
        client.messages.create(**ask("word " * 250_000, model="claude-haiku-4-5"))


def test_a_context_window_that_fills_up_ends_the_answer(client: anthropic.Anthropic) -> None:
    """What the window leaves bounds the output, and the stop reason says so."""
    message = client.messages.create(**ask("word " * 199_980 + "Explain WAL", model="claude-haiku-4-5"))
    assert message.stop_reason == "model_context_window_exceeded"
    assert message.usage.input_tokens + message.usage.output_tokens == 200_000


def test_garbage_is_answered_and_the_server_lives_on(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Bodies that are no JSON objects and unknown routes get envelopes."""
    headers = {"x-api-key": "k"}
    for body in (b"{", b"[1]", b"\xff", b""):
        reply = httpx2.post(f"{sim.url}/v1/messages", content=body, headers=headers)
        assert reply.json()["error"]["type"] == "invalid_request_error"
    assert httpx2.get(f"{sim.url}/v1/nothing", headers=headers).json()["error"]["type"] == "not_found_error"
    assert httpx2.get(f"{sim.url}/health").json() == {"status": "ok", "simulated": True}
    assert text_of(client.messages.create(**ask("Say hi")))


def test_models_list_and_retrieve(client: anthropic.Anthropic) -> None:
    """Models page through, and each has limits, lifecycle and capabilities of the SDK's shape."""
    listed = list(client.models.list(limit=5))
    assert [model.id for model in listed] == [model.id for model in MODELS]
    model = client.models.retrieve("claude-sonnet-4-5")
    assert (model.id, model.lifecycle, model.max_tokens) == ("claude-sonnet-4-5-20250929", "deprecated", 64_000)
    assert model.retires_at is not None
    newest = client.models.retrieve("claude-fable-5-2").capabilities
    assert newest is not None
    assert newest.thinking.types.adaptive.supported
    assert not newest.thinking.types.disabled.supported
    assert newest.effort.xhigh is not None
    assert newest.effort.xhigh.supported


def test_capabilities_agree_with_what_is_refused(sim: Simulator) -> None:
    """For every model and thinking type, `supported` is false exactly when a request with it gets a 400."""
    with httpx2.Client(headers={"x-api-key": "k"}) as http:
        for model in MODELS:
            types = http.get(f"{sim.url}/v1/models/{model.id}").json()["capabilities"]["thinking"]["types"]
            for kind, support in types.items():
                thinking = {"type": kind} | ({"budget_tokens": 1024} if kind == "enabled" else {})
                reply = http.post(f"{sim.url}/v1/messages", json=ask("Say hi", model=model.id, thinking=thinking))
                assert (reply.status_code == 200) == support["supported"], (model.id, kind)
