"""A server that is away: no call waits or fails, one warning says so, and every row is there once when it is back."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import Books, bookkeeping, books, calls, new_ledger, shelver, usage
from llmnb.ledger.shelf import spool_folder
from llmnb.ledger.spool import waiting
from llmnb.places import PostgresPlace
from llmnb.settings import load
from llmnb.trouble import LlmnbWarning

from ... import processes
from ...postgres_server import PASSWORD, ROLE, PostgresServer


@pytest.fixture(autouse=True)
def team(postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> PostgresPlace:
    """The database is that of the settings; tried again soon."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    monkeypatch.setattr(shelver, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(shelver, "LONGEST_PAUSE_S", 0.2)
    return postgres


@pytest.fixture
def kept() -> Iterator[Books]:
    """The books of the settings."""
    found = books()
    yield found
    found.close()


def uids() -> list[str]:
    return sorted(calls()["uid"])


def until(what: str, is_so: object, patience_s: float = 20.0) -> None:
    """Waits for it."""
    deadline = time.monotonic() + patience_s
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_rows_wait_for_the_server_and_are_written_once(
    postgres_server: PostgresServer, kept: Books, make_call, recwarn: pytest.WarningsRecorder
) -> None:
    """It is away before the first row, comes back, goes again in the middle; the process does nothing but go on."""
    rows = [make_call() for _ in range(60)]
    postgres_server.stop()
    begun = time.monotonic()
    for row in rows[:20]:
        kept.record(row)
    assert time.monotonic() - begun < 1
    until("rows are in the spool", lambda: waiting(spool_folder(load())) == 20)
    postgres_server.start()
    until("they are written without another call", lambda: not kept.has_work)
    assert uids() == [row.uid for row in rows[:20]]
    for row in rows[20:40]:
        kept.record(row)
    postgres_server.stop()
    for row in rows[40:]:
        kept.record(row)
    until("nothing is in the queue", lambda: kept.waiting == waiting(spool_folder(load())))
    postgres_server.start()
    until("all is written", lambda: not kept.has_work)
    assert uids() == [row.uid for row in rows]
    assert usage(by=[])["cost_nanousd"].tolist() == [sum(row.cost_nanousd for row in rows)]
    kept.record(make_call(uid="last"))  # what the thread had to say is said by the user's
    said = [str(warning.message) for warning in recwarn if issubclass(warning.category, LlmnbWarning)]
    assert len(said) == 1
    assert "Your calls go on; their rows wait in" in said[0]


KILLED = """
import sys, time, warnings
from llmnb.ledger import books
from llmnb.records import Call
warnings.simplefilter("ignore")
kept = books()
for number in range(500):
    content = "x" * 3_000 if number % 7 == 0 else None
    kept.record(Call(uid=f"call-{number:03d}", ts=number + 1, model_requested="m", status="ok", cost_nanousd=1,
                     content=content))
    print(number, flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_while_the_server_is_away_loses_nothing(
    postgres_server: PostgresServer, kept: Books
) -> None:
    """What it told of is written by the next process, each row once, however often that is tried."""
    postgres_server.stop()
    process = processes.Python(["-c", KILLED], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = [int(next(process.stdout)) for _ in range(300)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout if line.strip()]
    process.wait()
    process.stdout.close()
    with pytest.raises(StoreError):
        calls()
    postgres_server.start()
    found = uids()
    assert found[: len(told)] == [f"call-{number:03d}" for number in told]
    assert len(found) in (len(told), len(told) + 1)  # one was on its way when it was killed
    assert usage(by=[])["cost_nanousd"].tolist() == [len(found)]
    assert not list(spool_folder(load()).rglob("*.jsonl"))


def test_no_caller_waits_for_the_ledger(tmp_path: Path, make_call) -> None:
    """Not even with a row that is too long for its note, or with more rows than the queue should hold."""
    gate, asked = threading.Event(), threading.Event()

    def opened() -> None:
        asked.set()
        gate.wait(30)
        raise StoreError("away")

    kept = Books(opened, tmp_path, behind=True, remote=True)  # type: ignore[arg-type]
    kept.record(make_call())
    assert asked.wait(20)
    begun = time.monotonic()
    for _ in range(5):
        kept.record(make_call(content="x" * 5_000))
    kept.record(make_call(), [make_call(is_call=False)])
    assert time.monotonic() - begun < 1
    assert waiting(tmp_path) == 6
    gate.set()
    with pytest.warns(LlmnbWarning, match="away"):
        kept.close()
    assert waiting(tmp_path) == 7


def test_the_queue_is_bounded(tmp_path: Path, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than it should hold is on disk, in order."""
    monkeypatch.setattr(bookkeeping, "MOST_QUEUED", 10)
    gate, asked = threading.Event(), threading.Event()

    def opened() -> None:
        asked.set()
        gate.wait(30)
        raise StoreError("away")

    kept = Books(opened, tmp_path, behind=True, remote=True)  # type: ignore[arg-type]
    kept.record(make_call())
    assert asked.wait(20)
    for _ in range(100):
        kept.record(make_call())
        assert len(kept._queue) <= 10  # pyright: ignore[reportPrivateUsage]
    gate.set()
    with pytest.warns(LlmnbWarning, match="away"):
        kept.close()
    assert waiting(tmp_path) == 101


# What is said ---------------------------------------------------------------------------------------------------------


def refusal(url: str) -> str:
    """What is said of a place that cannot be opened."""
    with pytest.raises(StoreError) as caught:
        new_ledger(PostgresPlace(url))
    assert "sesame" not in f"{caught.value}{caught.value.path}{caught.value.__cause__}"
    return str(caught.value)


def test_what_is_wrong_is_said_without_the_password(postgres_server: PostgresServer) -> None:
    """Password, database, port and host: each with what to do."""
    postgres_server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    here = f"127.0.0.1:{postgres_server.port}"
    assert "password is not accepted" in refusal(f"postgresql://{ROLE}:sesame-wrong@{here}/postgres")
    assert "there is no such database" in refusal(f"postgresql://postgres:sesame@{here}/nowhere")
    assert "is the server running" in refusal("postgresql://ann:sesame@127.0.0.1:1/postgres")
    assert "is the server running" in refusal("postgresql://ann:sesame@no-such-host.invalid/postgres")
    assert "correct LLMNB_STORE_URL" in refusal(f"postgresql://ann:sesame@{here}/postgres?colour=1")
    quoted = PASSWORD.replace("%", "%25").replace("@", "%40").replace(":", "%3A")
    assert "grant CREATE on the database" in refusal(f"postgresql://{ROLE}:{quoted}@{here}/postgres")


def test_a_read_says_what_is_wrong(postgres_server: PostgresServer, team: PostgresPlace) -> None:
    """It cannot wait for the server, so it is an error; it works again when the server does."""
    new_ledger(team).close()
    assert calls().empty
    postgres_server.stop()
    with pytest.raises(StoreError, match="is the server running"):
        calls()
    postgres_server.start()
    assert calls().empty
