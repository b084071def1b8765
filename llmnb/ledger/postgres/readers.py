"""Connections that only read, kept for the next reader: to connect takes longer than most questions do."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from llmnb.errors import StoreError
from llmnb.ledger.postgres.connection import PostgresConnection
from llmnb.places import PostgresPlace

_IDLE_CONNECTIONS = 4
_IDLE_S = 60.0

_idle: dict[PostgresPlace, list[tuple[float, PostgresConnection]]] = {}
_lock = threading.Lock()


@contextmanager
def reading(place: PostgresPlace) -> Generator[PostgresConnection | None]:
    """A connection that only reads, or None when there is no ledger in the database yet; nothing is created.

    Raises:
        StoreError: the database cannot be reached.
    """
    connection, has_calls = _reader(place)
    try:
        yield connection if has_calls else None
    finally:
        if connection.in_transaction:
            with suppress(StoreError):
                connection.execute("ROLLBACK")
        _keep(connection)


def _reader(place: PostgresPlace) -> tuple[PostgresConnection, bool]:
    while (idle := _taken(place)) is not None:
        try:
            return idle, _has_calls(idle)
        except StoreError:  # the server was started anew, say
            idle.close()
    fresh = PostgresConnection(place, reads=True)
    return fresh, _has_calls(fresh)


def _has_calls(connection: PostgresConnection) -> bool:
    return bool(connection.run("SELECT to_regclass('calls') IS NOT NULL").fetchone()[0])


def _taken(place: PostgresPlace) -> PostgresConnection | None:
    with _lock:
        kept = _idle.get(place, [])
        while kept:
            since, connection = kept.pop()
            if connection.is_usable and time.monotonic() - since < _IDLE_S:
                return connection
            connection.close()
    return None


def _keep(connection: PostgresConnection) -> None:
    with _lock:
        kept = _idle.setdefault(connection.place, [])
        if connection.is_usable and not connection.in_transaction and len(kept) < _IDLE_CONNECTIONS:
            kept.append((time.monotonic(), connection))
            return
    connection.close()


@atexit.register
def close_idle() -> None:
    """Closes what is kept for readers."""
    with _lock:
        kept = [connection for of_place in _idle.values() for _, connection in of_place]
        _idle.clear()
    for connection in kept:
        connection.close()


_parents: list[object] = []


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _parents.extend(_idle.values())  # never closed here: the server would take it for the parent's farewell
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
