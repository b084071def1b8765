"""Async iterators as rows of `amap`: asked as they come, closed when the run ends, stopped while they hang."""

from __future__ import annotations

import asyncio
import errno
import pickle
import threading
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.errors import LlmnbError
from llmnb.jobs import readers, spooled
from llmnb.jobs.readers import Reader, TaskReader
from llmnb.jobs.spooled import Spooled
from llmnb.simulator import Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.trouble import LlmnbWarning

pytestmark = pytest.mark.usefixtures("rows_at_once")

PATIENCE_S = 60
SAY = "Say {{ n }}"


@pytest.fixture
def llm(sim: Simulator) -> llmnb.LLM:
    """Without the response cache."""
    sim.rule(lambda request: f"echo {request.prompt}")
    return llmnb.LLM(cache=False)


class Rows:
    """Rows on the loop; those from `first_slow` on come when `go` is set. `closed` says how it ended."""

    def __init__(self, first_slow: int = 9, rows: int = 5, error: Exception | None = None) -> None:
        self.go, self.waits, self.closed = asyncio.Event(), asyncio.Event(), threading.Event()
        self._first_slow, self._rows, self._error = first_slow, rows, error

    async def all(self) -> AsyncIterator[dict[str, int]]:
        """The rows."""
        try:
            for n in range(self._rows):
                if n >= self._first_slow:
                    self.waits.set()
                    await self.go.wait()
                yield {"n": n}
            if self._error is not None:
                raise self._error
        finally:
            await asyncio.sleep(0)  # such as giving back a connection
            self.closed.set()


@pytest.mark.parametrize("way", ["frame", "file", "confirm"])
async def test_rows_are_those_of_a_list(
    sim: Simulator, llm: llmnb.LLM, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a frame, in a file, and after a question whose answer needs all of them."""
    monkeypatch.setattr("llmnb.views.views.is_somebody_there", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    given: dict[str, Any] = {"file": {"out": tmp_path / "out.parquet"}, "confirm": {"confirm": True}}.get(way, {})
    rows = Rows()
    got = await llm.amap(rows.all(), SAY, concurrency=2, **given)
    frame = got.frame() if way == "file" else got
    assert frame["text"].tolist() == [f"echo Say {n}" for n in range(5)]
    assert (got.status.rows, got.status.done, got.status.is_counted) == (5, 5, True)
    assert rows.closed.is_set()
    again = await llm.amap([{"n": n} for n in range(5)], SAY)
    assert (again.status.kept, again.run_id, len(sim.requests)) == (5, got.run_id, 5)
    assert len(got.retry_failed() if way == "frame" else frame) == 5


async def test_a_row_is_asked_before_the_next_one_has_come(sim: Simulator, llm: llmnb.LLM) -> None:
    """The rows that wait for nothing are answered, or the others would never come; also those of an iterable."""
    rows, loop = Rows(first_slow=3), asyncio.get_running_loop()

    def answer(request: SeenRequest) -> str:
        if "2" in request.prompt:
            loop.call_soon_threadsafe(rows.go.set)
        return "fine"

    class Table:
        def __aiter__(self) -> AsyncIterator[dict[str, int]]:
            return rows.all()

    sim.reset()
    sim.rule(answer)
    got = await llm.amap(Table(), SAY, concurrency=2)
    assert (got.status.done, got["n"].tolist(), rows.closed.is_set()) == (5, [0, 1, 2, 3, 4], True)


def until_answered(rows: int) -> None:
    """Until so many rows of the only run are on disk."""
    until = time.monotonic() + PATIENCE_S
    while not len(found := llmnb.runs()) or found["done"][0] < rows:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("first_slow", [2, 0], ids=["in the middle", "before the first"])
async def test_stop_while_the_next_row_hangs(sim: Simulator, llm: llmnb.LLM, first_slow: int) -> None:
    """It ends, and so does the iterator; what was answered is kept, and a new iterator goes on from there."""
    rows = Rows(first_slow=first_slow)
    task = asyncio.ensure_future(llm.amap(rows.all(), SAY, concurrency=2))
    await rows.waits.wait()
    if first_slow:
        await asyncio.to_thread(until_answered, first_slow)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rows.closed.is_set()
    assert not rows.go.is_set()
    assert len(sim.requests) == first_slow
    if first_slow:
        run = llmnb.get_run(llmnb.runs()["run_id"][0])
        with pytest.raises(LlmnbError, match="closed when its run ended") as caught:
            await asyncio.to_thread(run.resume)
        assert "make it anew" in caught.value.__notes__[0]
    got = await llm.amap(Rows().all(), SAY)
    assert (got.status.kept, got.status.done, len(sim.requests)) == (first_slow, 5 - first_slow, 5)


class Given(Reader):
    """Rows as they are given, so many at a time."""

    def __init__(self, pieces: list[list[dict[str, Any]]]) -> None:
        super().__init__()
        self._pieces = pieces

    def take(self, patience_s: float = 0.0) -> list[Any]:
        """The next."""
        return self._pieces.pop(0) if self._pieces else []


@pytest.mark.parametrize("trouble", ["row", "disk"])
def test_rows_that_cannot_be_written(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay in memory in their places: those that hold a lambda, and all after a disk is full."""
    dump, dumped = pickle.dump, [0]

    def dump_or_fail(rows: list[Any], file: Any) -> None:
        dumped[0] += 1
        try:
            if trouble == "disk" and dumped[0] > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            dump(rows, file)
        except Exception:
            file.write(b"half of it" * 100)
            raise

    monkeypatch.setattr(spooled.sources, "PIECE", 3)
    rows = [{"n": n, "more": (lambda: 1) if trouble == "row" and n in (2, 5) else n} for n in range(12)]
    warned = pytest.warns(LlmnbWarning, match="kept in memory") if trouble == "disk" else nullcontext()
    with warned, monkeypatch.context() as patch:
        patch.setattr(pickle, "dump", dump_or_fail)
        source = Spooled(Given([rows[at : at + 2] for at in range(0, 12, 2)]))
        early = source.pieces()
        read = [next(early)]
        read += early
    assert [row for piece in read for row in piece.to_dict("records")] == rows
    assert source.frame().to_dict("records") == rows
    assert [len(piece) for piece in source.pieces()] == [3, 3, 3, 3]


async def test_rows_with_what_cannot_be_written_are_asked(llm: llmnb.LLM) -> None:
    """As those of a list are."""

    async def both() -> AsyncIterator[dict[str, Any]]:
        for n in range(3):
            yield {"n": n, "more": lambda: 1}

    assert (await llm.amap(both(), SAY))["text"].tolist() == [f"echo Say {n}" for n in range(3)]


async def test_an_error_of_the_iterator(sim: Simulator, llm: llmnb.LLM) -> None:
    """What came before is answered and kept, and the error is the iterator's own; one at once leaves no run."""
    rows = Rows(rows=0, error=ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await llm.amap(rows.all(), SAY)
    assert (len(llmnb.runs()), len(sim.requests), rows.closed.is_set()) == (0, 0, True)
    rows = Rows(error=ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone") as caught:
        await llm.amap(rows.all(), SAY)
    assert "after 5 of them. It is read in a task" in caught.value.__notes__[0]
    assert "5 of 5 rows are answered and kept" in caught.value.__notes__[1]
    assert (await llm.amap([{"n": n} for n in range(5)], SAY)).status.kept == 5


async def test_a_dry_run_and_what_is_refused(sim: Simulator, llm: llmnb.LLM) -> None:
    """The iterator is closed, whatever was wrong; `map` says who takes one."""
    rows = Rows()
    assert (await llm.amap(rows.all(), SAY, dry_run=True)).rows == 5
    assert rows.closed.is_set()
    rows = Rows()
    with pytest.raises(llmnb.InvalidRequest, match="no column 'm'"):
        await llm.amap(rows.all(), "Say {{ m }}")
    assert rows.closed.is_set()
    with pytest.raises(llmnb.InvalidRequest, match=r"await llm\.amap"):
        llm.map(rows.all(), SAY)
    assert sim.requests == []


async def test_pages_of_the_sdk(sim: Simulator, llm: llmnb.LLM) -> None:
    """Their items are rows, an async one's in `amap` only: as a Pydantic model it gives `map` its fields, too."""

    def said(row: Any) -> str:
        return f"Say {row.value.id}"

    with sim.client() as client:
        models = llm.map(client.models.list(), said)["value"]
    assert len(models) > 1
    async with anthropic.AsyncAnthropic() as client:
        page: Any = await client.models.list()
        with pytest.raises(llmnb.InvalidRequest, match=r"await llm\.amap"):
            llm.map(page, said)
        assert (await llm.amap(page, said)).status.kept == len(models)
    with pytest.raises(llmnb.InvalidRequest, match="not a ModelInfo"):
        llm.map(models[0], said)


async def test_no_more_is_read_than_is_taken_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are; and the loop gets its turns between rows that are all there."""
    monkeypatch.setattr(readers, "AHEAD", 8)
    monkeypatch.setattr(readers, "_BREATHES_S", -1.0)
    read, turns = [0], [0]

    async def rows() -> AsyncIterator[int]:
        for n in range(30):
            read[0] = n + 1
            yield n

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    reader, got = TaskReader(rows()), list[int]()
    while some := await asyncio.to_thread(reader.take):
        got += some
        assert read[0] <= len(got) + 9
    assert got == list(range(30))
    assert turns[0] >= 30
    beside.cancel()
    await reader.aclose()


async def test_iterators_that_do_not_close_well(llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are there; a person is told."""

    class Failing(Rows):
        async def all(self) -> AsyncIterator[dict[str, int]]:
            yield {"n": 1}

        async def aclose(self) -> None:
            raise OSError("no connection to give back")

        def __aiter__(self) -> Any:
            self.rows = self.all()
            return self

        async def __anext__(self) -> dict[str, int]:
            return await anext(self.rows)

    with pytest.warns(LlmnbWarning, match="no connection to give back"):
        assert len(await llm.amap(Failing(), SAY)) == 1

    monkeypatch.setattr(readers, "CLOSES_S", 0.01)
    go = asyncio.Event()

    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await go.wait()

    reader = TaskReader(stubborn())
    assert await asyncio.to_thread(reader.take) == [1]
    with pytest.warns(LlmnbWarning, match="goes on"):
        await reader.aclose()
    assert reader.take() == []
    assert isinstance(reader.error, LlmnbError)
    go.set()
    await asyncio.wait([reader._task])


async def test_closed_before_it_has_begun() -> None:
    """Whoever waits for its rows is told that there are none."""
    reader = TaskReader(Rows().all())
    await reader.aclose()
    assert reader.take() == []
    assert isinstance(reader.error, LlmnbError)
