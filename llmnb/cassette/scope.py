"""Which cassette is in force here: the innermost `with` of this thread or task, else the latest of the process.

A `with` block holds for what runs in its own context, which tasks and `asyncio.to_thread` inherit: two tasks can each
replay a cassette of their own. A thread that was started by other means has no context of the block's, and finds the
cassette that was opened last and is still open, so that under `replay` no thread reaches the network. A cassette that
was opened without `with`, as in a notebook, holds for the whole process until it is stopped or the next one is opened
without `with`.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar, Token
from typing import Protocol


class Scoped(Protocol):
    """What the scopes need to know of a cassette."""

    @property
    def is_open(self) -> bool:
        """Whether it was not stopped."""
        ...

    @property
    def in_block(self) -> bool:
        """Whether it was opened by `with`."""
        ...

    @property
    def needs_no_key(self) -> bool:
        """Whether nothing is sent while it is in force."""
        ...

    def stop(self) -> None:
        """Ends it."""
        ...


_open: list[Scoped] = []
_here: ContextVar[Scoped | None] = ContextVar("llmnb_cassette", default=None)
_lock = threading.RLock()


def opened(cassette: Scoped) -> None:
    """The cassette is in force in the whole process."""
    with _lock:
        _settle()
        _open.append(cassette)


def entered(cassette: Scoped) -> Token[Scoped | None]:
    """The cassette is in force in this context, too."""
    return _here.set(cassette)


def left(token: Token[Scoped | None]) -> None:
    """What was in force in this context before is so again."""
    try:
        _here.reset(token)
    except ValueError:  # left in another context than it was entered in, as a fixture of an async test may be
        _here.set(None)


def closed(cassette: Scoped) -> None:
    """The cassette is in force no longer."""
    with _lock:
        _open[:] = [other for other in _open if other is not cassette]


def anywhere() -> bool:
    """Whether any cassette is open in this process: the quick question of every call."""
    return bool(_open)


def in_force() -> Scoped | None:
    """The cassette in force here."""
    if not _open:
        return None
    here = _here.get()
    if here is not None and here.is_open:
        return here
    with _lock:
        _settle()
        return _open[-1] if _open else None


def needs_no_key() -> bool:
    """Whether what is called here is answered from a cassette, and nothing is sent."""
    if not _open:
        return False
    cassette = in_force()
    return cassette is not None and cassette.needs_no_key


def _settle() -> None:
    """Stops those opened without `with` that a later one has taken the place of.

    Not when that one is opened: it might be about to be entered by `with`.
    """
    plain = [cassette for cassette in _open if not cassette.in_block]
    for cassette in plain[:-1]:
        cassette.stop()
