"""Reads along with the body of one call, and closes its ledger entry when the body ends."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx2

from llmnb import interrupts
from llmnb.messages import wire
from llmnb.middleware.entry import Entry
from llmnb.middleware.tee import End, decoded, watch

_FIRST_REFRESH_S = 2.0
"""A running row is brought up to date this long after the stream began, and then at each doubling of its age, so that a
killed process leaves an estimate of some half of what was written, for at most one extra reading of the body."""

_LOOKS_EVERY_S = 1.0
_CHUNKS_BETWEEN_LOOKS = 32
_MOST_BETWEEN_LOOKS = 512
"""Chunks are not timed one by one. So many are let pass as came in a second, by what came since the last look, and of
a fast stream a quarter of what came: if it gets slower one look is late, and the next ones are in time again."""


class BodyWatch:
    """Watches one body: notes its start and its first token, and tells the entry how it all ended."""

    def __init__(self, entry: Entry, response: Any, http: httpx2.Response) -> None:
        self._entry = entry
        self._response: Any = response
        self._headers = http.headers
        self._is_aws = is_aws_frames(self._headers)
        self._began = time.monotonic()
        self._refresh_at: float | None = None
        self._looked = (0, self._began)  # at how many chunks, and when

    @classmethod
    def begin(cls, entry: Entry, response: Any, http: httpx2.Response) -> None:
        """Closes the entry at once when the body was read already; watches it otherwise."""
        entry.responded(http)
        if http.is_closed:
            # a stream is closed before it is read when it comes from a cassette
            streamed = entry.is_stream and http.headers.get("content-type", "").startswith("text/event-stream")
            entry.answered(http.content, streamed=streamed)
        else:
            watch(http, cls(entry, response, http))

    def look(self, chunks: list[bytes]) -> int:
        """Notes the start, the first token, and now and then how far the stream is."""
        if self._refresh_at is None:
            self._look_for_start(chunks)
        elif not self._entry.saw_first_token and (self._is_opaque or wire.has_content(chunks[-1])):
            self._entry.first_token()
        if not self._entry.saw_first_token:
            return 1
        before, looked = self._looked
        now = time.monotonic()
        self._looked = len(chunks), now
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh(chunks)
        in_time = int((len(chunks) - before) * _LOOKS_EVERY_S / max(now - looked, 1e-6))
        return max(1, min(in_time, max(_CHUNKS_BETWEEN_LOOKS, len(chunks) // 4), _MOST_BETWEEN_LOOKS))

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        """Reads the body for its counts, and closes the entry."""
        outcome, body = None, b""
        if how == "read" and not self._is_opaque and not self._entry.keeps_body:
            outcome = wire.read_ends(chunks, self._entry.model_requested)
        if outcome is None:
            body = self._body(chunks)
            outcome = self._read(body)
        self._response = None
        self._entry.body_ended(outcome, body, how, error)
        interrupts.shorten(error)

    @property
    def _is_opaque(self) -> bool:
        """Whether a single chunk cannot be looked into."""
        return "content-encoding" in self._headers or self._is_aws

    def _look_for_start(self, chunks: list[bytes]) -> None:
        body = self._body(chunks)
        start = wire.read_start(body, self._entry.model_requested)
        if start is not None:
            self._refresh_at = time.monotonic() + _FIRST_REFRESH_S
            self._entry.progressed(start)
            if wire.has_content(body):
                self._entry.first_token()

    def _refresh(self, chunks: list[bytes]) -> None:
        now = time.monotonic()
        self._refresh_at = now + max(now - self._began, _FIRST_REFRESH_S)
        self._entry.progressed(self._read(self._body(chunks)))

    def _body(self, chunks: list[bytes]) -> bytes:
        raw = decoded(b"".join(chunks), self._headers)
        return sse_of_aws_frames(raw, self._response) if self._is_aws else raw

    def _read(self, body: bytes) -> wire.Outcome:
        return wire.read_stream(body, self._entry.model_requested)


def is_aws_frames(headers: httpx2.Headers) -> bool:
    """Whether a body is a stream of classic Bedrock, in binary frames."""
    return "amazon.eventstream" in headers.get("content-type", "")


def sse_of_aws_frames(raw: bytes, response: Any) -> bytes:
    """The events of a classic Bedrock stream as SSE; its binary frames are read by the client's own decoder."""
    sse = ""
    with contextlib.suppress(Exception):  # cut off inside a frame; what came before counts
        for event in response._client._make_sse_decoder().iter_bytes(iter([raw])):
            sse += f"event: {event.event}\ndata: {event.data}\n\n"
    return sse.encode()
