"""What is kept for each row of a run: in memory up to a size, on disk beyond it, and never lost."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.jobs import ahead as ahead_room
from llmnb.jobs import index as index_room
from llmnb.jobs import keys as keys_room
from llmnb.jobs import sources
from llmnb.jobs.index import Index
from llmnb.jobs.keys import Keys
from llmnb.jobs.results import Results
from llmnb.jobs.run import Run
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.fault import Fault
from llmnb.trouble import LlmnbWarning, forget_warnings


@pytest.fixture(autouse=True)
def _unsaid() -> Iterator[None]:
    forget_warnings()
    yield
    forget_warnings()


def small(monkeypatch: pytest.MonkeyPatch, rows: int = 8) -> None:
    """Lets no more rows than that be kept in memory."""
    monkeypatch.setattr(index_room, "IN_MEMORY", rows)
    monkeypatch.setattr(index_room, "AT_ONCE", rows // 2)
    monkeypatch.setattr(keys_room, "IN_MEMORY", rows)


def in_memory(kept: Index | Results) -> int:
    """How many of its rows have something in memory."""
    index: Any = kept._index if isinstance(kept, Results) else kept
    return len(index._recent)


def test_an_index_is_a_dict_that_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set and looked up in whatever order, at a few keys in memory."""
    small(monkeypatch)
    chance, index, known = random.Random(1), Index(), dict[bytes, int]()
    keys = [bytes([number]) * 16 for number in range(100)]
    for number in range(1, 1_000):
        key = chance.choice(keys)
        index.set(key, number)
        known[key] = number
        other = chance.choice(keys)
        assert index.get(other) == known.get(other, 0)
        assert in_memory(index) <= 8
    assert list(index.items()) == sorted(known.items(), key=lambda item: item[1])


def test_what_was_never_set_is_not_looked_for_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mostly: of many new rows each would be a look in vain."""
    small(monkeypatch)
    chance, index = random.Random(2), Index()
    for number in range(1, 200):
        index.set(chance.randbytes(16), number)
    looks: list[str] = []
    file: Any = index._file
    file.set_trace_callback(looks.append)
    assert not any(index.get(chance.randbytes(16)) for _ in range(200))
    assert len(looks) < 10


def test_an_index_whose_file_is_lost_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, with one warning, and with what was not in the file yet; whether it is found when it is read or
    written.
    """
    small(monkeypatch)
    known = {bytes([number]) * 16: number for number in range(1, 30)}
    for is_read in (True, False):
        index = Index(lambda: [(key, number) for key, number in known.items() if number < 26])
        for key, number in known.items():
            index.set(key, number)
        file: Any = index._file
        file.close()
        with pytest.warns(LlmnbWarning, match="index of a run") if is_read else nullcontext():
            if is_read:
                assert index.get(bytes([3]) * 16) == 3
        for key, number in known.items():
            index.set(key, number + 100)
        assert dict(index.items()) == {key: number + 100 for key, number in known.items()}


@pytest.mark.parametrize("told", [0, 6])
def test_an_index_that_cannot_be_sorted(monkeypatch: pytest.MonkeyPatch, told: int) -> None:
    """Neither at first nor in the middle: one warning, and each key once all the same."""
    small(monkeypatch)
    known = {bytes([number]) * 16: max(number, 7) for number in range(1, 60)}  # those that are not saved have one
    index = Index(known.items)
    for key, number in known.items():
        index.set(key, number)
    items = index.items()
    got = [next(items) for _ in range(told)]
    file: Any = index._file
    # SQLite gives up after so many steps: more than to write, and fewer than to sort
    file.set_progress_handler(lambda: 1, 1 if told else 100)
    with pytest.warns(LlmnbWarning, match="index of a run"):
        got += items
    assert len(got) == 59
    assert dict(got) == known
    assert [number for _, number in got] == sorted(known.values())


def test_an_index_counts_though_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be found again is counted in memory."""
    small(monkeypatch)
    known = {bytes([number]) * 16: number for number in range(1, 60)}
    index = Index(known.items)
    for key, number in known.items():
        index.set(key, number)
    counts = {1: 30, 0: 29}
    assert index.counts(1) == counts
    file: Any = index._file
    file.set_progress_handler(lambda: 1, 100)
    with pytest.warns(LlmnbWarning, match="index of a run"):
        assert index.counts(1) == counts


def test_an_index_is_gone_with_its_results(tmp_path: Path) -> None:
    """At once, and not when Python next looks for garbage: it may have many rows."""
    results = Results(tmp_path / "rows.jsonl")
    results.add(b"k" * 16, "answered", {"cost_nanousd": 1})
    results.close()
    index = weakref.ref(results._index)
    gc.disable()
    try:
        del results
        assert index() is None
    finally:
        gc.enable()


def test_keys_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as they are read, and with those that came since."""
    small(monkeypatch)
    keys, rows = Keys(), [(bytes([number]) * 16, number % 3 > 0) for number in range(50)]
    for key, is_first in rows[:30]:
        keys.append(key, is_first=is_first)
    assert list(keys) == [key for key, _ in rows[:30]]
    for key, is_first in rows[30:]:
        keys.append(key, is_first=is_first)
    assert list(zip(keys, keys.firsts(), strict=True)) == rows
    assert len(keys) == 50
    assert [keys[row] for row in range(50)] == list(keys)


def test_keys_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in memory, with one warning."""
    small(monkeypatch)

    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys_room, "TemporaryFile", full)
    keys = Keys()
    for number in range(8):
        with pytest.warns(LlmnbWarning, match="order of a run's rows") if number == 7 else nullcontext():
            keys.append(bytes([number]) * 16, is_first=True)
    for number in range(8, 50):
        keys.append(bytes([number]) * 16, is_first=True)
    assert [key[0] for key in keys] == list(range(50))


@pytest.mark.parametrize("loses", [False, True])
def test_a_run_with_few_rows_in_memory(
    sim: Simulator, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch, loses: bool
) -> None:
    """Equal, failing and unsendable rows, kept and asked again: as it is when all are in memory, and even when the file
    of the index is lost in the middle.
    """
    fault = Answer(fault=Fault("status", status=400, error_type="invalid_request_error"))

    def answer(request: Any) -> Any:
        number = int(request.prompt.split()[-1])
        if loses and number == 33:
            for index in made:
                with index._lock:
                    if index._file is not None:
                        index._file.close()
        return fault if number % 7 == 0 else f"echo {request.prompt}"

    made: list[Any] = []
    plain = Index.__init__

    def noted(self: Any, *given: Any) -> None:
        made.append(self)
        plain(self, *given)

    small(monkeypatch)
    monkeypatch.setattr(Index, "__init__", noted)
    sim.rule(answer)
    rows: list[Any] = [number // 2 for number in range(2, 82)] + [None, 1, None, 2]
    llm = llmnb.LLM(cache=False)
    with pytest.warns(LlmnbWarning, match="index of a run") if loses else nullcontext():
        first = llm.map(rows, "Say {{ value }}", concurrency=2)
    assert len(sim.requests) == 40
    expected = [None if row is None or row % 7 == 0 else f"echo Say {row}" for row in rows]
    assert [None if text is None or text != text else text for text in first["text"]] == expected
    assert (first.status.done, first.status.failed) == (84, 12)
    assert first["output_tokens"].sum() == llmnb.calls()["output_tokens"].sum()
    again = llm.map(rows, "Say {{ value }}", concurrency=2)
    assert len(sim.requests) == 40 + 5
    assert (again.status.kept, again.status.failed) == (72, 12)
    assert again["text"].tolist()[:12] == first["text"].tolist()[:12]
    assert again["output_tokens"].sum() == llmnb.calls()["output_tokens"].sum()
    [path] = llmnb_home.glob("runs/*/rows.jsonl")
    results = Results(path)
    assert results.counts() == (35, 5)
    assert in_memory(results) <= 8
    assert len(list(results)) == 40


@pytest.mark.parametrize("rows", [300, pytest.param(30_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_memory_does_not_grow_with_the_rows(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Whatever has something for each row has it for a few rows only, at each row that is finished: from one file to
    another, with rows that fail, are equal or cannot be asked.
    """
    small(monkeypatch, 32)
    monkeypatch.setattr(sources, "PIECE", 50)
    monkeypatch.setattr(ahead_room, "_LEAST_ROWS", 16)
    most, plain = Counter[str](), Run._finish

    def finish(self: Any, *given: Any) -> None:
        plain(self, *given)
        sizes = {
            "index": in_memory(self._results),
            "order": len(self.keys._newest) // 17,
            "asked": len(self._asking),
            "ahead": len(self._ahead._made),
            "unsaved": len(self._results._unsaved),
            "left": len(self._results._left) + len(self._results._left_apart),
        }
        for name, size in sizes.items():
            most[name] = max(most[name], size)

    monkeypatch.setattr(Run, "_finish", finish)
    fault = Answer(fault=Fault("status", status=400, error_type="invalid_request_error"))
    sim.rule(lambda request: fault if request.prompt.endswith("7") else "fine")
    numbers = [None if n % 10 == 3 else n // 2 for n in range(rows)]
    pd.DataFrame({"n": pd.array(numbers, "Int64")}).to_parquet(tmp_path / "rows.parquet")
    got = llmnb.LLM(cache=False).map(
        tmp_path / "rows.parquet", "Say {{ n }}", out=tmp_path / "out.parquet", concurrency=4
    )
    assert (got.status.rows, got.status.done) == (rows, rows)
    assert max(most["index"], most["order"]) <= 32
    assert (most["asked"] <= 4, most["ahead"] <= 17, most["unsaved"], most["left"]) == (True, True, 0, 1)
