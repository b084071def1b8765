"""Takes into a cassette what comes of one request, as it comes, with its times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
from anthropic import APIConnectionError

from llmnb.cassette.body import Event, split_events
from llmnb.cassette.interaction import Cut, Failure, Request, Response
from llmnb.cassette.library import Place
from llmnb.cassette.session import Cassette, here
from llmnb.middleware.answering import http_of, source_of
from llmnb.middleware.tee import End, watch

SSE = "text/event-stream"


class Take:
    """One request that was sent while a cassette records, and what comes of it."""

    def __init__(self, cassette: Cassette, request: Request, *, retry: bool) -> None:
        self._cassette = cassette
        self._request = request
        self._retry = retry
        self._number = cassette.begin()
        self._place: Place = here()
        self._began = time.monotonic()
        self._head_ms = 0
        self._times_ms: list[int] = []
        self._http: httpx2.Response | None = None
        self._client: Any = None
        self._source = "live"

    def failed(self, error: BaseException) -> None:
        """No response came. Only what the network did is recorded: other errors come again by themselves."""
        if isinstance(error, APIConnectionError):
            self._cassette.redaction.learn_headers(error.request.headers)
            self._done(Failure(type(error).__name__, str(error), self._now_ms()))

    def responded(self, response: Any) -> None:
        """A response is here, read or not yet."""
        http = http_of(response)
        if http is None:
            return
        self._head_ms = self._now_ms()
        self._http = http
        self._client = getattr(response, "_client", None)
        self._source = source_of(http)
        if http.is_closed:
            self._done(self._told(http, body=http.content, events=None, cut=None))
        else:
            watch(http, self)

    # Of the body, when it is read piece by piece

    def look(self, chunks: list[bytes]) -> int:
        """Notes when the latest chunk came."""
        self._times_ms.append(self._now_ms())
        return 1

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        """The body has ended, one way or the other."""
        http, self._http = self._http, None
        assert http is not None
        pieces = list(_decoded(chunks, self._times_ms, http, self._client))
        body = b"".join(piece for _, piece in pieces)
        is_stream = http.headers.get("content-type", "").startswith(SSE) or _is_aws_frames(http)
        events = tuple(split_events(pieces)) if is_stream else None
        self._done(self._told(http, body=b"" if is_stream else body, events=events, cut=_cut(how, error, body)))

    def _told(
        self, http: httpx2.Response, *, body: bytes, events: tuple[Event, ...] | None, cut: Cut | None
    ) -> Response:
        headers = dict(http.headers.items())
        if _is_aws_frames(http):
            headers["content-type"] = SSE
        with suppress(RuntimeError):  # a response that another part made may have no request
            self._cassette.redaction.learn_headers(http.request.headers)
        return Response(http.status_code, headers, self._head_ms, body, events, cut)

    def _done(self, outcome: Response | Failure) -> None:
        self._cassette.take(
            self._number, self._request, outcome, place=self._place, source=self._source, retry=self._retry
        )

    def _now_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


def _cut(how: End, error: BaseException | None, body: bytes) -> Cut | None:
    if how == "read" or b"event: message_stop\n" in body:  # its reader did not wait for the end after the end
        return None
    if how == "failed" and isinstance(error, Exception):
        return Cut("failed", type(error).__name__, str(error))
    return Cut("closed")


def _is_aws_frames(http: httpx2.Response) -> bool:
    return "amazon.eventstream" in http.headers.get("content-type", "")


class _Pieces(httpx2.SyncByteStream):
    """Chunks once more, with the time of the one that was given last."""

    def __init__(self, chunks: list[bytes], times_ms: list[int]) -> None:
        self._timed = list(zip(times_ms, chunks, strict=False))
        self.at_ms = self._timed[0][0] if self._timed else 0

    def __iter__(self) -> Iterator[bytes]:
        for at_ms, chunk in self._timed:
            self.at_ms = at_ms
            yield chunk


def _decoded(
    chunks: list[bytes], times_ms: list[int], http: httpx2.Response, client: Any
) -> Iterator[tuple[int, bytes]]:
    """The body's pieces without compression, and classic Bedrock's binary frames as server-sent events."""
    pieces = _Pieces(chunks, times_ms)
    if "content-encoding" not in http.headers and not _is_aws_frames(http):
        yield from zip(times_ms, chunks, strict=False)
        return
    encoding = {name: http.headers[name] for name in ("content-encoding",) if name in http.headers}
    plain = httpx2.Response(200, headers=encoding, stream=pieces).iter_bytes()
    try:
        if not _is_aws_frames(http):
            for piece in plain:
                yield pieces.at_ms, piece
            return
        # the frames are read by the decoder of the client they came to
        for event in client._make_sse_decoder().iter_bytes(plain):
            yield pieces.at_ms, f"event: {event.event}\ndata: {event.data}\n\n".encode()
    except Exception:  # cut off inside a frame: what came before counts
        return
