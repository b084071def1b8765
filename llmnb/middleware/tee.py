"""Watches a streamed body go by, and sees every end of it exactly once.

A body ends by being read out, by an error, by being closed early, or by being dropped and collected as garbage. The
watcher must not raise, and cannot: whatever it does is caught here. It never reads by itself.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, Protocol

import httpx2

from llmnb.trouble import quietly

End = Literal["read", "failed", "closed", "dropped"]


class Watcher(Protocol):
    """Looks at what has come of a body now and then, and is told once how it ended."""

    def look(self, chunks: list[bytes]) -> int:
        """All raw bytes so far; gives how many more chunks may pass before it wants to look again."""
        ...

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        """The body has ended, and these are its raw bytes."""
        ...


_NEVER = 1 << 62


class _Tee:
    """What both kinds of tee share: the watched stream, its bytes so far and the one-time end.

    Between two looks a chunk costs an append and a comparison: a stream has thousands of them.
    """

    def __init__(self, stream: Any, watcher: Watcher) -> None:
        self._stream = stream
        self._watcher: Watcher | None = watcher
        self._chunks: list[bytes] = []
        # the SDK asks the body for its tracing's observer at every event, so that looking it up must be cheap
        self.stream_observer: Any = getattr(stream, "stream_observer", None)

    def _look(self) -> int:
        if self._watcher is None:
            return _NEVER
        try:
            return self._watcher.look(self._chunks)
        except Exception as trouble:
            quietly("watching a stream", trouble)
            return _NEVER

    def _ended(self, how: End, error: BaseException | None = None) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            try:
                watcher.end(self._chunks, how, error)
            except Exception as trouble:
                quietly("recording the end of a stream", trouble)
            except BaseException:  # Ctrl-C in the middle of it: the end is told, and then the interrupt goes on
                with contextlib.suppress(Exception):
                    watcher.end(self._chunks, how, error)
                raise
            finally:
                self._chunks = []

    def _broke(self, error: BaseException) -> None:
        self._ended("closed" if isinstance(error, GeneratorExit) else "failed", error)

    @property
    def elapsed(self) -> datetime.timedelta | None:
        """The `elapsed` of the watched body; `httpx2.Response.elapsed` reads it here."""
        return getattr(self._stream, "elapsed", None)

    def __del__(self) -> None:
        with contextlib.suppress(BaseException):  # at interpreter exit anything may be gone already
            self._ended("dropped")


class SyncTee(_Tee, httpx2.SyncByteStream):
    """A watched body of a sync client."""

    def __iter__(self) -> Iterator[bytes]:
        chunks, wait = self._chunks, 1
        try:
            for chunk in self._stream:
                chunks.append(chunk)
                wait -= 1
                if not wait:
                    wait = self._look()
                yield chunk
        except BaseException as error:
            self._broke(error)
            raise
        self._ended("read")

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._ended("closed")


class AsyncTee(_Tee, httpx2.AsyncByteStream):
    """A watched body of an async client."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, wait = self._chunks, 1
        try:
            async for chunk in self._stream:
                chunks.append(chunk)
                wait -= 1
                if not wait:
                    wait = self._look()
                yield chunk
        except BaseException as error:
            self._broke(error)
            raise
        self._ended("read")

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._ended("closed")


def watch(response: httpx2.Response, watcher: Watcher) -> None:
    """Puts a tee between the response and its body, which has not been read yet."""
    stream = response.stream
    tee = AsyncTee if isinstance(stream, httpx2.AsyncByteStream) else SyncTee
    response.stream = tee(stream, watcher)


def decoded(raw: bytes, headers: httpx2.Headers) -> bytes:
    """The body without its content-encoding; of a body cut off in the middle, what can be decoded."""
    if headers.get("content-encoding", "identity") == "identity":
        return raw
    encoding = {"content-encoding": headers["content-encoding"]}
    body = bytearray()
    with contextlib.suppress(httpx2.DecodingError):
        for piece in httpx2.Response(200, headers=encoding, stream=httpx2.ByteStream(raw)).iter_bytes():
            body += piece
    return bytes(body)
