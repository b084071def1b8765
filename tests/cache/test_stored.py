"""A kept answer: what is kept and what is not, its bytes, and what damage does to them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.cache.stored import StoredAnswer, Unreadable, stored
from llmnb.messages import folding, wire

RECORDINGS = Path(os.environ.get("LLMNB_TEST_RECORDINGS", "/nonexistent"))
ANSWERS = [path for path in sorted(RECORDINGS.glob("*")) if not path.name.endswith(".meta.json")]

MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 5},
}  # fmt: skip


def kept(body: bytes | dict[str, Any], **known: Any) -> StoredAnswer | None:
    """The answer in a body, as the cache keeps it."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return stored(data, **{"model_requested": "claude-sonnet-5-5", "created_us": 1_700_000_000_000_000, **known})


ANSWER = kept(MESSAGE, headers=[("Request-Id", "req_1"), ("set-cookie", "secret"), ("retry-after", "3")], key="k")
assert ANSWER is not None


def test_an_answer_is_kept_in_the_form_it_came_in() -> None:
    """JSON byte for byte, a stream with its deltas put together, and each gives the other."""
    assert ANSWER.form == "json"
    assert json.loads(ANSWER.body_as("json")) == MESSAGE
    stream = kept(ANSWER.body_as("sse"))
    assert stream is not None
    assert stream.form == "sse"
    assert json.loads(stream.body_as("json")) == MESSAGE == stream.whole_message()
    assert stream.message == ANSWER.message == {name: MESSAGE[name] for name in MESSAGE if name != "content"}


def test_only_headers_that_stay_true_are_kept() -> None:
    """No cookies, limits or lengths."""
    assert ANSWER.headers == (("request-id", "req_1"),)


@pytest.mark.skipif(not ANSWERS, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")
@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.name[:3])
def test_the_counts_of_a_recording_are_those_of_its_body(path: Path) -> None:
    """What is kept beside the body says the same as the body: the ledger row needs no second reading."""
    body = path.read_bytes()
    answer = kept(body)
    read = wire.read_stream(body, "m") if path.suffix == ".sse" else wire.read_json(body, "m")
    if answer is None:
        assert not read.complete
        return
    again = StoredAnswer.decoded(dataclasses.replace(answer, model_requested="m").encoded())
    assert dataclasses.replace(again.outcome(), complete=True) == read


NOT_KEPT: dict[str, Any] = {
    "an error": {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
    "a refusal": {**MESSAGE, "stop_reason": "refusal"},
    "a message that did not stop": {**MESSAGE, "stop_reason": None},
    "something else": {"type": "model", "id": "x"},
    "no object": b"[1]",
    "nothing": b"",
    "half a message": json.dumps(MESSAGE).encode()[:-5],
    "a stream cut off": folding.sse(list(folding.stream_of(MESSAGE))[:-1]),
    "a stream with an error": folding.sse([*list(folding.stream_of(MESSAGE))[:-1], {"type": "error"}]),
    "a refused stream": folding.sse(folding.stream_of({**MESSAGE, "stop_reason": "refusal"})),
    "prose": b"Bad gateway",
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_is_no_whole_answer_is_not_kept(name: str) -> None:
    """Cut off, refused, failed, or no answer at all."""
    assert kept(NOT_KEPT[name]) is None


def test_another_status_is_not_kept() -> None:
    """Whatever its body looks like."""
    assert kept(MESSAGE, status=500) is None


def test_an_entry_comes_back_as_it_went_in() -> None:
    """Every field, through bytes."""
    answer = dataclasses.replace(ANSWER, expires_us=5, provider="aws.bedrock", request=b'{"a":1}')
    assert StoredAnswer.decoded(answer.encoded()) == answer


def test_what_is_known_of_an_answer_can_be_read_from_its_beginning() -> None:
    """A list of answers does not read them all."""
    data = dataclasses.replace(ANSWER, body=b"x" * 100_000, request=b"{}").encoded()
    assert StoredAnswer.peeked(data[:2_048]) == dataclasses.replace(ANSWER, body=b"")
    assert StoredAnswer.peeked(data[:40]) is None
    with pytest.raises(Unreadable):
        StoredAnswer.peeked(b"something else, and long enough for a head")


@given(st.integers(min_value=0, max_value=len(ANSWER.encoded()) * 8 - 1))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    """Not in the head, not in what is known of the answer, not in its body."""
    damaged = bytearray(ANSWER.encoded())
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Unreadable):
        StoredAnswer.decoded(bytes(damaged))


@given(st.integers(min_value=0, max_value=len(ANSWER.encoded()) - 1))
def test_no_truncation_goes_unnoticed(length: int) -> None:
    """Wherever the end is missing."""
    with pytest.raises(Unreadable):
        StoredAnswer.decoded(ANSWER.encoded()[:length])


@given(st.binary(max_size=200))
def test_random_bytes_are_no_entry(data: bytes) -> None:
    """A file of somebody else's is refused, in words."""
    with pytest.raises(Unreadable):
        StoredAnswer.decoded(data)


def test_an_entry_of_another_version_says_so() -> None:
    """Its format number is looked at before anything else is."""
    entry = bytearray(ANSWER.encoded())
    entry[7] = 99
    with pytest.raises(Unreadable, match="another version of llmnb wrote it"):
        StoredAnswer.decoded(bytes(entry))
