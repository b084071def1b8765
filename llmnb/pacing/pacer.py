"""The accounts of this process, and where they are shared."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

from llmnb import forks
from llmnb.ledger import new_ledger
from llmnb.ledger.sql import Store
from llmnb.pacing.account import Account, Clock
from llmnb.pacing.allowance import KINDS
from llmnb.pacing.credentials import account_of
from llmnb.pacing.shelves import BUSY_S, Shelf, in_redis, in_store
from llmnb.settings import Settings


class WallClock:
    """The machine's own."""

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()

    @staticmethod
    def real_s(seconds: float) -> float:
        """As many."""
        return seconds


class Pacer:
    """The accounts that share one store and one set of limits of the user's own."""

    def __init__(self, settings: Settings, shelf: Shelf | None = None) -> None:
        self.clock: Clock = WallClock()
        given = (
            settings.requests_per_minute,
            settings.input_tokens_per_minute,
            settings.output_tokens_per_minute,
        )
        self._caps = {kind: float(cap) for kind, cap in zip(KINDS, given, strict=False) if cap is not None}
        self.longest_retry_wait_s = settings.longest_retry_wait_s
        """However long the API asks to wait, nobody waits longer, as between the SDK's attempts."""
        self._settings = settings
        self._given = shelf
        self.after_fork()
        forks.tell(self)

    def after_fork(self) -> None:
        """Begins anew in a forked child: what is under way is the parent's."""
        self._lock = threading.Lock()
        self._shelf = self._given
        self._store: Store | None = None
        self.known: dict[tuple[str, str], Account] = {}

    def account(self, scope: str, model: str) -> Account:
        """The account that a scope (address and key, see `scope_of`) has with a model."""
        known = self.known.get((scope, model))
        if known is None:
            with self._lock:
                if (scope, model) not in self.known:
                    self.known[scope, model] = Account(f"{scope} {model}", self._kept_in(), self._caps)
                known = self.known[scope, model]
        return known

    def _kept_in(self) -> Shelf:
        if self._shelf is None:
            url = self._settings.cache_url
            self._shelf = in_store(self._opened) if url is None else in_redis(url)
        return self._shelf

    def _opened(self) -> Store:
        if self._store is None:
            self._store = new_ledger(self._settings.ledger_path, busy_timeout_s=BUSY_S)
        return self._store


def scope_of(client: Any) -> str:
    """What limits are kept apart by, as far as a client knows; the key is in it as a hash that cannot be undone."""
    return hashlib.blake2b(repr(account_of(client)).encode(), person=b"llmnb-pacing", digest_size=12).hexdigest()


_pacers: dict[tuple[object, ...], Pacer] = {}
_lock = threading.Lock()


def pacer(settings: Settings) -> Pacer:
    """The pacer of these settings, the same one for the whole process."""
    key = (
        settings.ledger_path,
        settings.cache_url,
        settings.requests_per_minute,
        settings.input_tokens_per_minute,
        settings.output_tokens_per_minute,
        settings.longest_retry_wait_s,
    )
    with _lock:
        if key not in _pacers:
            _pacers[key] = Pacer(settings)
        return _pacers[key]
