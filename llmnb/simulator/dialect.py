"""What a wire says in its own words about the same things: the end of a stream, an error, an event nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmnb.simulator.api_error import ApiError
from llmnb.simulator.turn import event


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire.

    `ending` begins the last event of a whole stream; `broken_json` is an event that is none, `text_head` and
    `text_tail` stand around the text of an event; `stranger` is an event from a newer API, None where there is none.
    `error` and `error_event` say a refusal, by itself and in a stream, to the request of that id.
    """

    ending: bytes
    broken_json: bytes
    text_head: bytes
    text_tail: bytes
    stranger: bytes
    has_blocks: bool
    error: Callable[[ApiError, str], bytes]
    error_event: Callable[[ApiError, str], bytes]


MESSAGES = Dialect(
    ending=b"event: message_stop",
    broken_json=b'event: content_block_delta\ndata: {"type":"content_block_delta","ind\n\n',
    text_head=(
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"'
    ),
    text_tail=b'"}}\n\n',
    stranger=event("future_event", {"type": "future_event", "note": "from a newer API"}),
    has_blocks=True,
    error=lambda error, request_id: error.body(request_id),
    error_event=lambda error, request_id: event("error", error.envelope(request_id)),
)
