"""Books that never raise: rows wait in the spool or in memory, and are written once when the ledger works again."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import Books, Ledger, books, migrations, spool
from llmnb.records import Call
from llmnb.trouble import LlmnbWarning

from .. import processes


def recorded(call: Call) -> bool:
    """Records a call with the books of this process; whether it is in the ledger."""
    books().record(call)
    return books().settle()


class Clock:
    """A clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Store:
    """A ledger that can be told to be broken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = False
        self.tries = 0

    def __call__(self) -> Ledger:
        self.tries += 1
        if self.broken:
            raise StoreError("the ledger is broken for this test")
        return Ledger(self.path, busy_timeout_s=0.05)

    def rows(self) -> list[tuple[str, str]]:
        """uid and status of every row, in the order of writing."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT uid, status FROM calls ORDER BY id").fetchall()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in the test's folder."""
    return Store(tmp_path / "ledger.db")


@pytest.fixture
def clock() -> Clock:
    """A clock at zero."""
    return Clock()


@pytest.fixture
def keeper(store: Store, clock: Clock, tmp_path: Path) -> Books:
    """Books over the store, with a spool in the test's folder."""
    return Books(store, tmp_path / "spool", clock=clock)


def test_a_record_is_in_the_ledger_when_record_returns(keeper: Books, store: Store, make_call) -> None:
    """Nothing waits in a background queue."""
    keeper.record(make_call(uid="a"), [make_call(uid="b", parent_uid="a", is_call=False)])
    assert store.rows() == [("a", "ok"), ("b", "ok")]
    assert keeper.waiting == 0


def test_a_broken_ledger_is_said_once_and_rows_wait(keeper: Books, store: Store, clock: Clock, make_call) -> None:
    """Calls go on, one warning says why, and when the ledger works again every row is written once and in order."""
    store.broken = True
    with pytest.warns(LlmnbWarning, match=r"broken for this test.*calls go on.*wait in .*spool"):
        keeper.record(make_call(uid="a"))
    keeper.record(make_call(uid="b"))  # a second warning would be an error
    keeper.record(make_call(uid="c"))
    assert keeper.waiting == 3
    assert spool.waiting(store.path.parent / "spool") == 3
    store.broken = False
    clock.now_s = 100.0
    keeper.record(make_call(uid="d"))
    assert [uid for uid, _ in store.rows()] == ["a", "b", "c", "d"]
    assert keeper.waiting == 0
    assert spool.waiting(store.path.parent / "spool") == 0


def test_a_broken_ledger_is_tried_less_and_less_often(
    keeper: Books, store: Store, clock: Clock, make_call, quiet
) -> None:
    """A locked ledger costs its timeout now and then, and not on every call."""
    store.broken = True
    for second in range(100):
        clock.now_s = float(second)
        keeper.record(make_call())
    assert store.tries == 7  # after 0, 1, 3, 7, 15, 31 and 63 seconds


def test_what_waits_is_written_before_what_is_new(keeper: Books, store: Store, clock: Clock, make_call, quiet) -> None:
    """A provisional row that waited must not overwrite the end of its call."""
    call = make_call(uid="a")
    store.broken = True
    keeper.record(replace(call, status="running"))
    store.broken, clock.now_s = False, 10.0
    keeper.record(call)
    assert store.rows() == [("a", "ok")]


def test_a_call_that_is_too_long_to_be_noted_has_a_provisional_row(keeper: Books, store: Store) -> None:
    """Long names, of which JSON makes six bytes a letter, must not cost a killed call its trace."""
    fields = {"uid": "a", "ts": 1, "model_requested": "claude-sonnet-5-5", "model": "claude-sonnet-5-5"}
    keeper.begin({**fields, "uid": "short"})
    keeper.begin({**fields, "chat": "ж" * 400, "input_tokens": 10})
    assert store.rows() == [("a", "running")]
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT estimated, cost_nanousd FROM calls").fetchall() == [(1, 20_000)]


def test_no_warning_becomes_an_error(keeper: Books, store: Store, make_call) -> None:
    """With warnings as errors, record still does not raise."""
    store.broken = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keeper.record(make_call())
    assert keeper.waiting == 1


def test_the_next_process_writes_what_a_dead_one_left(store: Store, make_call, tmp_path: Path, quiet) -> None:
    """A spool whose owner died is drained exactly once, its unfinished calls marked interrupted."""
    folder = tmp_path / "spool"
    program = f"""
        import os
        from pathlib import Path
        from llmnb.errors import StoreError
        from llmnb.ledger import Books
        from llmnb.origin import session
        from llmnb.records import Call
        def broken():
            raise StoreError("no ledger today")
        keeper = Books(broken, Path({str(folder)!r}))
        keeper.record(Call(uid="done", ts=1, model_requested="m", status="ok"))
        keeper.record(Call(uid="open", ts=2, model_requested="m", session=session()))
        os._exit(1)
    """
    assert processes.run(["-c", textwrap.dedent(program)]).returncode == 1
    assert spool.waiting(folder) == 2
    Books(store, folder).record(make_call(uid="mine"))
    Books(store, folder).record(make_call(uid="mine too"))
    assert store.rows() == [("mine", "ok"), ("done", "ok"), ("open", "interrupted"), ("mine too", "ok")]
    assert not list(folder.glob("*.jsonl"))


def test_the_spool_of_a_living_process_is_left_alone(
    keeper: Books, store: Store, make_call, tmp_path: Path, quiet
) -> None:
    """Another set of books does not take rows whose owner can still write them itself."""
    store.broken = True
    keeper.record(make_call(uid="a"))
    Books(Store(store.path), tmp_path / "spool").record(make_call(uid="b"))
    assert store.rows() == [("b", "ok")]
    assert spool.waiting(tmp_path / "spool") == 1
    store.broken = False
    assert keeper.settle()
    assert store.rows() == [("b", "ok"), ("a", "ok")]


def test_half_a_line_in_a_dead_spool_does_not_stop_the_others(store: Store, make_call, tmp_path: Path) -> None:
    """A process killed in the middle of a write left half a record: the rows around it are written."""
    folder = tmp_path / "spool"
    folder.mkdir()
    whole = spool.encode((make_call(uid="whole"), ()))
    (folder / "dead-1-ab.jsonl").write_bytes(whole + whole[:40] + b"\n" + spool.encode((make_call(uid="last"), ())))
    Books(store, folder).record(make_call(uid="mine"))
    assert sorted(uid for uid, _ in store.rows()) == ["last", "mine", "whole"]


def test_rows_wait_in_memory_when_the_spool_fails_too(store: Store, clock: Clock, make_call, tmp_path: Path) -> None:
    """With no place on disk the rows are kept in the process, in their order."""
    (tmp_path / "file").write_text("in the way")
    keeper = Books(store, tmp_path / "file" / "spool", clock=clock)
    store.broken = True
    with pytest.warns(LlmnbWarning) as heard:
        keeper.record(make_call(uid="a"))
    assert "rows wait in memory" in str(heard[-1].message)
    keeper.record(make_call(uid="b"))
    assert keeper.waiting == 2
    store.broken = False
    assert keeper.settle()
    assert [uid for uid, _ in store.rows()] == ["a", "b"]


def test_a_home_that_cannot_be_is_told_without_contradictions(store: Store, tmp_path: Path) -> None:
    """A call under way, that goes into the ledger where nothing can be noted, is not said to where that fails, too."""
    (tmp_path / "file").write_text("in the way")
    store.broken = True
    keeper = Books(store, tmp_path / "file" / "spool", clock=Clock())
    with pytest.warns(LlmnbWarning) as heard:
        keeper.begin({"uid": "a", "ts": 1, "model_requested": "claude-sonnet-5-5", "model": "claude-sonnet-5-5"})
    said = str(heard[0].message)
    assert "into the ledger itself" not in said
    assert "works again. The spool " in said  # a sentence, as what stands before it
    assert "rows wait in memory" in said
    keeper.begin(
        {"uid": "b", "ts": 2, "model_requested": "claude-sonnet-5-5", "model": "claude-sonnet-5-5"}
    )  # silently


def test_a_finalizer_in_the_middle_of_a_write_is_served_after_it(keeper: Books, store: Store, make_call) -> None:
    """The garbage collector may end a stream, and so record its call, while another call is being written."""
    late = make_call(uid="late")

    class Trap:
        """A value that SQLite asks to adapt itself in the middle of the write."""

        def __conform__(self, _protocol: object) -> str:
            keeper.record(late)
            assert keeper.waiting == 1
            return "claude"

    keeper.record(make_call(uid="first", model=Trap()))
    assert store.rows() == [("first", "ok"), ("late", "ok")]
    assert keeper.waiting == 0


def test_an_interrupt_in_the_middle_of_a_write_keeps_the_row(keeper: Books, store: Store, make_call) -> None:
    """Ctrl-C goes on to the user, the row is kept, and the connection is not left in a transaction."""

    class Interrupt:
        """A value whose storing is interrupted, once."""

        done = False

        def __conform__(self, _protocol: object) -> str:
            if not Interrupt.done:
                Interrupt.done = True
                raise KeyboardInterrupt
            return "claude"

        def __str__(self) -> str:
            return "claude"

    with pytest.raises(KeyboardInterrupt):
        keeper.record(make_call(uid="a", model=Interrupt()))
    keeper.record(make_call(uid="b"))
    assert [uid for uid, _ in store.rows()] == ["a", "b"]


def test_text_that_is_no_unicode_is_stored_escaped(keeper: Books, store: Store, make_call) -> None:
    """Half a surrogate pair in a prompt or a name costs the row nothing but its looks."""
    keeper.record(make_call(uid="a", content="broken \ud83d pair"))
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT content FROM calls").fetchone() == ("broken \\ud83d pair",)


def test_a_row_that_no_column_can_hold_is_set_aside(keeper: Books, store: Store, make_call, tmp_path: Path) -> None:
    """It is kept as text and said, and does not block the rows after it."""
    with pytest.warns(LlmnbWarning, match=r"could not be put on the books.*refused\.txt"):
        keeper.record(make_call(uid="huge", output_tokens=2**70))
    keeper.record(make_call(uid="next"))
    assert store.rows() == [("next", "ok")]
    assert str(2**70) in (tmp_path / "spool" / "refused.txt").read_text()


def test_a_newer_ledger_makes_rows_wait(llmnb_home: Path, make_call) -> None:
    """The rows of an old llmnb wait in the spool until a newer one takes them."""
    books().record(make_call())
    books().close()
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    from llmnb.ledger import open_ledger

    open_ledger().close()
    with pytest.warns(LlmnbWarning, match="newer llmnb"):
        assert not recorded(make_call())
    assert spool.waiting(llmnb_home / "spool") == 1
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.LATEST}")
    assert books().settle()


def test_a_locked_ledger_makes_rows_wait(keeper: Books, store: Store, clock: Clock, make_call) -> None:
    """Another process that holds the lock longer than the busy timeout delays rows, and loses none."""
    keeper.record(make_call(uid="a"))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(LlmnbWarning, match="locked"):
            keeper.record(make_call(uid="b"))
        other.execute("COMMIT")
    clock.now_s = 10.0
    keeper.record(make_call(uid="c"))
    assert [uid for uid, _ in store.rows()] == ["a", "b", "c"]


# A disk that is really full -------------------------------------------------------------------------------------------

FULL = """
import sys, warnings
from pathlib import Path
from llmnb.ledger import Books, Ledger, calls
from llmnb.records import Call
home, free = Path(sys.argv[1]), sys.argv[2]
heard = []
warnings.showwarning = lambda message, *_: heard.append(str(message))
ledger = Ledger(home / "ledger.db")
keeper = Books(lambda: ledger, home / "spool", clock=iter(range(0, 10**9, 100)).__next__)
fill = (home / "fill").open("wb", buffering=0) if free == "unlink" else None
{fill}
for number in range(40):
    keeper.record(Call(uid=f"{{number:04d}}", ts=number, model_requested="m", status="ok", content="x" * 2000))
waiting = keeper.waiting
assert waiting > 0, "the disk was not full"
{free}
assert keeper.settle(), heard
found = [uid for uid in calls(path=home / "ledger.db")["uid"]]
assert sorted(found) == [f"{{number:04d}}" for number in range(40)], found
print(waiting, len(heard), *heard, sep="\\n")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits")
def test_a_file_size_limit_makes_rows_wait_in_memory(tmp_path: Path) -> None:
    """Neither ledger nor spool can grow, as on a full disk; when they can again, every row is there."""
    limits = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    program = FULL.format(
        fill=f"{limits} resource.setrlimit(resource.RLIMIT_FSIZE, (65536, {hard}))",
        free=f"resource.setrlimit(resource.RLIMIT_FSIZE, ({hard}, {hard}))",
    )
    done = processes.run(["-c", program, str(tmp_path), "limit"])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[0]) > 10
    assert int(done.stdout.splitlines()[1]) <= 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_really_full_disk_makes_rows_wait_in_memory(tmp_path: Path) -> None:
    """On a tmpfs without a free page nothing is lost, and nothing raised."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        fill = "try:\n    while True: fill.write(b'x' * 4096)\nexcept OSError: pass"
        program = FULL.format(fill=fill, free="fill.close(); (home / 'fill').unlink()")
        done = processes.run(["-c", program, str(disk), "unlink"])
        assert done.returncode == 0, done.stderr
        assert "disk" in done.stdout
        assert "rows wait in memory" in done.stdout
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_partial_write_to_the_spool_is_taken_back(tmp_path: Path, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line on a full disk would swallow the next record."""
    held = spool.Spool(tmp_path)
    held.append((make_call(uid="a"), ()))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: real(descriptor, line[:10]))
    with pytest.raises(OSError, match="full"):
        held.append((make_call(uid="b"), ()))
    monkeypatch.undo()
    held.append((make_call(uid="c"), ()))
    seen: list[Call] = []
    assert held.drain(lambda records: seen.extend(call for call, _ in records)) == 2
    assert [call.uid for call in seen] == ["a", "c"]
    held.close()
    assert not list(tmp_path.glob("*.jsonl"))
