"""From one wire to the other and back: what is said, what cannot be, and what odd servers do."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from llmnb.errors import InvalidRequest, MissingKey, UnknownModel
from llmnb.messages import wire
from llmnb.providers import refusal
from llmnb.providers.answer import message_of, usage_of
from llmnb.providers.known import BY_PREFIX, Endpoint, check_prefix, endpoint, split
from llmnb.providers.request import chat_request
from llmnb.providers.stream import Translation
from llmnb.providers.strict_schema import all_required, is_strict

OPENAI = endpoint(BY_PREFIX["openai"], None, {})
GEMINI = endpoint(BY_PREFIX["gemini"], None, {})
OLLAMA = endpoint(BY_PREFIX["ollama"], None, {})
_STAND_IN_TEXT = "skip_thought_signature_validator"
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}}


def asked(*content: dict[str, Any], at: Endpoint = OPENAI, **more: Any) -> dict[str, Any]:
    """The chat completion that asks this."""
    messages = more.pop("messages", [{"role": "user", "content": list(content) or "Hi"}])
    return chat_request({"model": "m", "max_tokens": 10, "messages": messages, **more}, at)


# What is asked --------------------------------------------------------------------------------------------------------


def test_everything_has_its_name_there() -> None:
    """Settings of Messages get their names in chat completions; what caching was asked for says nothing there."""
    body = asked(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        stream=True,
        stop_sequences=["END"],
        temperature=0.2,
        output_config={"effort": "low"},
        metadata={"user_id": "u1"},
        service_tier="standard_only",
        cache_control={"type": "ephemeral"},
        seed=7,
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_completion_tokens": 10,
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["END"],
        "temperature": 0.2,
        "reasoning_effort": "low",
        "safety_identifier": "u1",
        "service_tier": "default",
        "seed": 7,
    }
    assert asked(at=OLLAMA)["max_tokens"] == 10


def test_content_of_every_kind() -> None:
    """Images are data URLs, PDFs files, text files text with their title."""
    note = {"type": "document", "title": "a.txt", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}
    (message,) = asked(PNG, PDF, note, {"type": "text", "text": "What?"})["messages"]
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "text", "text": '<document title="a.txt">\nabc\n</document>'},
        {"type": "text", "text": "What?"},
    ]


def test_a_loop_of_tools_goes_back() -> None:
    """Calls, results with an image in one of them, and thinking, which stays here."""
    call = {"type": "tool_use", "id": "c1", "name": "plot", "input": {"x": 1}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "done"}, PNG]}
    messages = [
        {"role": "user", "content": "Plot"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    tool = {"name": "plot", "description": "Plots.", "input_schema": {"type": "object", "properties": {}}}
    body = asked(messages=messages, tools=[tool], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "user"]
    assert body["messages"][1]["tool_calls"][0]["function"] == {"name": "plot", "arguments": '{"x": 1}'}
    assert body["messages"][1]["content"] is None
    assert body["messages"][2]["content"].startswith("done\n")
    assert [part["type"] for part in body["messages"][3]["content"]] == ["image_url", "text"]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    signed = asked(messages=messages, at=GEMINI)["messages"][1]["tool_calls"][0]["extra_content"]
    assert "thought_signature" in signed["google"]


@pytest.mark.parametrize(
    ("at", "content", "more", "said"),
    [
        (OLLAMA, [PDF], {}, "ollama .* takes no PDF"),
        (GEMINI, [PDF], {}, "gcp.gemini .* takes no PDF"),
        (OPENAI, [], {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, "runs on Anthropic's side"),
        (OPENAI, [], {"top_k": 5}, "no top_k"),
        (OPENAI, [], {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "use effort="),
        (OPENAI, [], {"max_tokens": 0}, "no prewarming"),
        (OPENAI, [], {"container": "c"}, "container="),
        (OPENAI, [], {"stop_sequences": list("abcde")}, "at most 4"),
        (OPENAI, [{"type": "image", "source": {"type": "file", "file_id": "f"}}], {}, "no image by file"),
        (OPENAI, [{"type": "container_upload"}], {}, "no content of the type 'container_upload'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_said_is_refused(at: Endpoint, content: list[Any], more: dict[str, Any], said: str) -> None:
    """A clear error before anything is sent, and not an answer to another question."""
    with pytest.raises(InvalidRequest, match=said):
        asked(*content, at=at, **more)


def test_schemas_are_strict_where_they_can_be() -> None:
    """`strict` demands closed objects with all properties required, at every depth."""
    closed = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    closed["additionalProperties"] = False
    assert is_strict(closed)
    assert not is_strict({**closed, "required": []})
    assert not is_strict({"type": "array", "items": {**closed, "additionalProperties": True}})
    sent = asked(output_config={"format": {"type": "json_schema", "schema": closed}})["response_format"]
    assert sent["json_schema"] == {"name": "answer", "schema": closed, "strict": True}


def test_openai_gets_every_field_required() -> None:
    """What may be left out may be null there, and the schema is strict; other servers get the schema as it is."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "tag": {"enum": ["a", "b"], "description": "which"},
            "near": {"anyOf": [{"$ref": "#/$defs/P"}, {"type": "null"}]},
            "all": {"type": "array", "items": {"$ref": "#/$defs/P"}},
        },
        "required": ["n"],
        "additionalProperties": False,
        "$defs": {"P": {"type": "object", "properties": {"x": {"type": "number"}}, "additionalProperties": False}},
    }
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    sent = asked(**wanted)["response_format"]["json_schema"]
    assert sent["strict"] is True
    made = sent["schema"]
    assert made["required"] == ["n", "tag", "near", "all"]
    assert made["properties"]["n"] == {"type": "integer"}
    null = {"type": "null"}
    assert made["properties"]["tag"] == {
        "anyOf": [{"enum": ["a", "b"], "type": "string"}, null],
        "description": "which",
    }
    assert made["properties"]["near"] == schema["properties"]["near"]
    assert made["$defs"]["P"]["properties"]["x"] == {"anyOf": [{"type": "number"}, null]}
    sent = asked(at=OLLAMA, **wanted)["response_format"]["json_schema"]
    assert (sent["schema"], sent["strict"]) == (schema, False)


@pytest.mark.parametrize("more", [{"$ref": "#/$defs/P", "description": "d"}, {"type": "integer", "default": 3}])
def test_what_strict_does_not_take_is_not_sent_as_strict(more: dict[str, Any]) -> None:
    """A keyword beside a reference, and a default, are refused by OpenAI; the schema is sent as a wish."""
    schema = {"type": "object", "properties": {"p": more}, "required": ["p"], "additionalProperties": False}
    assert not is_strict(all_required(schema))


def test_mistral_counts_a_stream_unasked() -> None:
    """It refuses to be asked for it."""
    mistral = endpoint(BY_PREFIX["openai"], "https://api.mistral.ai/v1", {})
    assert "stream_options" not in asked(at=mistral, stream=True)
    assert asked(at=OLLAMA, stream=True)["stream_options"] == {"include_usage": True}


# What comes back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "classes"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109}, (100, 0, 0, 9, None)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 9,
                "total_tokens": 109,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            (10, 60, 30, 9, 4),
        ),
        # Gemini and x.AI: what was thought is in the total alone
        ({"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 50}, (10, 0, 0, 40, 31)),
        # DeepSeek's own name
        ({"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}, (2, 8, 0, 1, None)),
        # what was thought is in no total, and more than what was written
        (
            {"prompt_tokens": 21, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 60}},
            (21, 0, 0, 62, 60),
        ),
        ({"prompt_tokens": None, "completion_tokens": "x"}, (0, 0, 0, 0, None)),
    ],
)
def test_tokens_fall_into_disjoint_classes(usage: dict[str, Any], classes: tuple[int | None, ...]) -> None:
    """Cached and written tokens are taken out of the prompt, thoughts stay in the output, wherever they were told."""
    known = wire.read_usage(usage_of(usage))
    told = (known.input_tokens, known.cache_read_tokens, known.cache_write_5m_tokens, known.output_tokens)
    assert (*told, known.thinking_tokens) == classes
    assert known.estimated is False


def test_a_whole_answer() -> None:
    """Thoughts, text and calls become blocks; arguments that are no JSON are not hidden."""
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"function": {"name": "g", "arguments": "{a"}},
    ]
    said = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm", "tool_calls": calls}
    message = message_of({"id": "x", "choices": [{"message": said, "finish_reason": "stop"}]}, estimated_input=5)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert message["content"][2]["input"] == {"a": 1}
    assert message["content"][3]["id"].startswith("call_")
    assert message["content"][3]["input"] == {"unreadable_arguments": "{a"}
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["estimated"] is True
    assert wire.read_message(message, "m").usage.estimated


@pytest.mark.parametrize(
    ("finish", "why"),
    [
        ("stop", "end_turn"),
        (None, "end_turn"),
        ("function_call", "tool_use"),
        ("length", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("model_length", "model_context_window_exceeded"),
        ("content_filter", "refusal"),
        ("content_filter: RECITATION", "refusal"),
        ("SAFETY", "refusal"),
        ("insufficient_system_resource", "insufficient_system_resource"),
    ],
)
def test_why_it_stopped(finish: str | None, why: str) -> None:
    """Each server's word has its meaning in Messages; one that nobody knows is not taken for success."""
    body = {"choices": [{"message": {"content": "Hi"}, "finish_reason": finish}]}
    assert message_of(body)["stop_reason"] == why
    events, _ = translated(chunks({"content": "Hi"}, finish=finish) + b"data: [DONE]\n\n")
    assert events[-2]["delta"]["stop_reason"] == why


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    """Results of tools are kept by it: two calls that share one would get each other's."""
    call = {"function": {"name": "f", "arguments": "{}"}}
    found = [message_of({"choices": [{"message": {"tool_calls": [call]}}]})["content"][0]["id"] for _ in range(2)]
    for _ in range(2):
        events, _ = translated(chunks({"tool_calls": [{"index": 0, **call}]}))
        found.append(events[1]["content_block"]["id"])
    assert len(set(found)) == 4


def test_azure_begins_with_what_it_filtered() -> None:
    """Its first chunk has no choice and no model's name, which the row is to have."""
    first = b'data: {"choices":[],"model":"","id":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
    events, _ = translated(first + chunks({"content": "Hi"}))
    assert (events[0]["type"], events[0]["message"]["model"]) == ("message_start", "m")


def test_usage_where_groq_has_it() -> None:
    """Some servers have told it in a field of their own, in the last chunk."""
    last = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    last["x_groq"] = {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    _, out = translated(chunks({"content": "Hi"}, finish=None) + b"data: " + json.dumps(last).encode() + b"\n\n")
    usage = wire.read_stream(out, "m").usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (7, 3, False)


def chunks(*deltas: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    """A stream's events."""
    made = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}], **more} for delta in deltas]
    if finish:
        made.append({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in made)


def translated(body: bytes, size: int = 7) -> tuple[list[dict[str, Any]], bytes]:
    """The events that come of a body that arrives in small pieces."""
    translation = Translation(estimated_input=5)
    out = b"".join(translation.feed(body[at : at + size]) for at in range(0, len(body), size)) + translation.end()
    events = [json.loads(line[5:]) for line in out.splitlines() if line.startswith(b"data:")]
    return events, out


def test_a_stream_in_small_pieces() -> None:
    """Blocks begin and end in order, whatever the network cut; the usage comes at the end."""
    usage = {"id": "x", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    body = chunks({"role": "assistant", "content": ""}, {"reasoning": "Hm"}, {"content": "café"}, {"content": " au"})
    body += b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n"
    events, out = translated(body)
    kinds = [event["type"].removeprefix("content_") for event in events]
    text = ["block_start", "block_delta", "block_stop", "block_start", "block_delta", "block_delta", "block_stop"]
    assert kinds == ["message_start", *text, "message_delta", "message_stop"]
    outcome = wire.read_stream(out, "m")
    assert (outcome.complete, outcome.usage and outcome.usage.input_tokens) == (True, 7)
    assert outcome.usage
    assert not outcome.usage.estimated


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        (chunks({"content": "Hi"}) + b"data: [DONE]\n\n", True),
        (chunks({"content": "Hi"}), True),  # no [DONE], but the reason why it ended
        (chunks({"content": "Hi"}, finish=None) + b"data: [DONE]\n\n", True),
        (chunks({"content": "Hi"}, finish=None), False),
        (chunks({"content": "Hi"}, finish=None)[:-9], False),
    ],
    ids=["done", "reason", "done without reason", "neither", "cut"],
)
def test_only_what_was_ended_is_whole(body: bytes, complete: bool) -> None:
    """A stream that just stops is no answer; where the server counted nothing, the row is an estimate."""
    _, out = translated(body)
    outcome = wire.read_stream(out, "m")
    assert outcome.complete is complete
    if outcome.usage is not None:
        assert outcome.usage.estimated
        assert outcome.usage.input_tokens == 5


def test_calls_that_share_an_index_or_have_none() -> None:
    """Some servers number every call 0, and some give no number."""
    for numbered in ({"index": 0}, {}):
        pieces = [
            {"tool_calls": [{**numbered, "id": uid, "function": {"name": "f", "arguments": given}}]}
            for uid, given in (("a", '{"n":1}'), ("b", '{"n":2}'))
        ]
        events, _ = translated(chunks(*pieces))
        starts = [event["content_block"]["id"] for event in events if event["type"] == "content_block_start"]
        assert starts == ["a", "b"]
        assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("streamed", [True, False])
def test_signatures_go_back_to_who_sent_them_only(streamed: bool) -> None:
    """What Gemini signed a call with goes back to it, and stands in no message that another could refuse."""
    extra = {"google": {"thought_signature": f"s{streamed}"}}
    call = {
        "index": 0,
        "id": f"signed-{streamed}",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": extra,
    }
    if streamed:
        events, _ = translated(chunks({"tool_calls": [call]}))
        block = next(event["content_block"] for event in events if event["type"] == "content_block_start")
    else:
        (block,) = message_of({"choices": [{"message": {"tool_calls": [call]}}]})["content"]
    assert block.keys() == {"type", "id", "name", "input"}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [block]}]
    assert asked(messages=messages, at=GEMINI)["messages"][1]["tool_calls"][0]["extra_content"] == extra
    assert "extra_content" not in asked(messages=messages)["messages"][1]["tool_calls"][0]


def test_of_calls_side_by_side_the_first_is_signed() -> None:
    """As Gemini sends them; where what it sent is lost, the first has the stand-in, and no other."""
    for extra in ({"google": {"thought_signature": "s"}}, None):
        made = [{"function": {"name": "f", "arguments": "{}"}} for _ in range(2)]
        if extra:
            made[0]["extra_content"] = extra
        blocks = message_of({"choices": [{"message": {"tool_calls": made}}]})["content"]
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": blocks}]
        first, second = asked(messages=messages, at=GEMINI)["messages"][1]["tool_calls"]
        assert first["extra_content"]["google"]["thought_signature"] == ("s" if extra else _STAND_IN_TEXT)
        assert "extra_content" not in second


def test_a_failed_tool_says_so() -> None:
    """The other wire has no field for it, so that the text says it."""
    call = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "no network", "is_error": True}
    messages = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    assert asked(messages=messages)["messages"][1]["content"] == "Error: no network"


def test_an_error_in_a_stream_is_told_as_one() -> None:
    """An error event ends the stream; unknown chunks and comments do not."""
    body = b': ping\n\ndata: {"object":"future"}\n\n' + chunks({"content": "Hi"}, finish=None)
    events, out = translated(body + b'data: {"error":{"message":"Overloaded","type":"server_error"}}\n\n')
    assert events[-1]["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert out.startswith(b": keep-alive")
    assert wire.read_stream(out, "m").error_type == "overloaded_error"
    events, _ = translated(
        b'data: {"object":"error","message":"too long","type":"invalid_request_error","code":400}\n\n'
    )
    assert events[-1]["error"] == {"type": "invalid_request_error", "message": "too long"}


# Errors and headers ---------------------------------------------------------------------------------------------------


def test_an_empty_account_is_not_asked_again() -> None:
    """A 429 for want of money is no matter of waiting; any other keeps what says when to come again."""
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    told, headers = refusal.refused(httpx2.Response(429, json=body, headers={"x-should-retry": "true"}))
    assert json.loads(told)["error"] == {"type": "billing_error", "message": "You exceeded your quota"}
    assert ("x-should-retry", "false") in headers
    told, headers = refusal.refused(
        httpx2.Response(429, json=[{"error": {"message": "m"}}], headers={"retry-after": "2"})
    )
    assert json.loads(told)["error"]["type"] == "rate_limit_error"
    assert ("retry-after", "2") in headers


def test_gemini_says_in_the_body_when_to_come_again() -> None:
    """Its 429 has no retry-after header: the seconds are in a detail of the error."""
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    body = [{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [{}, retry]}}]
    _, headers = refusal.refused(httpx2.Response(429, json=body))
    assert ("retry-after", "34.5") in headers
    _, headers = refusal.refused(httpx2.Response(429, json=body, headers={"retry-after": "2"}))
    assert [value for name, value in headers if name == "retry-after"] == ["2"]


def test_limits_are_told_in_the_words_that_pacing_reads() -> None:
    """`x-ratelimit-*` are `anthropic-ratelimit-*`; spans become moments."""
    given = {"x-ratelimit-limit-requests": "50", "x-ratelimit-remaining-requests": "49"}
    headers = dict(refusal.told_headers(httpx2.Headers({**given, "x-ratelimit-reset-requests": "1m0.5s"})))
    assert headers["anthropic-ratelimit-requests-remaining"] == "49"
    headers_of_tokens = dict(refusal.told_headers(httpx2.Headers({"x-ratelimit-limit-tokens": "30000"})))
    assert headers_of_tokens == {"anthropic-ratelimit-total-tokens-limit": "30000"}
    assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")


# Names, addresses, keys -----------------------------------------------------------------------------------------------


def test_prefixes() -> None:
    """A known prefix is a provider; other colons belong to the name, until nothing explains them."""
    assert split("openai:gpt-5.2") == (BY_PREFIX["openai"], "gpt-5.2")
    assert split("ollama:llama3.2:3b") == (BY_PREFIX["ollama"], "llama3.2:3b")
    assert split("anthropic:claude-sonnet-5-5") == (None, "claude-sonnet-5-5")
    assert split("us.anthropic.claude-v1:0") == (None, "us.anthropic.claude-v1:0")
    check_prefix("us.anthropic.claude-v1:0")
    with pytest.raises(UnknownModel, match="openai:, gemini:, ollama:, anthropic:"):
        check_prefix("gorq:llama")
    check_prefix("gorq:llama", is_gateway=True)
    with pytest.raises(UnknownModel, match="Did you mean 'openai:gpt'"):
        check_prefix("openia:gpt", is_gateway=True)
    with pytest.raises(UnknownModel):
        split("openai:")


@pytest.mark.parametrize(
    ("prefix", "base_url", "environ", "name", "address"),
    [
        ("openai", None, {"OPENAI_BASE_URL": "http://gw/v1/"}, "openai", "http://gw/v1"),
        ("openai", "http://localhost:8000/v1", {}, "localhost:8000", "http://localhost:8000/v1"),
        ("openai", "https://api.groq.com/openai/v1", {}, "groq", "https://api.groq.com/openai/v1"),
        ("gemini", None, {}, "gcp.gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("ollama", None, {"OLLAMA_HOST": "0.0.0.0"}, "ollama", "http://127.0.0.1:11434/v1"),
        ("ollama", None, {"OLLAMA_HOST": "box:99"}, "ollama", "http://box:99/v1"),
        ("ollama", None, {"OLLAMA_HOST": "https://ollama.com"}, "ollama.com", "https://ollama.com:443/v1"),
    ],
)
def test_addresses(prefix: str, base_url: str | None, environ: dict[str, str], name: str, address: str) -> None:
    """The provider's own variable moves it; another address is another provider, called by its host."""
    found = endpoint(BY_PREFIX[prefix], base_url, environ)
    assert (found.name, found.base_url) == (name, address)


def test_keys() -> None:
    """Each provider's own variable; ollama and servers of one's own need none; no address holds a password."""
    assert GEMINI.key({"GOOGLE_API_KEY": "k"}) == "k"
    assert OLLAMA.key({}) == "none-needed"
    assert OLLAMA.key({"OLLAMA_API_KEY": "of its cloud"}) == "of its cloud"
    assert endpoint(BY_PREFIX["openai"], "http://localhost:1/v1", {}).key({}) == "none-needed"
    with pytest.raises(MissingKey, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        GEMINI.key({})
    for wrong in ("localhost:8000", "http://me:secret@host/v1"):
        with pytest.raises(InvalidRequest, match="base_url"):
            endpoint(BY_PREFIX["openai"], wrong, {})
