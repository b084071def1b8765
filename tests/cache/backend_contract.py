"""What every backend of the cache does; each backend's tests inherit this class."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmnb.cache.backends import Backend, Item

Make = Callable[[], Backend]


class BackendContract:
    """`make` gives a new object each time, for the same place. Claims of the dead are free within `freed_within_s`."""

    freed_within_s = 0.0

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.fixture
    def backend(self, make: Make) -> Backend:
        return make()

    def test_what_was_put_is_there(self, backend: Backend) -> None:
        """Byte for byte, whatever the bytes, and in place of what was there."""
        everything = bytes(range(256)) * 300
        backend.put([Item("a", b"one"), Item("b", everything), Item("c/request", b"")])
        assert backend.get("a") == b"one"
        assert backend.get("b") == everything
        assert backend.get("c/request") == b""
        backend.put([Item("a", b"two")])
        assert backend.get("a") == b"two"

    def test_what_was_not_put_is_not_there(self, backend: Backend) -> None:
        """Before anything was kept, and after."""
        assert backend.get("a") is None
        assert backend.delete(["a"]) == 0
        backend.touch(["a"])
        backend.put([Item("a", b"x")])
        assert backend.get("b") is None
        assert backend.delete([]) == 0

    def test_another_object_sees_the_same(self, make: Make) -> None:
        """Another kernel, or this one tomorrow."""
        one, other = make(), make()
        assert other.get("a") is None
        one.put([Item("a", b"x")])
        assert other.get("a") == b"x"
        other.put([Item("a", b"y")])
        assert one.get("a") == b"y"
        one.close()
        assert one.get("a") == b"y"

    def test_what_was_deleted_is_gone(self, backend: Backend) -> None:
        """And the rest stays."""
        backend.put([Item(name, b"x") for name in "abc"])
        assert backend.delete(["a", "c", "z"]) == 2
        assert [backend.get(name) for name in "abc"] == [None, b"x", None]

    def test_what_has_expired_is_not_there(self, backend: Backend) -> None:
        """After its time to live, to a fraction of a second."""
        backend.put([Item("a", b"x", ttl_s=0.15), Item("b", b"x", ttl_s=60), Item("c", b"x")])
        assert backend.get("a") == b"x"
        time.sleep(0.2)
        assert [backend.get(name) for name in "abc"] == [None, b"x", b"x"]

    def test_names_and_size(self, backend: Backend) -> None:
        """Every name once, and how much there is."""
        assert list(backend.names()) == []
        assert backend.size().items == 0
        names = [f"{number:04}" for number in range(1_100)]
        backend.put([Item(name, b"x" * 100) for name in names])
        assert sorted(backend.names()) == names
        size = backend.size()
        assert size.items == 1_100
        assert size.bytes >= 110_000

    def test_the_beginning_of_values(self, backend: Backend) -> None:
        """A list need not read everything."""
        backend.put([Item("a", b"0123456789"), Item("b", b"01")])
        assert backend.peek(["a", "b", "c"], 4) == [b"0123", b"01", None]
        assert backend.peek([], 4) == []

    def test_where_it_is_can_be_said(self, backend: Backend) -> None:
        """In warnings and in `llmnb cache stats`."""
        assert backend.where

    def test_a_claim_is_one_process_s(self, make: Make) -> None:
        """Another process does not get it, until it is released, or its holder is dead."""
        backend = make()
        assert backend.claim("a")
        backend.renew(["a"])
        assert _in_another_process(make, "a") is False
        assert _in_another_process(make, "b") is True
        backend.release(["a"])
        assert _in_another_process(make, "a") is True
        deadline = time.monotonic() + self.freed_within_s  # the other process has ended without a word
        while not backend.claim("a"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_many_threads(self, backend: Backend) -> None:
        """Reading and writing at once, nothing is lost or torn."""

        def work(number: int) -> list[bytes | None]:
            value = str(number).encode() * 2_000
            backend.put([Item(f"own-{number}", value), Item("shared", value)])
            return [backend.get(f"own-{number}"), backend.get("shared")]

        with ThreadPoolExecutor(8) as pool:
            for number, (own, shared) in enumerate(pool.map(work, range(40))):
                assert own == str(number).encode() * 2_000
                assert shared in {str(other).encode() * 2_000 for other in range(40)}

    def test_two_processes_write_one_key(self, make: Make) -> None:
        """One of the values is there, whole."""
        context = multiprocessing.get_context("fork")
        backend = make()
        backend.put([Item("a", b"before")])
        workers = [context.Process(target=_write_often, args=(make, letter)) for letter in (b"x", b"y")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert backend.get("a") in (b"x" * 50_000, b"y" * 50_000)

    def test_a_forked_child_goes_on(self, make: Make) -> None:
        """Also when the parent has it open, and a thread of its is writing."""
        backend = make()
        backend.put([Item("a", b"x")])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                backend.put([Item("busy", b"x" * 10_000)])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            child = multiprocessing.get_context("fork").Process(target=_read_and_write, args=(backend,))
            child.start()
            child.join(60)
        finally:
            stop.set()
            writer.join()
        assert child.exitcode == 0
        assert backend.get("child") == b"was here"
        assert backend.get("a") == b"x"


def _in_another_process(make: Make, name: str) -> bool:
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()

    def claim() -> None:
        told.put(make().claim(name))

    process = context.Process(target=claim)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return told.get()


def _write_often(make: Make, letter: bytes) -> None:
    backend = make()
    for _ in range(30):
        backend.put([Item("a", letter * 50_000)])


def _read_and_write(backend: Backend) -> None:
    assert backend.get("a") == b"x"
    backend.put([Item("child", b"was here")])
