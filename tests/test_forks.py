"""Forks: a child knows that it is one, and what lives on in it is told."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest

from llmnb import forks
from llmnb.middleware import ledgered

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there are no forks"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Told:
    """Counts how often it was told, and how often it was closed."""

    def __init__(self) -> None:
        self.forks = self.closed = 0

    def after_fork(self) -> None:
        self.forks += 1

    def close(self) -> None:
        self.closed += 1


def in_child(true: Callable[[], bool]) -> bool:
    """Whether it is true in a forked child."""
    child = os.fork()
    if not child:
        os._exit(0 if true() else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_knows_its_own_number() -> None:
    """Without asking the operating system at every call."""
    assert forks.pid == os.getpid()
    parent = forks.pid
    assert in_child(lambda: forks.pid == os.getpid() != parent)


def test_what_lives_on_in_a_child_is_told_there() -> None:
    """And not in the parent."""
    told = Told()
    forks.tell(told)
    assert in_child(lambda: told.forks == 1)
    assert told.forks == 0


def test_there_is_one_thing_a_place_also_where_a_fork_came_in_the_middle() -> None:
    """Made on first use; a lock that was held at the fork holds nobody up in the child."""
    shelf: forks.OnePerPlace[str, Told] = forks.OnePerPlace()
    first = shelf.at("a", Told)
    assert shelf.at("a", Told) is first
    assert shelf.at("b", Told) is not first
    with shelf._making:  # pyright: ignore[reportPrivateUsage]
        assert in_child(lambda: shelf.at("c", Told) is shelf.known["c"] and shelf.at("a", Told) is first)


def test_uids_of_a_child_are_not_those_of_its_parent() -> None:
    """Both would go on drawing the same numbers, had nobody told the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, str(ledgered._random.getrandbits(72)).encode())  # pyright: ignore[reportPrivateUsage]
        os._exit(0)
    os.waitpid(child, 0)
    drawn = int(os.read(reading, 99))
    os.close(reading)
    os.close(writing)
    assert drawn != ledgered._random.getrandbits(72)  # pyright: ignore[reportPrivateUsage]


def test_what_grows_meanwhile_is_seen_whole() -> None:
    """Python's own iteration over a weak set fails when another thread adds to it, as one that opens a ledger does."""
    told = [Told(), Told(), Told()]

    class Growing(weakref.WeakSet[Told]):
        """One to which somebody adds while it is read."""

        def __iter__(self) -> Iterator[Told]:
            for one in super().__iter__():
                yield one
                self.update(told)

    assert set(forks.all_of(Growing(told[:1]))) == set(told)
