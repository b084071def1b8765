"""An error event before any content: made what the API would have answered with, had it noticed a moment earlier.

A server that is overloaded may say so after it has begun a stream: with status 200, in an `error` event, which the SDK
does not repeat. Nothing has been shown by then, so the body is read ahead to its first content block; an error before
that becomes a response with the error's own status, which the SDK repeats as it repeats a 529. Nobody's raw or
streaming response is read ahead, and no body in binary frames.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx2
from anthropic import APIRequest
from anthropic._constants import RAW_RESPONSE_HEADER

from llmnb.messages import wire
from llmnb.middleware.tee import AsyncTee, SyncTee, decoded
from llmnb.trouble import quietly

STATUSES = {"overloaded_error": 529, "api_error": 500, "timeout_error": 504, "rate_limit_error": 429}
"""The API's errors that pass, by their HTTP status (its documentation, "Errors")."""

_MOST_BYTES = 65_536
"""A body that has not come to its content by then is handed on: `message_start` takes about one kilobyte."""
_DECIDES = (b'"content_block_start"', b'"message_delta"', b'"message_stop"')


def may_be_read_ahead(request: APIRequest, http: httpx2.Response) -> bool:
    """Whether the body is a stream that the SDK parses for its caller, and no one else's."""
    if not request.stream or http.is_closed or not isinstance(http.stream, (SyncTee, AsyncTee)):
        return False
    return RAW_RESPONSE_HEADER not in request.headers and http.headers.get("content-type", "").startswith(
        "text/event-stream"
    )


class Ahead:
    """Reads the beginning of one stream: `error_type` is that of an early error that passes, else None."""

    def __init__(self, http: httpx2.Response) -> None:
        self._headers = http.headers
        self._is_plain = "content-encoding" not in http.headers
        self.error_type: str | None = None
        self.event: dict[str, Any] = {}

    def is_enough(self, chunks: list[bytes]) -> bool:
        """Whether the stream has come to its content, or to an error before that. Never raises."""
        try:
            return self._is_enough(chunks)
        except Exception as trouble:
            quietly("looking for an early error of a stream", trouble)
            return True

    def _is_enough(self, chunks: list[bytes]) -> bool:
        if self._is_plain and len(chunks) == 1 and _DECIDES[0] in chunks[0] and b"event: error" not in chunks[0]:
            return True  # nearly always: the start of message and content come in one piece
        body = b"".join(chunks)
        body = body if self._is_plain else decoded(body, self._headers)
        lines = body.replace(b"\r\n", b"\n").split(b"\n")
        for line in lines[:-1]:  # the last one may go on
            if not line.startswith(b"data:"):
                continue
            if any(name in line for name in _DECIDES):
                return True
            if b'"error"' in line and (event := wire.parsed(line[5:])).get("type") == "error":
                kind = wire.error_type(event)
                if kind in STATUSES:
                    self.error_type, self.event = kind, event
                return True
        return len(body) > _MOST_BYTES

    def response(self, http: httpx2.Response) -> httpx2.Response:
        """What the API would have answered with."""
        assert self.error_type is not None
        kept = [
            (name, value)
            for name, value in http.headers.multi_items()
            if name.lower() not in ("content-encoding", "content-length", "content-type", "transfer-encoding")
        ]
        made = httpx2.Response(
            STATUSES[self.error_type],
            headers=[*kept, ("content-type", "application/json")],
            content=json.dumps(self.event).encode(),
            request=http.request,
        )
        with suppress(RuntimeError):  # of a response that did not come over the network
            made.elapsed = http.elapsed
        return made
