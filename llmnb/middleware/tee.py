"""Watches a streamed body go by, and sees every end of it exactly once.

A body ends by being read out, by an error, by being closed early, or by being dropped and collected as garbage. The
watcher must not raise, and cannot: whatever it does is caught here. It never reads by itself.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from itertools import filterfalse, islice
from types import GeneratorType
from typing import Any, Literal, Protocol, TypeAlias, cast

import httpx2

from llmnb.trouble import quietly

End = Literal["read", "failed", "closed", "dropped"]
Enough: TypeAlias = Callable[[list[bytes]], bool]
"""Whether what has come of a body is as much as was to be read ahead."""


class Cut(Exception):  # noqa: N818 - no error, but a watcher's word
    """Raised by a watcher's `look` to end the body there; whoever reads it gets `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


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
    """What both kinds of tee share: the watched stream, its bytes so far and the one-time end."""

    def __init__(self, stream: Any, watcher: Watcher) -> None:
        self._stream = stream
        self._watchers: list[Watcher] = [watcher]
        self._chunks: list[bytes] = []
        self._wait = 1
        self._rest: Any = None  # of a body that was read ahead: where it goes on, None where it is at its end
        self._is_ahead = False
        self._broken: Exception | None = None
        # the SDK asks the body for its tracing's observer at every event, so that looking it up must be cheap
        self.stream_observer: Any = getattr(stream, "stream_observer", None)

    @property
    def chunk_count(self) -> int:
        """Chunks that have come."""
        return len(self._chunks)

    def also(self, watcher: Watcher) -> None:
        """Has another watcher look at the same body; one that was there before looks first."""
        self._watchers.append(watcher)

    def _look(self) -> int:
        wait, cut = _NEVER, None
        for watcher in self._watchers:
            try:
                wait = min(wait, watcher.look(self._chunks))
            except Cut as word:  # the others look, too, before the body ends
                cut = word
            except Exception as trouble:
                quietly("watching a stream", trouble)
        if cut is not None:
            raise cut
        return wait

    def _ended(self, how: End, error: BaseException | None = None) -> None:
        watchers, self._watchers = self._watchers, []
        interrupt: BaseException | None = None
        for watcher in watchers:
            try:
                watcher.end(self._chunks, how, error)
            except Exception as trouble:
                quietly("recording the end of a stream", trouble)
            except (
                BaseException
            ) as interrupted:  # Ctrl-C in the middle of it: the end is told, then the interrupt goes on
                interrupt = interrupted
                with contextlib.suppress(Exception):
                    watcher.end(self._chunks, how, error)
        if watchers:
            self._chunks = []
        if interrupt is not None:
            raise interrupt

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

    _reading: Callable[[], GeneratorType[bytes, None, None] | None] = staticmethod(lambda: None)

    def read_ahead(self, is_enough: Enough) -> list[bytes]:
        """Reads until it is enough, or the end; gives what came. Whoever reads the body then gets all of it.

        An error on the way is kept until then, too.
        """
        chunks, source = self._chunks, iter(self._stream)
        self._is_ahead = True
        try:
            for chunk in source:
                chunks.append(chunk)
                self._wait -= 1
                if not self._wait:
                    self._wait = self._look()
                if is_enough(chunks):
                    self._rest = source
                    break
        except Exception as error:  # a watcher's word to cut it off here, too
            self._broken = error
        except BaseException as error:
            self._broke(error)
            self._stream.close()
            raise
        return chunks

    @property
    def is_suspended(self) -> bool:
        """Whether the reader has what came last and does not wait for more."""
        reading = self._reading()
        return reading is None or not reading.gi_running

    def __iter__(self) -> Iterator[bytes]:
        reading = cast("GeneratorType[bytes, None, None]", self._read())
        self._reading = weakref.ref(reading)  # not held: it holds this, and what is dropped is to end at once
        return reading

    def _read(self) -> Generator[bytes]:
        # between two looks all is done in C: a stream has thousands of chunks, and little else costs as much
        chunks, wait, source = self._chunks, self._wait, self._stream
        try:
            if self._is_ahead:
                source, self._rest, self._is_ahead = self._rest or (), None, False
                yield from tuple(chunks)
                if self._broken is not None:
                    raise self._broken
            kept = filterfalse(chunks.append, source)  # which gives nothing back, so that all pass
            while True:
                if wait > 1:
                    yield from islice(kept, min(wait - 1, sys.maxsize))
                chunk = next(kept, None)
                if chunk is None:
                    break
                wait = self._look()
                yield chunk
        except Cut as cut:
            self._broke(cut.error)
            self._stream.close()
            raise cut.error from None
        except BaseException as error:
            self._broke(error)
            raise
        self._ended("read")

    def close(self) -> None:
        error = _unreadable()
        try:
            self._stream.close()
        finally:
            self._ended("closed" if error is None else "failed", error)


class AsyncTee(_Tee, httpx2.AsyncByteStream):
    """A watched body of an async client."""

    is_suspended = True
    """Whether the reader has what came last and does not wait for more."""

    async def read_ahead(self, is_enough: Enough) -> list[bytes]:
        """The async twin of `SyncTee.read_ahead`."""
        chunks, source = self._chunks, aiter(self._stream)
        self._is_ahead = True
        try:
            async for chunk in source:
                chunks.append(chunk)
                self._wait -= 1
                if not self._wait:
                    self._wait = self._look()
                if is_enough(chunks):
                    self._rest = source
                    break
        except Exception as error:  # a watcher's word to cut it off here, too
            self._broken = error
        except BaseException as error:
            self._broke(error)
            await self._stream.aclose()
            raise
        return chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, wait, source = self._chunks, self._wait, self._stream
        self.is_suspended = False
        try:
            if self._is_ahead:
                source, self._rest, self._is_ahead = self._rest or _nothing(), None, False
                for chunk in tuple(chunks):
                    self.is_suspended = True
                    yield chunk
                    self.is_suspended = False
                if self._broken is not None:
                    raise self._broken
            async for chunk in source:
                chunks.append(chunk)
                wait -= 1
                if not wait:
                    wait = self._look()
                self.is_suspended = True
                yield chunk
                self.is_suspended = False
        except Cut as cut:
            self._broke(cut.error)
            await self._stream.aclose()
            raise cut.error from None
        except BaseException as error:
            self._broke(error)
            raise
        self._ended("read")

    async def aclose(self) -> None:
        error = _unreadable()
        try:
            await self._stream.aclose()
        finally:
            self._ended("closed" if error is None else "failed", error)


def _unreadable() -> Exception | None:
    """Why the SDK closes the body, where it could not make anything of what came: nobody has left it then."""
    error = sys.exc_info()[1]
    if not isinstance(error, Exception):
        return None
    frames = traceback.walk_tb(error.__traceback__)
    return error if any(frame.f_globals.get("__name__") in _READERS for frame, _ in frames) else None


_READERS = ("anthropic._streaming", "anthropic.lib.streaming._messages", "anthropic.lib.streaming._beta_messages")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""  # what makes it a generator


def watch(response: httpx2.Response, watcher: Watcher) -> SyncTee | AsyncTee:
    """Puts a tee between the response and its body, which has not been read yet, or adds to the one that is there."""
    stream = response.stream
    if isinstance(stream, (SyncTee, AsyncTee)):
        stream.also(watcher)
        return stream
    tee = AsyncTee if isinstance(stream, httpx2.AsyncByteStream) else SyncTee
    response.stream = watched = tee(stream, watcher)
    return watched


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
