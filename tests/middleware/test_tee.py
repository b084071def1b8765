"""A tee sees every chunk, and every end of a body exactly once."""

from __future__ import annotations

import asyncio
import gc
import gzip
import warnings
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from llmnb import trouble
from llmnb.middleware.tee import AsyncTee, End, SyncTee, decoded, watch

CHUNKS = [b"one", b"two", b"three"]


class Seen:
    """A watcher that remembers."""

    def __init__(self, *, broken: bool = False, every: int = 1) -> None:
        self.chunks: list[bytes] = []
        self.looks: list[int] = []
        self.every = every
        self.ends: list[tuple[End, type[BaseException] | None]] = []
        self.broken = broken

    def look(self, chunks: list[bytes]) -> int:
        if self.broken:
            raise RuntimeError("watcher is broken")
        self.looks.append(len(chunks))
        return self.every

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        self.chunks = list(chunks)
        self.ends.append((how, type(error) if error else None))
        if self.broken:
            raise RuntimeError("watcher is broken")


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of three chunks that can break after the second."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.closed = 0
        self.elapsed = "the time it took"

    def __iter__(self) -> Iterator[bytes]:
        for number, chunk in enumerate(CHUNKS):
            if number == 2 and self.error:
                raise self.error
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def test_reading_to_the_end_is_seen_once_also_when_closed_after() -> None:
    """httpx closes what it has read out; that is no second end."""
    seen, body = Seen(), Body()
    tee = SyncTee(body, seen)
    assert list(tee) == CHUNKS == seen.chunks
    tee.close()
    del tee
    assert seen.ends == [("read", None)]
    assert body.closed == 1


@pytest.mark.parametrize("error", [httpx2.ReadError("gone"), KeyboardInterrupt()])
def test_an_error_in_the_middle_is_seen_and_passed_on(error: BaseException) -> None:
    """The reader gets the very error; the watcher is told its type."""
    seen = Seen()
    with pytest.raises(type(error)) as caught:
        list(SyncTee(Body(error), seen))
    assert caught.value is error
    assert seen.ends == [("failed", type(error))]
    assert seen.chunks == CHUNKS[:2]


def test_a_reader_that_stops_early_is_seen() -> None:
    """Closing the iterator, as leaving a for loop does."""
    seen = Seen()
    iterator = iter(SyncTee(Body(), seen))
    next(iterator)
    iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert seen.ends == [("closed", GeneratorExit)]


def test_closing_without_reading_is_seen() -> None:
    """A stream opened and never used."""
    seen = Seen()
    SyncTee(Body(), seen).close()
    assert seen.ends == [("closed", None)]


def test_dropping_without_closing_is_seen() -> None:
    """A stream left in a variable that goes away."""
    seen = Seen()
    tee = SyncTee(Body(), seen)
    del tee
    gc.collect()
    assert seen.ends == [("dropped", None)]


async def test_the_async_tee_sees_the_same_ends() -> None:
    """Read out, broken, cancelled, closed, dropped."""
    read, broken, cancelled, closed, dropped = Seen(), Seen(), Seen(), Seen(), Seen()
    assert [chunk async for chunk in AsyncTee(Body(), read)] == CHUNKS
    with pytest.raises(httpx2.ReadError):
        _ = [chunk async for chunk in AsyncTee(Body(httpx2.ReadError("gone")), broken)]
    with pytest.raises(asyncio.CancelledError):
        _ = [chunk async for chunk in AsyncTee(Body(asyncio.CancelledError()), cancelled)]
    await AsyncTee(Body(), closed).aclose()
    tee = AsyncTee(Body(), dropped)
    del tee
    gc.collect()
    assert [seen.ends for seen in (read, broken, cancelled, closed, dropped)] == [
        [("read", None)],
        [("failed", httpx2.ReadError)],
        [("failed", asyncio.CancelledError)],
        [("closed", None)],
        [("dropped", None)],
    ]


def test_a_watcher_looks_as_often_as_it_wants() -> None:
    """At the first chunk, and then after as many as it said."""
    often, seldom = Seen(), Seen(every=2)
    list(SyncTee(Body(), often))
    list(SyncTee(Body(), seldom))
    assert (often.looks, seldom.looks) == ([1, 2, 3], [1, 3])


def test_a_broken_watcher_never_reaches_the_reader() -> None:
    """The reader gets every byte; a warning each says that the watching and the recording failed."""
    trouble.forget_warnings()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert list(SyncTee(Body(), Seen(broken=True))) == CHUNKS
    assert [warning.category for warning in said] == [trouble.LlmnbWarning] * 2
    with warnings.catch_warnings():  # also when the user made warnings errors
        warnings.simplefilter("error")
        trouble.forget_warnings()
        assert list(SyncTee(Body(), Seen(broken=True))) == CHUNKS


def test_an_interrupt_while_the_end_is_recorded_does_not_lose_it() -> None:
    """Ctrl-C can come at any moment; the end is told all the same, and the interrupt goes on."""
    ends: list[End] = []

    class Interrupted(Seen):
        def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
            super().end(chunks, how, error)
            if len(self.ends) == 1:
                raise KeyboardInterrupt
            ends.append(how)
            assert self.chunks == CHUNKS

    with pytest.raises(KeyboardInterrupt):
        list(SyncTee(Body(), Interrupted()))
    assert ends == ["read"]


def test_attributes_of_the_body_shine_through() -> None:
    """httpx reads `elapsed` from the body, the SDK's tracing its observer."""
    body = Body()
    body.stream_observer = "observer"  # pyright: ignore[reportAttributeAccessIssue]
    tee = SyncTee(body, Seen())
    assert tee.elapsed == "the time it took"
    assert tee.stream_observer == "observer"


def test_watch_puts_the_tee_that_fits_the_body() -> None:
    """httpx refuses to read an async body in sync code, and the tee must not change that."""

    class Async(httpx2.AsyncByteStream):
        pass

    class Sync(httpx2.SyncByteStream):
        pass

    for stream, kind in ((Async(), AsyncTee), (Sync(), SyncTee)):
        response = httpx2.Response(200, stream=stream)
        watch(response, Seen())
        assert type(response.stream) is kind


def test_decoding_gives_what_there_is_of_a_body_cut_off() -> None:
    """A gzipped body as a whole, and its first half."""
    text = bytes(range(256)) * 50
    raw, headers = gzip.compress(text), httpx2.Headers({"content-encoding": "gzip"})
    assert decoded(raw, headers) == text
    assert text.startswith(decoded(raw[: len(raw) // 2], headers))
    assert decoded(b"plain", httpx2.Headers()) == b"plain"
