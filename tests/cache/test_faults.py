"""What can go wrong with the place of the cache: every call goes through live, and one warning says why."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb import trouble
from llmnb.cache import responses as responses_room
from llmnb.cache.backends import Item
from llmnb.cache.disk import DiskBackend
from llmnb.cache.responses import ResponseCache, responses
from llmnb.ledger import books
from llmnb.records import Caching, calling
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning

from .. import processes
from ..redis_server import RedisServer

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Explain WAL."}],
}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with serve_simulator() as running:
        yield running
        assert running.crashes == []


@pytest.fixture
def plain(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    with simulator.client(max_retries=0) as client:
        yield client


@pytest.fixture
def client(plain: anthropic.Anthropic) -> anthropic.Anthropic:
    return llmnb.wrap(plain, cache=True)


@pytest.fixture
def folder(llmnb_home: Path) -> Path:
    return llmnb_home / "cache"


@pytest.fixture(autouse=True)
def _say_everything() -> None:
    trouble.forget_warnings()


class Heard:
    """The warnings of a block."""

    def __init__(self) -> None:
        self._catching = warnings.catch_warnings(record=True)
        self.messages: list[str] = []

    def __enter__(self) -> Heard:
        self._caught = self._catching.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error: object) -> None:
        self._catching.__exit__(*error)
        assert {one.category for one in self._caught} <= {LlmnbWarning}
        self.messages = [str(one.message) for one in self._caught]


def ask(client: anthropic.Anthropic, **changes: Any) -> anthropic.types.Message:
    return client.messages.create(**{**QUESTION, **changes})


def ask_thrice(client: anthropic.Anthropic) -> None:
    """Three questions, each with an answer, and time for what is written to be written."""
    for number in range(3):
        assert ask(client, system=f"Number {number}").content
        responses().settle()


def settled(client: anthropic.Anthropic) -> anthropic.types.Message:
    """An answer that is on disk."""
    message = ask(client)
    responses().settle()
    return message


# The folder -----------------------------------------------------------------------------------------------------------


def test_the_folder_is_deleted(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """Under a running kernel: what was kept is gone, what comes is kept anew, and there is nothing to say."""
    first = settled(client)
    shutil.rmtree(folder)
    with Heard() as heard:
        again = settled(client)
        assert again.id != first.id or len(simulator.requests) == 2
        assert ask(client).id == again.id
    assert len(simulator.requests) == 2
    assert heard.messages == []
    assert (folder / "cache.db").exists()


def test_only_the_database_is_deleted(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """And its log stays behind: it is another file's."""
    settled(client)
    (folder / "cache.db").unlink()
    with Heard() as heard:
        settled(client)
        ask(client)
    assert len(simulator.requests) == 2
    assert heard.messages == []


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_folder_that_may_only_be_read(simulator: Simulator) -> None:
    """What is in it is found; what is not is asked, and one warning says that it is not kept."""
    home = Path(tempfile.mkdtemp())  # one that everybody can reach, unlike pytest's own
    settings = llmnb.settings.load(home=home)
    try:
        with simulator.client() as plain:
            client = llmnb.wrap(plain, cache=True, settings=settings)
            kept = ask(client)
            responses(settings).close()
            books(settings).close()
            for path in [home, *home.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)

            def check() -> None:
                trouble.forget_warnings()
                if os.geteuid() == 0:
                    os.seteuid(65534)  # root's rights ignore every mode
                with Heard() as heard:
                    assert ask(client).id == kept.id
                    for number in range(3):
                        assert ask(client, system=f"Number {number}").content
                        responses(settings).settle()
                    assert ask(client).id == kept.id
                said = [one for one in heard.messages if "response cache" in one]
                assert len(said) == 1
                assert "cannot be written" in said[0]

            process = multiprocessing.get_context("fork").Process(target=check)
            process.start()
            process.join(60)
            assert process.exitcode == 0
        assert len(simulator.requests) == 4
    finally:
        for path in [home, *home.rglob("*")]:
            path.chmod(0o700)
        shutil.rmtree(home)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(simulator: Simulator, plain: anthropic.Anthropic, tmp_path: Path, monkeypatch: Any) -> None:
    """Nothing is kept any more, once said; what was kept is found."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    settings = llmnb.settings.load(home=disk, store_url=f"sqlite:///{tmp_path}/ledger.db")
    try:
        client = llmnb.wrap(plain, cache=True, settings=settings)
        first = ask(client)
        responses(settings).settle()
        (disk / "filler").write_bytes(b"x" * shutil.disk_usage(disk).free)
        with Heard() as heard:
            for number in range(3):
                assert ask(client, system=f"{number} {'long ' * 2_000}").content
                responses(settings).settle()
            assert ask(client).id == first.id
        assert len(simulator.requests) == 4
        assert len([one for one in heard.messages if "response cache" in one]) == 1
        (disk / "filler").unlink()
        responses(settings)._no_writing.end()
        kept = ask(client, system="room again")
        responses(settings).settle()
        assert ask(client, system="room again").id == kept.id
    finally:
        responses(settings).close()
        books(settings).close()
        subprocess.run(["umount", str(disk)], check=True)


# The files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 50, 4_096, 5_000])
def test_a_database_that_was_cut_off(
    simulator: Simulator, client: anthropic.Anthropic, folder: Path, keep: int
) -> None:
    """Under a running kernel; it is deleted and begun anew."""
    settled(client)
    responses().close()
    os.truncate(folder / "cache.db", keep)
    with Heard() as heard:
        ask_thrice(client)
        responses()._no_reading.end()
        responses()._no_writing.end()
        kept = settled(client)
        assert ask(client).id == kept.id
    assert len(heard.messages) <= 1
    assert 4 <= len(simulator.requests) <= 5


def test_a_database_that_is_none(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """Any other file of that name is no cache; the cache takes its place."""
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(random.Random(1).randbytes(20_000))
    with Heard() as heard:
        ask_thrice(client)
        responses()._no_reading.end()
        responses()._no_writing.end()
        kept = settled(client)
        assert ask(client).id == kept.id
    assert len(heard.messages) == 1
    assert "cannot be read" in heard.messages[0]
    assert len(simulator.requests) == 4


def test_flipped_bits_anywhere_in_the_file(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """Whatever SQLite or the checksum makes of them: an answer is the right one, or it is asked again."""
    for number in range(8):
        ask(client, system=f"Number {number}")
    responses().close()
    sound = {number: ask(client, system=f"Number {number}").to_json() for number in range(8)}
    responses().close()
    whole = (folder / "cache.db").read_bytes()
    dice = random.Random(7)
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(30):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        for path in folder.glob("cache.db*"):
            path.unlink()
        (folder / "cache.db").write_bytes(damaged)
        trouble.forget_warnings()
        responses()._no_reading.end()
        responses()._no_writing.end()
        with Heard() as heard:
            for number, expected in sound.items():
                asked = len(simulator.requests)
                found = ask(client, system=f"Number {number}").to_json()
                if len(simulator.requests) == asked:
                    assert found == expected
            responses().settle()
        assert len(heard.messages) <= 3
        responses().close()


def test_a_flipped_bit_in_a_stored_value(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """The checksum makes it a miss, it is removed and replaced, and one warning says so."""
    first = settled(client)
    with sqlite3.connect(folder / "cache.db") as connection:
        [(key, value)] = connection.execute("SELECT key, value FROM Cache").fetchall()
        damaged = bytearray(value)
        damaged[len(damaged) // 2] ^= 4
        connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (bytes(damaged), key))
    connection.close()
    with Heard() as heard:
        again = settled(client)
        assert ask(client).id == again.id
    assert again.id != first.id or len(simulator.requests) == 2
    assert len(simulator.requests) == 2
    assert len(heard.messages) == 1
    assert "its checksum is wrong" in heard.messages[0]
    assert "is removed, and what was asked is asked again" in heard.messages[0]


def test_an_entry_of_another_version(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Written by an older llmnb, or by a newer one."""
    settled(client)
    backend = responses().backend
    [key] = backend.names()
    older = bytearray(backend.get(key) or b"")
    older[7] = 0
    backend.put([Item(key, bytes(older))])
    with Heard() as heard:
        settled(client)
        ask(client)
    assert len(simulator.requests) == 2
    assert [one.count("another version of llmnb wrote it (format 0") for one in heard.messages] == [1]


def test_the_answer_to_another_question(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """An entry that stands under a wrong name is not believed."""
    first, other = settled(client), ask(client, system="Other")
    responses().settle()
    backend = responses().backend
    one, two = backend.names()
    data = backend.get(one), backend.get(two)
    backend.put([Item(one, data[1] or b""), Item(two, data[0] or b"")])
    with Heard() as heard:
        ask(client)
        ask(client, system="Other")
    assert len(simulator.requests) == 4
    assert first.id != other.id
    assert len(heard.messages) == 1
    assert "answer to another question" in heard.messages[0]


def test_a_hostile_pickle_in_place_of_an_answer(
    simulator: Simulator, client: anthropic.Anthropic, folder: Path, tmp_path: Path
) -> None:
    """It is never loaded: a miss, removed, and replaced by a real answer."""
    import diskcache

    from .test_disk import Hostile

    settled(client)
    [key] = responses().backend.names()
    responses().close()
    trace = tmp_path / "trace"
    with diskcache.Cache(str(folder)) as planted:
        planted.set(key, Hostile(trace))
    with Heard() as heard:
        kept = settled(client)
        assert ask(client).id == kept.id
    assert len(simulator.requests) == 2
    assert not trace.exists()
    assert len(heard.messages) == 1
    assert "no bytes" in heard.messages[0]


# The clock ------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that can be set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(time.time())
    monkeypatch.setattr(responses(), "_clock", found)
    return found


def test_without_ttl_no_clock_matters(simulator: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """Ten years later, or ten years before."""
    first = settled(client)
    for years in (10, -10):
        clock.now += years * 365 * 86_400
        assert ask(client).id == first.id
    assert len(simulator.requests) == 1


def test_ttl_is_how_old_an_answer_may_be(simulator: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """For who asks now; and what is asked with one is kept no longer than that."""
    settled(client)
    clock.now += 100
    with calling(caching=Caching(ttl_s=200)):
        ask(client)
    assert len(simulator.requests) == 1
    with calling(caching=Caching(ttl_s=50)):
        settled(client)
        assert len(simulator.requests) == 2
        ask(client)
    assert len(simulator.requests) == 2
    clock.now += 60
    ask(client)  # the answer that was asked with a ttl of 50 has expired
    assert len(simulator.requests) == 3


def test_a_clock_that_went_back(simulator: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """The age of an answer from later than now cannot be told: with a ttl it is asked again, and said once."""
    settled(client)
    clock.now -= 7_200
    with Heard() as heard, calling(caching=Caching(ttl_s=86_400)):
        again = settled(client)
        assert ask(client).id == again.id
    assert len(simulator.requests) == 2
    assert len(heard.messages) == 1
    assert "the clock of this machine went back" in heard.messages[0]


# Redis ----------------------------------------------------------------------------------------------------------------


def test_redis_is_the_cache(
    simulator: Simulator, plain: anthropic.Anthropic, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch,
    folder: Path,
) -> None:  # fmt: skip
    """By one setting; nothing is in the folder then."""
    monkeypatch.setenv("LLMNB_CACHE_URL", redis_server.url)
    client = llmnb.wrap(plain, cache=True)
    first = settled(client)
    assert ask(client).id == first.id
    assert len(simulator.requests) == 1
    assert not folder.exists()


def test_redis_is_killed(
    simulator: Simulator, plain: anthropic.Anthropic, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a run: calls go on live, one warning says why, and when it is back it is used again."""
    monkeypatch.setenv("LLMNB_CACHE_URL", redis_server.url)
    client = llmnb.wrap(plain, cache=True)
    settled(client)
    redis_server.kill()
    with Heard() as heard:
        begin = time.monotonic()
        ask_thrice(client)
        ask(client)
        assert time.monotonic() - begin < 5
    assert len(simulator.requests) == 5
    assert len(heard.messages) == 1
    assert f"the response cache {redis_server.url} cannot be" in heard.messages[0]
    redis_server.start()
    responses()._no_reading.end()
    responses()._no_writing.end()
    kept = settled(client)  # live, or what had waited to be written since the outage
    asked = len(simulator.requests)
    assert ask(client).id == kept.id
    assert len(simulator.requests) == asked


# The cache itself -----------------------------------------------------------------------------------------------------


class Broken:
    """A place where nothing works."""

    where = "/nowhere"

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError(f"no {name}")

        return fail


def test_a_place_where_nothing_works() -> None:
    """Neither finding nor keeping raises; after a failure it is left alone, longer each time."""
    now = Clock(100.0)
    cache = ResponseCache(Broken, monotonic=now)  # type: ignore[arg-type]
    with Heard() as heard:
        for _ in range(5):
            assert cache.find("a") is None
            assert cache.flights.lead(str(_)) is not None
        cache.settle()
    assert len(heard.messages) == 1
    pauses = []
    for _ in range(9):
        pauses.append(cache._no_reading._not_before - now.now)
        now.now = cache._no_reading._not_before
        cache.find("a")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_warnings_that_are_errors_harm_no_call(simulator: Simulator, client: anthropic.Anthropic, folder: Path) -> None:
    """pytest -W error, as here."""
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(b"nonsense" * 1_000)
    assert ask(client).content
    assert ask(client).content


def test_what_waits_is_written_when_the_process_ends(simulator: Simulator, llmnb_home: Path) -> None:
    """A script that asks one question and ends; the next one has its answer."""
    code = "import llmnb; print(llmnb.LLM('claude-sonnet-5-5')('Once').source)"
    told = [run(code, simulator) for _ in range(2)]
    assert [one.stdout.strip() for one in told] == ["live", "cache"]
    assert [one.stderr for one in told] == ["", ""]


def test_a_killed_process_loses_at_most_what_it_just_kept(
    simulator: Simulator, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves no damage."""
    code = (
        "import llmnb, os, signal, time; llm = llmnb.LLM('claude-sonnet-5-5')\n"
        "for number in range(20): llm(f'Number {number}')\n"
        "time.sleep(0.5); llm('The last one'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run(code, simulator)
    asked = len(simulator.requests)
    for name, value in simulator.environ().items():
        monkeypatch.setenv(name, value)
    assert all(llmnb.LLM("claude-sonnet-5-5")(f"Number {number}").source == "cache" for number in range(20))
    assert llmnb.LLM("claude-sonnet-5-5")("The last one").source in ("live", "cache")
    assert asked == 21
    assert DiskBackend(llmnb_home / "cache", 10**9).size().items >= 20


def run(code: str, simulator: Simulator) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own."""
    return processes.run(["-c", code], env={**os.environ, **simulator.environ()})


def test_a_forked_child_writes_its_own_and_not_its_parents(
    simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits at the moment of the fork is the parent's to write."""
    monkeypatch.setattr(responses_room, "INLINE_BYTES", 10)
    ask(client)

    def child() -> None:
        assert responses()._arrived == {}
        assert ask(client).id  # found on disk once the parent has written, else asked
        ask(client, system="child")
        responses().settle()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    responses().settle()
    asked = len(simulator.requests)
    ask(client)
    ask(client, system="child")
    assert len(simulator.requests) == asked
