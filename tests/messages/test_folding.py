"""Streams are folded into few events, into messages and back, and the SDK sees the same answer in all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.messages import folding

RECORDINGS = Path(os.environ.get("LLMNB_TEST_RECORDINGS", "/nonexistent"))
STREAMS = sorted(RECORDINGS.glob("*.sse"))
MESSAGES = [
    path
    for path in sorted(RECORDINGS.glob("*.json"))
    if not path.name.endswith(".meta.json") and json.loads(path.read_bytes()).get("type") == "message"
]

QUESTION: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}

START: dict[str, Any] = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
                "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1}},
}  # fmt: skip
END: list[dict[str, Any]] = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]


def client(body: bytes, content_type: str, *, beta: bool) -> Any:
    """An SDK client to which every request is answered with the body."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": content_type}, content=body)
    )
    made = anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport))
    return made.beta if beta else made


def streamed(body: bytes, *, beta: bool) -> Any:
    """The SDK's message of a stream."""
    with client(body, "text/event-stream", beta=beta).messages.stream(**QUESTION) as stream:
        return stream.get_final_message()


def received(message: dict[str, Any], *, beta: bool) -> Any:
    """The SDK's message of a JSON body."""
    return client(json.dumps(message).encode(), "application/json", beta=beta).messages.create(**QUESTION)


def same(one: Any, other: Any) -> bool:
    """Whether two of the SDK's messages say the same; `parsed_output` is only there after a stream."""
    return _plain(one) == _plain(other)


def _plain(message: Any) -> Any:
    data = message.model_dump(warnings=False)
    for block in data["content"]:
        block.pop("parsed_output", None)
    return data


@pytest.mark.skipif(not STREAMS, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name[:3])
def test_a_recorded_stream_is_the_same_answer_in_every_form(path: Path, beta: bool) -> None:
    """As it came, folded, as one message, and as the stream of that message."""
    if path.name.startswith("036") and not beta:
        pytest.skip("the SDK's plain accumulator does not read compactions")
    events = folding.events_of(path.read_bytes())
    live = streamed(path.read_bytes(), beta=beta)
    few = folding.folded(events)
    assert len(few) <= len(events)
    assert streamed(folding.sse(few), beta=beta).to_json() == live.to_json()
    message = folding.message_of(events)
    assert message == folding.message_of(few)
    assert same(received(message, beta=beta), live)
    assert same(streamed(folding.sse(folding.stream_of(message)), beta=beta), live)


@pytest.mark.skipif(not MESSAGES, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")
@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.name[:3])
def test_a_recorded_message_is_the_same_answer_as_a_stream(path: Path) -> None:
    """And the stream gives back the message, field by field."""
    message = json.loads(path.read_bytes())
    events = list(folding.stream_of(message))
    assert same(streamed(folding.sse(events), beta=True), received(message, beta=True))
    assert folding.message_of(events) == message


pieces = st.lists(st.text(max_size=5), min_size=1, max_size=8)


@given(st.lists(st.tuples(st.sampled_from(["text", "thinking", "tool_use"]), pieces), max_size=4))
def test_folding_keeps_what_was_written(blocks: list[tuple[str, list[str]]]) -> None:
    """However an answer is cut into deltas, a block costs one, and the message is the same."""
    events: list[dict[str, Any]] = [START]
    for index, (kind, texts) in enumerate(blocks):
        events += _block(index, kind, texts)
    events += END
    few = folding.folded(events)
    assert sum(event["type"] == "content_block_delta" for event in few) == len(blocks)
    assert folding.folded(few) == few
    assert folding.events_of(folding.sse(few)) == few
    message = folding.message_of(events)
    assert folding.message_of(few) == message
    for (kind, texts), block in zip(blocks, message["content"], strict=True):
        whole = "".join(texts)
        assert block["input" if kind == "tool_use" else kind] == ({"a": whole} if kind == "tool_use" else whole)
    assert message["usage"] == {"input_tokens": 7, "output_tokens": 9}


def _block(index: int, kind: str, texts: list[str]) -> list[dict[str, Any]]:
    begin: dict[str, Any] = {"type": kind, kind: ""} if kind != "tool_use" else {"type": kind, "input": {}}
    if kind == "tool_use":
        whole = json.dumps({"a": "".join(texts)})
        texts = [whole[:3], whole[3:]]
    name = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}[kind]
    deltas = [
        {"type": "content_block_delta", "index": index, "delta": {"type": name, folding.PIECES[name]: text}}
        for text in texts
    ]
    return [
        {"type": "content_block_start", "index": index, "content_block": begin},
        deltas[0],
        {"type": "ping"},
        *deltas[1:],
        {"type": "content_block_stop", "index": index},
    ]


def test_the_unknown_is_kept_in_a_stream_and_refused_in_a_message() -> None:
    """A delta of tomorrow's API passes through folding as it is; no message is made up of it."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    odd = {"type": "content_block_delta", "index": 0, "delta": {"type": "smell_delta", "smell": "rose"}}
    longer = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a", "more": 1}}
    events = [START, block, odd, odd, longer, longer, *END]
    assert folding.folded(events) == events
    with pytest.raises(folding.CannotFold, match="smell_delta"):
        folding.message_of(events)
    with pytest.raises(folding.CannotFold, match="do not fit together"):
        folding.message_of([START, odd])
    with pytest.raises(folding.CannotFold, match="no message_start"):
        folding.message_of([])


@pytest.mark.parametrize("body", [b"data: {\n\n", b"data: [1]\n\n", b'data: {"type": 1}\n\n', b"data: \xff\n\n"])
def test_a_broken_stream_is_refused(body: bytes) -> None:
    """Bytes that are no events say so instead of being taken for an answer."""
    with pytest.raises(folding.CannotFold):
        folding.events_of(body)


def test_tool_input_cut_off_by_max_tokens_is_kept_as_far_as_it_came() -> None:
    """As the SDK does."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}}
    piece = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": '{"a": [1, 2'},
    }
    assert folding.message_of([START, start, piece, *END])["content"][0]["input"] == {"a": [1, 2]}


def test_complete_means_message_stop_and_no_error() -> None:
    """A stream that was cut off, or that broke off with an error, is no whole answer."""
    assert folding.is_complete([START, *END])
    assert not folding.is_complete([START, END[0]])
    assert not folding.is_complete([START, {"type": "error"}, *END])
    assert not folding.is_complete(END)
    assert not folding.is_complete([])
