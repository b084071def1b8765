"""Where allowances are kept, so that all who share an account see the same: here, in the ledger's store, in Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, TypeAlias, cast

from llmnb.errors import MissingExtra, StoreBusy
from llmnb.ledger.sql import Store
from llmnb.pacing.allowance import Allowance
from llmnb.trouble import quietly

BUSY_S = 0.02
"""How long a locked store is waited for: an event loop may be waiting with it."""
PREFIX = "llmnb:pacing:1:"
_REDIS_S = 1.0
_KEPT_S = 3600
"""An allowance that nobody has changed for so long is full again."""

Changed: TypeAlias = Callable[[Allowance], float]


class Shelf(Protocol):
    """Keeps allowances by key. `update` is atomic, and never raises but what `change` does."""

    def update(self, key: str, change: Changed) -> float:
        """Has an allowance changed, and gives what the change gave."""
        ...

    def note(self, key: str, change: Changed) -> None:
        """The same of what is only good to know: where others cannot be reached, there is nothing to be said of it."""
        ...


class MemoryShelf:
    """For one process, and for the time in which the others cannot be reached."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: see Account
        self._kept: dict[str, Allowance] = {}

    def update(self, key: str, change: Changed) -> float:
        with self._lock:
            return change(self._kept.setdefault(key, Allowance()))

    def note(self, key: str, change: Changed) -> None:
        self.update(key, change)

    def put(self, key: str, allowance: Allowance) -> None:
        """What is known elsewhere, to go on with."""
        self._kept[key] = allowance


class SharedShelf:
    """One that others can see; while they cannot be reached this process goes on by itself."""

    def __init__(self, changed: Callable[[str, Changed], tuple[float, Allowance]]) -> None:
        self._changed = changed
        self._alone = MemoryShelf()

    def update(self, key: str, change: Changed) -> float:
        try:
            result, allowance = self._changed(key, change)
        except Exception as trouble:  # locked for a moment, or gone
            if not isinstance(trouble, StoreBusy):
                quietly("sharing rate limits", trouble, but="it keeps to them without knowing of other processes")
            return self._alone.update(key, change)
        self._alone.put(key, allowance)
        return result

    def note(self, key: str, change: Changed) -> None:
        with suppress(Exception):
            self._changed(key, change)


def in_store(opened: Callable[[], Store]) -> Shelf:
    """In the ledger, SQLite or PostgreSQL."""

    def changed(key: str, change: Changed) -> tuple[float, Allowance]:
        with opened().transaction() as connection:
            row = connection.execute("SELECT state FROM pacing WHERE account = ?", (key,)).fetchone()
            allowance = Allowance.read(None if row is None else json.loads(row[0]))
            result = change(allowance)
            connection.execute(
                "INSERT INTO pacing (account, state) VALUES (?, ?) "
                "ON CONFLICT (account) DO UPDATE SET state = excluded.state",
                (key, json.dumps(allowance.written())),
            )
        return result, allowance

    return SharedShelf(changed)


def in_redis(url: str) -> Shelf:
    """In a Redis server.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        redis: Any = import_module("redis")
    except ImportError:
        raise MissingExtra("pacing through Redis (LLMNB_CACHE_URL)", "redis") from None
    client = redis.Redis.from_url(url, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S)

    def changed(key: str, change: Changed) -> tuple[float, Allowance]:
        name, found = PREFIX + key, list[tuple[float, Allowance]]()

        def once(pipe: Any) -> None:  # again when another process was faster
            kept = cast("bytes | None", pipe.get(name))
            allowance = Allowance.read(None if kept is None else json.loads(kept))
            found.append((change(allowance), allowance))
            pipe.multi()
            pipe.set(name, json.dumps(allowance.written()), ex=_KEPT_S)

        client.transaction(once, name)
        return found[-1]

    return SharedShelf(changed)
