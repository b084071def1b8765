"""What code must know of forks: which process it runs in, and what has to begin anew in a child.

A forked child has all that its parent had in memory, but not the threads that were at work on it.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

pid = os.getpid()
"""The process that this runs in. To ask the operating system would be one of the dearest things that a call does."""


class Forked(Protocol):
    """Something that lives on in a forked child."""

    def after_fork(self) -> None:
        """Begins anew, in the child: what was under way is the parent's, and so may be who held a lock."""
        ...


class Kept(Forked, Protocol):
    """The same that is closed when the process ends."""

    def close(self) -> None:
        """Finishes what is to be finished."""
        ...


PlaceT = TypeVar("PlaceT")
KeptT = TypeVar("KeptT", bound=Kept)
ThingT = TypeVar("ThingT")
_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def all_of(known: weakref.WeakSet[ThingT]) -> list[ThingT]:
    """All that is in a weak set now, also while other threads add to it, for which Python's own iteration fails."""
    while True:
        try:
            return list(known)
        except RuntimeError:  # set changed size during iteration
            continue


def tell(forked: Forked) -> None:
    """Has it told, in every child that is forked while it lives."""
    _told.add(forked)


class OnePerPlace(Generic[PlaceT, KeptT]):
    """One thing a process and place, made on first use, the same for everybody who asks, closed at exit."""

    def __init__(self) -> None:
        self.known: dict[PlaceT, KeptT] = {}
        """What was made, by place."""
        self._making = threading.Lock()
        tell(self)

    def at(self, place: PlaceT, make: Callable[[], KeptT]) -> KeptT:
        """What is at the place; `make` makes it where there is nothing yet."""
        with self._making:
            if place not in self.known:
                self.known[place] = found = make()
                atexit.register(found.close)
            return self.known[place]

    def after_fork(self) -> None:
        self._making = threading.Lock()


_in_child_too: list[Callable[[], object]] = []


def in_child(function: Callable[[], object]) -> None:
    """Has it called in every child that is forked from now on."""
    _in_child_too.append(function)


def _in_child() -> None:
    global pid
    pid = os.getpid()
    for forked in list(_told):
        forked.after_fork()
    for function in _in_child_too:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
