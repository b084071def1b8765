"""The Messages wire through the real SDK: every way to call it, sync and async."""

from __future__ import annotations

import json

import anthropic
import httpx2
import pydantic
import pytest

from llmnb.simulator import Answer, Clock, Simulator

from .asking import MODEL, ask, text_of


def test_create_answers_in_markdown_and_says_it_is_simulated(client: anthropic.Anthropic) -> None:
    """A plain call gives a labelled Markdown answer about the question, with code, a table and math."""
    message = client.messages.create(**ask())
    text = text_of(message)
    assert text.startswith("*Simulated answer — no model was asked.*")
    assert all(part in text for part in ("## Write-ahead logging", "```python", "| Mode |", "$$", "- A commit"))
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 100


def test_the_same_seed_and_request_give_the_same_answer(clock: Clock) -> None:
    """Two simulators of one seed answer alike; another seed differs."""
    texts: list[str] = []
    for seed in (1, 1, 2):
        with Simulator(seed=seed, clock=clock) as simulator, simulator.client() as client:
            texts.append(text_of(client.messages.create(**ask("Plan a garden with tomatoes, basil and a fence"))))
    assert texts[0] == texts[1] != texts[2]


def test_stream_helper_gives_the_same_message_as_create(client: anthropic.Anthropic) -> None:
    """The accumulated stream equals the JSON answer, usage included."""
    whole = client.messages.create(**ask())
    with client.messages.stream(**ask()) as stream:
        streamed = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert streamed == text_of(final) == text_of(whole)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_raw_events_come_in_the_order_of_the_wire(client: anthropic.Anthropic) -> None:
    """create(stream=True) yields start, block start, deltas, block stop, message delta, stop."""
    kinds = [event.type for event in client.messages.create(**ask("Say hi"), stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_the_bytes_of_a_stream_hold_a_ping_and_a_noisy_start(sim: Simulator) -> None:
    """On the wire there is a ping, the start's output count is noise, the delta has totals without the TTL split."""
    body = json.dumps(ask("Say hi", stream=True))
    reply = httpx2.post(f"{sim.url}/v1/messages", content=body, headers={"x-api-key": "k"})
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    start, delta = events[0]["message"]["usage"], events[-2]["usage"]
    assert {"type": "ping"} in events
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert 1 <= start["output_tokens"] <= 8
    assert start["output_tokens"] != delta["output_tokens"]
    assert "cache_creation" in start
    assert "cache_creation" not in delta
    assert delta["input_tokens"] == start["input_tokens"]


async def test_async_create_and_stream(aclient: anthropic.AsyncAnthropic) -> None:
    """The async client gets the same answers."""
    whole = await aclient.messages.create(**ask())
    async with aclient.messages.stream(**ask()) as stream:
        streamed = "".join([part async for part in stream.text_stream])
    assert streamed == text_of(whole)


def test_raw_and_streaming_responses(client: anthropic.Anthropic) -> None:
    """with_raw_response and with_streaming_response work and carry a request id."""
    raw = client.messages.with_raw_response.create(**ask("Say hi"))
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-organization-id"]
    assert text_of(raw.parse())
    with client.messages.with_streaming_response.create(**ask("Say hi")) as response:
        assert b"Simulated" in b"".join(response.iter_bytes())


def test_max_tokens_is_honoured(client: anthropic.Anthropic) -> None:
    """A small max_tokens cuts the answer there and says so."""
    message = client.messages.create(**ask(max_tokens=10))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 10)


def test_stop_sequences_are_honoured(client: anthropic.Anthropic) -> None:
    """The answer ends before the first stop sequence, which is named."""
    message = client.messages.create(**ask(stop_sequences=["###", "never"]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "###")
    assert text_of(message).endswith("block them.\n\n")


def test_prewarm_writes_nothing_back(client: anthropic.Anthropic) -> None:
    """max_tokens=0 gives no content and no output."""
    message = client.messages.create(**ask(max_tokens=0))
    assert (message.content, message.stop_reason, message.usage.output_tokens) == ([], "max_tokens", 0)


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-fable-5-2"])
def test_models_that_think_by_default_send_signed_thinking(client: anthropic.Anthropic, model: str) -> None:
    """Thinking comes first, with a signature, and is counted inside the output."""
    message = client.messages.create(**ask(model=model))
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens


def test_thinking_can_be_asked_for_and_streamed(client: anthropic.Anthropic) -> None:
    """Adaptive thinking streams as thinking deltas and ends in a signature."""
    with client.messages.stream(**ask(thinking={"type": "adaptive"})) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "signature", "text"} <= kinds
    assert final.content[0].type == "thinking"
    assert final.content[0].thinking.startswith("(Simulated thinking.)")


def test_omitted_thinking_keeps_only_the_signature(client: anthropic.Anthropic) -> None:
    """display=omitted hides the text and keeps the block."""
    message = client.messages.create(**ask(thinking={"type": "adaptive", "display": "omitted"}))
    assert message.content[0].thinking == ""
    assert message.content[0].signature


def test_redacted_thinking_and_refusal_by_the_documented_magic_words(client: anthropic.Anthropic) -> None:
    """The API's own test strings trigger a redacted block and a refusal, which is HTTP 200."""
    hidden = client.messages.create(
        **ask("ANTHROPIC_MAGIC_STRING_TRIGGER_REDACTED_THINKING_46C9", thinking={"type": "adaptive"})
    )
    assert hidden.content[0].type == "redacted_thinking"
    refused = client.messages.create(**ask("ANTHROPIC_MAGIC_STRING_TRIGGER_REFUSAL_1FAE"))
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    assert refused.stop_details is not None


def test_a_conversation_remembers_and_the_system_prompt_is_acknowledged(client: anthropic.Anthropic) -> None:
    """Earlier turns and the system prompt show in the answer."""
    messages = [
        {"role": "user", "content": "Hi, my name is Ann."},
        {"role": "assistant", "content": "Hello Ann"},
        {"role": "user", "content": "What is my name?"},
    ]
    message = client.messages.create(**ask(messages=messages))
    assert "**Ann**" in text_of(message)
    led = client.messages.create(**ask(system="You are a careful database teacher."))
    assert "careful database teacher" in text_of(led)


def test_arithmetic_greetings_and_brevity(client: anthropic.Anthropic) -> None:
    """Short questions get short answers."""
    assert "2 + 2 = **4**" in text_of(client.messages.create(**ask("What is 2 + 2?")))
    assert len(text_of(client.messages.create(**ask("Say hi")))) < 130
    assert len(text_of(client.messages.create(**ask("Explain gradient descent in one sentence")))) < 220


def test_parse_gives_a_validated_object(client: anthropic.Anthropic) -> None:
    """messages.parse returns the pydantic model, also where the SDK hides the bounds in descriptions."""

    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(min_length=2, max_length=40)
        age: int = pydantic.Field(ge=1, le=120)
        tags: list[str] = pydantic.Field(min_length=2, max_length=3)

    message = client.messages.parse(**ask("Ann is 30 years old"), output_format=Person)
    assert isinstance(message.parsed_output, Person)
    assert (message.parsed_output.name, message.parsed_output.age) == ("Ann", 30)


async def test_async_parse_and_stream_of_structured_output(aclient: anthropic.AsyncAnthropic) -> None:
    """Structured output streams as text that is JSON."""

    class Point(pydantic.BaseModel):
        x: float
        y: float

    message = await aclient.messages.parse(**ask("A point please"), output_format=Point)
    assert isinstance(message.parsed_output, Point)
    async with aclient.messages.stream(**ask("A point please"), output_format=Point) as stream:
        final = await stream.get_final_message()
    assert json.loads(text_of(final)).keys() == {"x", "y"}


def test_count_tokens_equals_the_usage_of_the_call(client: anthropic.Anthropic) -> None:
    """Counting first gives what the call is then billed for, tools and system included."""
    request = ask("A question", system="A system prompt of some words.")
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    request |= {"tools": [tool], "tool_choice": {"type": "none"}}
    counted = client.messages.count_tokens(**{key: value for key, value in request.items() if key != "max_tokens"})
    assert counted.input_tokens == client.messages.create(**request).usage.input_tokens


def test_a_dated_alias_is_served_under_its_full_id(client: anthropic.Anthropic) -> None:
    """An alias is resolved, and the message names the model that served."""
    assert client.messages.create(**ask("Say hi", model="claude-haiku-4-5")).model == "claude-haiku-4-5-20251001"


def test_scripted_answers_are_used_in_order_by_requests_that_match(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Queued replies go first to whom they match, standing rules serve the rest."""
    sim.script("one", Answer(text="two", usage={"output_tokens": 77}), match="blue")
    sim.rule(lambda request: f"echo {request.prompt}", match={"model": MODEL})
    prompts = ["red", "blue", "blue", "blue"]
    replies = [client.messages.create(**ask(prompt)) for prompt in prompts]
    assert [text_of(reply) for reply in replies] == ["echo red", "one", "two", "echo blue"]
    assert replies[2].usage.output_tokens == 77


def test_a_script_sets_every_part_of_a_message(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Thinking, text, tool calls, served model, iterations and extra fields come through."""
    iterations = [{"type": "compaction", "input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 0}]
    sim.script(
        Answer(
            thinking="hm",
            text="so",
            tool_calls=[("look", {"at": 1})],
            model="claude-opus-4-8",
            usage={"iterations": iterations},
        )
    )
    message = client.beta.messages.create(**ask())
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert (message.stop_reason, message.model) == ("tool_use", "claude-opus-4-8")
    assert message.usage.iterations is not None
    assert message.usage.iterations[0].output_tokens == 2


def test_a_scripted_refusal_may_have_text(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A refusal in mid-answer keeps what was said and names its category."""
    sim.script(Answer(text="I will begin", refusal="cyber"))
    message = client.messages.create(**ask())
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert message.stop_details.category == "cyber"


def test_the_number_of_deltas_can_be_set(sim: Simulator, client: anthropic.Anthropic) -> None:
    """`deltas` cuts a text into exactly so many events, and the text stays the same."""
    sim.script(Answer(text="abc " * 1000, deltas=300))
    events = client.messages.create(**ask(), stream=True)
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert len(deltas) == 300
    assert "".join(deltas) == "abc " * 1000


def test_the_pace_is_kept_on_the_servers_clock(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """Tokens a second and the first token's delay pass on the clock, not on the wall."""
    before = clock.now()
    sim.script(Answer(text="word " * 100, tokens_per_second=10, first_token_s=5))
    final = client.messages.create(**ask())
    assert clock.now() - before == pytest.approx(5 + final.usage.output_tokens / 10)


def test_headers_steer_a_request_without_the_object(client: anthropic.Anthropic) -> None:
    """x-simulator-reply and x-simulator-fault work from any client."""
    message = client.messages.create(**ask(), extra_headers={"x-simulator-reply": "exactly%20this"})
    assert text_of(message) == "exactly this"
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ask(), extra_headers={"x-simulator-fault": "overloaded"})
    assert caught.value.status_code == 529
    with pytest.raises(anthropic.BadRequestError, match="Unknown fault 'nonsense'"):
        client.messages.create(**ask(), extra_headers={"x-simulator-fault": "nonsense"})


def test_requests_are_remembered(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Each request is there with its headers, body, times and status."""
    client.messages.create(**ask("Say hi"))
    seen = sim.requests[-1]
    assert (seen.method, seen.path, seen.status, seen.prompt) == ("POST", "/v1/messages", 200, "Say hi")
    assert seen.body["model"] == MODEL
    assert seen.headers["user-agent"].startswith("Anthropic")
    assert seen.finished_at is not None


def test_web_search_is_a_server_tool(client: anthropic.Anthropic) -> None:
    """With the web search tool and a question for it, the search happens on the server and is counted."""
    message = client.messages.create(
        **ask("Search the latest news", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    )
    assert [block.type for block in message.content][:2] == ["server_tool_use", "web_search_tool_result"]
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 1
