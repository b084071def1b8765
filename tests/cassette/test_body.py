"""How bodies stand in a cassette: to the byte in every case, and readable where that is exact."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.cassette.body import Event, body_fields, body_of, event_fields, event_of, split_events

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def through_the_file(fields: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(fields))


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_comes_back_to_the_byte(body: bytes) -> None:
    """Whatever a server may send: JSON in any style, text, binary."""
    assert body_of(through_the_file(body_fields(body))) == body


@given(st.binary() | JSON.map(lambda value: f"event: x\ndata: {json.dumps(value)}\n\n".encode()))
def test_any_event_comes_back_to_the_byte(data: bytes) -> None:
    """Events of the API's own form and of any other."""
    assert event_of(through_the_file(event_fields(Event(7, data)))) == Event(7, data)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"a":1,"b":"\xc3\xa9"}', {"json": {"a": 1, "b": "é"}}),
        (b'{"a": 1}', {"json": {"a": 1}, "style": "spaced"}),
        (b'{"a":1, "b":2}', {"text": '{"a":1, "b":2}'}),  # neither style
        (b'{"a":1,"a":2}', {"text": '{"a":1,"a":2}'}),  # writing it again would lose a name
        (b'{"a":1e2}', {"text": '{"a":1e2}'}),
        (b'{"a":NaN}', {"text": '{"a":NaN}'}),
        (b'{"a":"\\ud83d"}', {"text": '{"a":"\\ud83d"}'}),
        (b"\xff\x00", {"base64": "/wA="}),
        (b"", {"text": ""}),
    ],
)
def test_a_body_stands_in_the_most_readable_exact_form(body: bytes, fields: dict[str, object]) -> None:
    """JSON as JSON only when the same bytes come out again; base64 only where it must be."""
    assert body_fields(body) == fields
    assert body_of(fields) == body


def test_an_event_of_the_api_is_readable() -> None:
    """The API pads its events: the data is JSON all the same, and the padding a number."""
    data = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"Hi"}     }\n\n'
    told = {
        "at_ms": 12,
        "event": "content_block_delta",
        "data": {"type": "content_block_delta", "delta": {"text": "Hi"}},
        "padding": 5,
    }
    assert event_fields(Event(12, data)) == told
    assert event_of(told).data == data


@given(st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=20) | st.sampled_from([b"\n", b"\n\n", b"\r\n"]))))
def test_cutting_after_events_loses_nothing(chunks: list[tuple[int, bytes]]) -> None:
    """The same bytes, however the network cut them."""
    assert b"".join(event.data for event in split_events(chunks)) == b"".join(chunk for _, chunk in chunks)


def test_an_event_has_the_time_of_the_chunk_that_completed_it() -> None:
    """Three chunks, two events and a piece of a third."""
    chunks = [(5, b"data: a\n"), (9, b"\ndata: b\n\nda"), (12, b"ta: c")]
    assert split_events(chunks) == [Event(9, b"data: a\n\n"), Event(9, b"data: b\n\n"), Event(12, b"data: c")]


@pytest.mark.parametrize("fields", [{}, {"json": 1, "style": "odd"}, {"base64": "!"}])
def test_a_body_that_is_none_is_a_value_error(fields: dict[str, object]) -> None:
    """What a hand-edited file may hold."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reader adds the line to whatever it says
        body_of(fields)


def test_recorded_streams_of_the_api_are_readable() -> None:
    """Of the events in real recordings no more than the pings need their text."""
    folder = os.environ.get("LLMNB_TEST_RECORDINGS")
    if not folder:
        pytest.skip("set LLMNB_TEST_RECORDINGS to a folder of recorded responses to run this")
    unreadable = 0
    for path in sorted(Path(folder).glob("*.sse")):
        for event in split_events([(0, path.read_bytes())]):
            fields = event_fields(event)
            assert event_of(fields) == event
            unreadable += "data" not in fields and b"event: ping" not in event.data
    assert unreadable == 0
