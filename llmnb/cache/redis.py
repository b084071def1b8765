"""Keeps the cache in a Redis server, for several machines or a team. How much it keeps is the server's `maxmemory`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, cast
from urllib.parse import urlsplit

from llmnb.cache.backends import Item, Size, together
from llmnb.errors import MissingExtra

PREFIX = "llmnb:1:"
"""Before every name; another number when what is stored changes."""

_CLAIM_MS = 10_000
"""A claim that is not renewed this long is nobody's: its holder died."""
_PATIENCE_S = 1.0
"""A server that does not answer within this time is taken for gone; the call then goes on without it."""
_PAGE = 500

_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"


class RedisBackend:
    """A Redis server, by its address. The same server can hold other things, too."""

    def __init__(self, url: str) -> None:
        try:
            self._redis: Any = import_module("redis")
        except ImportError:
            raise MissingExtra("a response cache in Redis (LLMNB_CACHE_URL)", "redis") from None
        self._url = url
        self._lock = threading.Lock()
        self._client: Any = None
        self._pid = 0
        self._token = ""

    @property
    def where(self) -> str:
        parts = urlsplit(self._url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    def get(self, name: str) -> bytes | None:
        return cast("bytes | None", self._server().get(PREFIX + name))

    def peek(self, names: Sequence[str], length: int) -> list[bytes | None]:
        asked = self._server().pipeline(transaction=False)
        for name in names:
            asked.getrange(PREFIX + name, 0, length - 1)
        return [found or None for found in asked.execute()]

    def put(self, items: Iterable[Item]) -> None:
        for group in together(items):
            told = self._server().pipeline(transaction=False)
            for item in group:
                milliseconds = None if item.ttl_s is None else max(1, int(item.ttl_s * 1000))
                told.set(PREFIX + item.name, item.data, px=milliseconds)
            told.execute()

    def delete(self, names: Iterable[str]) -> int:
        full = [PREFIX + name for name in names]
        return cast("int", self._server().delete(*full)) if full else 0

    def touch(self, names: Iterable[str]) -> None:
        """Nothing: the server notes by itself what is used."""

    def names(self) -> Iterator[str]:
        seen: set[bytes] = set()  # a scan may tell a name twice
        for name in self._server().scan_iter(match=f"{PREFIX}[^:]*", count=_PAGE):
            if name not in seen:
                seen.add(name)
                yield name.decode().removeprefix(PREFIX)

    def size(self) -> Size:
        items = total = 0
        names = list(self.names())
        for first in range(0, len(names), _PAGE):
            asked = self._server().pipeline(transaction=False)
            for name in names[first : first + _PAGE]:
                asked.strlen(PREFIX + name)
            lengths = [length for length in asked.execute() if length]
            items += len(lengths)
            total += sum(lengths)
        return Size(items, total, None)

    # Claims -----------------------------------------------------------------------------------------------------------

    def claim(self, name: str) -> bool:
        server = self._server()
        return bool(server.set(_claim(name), self._token, nx=True, px=_CLAIM_MS))

    def renew(self, names: Iterable[str]) -> None:
        server = self._server()
        for name in names:
            server.eval(_RENEW, 1, _claim(name), self._token, _CLAIM_MS)

    def release(self, names: Iterable[str]) -> None:
        server = self._server()
        for name in names:
            server.eval(_RELEASE, 1, _claim(name), self._token)

    # ------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _server(self) -> Any:
        """The client, another one in a forked child: a claim is one process's."""
        if self._client is None or self._pid != os.getpid():
            with self._lock:
                if self._client is None or self._pid != os.getpid():
                    retry = self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 1)  # a connection that went stale
                    client = self._redis.Redis.from_url(
                        self._url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S, retry=retry
                    )
                    self._client, self._pid, self._token = client, os.getpid(), os.urandom(12).hex()
        return self._client


def _claim(name: str) -> str:
    return f"{PREFIX}:asking:{name}"
