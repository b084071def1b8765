"""The sweep: what a dead process left running is marked, what a living one does is not."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from llmnb import origin
from llmnb.ledger import Ledger, Store, new_ledger, sessions
from llmnb.ledger.connection import reading
from llmnb.places import Place
from llmnb.records import Call

from .. import processes

NOW_US = time.time_ns() // 1000


def dead_session() -> str:
    """The session of a process that has ended."""
    program = "from llmnb.origin import session; print(session())"
    return processes.run(["-c", program], check=True).stdout.strip()


def statuses(path: Place) -> dict[str, list[object]]:
    """Status and estimated-flag by uid."""
    with reading(path) as connection:
        assert connection is not None
        return {uid: rest for uid, *rest in connection.execute("SELECT uid, status, estimated FROM calls ORDER BY id")}


def running(uid: str, session: str | None, ts: int = NOW_US) -> Call:
    """A call that has not ended."""
    return Call(uid=uid, ts=ts, model_requested="m", session=session)


def test_the_next_opening_marks_what_the_dead_left(store: Store) -> None:
    """Only the dead session's unfinished row changes, and is flagged as estimated."""
    dead, alive = dead_session(), origin.session()
    store.write(running("dead", dead))
    store.write(replace(running("ended", dead), status="ok"))
    store.write(running("alive", alive))
    store.write(running("elsewhere", "other-host:1:1:ab"))
    store.close()
    new_ledger(store.path).close()
    assert statuses(store.path) == {
        "dead": ["interrupted", 1],
        "ended": ["ok", 0],
        "alive": ["running", 0],
        "elsewhere": ["running", 0],
    }


@pytest.mark.parametrize("session", [None, "other-host:1:1:ab", "no session at all"])
def test_a_call_of_more_than_a_day_is_over(store: Store, session: str | None) -> None:
    """Where nobody can tell whether the process lives, the age does."""
    store.write(running("old", session, NOW_US - sessions.GIVE_UP_US - 3_600_000_000))
    store.write(running("young", session, NOW_US - sessions.GIVE_UP_US + 3_600_000_000))
    assert store.sweep() == 1
    assert [status for status, _ in statuses(store.path).values()] == ["interrupted", "running"]


def test_a_wrongly_swept_call_ends_as_it_does(store: Store) -> None:
    """The end of the call overwrites `interrupted`."""
    call = running("a", dead_session())
    store.write(call)
    assert store.sweep() == 1
    store.write(replace(call, status="ok"))
    assert statuses(store.path) == {"a": ["ok", 0]}


def test_a_pid_that_was_given_to_another_process_is_dead() -> None:
    """The start of the process tells two owners of one pid apart."""
    host, pid, started, tail = origin.session().rsplit(":", 3)
    assert not sessions.is_dead(f"{host}:{pid}:{started}:{tail}")
    if sessions.started_at(os.getpid()) is not None:
        assert sessions.is_dead(f"{host}:{pid}:{int(started) - 3600}:{tail}")


def test_the_sweep_looks_at_no_finished_row(ledger: Ledger) -> None:
    """SQLite answers from the small index of running rows, however many calls there are."""
    with closing(sqlite3.connect(ledger.path)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT session, min(ts) FROM calls WHERE status = 'running' GROUP BY session"
        ).fetchall()
    assert "calls_running" in plan[0][3]
    assert len(plan) == 1
