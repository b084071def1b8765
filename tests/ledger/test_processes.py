"""Several processes: forks, kills, and four kernels that write at once."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

import llmnb
from llmnb import locks
from llmnb.errors import StoreError
from llmnb.ledger import Ledger, books
from llmnb.ledger.underway import Underway

WRITER = """
import itertools, sys
from pathlib import Path
from llmnb.ledger import open_ledger
from llmnb.records import Call
ledger, name = open_ledger(Path(sys.argv[1])), sys.argv[2]
for number in itertools.count() if sys.argv[3] == "forever" else range(int(sys.argv[3])):
    ledger.write(Call(uid=f"{name}-{number}", ts=number, model_requested="m", status="ok"))
    if sys.argv[3] == "forever":
        print(number, flush=True)
"""


def writer(path: Path, name: str, count: str) -> subprocess.Popen[str]:
    """A process that writes `count` rows, or goes on for ever and prints each number that is committed."""
    command = [sys.executable, "-c", WRITER, str(path), name, count]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def uids(path: Path) -> list[str]:
    """The uids of all rows."""
    with closing(sqlite3.connect(path)) as connection:
        return [uid for (uid,) in connection.execute("SELECT uid FROM calls ORDER BY id")]


def test_four_processes_that_start_at_once_lose_no_row(tmp_path: Path) -> None:
    """Each creates the ledger if it is first, and all rows of all are there."""
    path = tmp_path / "ledger.db"
    processes = [writer(path, f"p{number}", "250") for number in range(4)]
    assert [(process.communicate()[0] and process.returncode) or process.returncode for process in processes] == [0] * 4
    assert sorted(uids(path)) == sorted(f"p{number}-{row}" for number in range(4) for row in range(250))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_9_loses_no_committed_row(tmp_path: Path) -> None:
    """Whatever the process said it had written is there after it was killed."""
    path = tmp_path / "ledger.db"
    process = writer(path, "k", "forever")
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    assert uids(path)[: len(said)] == [f"k-{number}" for number in said]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_through_a_connection_of_its_own(ledger: Ledger, make_call) -> None:
    """Parent and child write in turns, the child ends in the ordinary way, and no row is lost."""
    ledger.write(make_call(uid="before"))
    calls = [make_call(uid=f"child-{number}") for number in range(50)]
    parents = ledger._connection  # pyright: ignore[reportPrivateUsage]

    def child() -> None:
        assert ledger._connection is None  # pyright: ignore[reportPrivateUsage]
        for call in calls:
            ledger.write(call)
        assert ledger._connection is not parents  # pyright: ignore[reportPrivateUsage]

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    for number in range(50):
        ledger.write(make_call(uid=f"parent-{number}"))
    process.join()
    assert process.exitcode == 0
    ledger.write(make_call(uid="after"))
    assert len(uids(ledger.path)) == 102
    with closing(sqlite3.connect(ledger.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_exits_normally_leaves_the_parents_ledger_sound(tmp_path: Path) -> None:
    """Interpreter shutdown in the child must not close the parent's connection over its head."""
    program = """
import os, sys
from pathlib import Path
from llmnb.ledger import Ledger
from llmnb.records import Call
ledger = Ledger(Path(sys.argv[1]))
ledger.write(Call(uid="0", ts=0, model_requested="m"))
if os.fork() == 0:
    sys.exit(0)
os.wait()
for number in range(1, 100):
    ledger.write(Call(uid=str(number), ts=number, model_requested="m"))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "ledger.db")], check=True)
    assert len(uids(tmp_path / "ledger.db")) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_what_waits_at_a_fork_stays_the_parents(make_call, llmnb_home: Path, quiet: None) -> None:
    """A child does not write what its parent keeps for later, nor its parent's spool."""
    llmnb_home.mkdir()
    blocker = llmnb_home / "ledger.db"
    blocker.mkdir()
    keeper = books()
    keeper.record(make_call(uid="parents"))
    assert not keeper.settle()
    assert keeper.waiting == 1

    def child() -> None:
        assert books().waiting == 0
        books().record(make_call(uid="childs"))
        books().close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert keeper.waiting == 1
    blocker.rmdir()
    assert keeper.settle()
    assert "parents" in uids(blocker)
    keeper.record(make_call(uid="next"))
    assert keeper.settle()
    assert sorted(uids(blocker)) == ["childs", "next", "parents"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_does_not_keep_the_locks_of_its_parent(tmp_path: Path) -> None:
    """A parent that dies before its child leaves notes that the next process can take."""
    notes = Underway(tmp_path)
    notes.note("a", 1, b"{}")
    (path,) = tmp_path.glob("*.jsonl")
    forgotten, ended = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()

    def child() -> None:
        notes.forget()
        forgotten.set()
        ended.wait()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    forgotten.wait()
    notes.close()
    descriptor = os.open(path, os.O_RDWR)
    assert locks.try_lock(descriptor)
    os.close(descriptor)
    ended.set()
    process.join()


OUTLIVING = """
import os, sqlite3, subprocess, sys, time
from llmnb.ledger import books
from llmnb.records import Call

def record(uid):
    books().record(Call(uid=uid, ts=time.time_ns() // 1000, model_requested="m", status="ok"))
    assert books().settle()

record("parent")
parent_is_gone, child_has_written = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(parent_is_gone[1])
    record("early")
    os.write(child_has_written[1], b"x")
    os.read(parent_is_gone[0], 1)
    looks_in = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM calls'); c.close()"
    subprocess.run([sys.executable, "-c", looks_in, os.environ["LLMNB_HOME"] + "/ledger.db"], check=True)
    record("late")
    print("done", flush=True)
else:
    os.read(child_has_written[0], 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_outlives_its_parent_loses_no_row(llmnb_home: Path) -> None:
    """It holds locks of its own: nobody who comes and goes takes himself for the last one and deletes the log."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUTLIVING], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "done\n"
    assert sorted(uids(llmnb_home / "ledger.db")) == ["early", "late", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_write_waits_for_its_end(tmp_path: Path, make_call) -> None:
    """Else the child would find the ledger locked for ever, by a write that never ends there."""
    ledger = Ledger(tmp_path / "ledger.db", busy_timeout_s=1.0)
    enough, numbers = threading.Event(), itertools.count()

    def write_on_and_on() -> None:
        while not enough.is_set():
            ledger.write_all([(make_call(uid=f"parent-{next(numbers)}"), ()) for _ in range(50)])

    def child(number: int) -> None:
        for _ in range(20):  # the parent writes nearly all the time
            with suppress(StoreError):
                return ledger.write(make_call(uid=f"child-{number}"))
        raise AssertionError("the ledger stays locked")

    writing = threading.Thread(target=write_on_and_on)
    writing.start()
    fork = multiprocessing.get_context("fork")
    try:
        children = [fork.Process(target=child, args=(number,)) for number in range(12)]
        for process in children:
            process.start()
            process.join(10)
            process.kill()
        assert [process.exitcode for process in children] == [0] * 12
    finally:
        enough.set()
        writing.join()
    ledger.close()
    assert len(uids(ledger.path)) == 12 + next(numbers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_rows_of_workers_are_there_when_they_have_ended(make_call) -> None:
    """Forked workers end without exit handlers, or are killed; whoever reads next takes their notes."""
    books().record(make_call(uid="parents"))
    assert books().settle()  # which looks for orphans once

    def child() -> None:
        books().record(make_call(uid=f"of-{os.getpid()}"))

    workers = [multiprocessing.get_context("fork").Process(target=child) for _ in range(3)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert set(llmnb.calls()["uid"]) == {"parents", *(f"of-{process.pid}" for process in workers)}


def test_a_process_that_only_reads_finds_what_a_dead_one_noted(llmnb_home: Path) -> None:
    """`llmnb.calls()` is right in the first cell after a kernel was killed."""
    program = """
import os
from llmnb.ledger import books
from llmnb.records import Call
books().record(Call(uid="noted", ts=1, model_requested="m", status="ok"))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert list(llmnb.calls()["uid"]) == ["noted"]
    assert list(llmnb_home.glob("spool/**/*.jsonl")) == []


def test_what_was_noted_for_one_store_is_not_written_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process of one project's store leaves notes that only that store takes, though they share a home."""
    stores = {name: f"sqlite:///{tmp_path / name}.db" for name in ("mine", "yours")}
    program = """
import os
from llmnb.ledger import books
from llmnb.records import Call
books().record(Call(uid="noted", ts=1, model_requested="m", status="ok"))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "LLMNB_STORE_URL": stores["mine"]}, check=False)
    found: dict[str, list[str]] = {}
    for name in ("yours", "mine"):
        monkeypatch.setenv("LLMNB_STORE_URL", stores[name])
        found[name] = list(llmnb.calls()["uid"])
    assert found == {"yours": [], "mine": ["noted"]}
