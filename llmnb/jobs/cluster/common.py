"""Whether the processes of a run keep the same books: one leaves a mark in the ledger and the response cache, the
others look for it. Two addresses may lead to one database, and the same address to two.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmnb.cache.backends import Backend, Item, open_backend
from llmnb.ledger import new_ledger
from llmnb.ledger.sql import Store
from llmnb.settings import Settings

_TTL_S = 7 * 86_400.0
"""Longer than runs take: workers that come late look for the mark, too."""


@dataclass(frozen=True)
class Mark:
    """A mark that a process has left, and the machine that it runs on."""

    name: str
    host: str


@dataclass(frozen=True)
class Seen:
    """What another process found: whether the mark is in its ledger and in its response cache, and where these are."""

    in_ledger: bool
    in_cache: bool
    is_file: bool
    is_folder: bool
    same_host: bool
    ledger: str
    cache: str


@contextmanager
def marked(settings: Settings) -> Generator[tuple[Mark, Backend]]:
    """Leaves a mark for as long as the block takes; with the response cache that it is in.

    Raises:
        StoreError: the ledger cannot be written.
        Exception: what the response cache's library raises.
    """
    mark = Mark(f"mark-{secrets.token_hex(8)}", socket.gethostname())
    store, backend = new_ledger(settings.ledger_path), open_backend(settings)
    try:
        # the table of rate limits: its names are free, and whoever asks shares it anyway
        with store.transaction() as connection:
            connection.execute("INSERT INTO pacing (account, state) VALUES (?, '{}')", (mark.name,))
        backend.put([Item(mark.name, b"here", _TTL_S)])
        yield mark, backend
    finally:
        with suppress(Exception):
            _wipe(store, backend, mark)
        _close(store, backend)


def seen(mark: Mark, settings: Settings) -> Seen:
    """What this process sees of a mark.

    Raises:
        StoreError: the ledger cannot be read.
        Exception: what the response cache's library raises.
    """
    store, backend = new_ledger(settings.ledger_path), open_backend(settings)
    try:
        with store.transaction(reading=True) as connection:
            found = connection.execute("SELECT 1 FROM pacing WHERE account = ?", (mark.name,)).fetchone()
        return Seen(
            in_ledger=found is not None,
            in_cache=backend.get(mark.name) is not None,
            is_file=isinstance(settings.ledger_path, Path),
            is_folder=settings.cache_url is None,
            same_host=socket.gethostname() == mark.host,
            ledger=str(settings.ledger_path),
            cache=backend.where,
        )
    finally:
        _close(store, backend)


def _wipe(store: Store, backend: Backend, mark: Mark) -> None:
    with store.transaction() as connection:
        connection.execute("DELETE FROM pacing WHERE account = ?", (mark.name,))
    backend.delete([mark.name])


def _close(store: Store, backend: Backend) -> None:
    with suppress(Exception):
        store.close()
    with suppress(Exception):
        backend.close()
