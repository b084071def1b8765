"""The folder of the cache: the contract, its limit, its modes, and that nothing is ever unpickled."""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
from pathlib import Path
from typing import Any

import diskcache
import pytest

from llmnb.cache.backends import Backend, Item, Pickled
from llmnb.cache.disk import BytesDisk, DiskBackend

from .backend_contract import BackendContract, Make

MIB = 2**20


class TestDisk(BackendContract):
    """The folder keeps the contract."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: DiskBackend(tmp_path / "cache", 100 * MIB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def backend(folder: Path) -> Backend:
    return DiskBackend(folder, 100 * MIB)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_nobody_else_may_read_it(folder: Path, backend: Backend) -> None:
    """The folder is 0700, also one that was there with other ones; the file 0600."""
    folder.mkdir(mode=0o755)
    backend.put([Item("a", b"x")])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "cache.db").stat().st_mode & 0o777 == 0o600


def test_looking_creates_nothing(folder: Path, backend: Backend) -> None:
    """A miss leaves no folder behind."""
    assert backend.get("a") is None
    assert list(backend.names()) == []
    assert not folder.exists()


def test_what_was_used_least_recently_goes_first(folder: Path) -> None:
    """At the limit; what was touched lately stays."""
    backend = DiskBackend(folder, 2 * MIB)
    backend.put([Item(f"{number:03}", os.urandom(20_000)) for number in range(60)])
    backend.touch(["000"])
    for number in range(60, 120):
        backend.put([Item(f"{number:03}", os.urandom(20_000))])
    names = set(backend.names())
    assert "000" in names
    assert "119" in names
    assert "001" not in names
    assert backend.size().bytes <= 2 * MIB
    assert backend.size().limit_bytes == 2 * MIB


def test_the_folder_is_nothing_but_a_database(folder: Path, backend: Backend) -> None:
    """Large values, too, stand in it: no file of a value can be cut off, exchanged or left behind."""
    backend.put([Item("big", os.urandom(5 * MIB))])
    backend.close()
    assert sorted(path.name for path in folder.iterdir()) == ["cache.db"]


# Nothing is ever unpickled --------------------------------------------------------------------------------------------


class Hostile:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_planted_pickle_is_never_loaded(folder: Path, backend: Backend, tmp_path: Path) -> None:
    """As value or as key, written by diskcache itself, in the database or in a file."""
    trace = tmp_path / "trace"
    with diskcache.Cache(str(folder)) as planted:
        planted.set("small", Hostile(trace))
        planted.set("large", [Hostile(trace), "x" * 100_000])
        planted.set(Hostile(trace), b"a value under a hostile key")
    assert not trace.exists()
    for name in ("small", "large"):
        with pytest.raises(Pickled):
            backend.get(name)
    assert set(backend.names()) == {"small", "large"}
    assert backend.peek(["small", "large"], 10) == [None, None]
    assert backend.size().items == 3
    backend.put([Item("ours", b"x")])
    backend.touch(["small", "ours"])
    assert backend.delete(["small", "large"]) == 2
    assert backend.get("ours") == b"x"
    assert not trace.exists()
    with diskcache.Cache(str(folder)) as planted:
        list(planted)  # the trap does work: diskcache unpickles the key
    assert trace.exists()


def test_a_hostile_pickle_does_not_survive_eviction_either(folder: Path, tmp_path: Path) -> None:
    """The oldest go by their row numbers; nothing is loaded, and a planted name deletes no file."""
    trace, precious = tmp_path / "trace", tmp_path / "precious.txt"
    precious.write_text("mine")
    with diskcache.Cache(str(folder)) as planted:
        planted.set("old", Hostile(trace))
    with sqlite3.connect(folder / "cache.db") as connection:
        connection.execute("UPDATE Cache SET filename = '../precious.txt', mode = 4, access_time = 1")
    connection.close()
    backend = DiskBackend(folder, MIB)
    for number in range(80):
        backend.put([Item(str(number), os.urandom(20_000))])
    assert "old" not in set(backend.names())
    assert not trace.exists()
    assert precious.read_text() == "mine"


def test_the_disk_takes_bytes_and_nothing_else() -> None:
    """Also through diskcache's own doors."""
    disk = BytesDisk("/nowhere")
    for value in ("text", 1, None, [b"x"], Hostile(Path("/x"))):
        with pytest.raises(TypeError):
            disk.store(value, False)
    with pytest.raises(TypeError):
        disk.store(b"x", True)
    for key in (b"x", 1, None):
        with pytest.raises(TypeError):
            disk.put(key)
    for mode, value in ((4, pickle.dumps(1)), (2, None), (3, None), (1, "text"), (1, 7), (None, b"x")):
        with pytest.raises(Pickled):
            disk.fetch(mode, "file", value, False)
    with pytest.raises(Pickled):
        disk.get(pickle.dumps(1), False)
