"""Gives a kept stream piece by piece, as fast as a person reads, where it would otherwise come all at once."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx2

from llmnb.messages import folding

_WORD = re.compile(r"\s*\S+|\s+$")
_READ = ("text_delta", "thinking_delta")


class ReadingSpeed(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The body of a stream, its text word by word."""

    def __init__(self, body: bytes, words_per_s: float) -> None:
        self._events = folding.events_of(body)
        self._pause_s = 1 / words_per_s

    def __iter__(self) -> Iterator[bytes]:
        for pause_s, chunk in self._pieces():
            time.sleep(pause_s)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause_s, chunk in self._pieces():
            await anyio.sleep(pause_s)
            yield chunk

    def _pieces(self) -> Iterator[tuple[float, bytes]]:
        """What comes, each after how many seconds."""
        first = True
        for event in self._events:
            delta: folding.Json = event.get("delta") or {}
            field = folding.PIECES.get(delta.get("type", ""), "")
            if delta.get("type") not in _READ:
                yield 0, folding.sse([event])
                continue
            for word in _WORD.findall(delta[field]):
                yield 0 if first else self._pause_s, folding.sse([{**event, "delta": {**delta, field: word}}])
                first = False
