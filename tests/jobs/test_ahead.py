"""Rows that are made while others are asked: by iterators and functions that take their time, hang or fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.interrupts import Stopped
from llmnb.jobs import ahead as ahead_room
from llmnb.jobs.ahead import Ahead
from llmnb.jobs.asking import Row
from llmnb.simulator import Simulator
from llmnb.simulator.answer import SeenRequest

from .test_map import Interrupting

pytestmark = pytest.mark.usefixtures("rows_at_once")

PATIENCE_S = 60
SAY = "Say {{ n }}"


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache."""
    return llmnb.LLM(cache=False)


class Slow:
    """Rows, of which those from `first_slow` on come when `go` is set."""

    def __init__(self, first_slow: int = 3, rows: int = 5) -> None:
        self.go = threading.Event()
        self._first_slow, self._rows = first_slow, rows

    def __iter__(self) -> Iterator[dict[str, int]]:
        for n in range(self._rows):
            self.wait_for(n)
            yield {"n": n}

    def wait_for(self, n: int) -> None:
        """Until it is there."""
        assert n < self._first_slow or self.go.wait(PATIENCE_S)


def map_slowly(llm: llmnb.LLM, slow: Slow, kind: str, folder: Path) -> Any:
    """Asks rows of a slow iterator, or rows whose prompts a slow function writes."""
    if kind == "iterator":
        return llm.map(iter(slow), SAY, out=folder / "out.parquet", concurrency=2)

    def written(row: Any) -> str:
        slow.wait_for(row["value"])
        return f"Say {row['value']}"

    return llm.map(range(5), written, concurrency=2)


@pytest.mark.parametrize("kind", ["iterator", "function"])
def test_a_row_is_asked_before_the_next_one_has_come(sim: Simulator, llm: llmnb.LLM, tmp_path: Path, kind: str) -> None:
    """The rows that wait for nothing are answered, or the others would never come."""
    slow, asked = Slow(), set[str]()

    def answer(request: SeenRequest) -> str:
        asked.add(request.prompt)
        if len(asked) == 3:
            slow.go.set()
        return f"echo {request.prompt}"

    sim.rule(answer)
    got = map_slowly(llm, slow, kind, tmp_path)
    assert (got.status.rows, got.status.done, got.status.failed) == (5, 5, 0)
    frame = got if kind == "function" else got.frame()
    assert frame["text"].tolist() == [f"echo Say {n}" for n in range(5)]


@pytest.mark.parametrize("kind", ["iterator", "function"])
def test_stop_while_the_next_row_hangs(
    sim: Simulator, llm: llmnb.LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It ends at once, and the run goes on later with the row that was waited for; none is lost or asked twice."""
    slow = Slow(first_slow=2)
    sim.rule(lambda request: f"echo {request.prompt}")
    with monkeypatch.context() as patched:
        patched.setattr("llmnb.display.run_progress.progress", lambda **_: Interrupting())
        with pytest.raises(Stopped, match=r"2 of \d rows are answered and kept"):
            map_slowly(llm, slow, kind, tmp_path)
    assert not slow.go.is_set()
    slow.go.set()
    run_id = llmnb.runs()["run_id"][0]
    got = llmnb.get_run(run_id).resume()
    assert (got.status.rows, got.status.kept, got.status.done) == (5, 2, 3)
    assert len(sim.requests) == 5
    frame = got if kind == "function" else got.frame()
    assert frame["text"].tolist() == [f"echo Say {n}" for n in range(5)]


def test_an_iterator_that_fails_in_the_middle(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """What came before is answered and kept; the error is the iterator's own, also when the run is tried again."""

    def rows() -> Iterator[dict[str, int]]:
        yield from ({"n": n} for n in range(6))
        raise ConnectionError("the database is gone")

    sim.rule("fine")
    for _ in range(2):
        with pytest.raises(ConnectionError, match="the database is gone") as caught:
            llm.map(rows(), SAY, out=tmp_path / "out.parquet", concurrency=2)
        assert "after 6 of them" in caught.value.__notes__[0]
        assert "6 of 6 rows are answered and kept" in caught.value.__notes__[1]
        assert len(sim.requests) == 6
    run = llmnb.get_run(llmnb.runs()["run_id"][0])
    assert (run.state, run.done) == ("stopped", 6)
    with pytest.raises(ConnectionError):
        run.resume()
    assert not (tmp_path / "out.parquet").exists()
    got = llm.map(({"n": n} for n in range(8)), SAY, out=tmp_path / "out.parquet")
    assert (got.status.kept, got.status.done, len(sim.requests)) == (6, 2, 8)


def test_an_iterator_that_fails_at_once(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """Nothing is sent, and there is no run."""
    with pytest.raises(ZeroDivisionError):
        llm.map((7 // n for n in range(3)), "Say {{ value }}", out=tmp_path / "out.parquet")
    assert len(llmnb.runs()) == len(sim.requests) == 0


def test_an_iterator_that_needs_the_loop_it_is_asked_on(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """`amap` waits for its rows elsewhere: also for the first one."""
    sim.rule("fine")

    async def asked() -> Any:
        slow = Slow(first_slow=0)
        asyncio.get_running_loop().call_soon(slow.go.set)
        return await llm.amap(iter(iter(slow)), SAY, out=tmp_path / "out.parquet")

    assert asyncio.run(asked()).status.done == 5


def test_no_more_is_made_than_is_asked_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are, and the more each weighs the fewer."""
    monkeypatch.setattr(ahead_room, "_MOST_CHARS", 8_000)
    monkeypatch.setattr(ahead_room, "_LEAST_ROWS", 8)
    made = [0]

    def prompts(prompt: Any) -> Iterator[Any]:
        for n in range(100):
            made[0] = n + 1
            yield prompt if n else ValueError("the first cannot be made")

    async def all_of(prompt: Any, most: int) -> int:
        made[0] = 0
        ahead, took = Ahead(prompts(prompt), concurrency=2), 0
        await ahead.wait()
        await asyncio.to_thread(is_full, ahead)
        while await ahead.wait():
            assert made[0] - took <= most + 2  # one that goes beyond, and one in hand
            took += ahead.take() is not None
        ahead.check()
        return took

    def is_full(ahead: Ahead) -> None:
        until = time.monotonic() + PATIENCE_S
        while ahead._put - ahead._taken < 8_000:
            assert time.monotonic() < until
            time.sleep(0.001)

    assert asyncio.run(all_of("short", 8)) == 100
    assert asyncio.run(all_of("x" * 4_000, 2)) == 100
    assert asyncio.run(all_of([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}], 2)) == 100


def test_rows_go_to_those_who_wait() -> None:
    """Each to one of them, and to the others nothing."""
    go = [threading.Event() for _ in range(3)]

    def prompts() -> Iterator[str]:
        for n, event in enumerate(go):
            assert event.wait(PATIENCE_S)
            yield f"row {n}"

    async def worker(ahead: Ahead, got: list[Any]) -> None:
        while await ahead.wait():
            made = ahead.take()
            if made is not None:
                assert isinstance(made, Row)
                got.append(made.content)
                if len(got) < len(go):
                    go[len(got)].set()

    async def work() -> list[Any]:
        ahead, got = Ahead(prompts(), 4), list[Any]()
        workers = [asyncio.ensure_future(worker(ahead, got)) for _ in range(4)]
        await asyncio.sleep(0)
        go[0].set()
        await asyncio.gather(*workers)
        return got

    assert asyncio.run(work()) == ["row 0", "row 1", "row 2"]


def test_amap_stopped_while_an_iterator_hangs(llm: llmnb.LLM) -> None:
    """It ends at once, and so does `asyncio.run`: the rows are read in none of the threads that it waits for."""
    hangs, go, ended = threading.Event(), threading.Event(), list[bool]()

    def rows() -> Iterator[str]:
        hangs.set()
        ended.append(go.wait(20))
        yield "a"

    async def ask() -> None:
        task = asyncio.ensure_future(llm.amap(rows(), "Say {{ value }}"))
        await asyncio.to_thread(hangs.wait)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ask())
    assert ended == []
    go.set()


@pytest.mark.parametrize("kind", ["frame", "file"])
async def test_a_cursor_that_may_be_read_in_its_own_thread_only(llm: llmnb.LLM, kind: str, tmp_path: Path) -> None:
    """The error is SQLite's own, and says what to do."""
    given: dict[str, Any] = {} if kind == "frame" else {"out": tmp_path / "out.parquet"}
    with closing(sqlite3.connect(":memory:")) as base:
        with pytest.raises(sqlite3.ProgrammingError) as caught:
            await llm.amap(base.execute("SELECT 1"), "Say {{ value }}", **given)
        assert "`list(cursor)`" in caught.value.__notes__[0]
