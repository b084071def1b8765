"""Reading the wire: token classes from JSON and SSE bodies, whole, corrected, cut off or odd.

The shapes are written after the API's documentation ("Streaming messages", "Prompt caching", "Compaction", "Advisor
tool", "Refusals and fallback"), so that they always run; tests/test_recordings.py holds the same code against recorded
responses.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.messages import wire
from llmnb.records import Usage

MODEL = "claude-sonnet-5-5"


def sse(*events: dict[str, Any], newline: str = "\n") -> bytes:
    """An SSE body of these events."""
    lines = [f"event: {event['type']}{newline}data: {json.dumps(event)}{newline}{newline}" for event in events]
    return "".join(lines).encode()


def start(**usage: Any) -> dict[str, Any]:
    return {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [],
            "usage": usage,
        },
    }


def text(piece: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}


def delta(stop_reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": usage}


STOP = {"type": "message_stop"}


def test_totals_come_from_the_last_message_delta_and_the_split_from_the_start() -> None:
    """Input corrected at the end counts, and only message_start tells 5m from 1h."""
    body = sse(
        start(
            input_tokens=10,
            cache_creation_input_tokens=300,
            cache_read_input_tokens=5,
            cache_creation={"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            output_tokens=88,
        ),
        text("hello"),
        delta(input_tokens=12, cache_creation_input_tokens=350, cache_read_input_tokens=6, output_tokens=7),
        STOP,
    )
    outcome = wire.read_stream(body, MODEL)
    assert outcome.complete
    assert outcome.stop_reason == "end_turn"
    assert outcome.usage == Usage(
        input_tokens=12,
        cache_read_tokens=6,
        cache_write_5m_tokens=100,
        cache_write_1h_tokens=200,
        cache_write_unsplit_tokens=50,
        output_tokens=7,
        estimated=True,
    )


def test_nulls_in_message_delta_do_not_erase_what_the_start_told() -> None:
    """Some streams repeat only output_tokens and leave the rest null."""
    body = sse(start(input_tokens=10, cache_read_input_tokens=4), delta(input_tokens=None, output_tokens=3), STOP)
    assert wire.read_stream(body, MODEL).usage == Usage(input_tokens=10, cache_read_tokens=4, output_tokens=3)


def test_a_total_below_the_first_split_makes_the_split_void() -> None:
    """When the API takes cache writes back, nothing is known of their TTL any more."""
    usage = wire.read_usage(
        {
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
        }
    )
    assert (usage.cache_write_5m_tokens, usage.cache_write_unsplit_tokens, usage.estimated) == (0, 5, True)


def test_a_cut_off_stream_keeps_its_input_and_estimates_its_output() -> None:
    """Without message_delta the noisy output_tokens of message_start is not believed; 39 bytes are 10 tokens at 3.9."""
    body = sse(start(input_tokens=10, cache_read_input_tokens=7, output_tokens=88), text("x" * 39))
    outcome = wire.read_stream(body, MODEL)
    assert not outcome.complete
    assert outcome.usage == Usage(input_tokens=10, cache_read_tokens=7, output_tokens=10, estimated=True)


@pytest.mark.parametrize(("count", "tokens"), [(0, 0), (1, 1), (3, 1), (4, 2), (39, 10), (40, 11)])
def test_estimated_tokens_round_up(count: int, tokens: int) -> None:
    """Bytes / 3.9, rounded up, 0 for nothing."""
    assert wire.estimated_tokens(count) == tokens


def test_an_answer_that_names_events_is_not_mistaken_for_them() -> None:
    """A model asked about this very protocol may write its event names, also as a whole delta."""
    body = sse(
        start(input_tokens=3),
        text("message_delta"),
        text("message_stop"),
        text('{"type":"message_stop"}'),
        text("error"),
    )
    outcome = wire.read_stream(body, MODEL)
    assert not outcome.complete
    assert outcome.error_type is None
    assert outcome.usage is not None
    assert outcome.usage.estimated


def test_error_events_are_named_before_and_after_content() -> None:
    """The API's own name of the error, wherever in the stream it comes."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    before, after = sse(error), sse(start(input_tokens=3), text("hi"), error)
    assert wire.read_stream(before, MODEL).error_type == "overloaded_error"
    assert wire.read_stream(before, MODEL).usage is None
    assert wire.read_stream(after, MODEL).error_type == "overloaded_error"
    assert wire.read_stream(after, MODEL).usage == Usage(input_tokens=3, output_tokens=1, estimated=True)


def test_json_where_a_stream_was_asked_for_is_read_as_the_answer_it_is() -> None:
    """Some servers ignore stream=true."""
    body = json.dumps({"type": "message", "model": MODEL, "usage": {"input_tokens": 1, "output_tokens": 2}}).encode()
    outcome = wire.read_stream(body, MODEL)
    assert outcome.complete
    assert outcome.usage == Usage(input_tokens=1, output_tokens=2)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_line_ending_of_sse_is_understood(newline: str) -> None:
    """The SSE standard allows three."""
    body = sse(start(input_tokens=4), delta(output_tokens=2), STOP, newline=newline)
    outcome = wire.read_stream(body, MODEL)
    assert outcome.complete
    assert outcome.usage == Usage(input_tokens=4, output_tokens=2)


@pytest.mark.parametrize("size", [1, 7, 40, 100, 150, 400, 5000])
@pytest.mark.parametrize(
    "end",
    [
        [delta(output_tokens=7), {"type": "message_stop"}],
        [delta(output_tokens=7), *[{"type": "ping"}] * 40, {"type": "message_stop"}],
        [delta("refusal", output_tokens=7), {"type": "message_stop"}],
        [delta(output_tokens=3), text("x"), delta(output_tokens=7), {"type": "message_stop"}],
        [delta(output_tokens=7)],
        [{"type": "message_stop"}],
        [{"type": "error", "error": {"type": "overloaded_error"}}],
    ],
)
def test_both_ends_tell_what_the_whole_stream_does_or_nothing(size: int, end: list[dict[str, Any]]) -> None:
    """However a body is cut into chunks, what its first and last ones are read for is what the whole is."""
    names = text('say "message_stop", then "message_delta"')
    body = sse(start(input_tokens=5, cache_read_input_tokens=3), *[text("a"), names] * 40, *end)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert wire.read_ends(chunks, "m") in (None, wire.read_stream(body, "m"))


def test_a_stream_that_comes_event_by_event_is_read_off_its_ends() -> None:
    """The plain case is one of those that the ends tell."""
    events = [start(input_tokens=5), *[text("a")] * 100, delta(output_tokens=7), {"type": "message_stop"}]
    chunks = [sse(event) for event in events]
    assert wire.read_ends(chunks, "m") == wire.read_stream(b"".join(chunks), "m")


def test_compactions_and_advisors_are_billed_beside_the_answer() -> None:
    """Neither is in the top-level counts: a compaction is of the same model, an advisor of its own."""
    usage = {
        "input_tokens": 181,
        "output_tokens": 8,
        "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 83, "cache_read_input_tokens": 55096},
            {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 823, "output_tokens": 1612},
            {"type": "message", "input_tokens": 181, "output_tokens": 8},
        ],
    }
    outcome = wire.read_json(json.dumps({"type": "message", "model": MODEL, "usage": usage}).encode(), MODEL)
    assert outcome.usage == Usage(input_tokens=181, output_tokens=8)
    assert outcome.iterations == (
        wire.Iteration("compaction", MODEL, Usage(input_tokens=100, cache_read_tokens=55096, output_tokens=83)),
        wire.Iteration("advisor_message", "claude-opus-5-5", Usage(input_tokens=823, output_tokens=1612)),
    )


def test_iterations_of_a_tool_loop_are_summed_where_the_top_level_holds_only_the_first() -> None:
    """Top-level input may be the first iteration's; the bill is the sum over the iterations."""
    usage = {
        "input_tokens": 412,
        "cache_read_input_tokens": 0,
        "output_tokens": 531,
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        "iterations": [
            {"type": "message", "input_tokens": 412, "output_tokens": 89},
            {"type": "message", "input_tokens": 1348, "cache_read_input_tokens": 412, "output_tokens": 442},
        ],
    }
    outcome = wire.read_json(json.dumps({"type": "message", "model": MODEL, "usage": usage}).encode(), MODEL)
    assert outcome.usage == Usage(
        input_tokens=1760, cache_read_tokens=412, output_tokens=531, web_search_requests=2, web_fetch_requests=1
    )


def test_a_model_that_declined_is_billed_only_for_what_it_wrote() -> None:
    """Server-side fallback: a hop that declined before any output is free, one that declined midway is not."""
    served = {"type": "fallback_message", "model": "claude-opus-5-5", "input_tokens": 412, "output_tokens": 264}
    silent = {"type": "message", "input_tokens": 408, "output_tokens": 0}
    midway = {"type": "message", "model": "claude-fable-5-2", "input_tokens": 408, "output_tokens": 9}
    usage = {"input_tokens": 412, "output_tokens": 264, "iterations": [silent, midway, served]}
    body = json.dumps({"type": "message", "model": "claude-opus-5-5", "usage": usage}).encode()
    outcome = wire.read_json(body, "claude-fable-5-2")
    assert outcome.usage == Usage(input_tokens=412, output_tokens=264)
    assert outcome.iterations == (
        wire.Iteration("message", "claude-fable-5-2", Usage(input_tokens=408, output_tokens=9)),
    )


def test_usage_inside_the_content_is_not_the_messages() -> None:
    """A tool's input may look like the end of a message, as may a text; what the answer used stands outside of both."""
    lookalike = {"stop_reason": "x", "usage": {"input_tokens": 999, "output_tokens": 999}, "content": []}
    blocks = [
        {"type": "text", "text": json.dumps(lookalike)},
        {"type": "tool_use", "id": "t", "name": "f", "input": lookalike},
    ]
    end = {"stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 2}}
    for message in (
        {"type": "message", "model": MODEL, "content": blocks, **end},
        {"type": "message", "model": MODEL, **end, "content": blocks},
        {"content": blocks, "type": "message", "model": MODEL, **end},
        {"type": "message", "stop_reason": "tool_use", "content": blocks, "model": MODEL, "usage": end["usage"]},
    ):
        for separators in ((",", ":"), (", ", ": ")):
            outcome = wire.read_json(json.dumps(message, separators=separators).encode(), "asked")
            assert outcome.usage == Usage(input_tokens=1, output_tokens=2)
            assert (outcome.model, outcome.stop_reason) == (MODEL, "tool_use")


def test_thinking_is_inside_the_output() -> None:
    """output_tokens is the billed total; the details only say how much of it was thinking."""
    usage = wire.read_usage({"output_tokens": 44, "output_tokens_details": {"thinking_tokens": 33}})
    assert (usage.output_tokens, usage.thinking_tokens) == (44, 33)


@given(st.binary(max_size=300))
def test_no_body_makes_the_reader_fail(body: bytes) -> None:
    """Whatever a server or a cut in the wire leaves, reading it gives an outcome."""
    assert isinstance(wire.read_stream(body, MODEL), wire.Outcome)
    assert isinstance(wire.read_json(body, MODEL), wire.Outcome)
    assert wire.content_bytes(body) >= 0


@given(cut=st.integers(min_value=0))
def test_a_stream_cut_anywhere_never_loses_the_input_once_it_was_told(cut: int) -> None:
    """From the end of message_start on, the input counts are known; complete is said only of the whole."""
    body = sse(start(input_tokens=10), *[text(f"piece {n} ä") for n in range(5)], delta(output_tokens=9), STOP)
    part = body[: cut % (len(body) + 1)]
    outcome = wire.read_stream(part, MODEL)
    assert outcome.complete == (b'"message_stop"}' in part)
    begun = wire.read_start(part, MODEL)
    if begun is not None:
        assert begun.usage == Usage(input_tokens=10, estimated=True)
        assert outcome.usage is not None
        assert outcome.usage.input_tokens == 10


# Without the content --------------------------------------------------------------------------------------------------

SECRET = "what the model wrote"
_words = st.sampled_from(
    [SECRET, f'{SECRET}","usage":{{"input_tokens":1}}', f'{{"model":"{SECRET}"}}', "]}", "\\", "ü\n"]
)
_names = st.sampled_from(["usage", "stop_reason", "stop_sequence", "model", "content", "text", "input"])
_written = st.recursive(
    _words | st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "id": st.just("msg_1"),
    "type": st.just("message"),
    "model": st.sampled_from([MODEL, "claude-opus-5-5"]),
    "content": st.lists(st.dictionaries(_names, _written, max_size=4), max_size=3),
    "stop_reason": st.sampled_from([None, "end_turn", "max_tokens"]),
    "stop_sequence": st.none() | st.just(f"END of {SECRET}"),
    "stop_details": st.none() | st.just({"explanation": f"of {SECRET}"}),
    "usage": st.fixed_dictionaries({"input_tokens": st.integers(0, 99), "output_tokens": st.integers(0, 99)}),
}


@given(
    message=st.fixed_dictionaries(_fields),
    order=st.just(list(_fields)) | st.permutations(list(_fields)),
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_a_message_without_its_content_tells_the_same(
    message: dict[str, Any], order: list[str], separators: tuple[str, str]
) -> None:
    """Or it is no JSON, or there is none; and never does it hold a word of what the model wrote."""
    body = json.dumps({name: message[name] for name in order}, separators=separators, ensure_ascii=False).encode()
    cut = wire.without_content(body)
    if cut is not None:
        assert SECRET.encode() not in cut
        assert wire.read_json(cut, MODEL) in (wire.read_json(body, MODEL), wire.NOTHING)


def test_a_message_as_the_api_writes_it_can_do_without_its_content() -> None:
    """A plain answer, one with tools, and one that other models worked on; not an error."""
    head = '{"model":"claude-haiku-4-5-20251001","id":"msg_1","type":"message","role":"assistant","content":'
    tail = ',"stop_reason":"tool_use","stop_sequence":null,"stop_details":null,"usage":{"input_tokens":595,%s}}'
    called = [{"type": "tool_use", "input": {"usage": {"stop_reason": "[}"}, "content": [SECRET]}}]
    for content in ([], [{"type": "text", "text": SECRET}], called):
        for usage in ('"output_tokens":3', '"output_tokens":3,"iterations":[{"type":"message","output_tokens":3}]'):
            body = (head + json.dumps(content, separators=(",", ":")) + tail % usage).encode()
            cut = wire.without_content(body)
            assert cut is not None
            assert SECRET.encode() not in cut
            assert wire.read_json(cut, MODEL) == wire.read_json(body, MODEL)
            assert wire.read_json(cut, MODEL).complete
    assert wire.without_content(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}') is None


def test_json_that_only_the_json_module_reads_is_read() -> None:
    """Half a surrogate pair, as a stream cut in its middle may leave it."""
    body = b'{"model":"m","content":[{"type":"text","text":"\\ud83d"}],"usage":{"input_tokens":3}}'
    assert wire.read_json(body, MODEL).usage == Usage(input_tokens=3)
