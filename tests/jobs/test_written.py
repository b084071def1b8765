"""`llm.map(path, …, out=path)`: rows read in pieces, and results written to Parquet in their order."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.jobs import sources
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

PROMPT = "Say {{ word }} {{ n }}"
# a number beside gaps, and text and numbers in one column, in pieces that differ
TABLE = pd.DataFrame(
    {
        "word": [f"w{n}" for n in range(7)],
        "n": [1, 2, 3, 4, 5, 6, 7],
        "gaps": [1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0],
        "mixed": ["1", "2", "3", "x", "5", "6", None],
        "none": [None] * 7,
    }
)


@pytest.fixture(autouse=True)
def _small(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", 3)
    sim.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache."""
    return llmnb.LLM(cache=False)


def rows_of(kind: str, folder: Path) -> Any:
    """The table, in a file or out of an iterator."""
    path = folder / f"rows.{kind}"
    if kind == "csv":
        TABLE.to_csv(path, index=False)
    elif kind == "parquet":
        TABLE.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in TABLE.to_dict("records")).replace("NaN", "null") + "\n\n")
    elif kind == "iterator":
        return iter(TABLE.to_dict("records"))
    else:
        return TABLE
    return path


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "jsonl", "iterator"])
def test_rows_of_every_kind_in_pieces(sim: Simulator, llm: llmnb.LLM, tmp_path: Path, kind: str) -> None:
    """The file is what the frame would be, in row groups; the same call on the frame asks nothing more."""
    got = llm.map(rows_of(kind, tmp_path), PROMPT, out=tmp_path / "out.parquet", concurrency=2)
    found = got.frame()
    assert found["text"].tolist() == [f"echo Say w{n - 1} {n}" for n in range(1, 8)]
    assert found[["word", "n"]].values.tolist() == TABLE[["word", "n"]].values.tolist()
    assert found["gaps"].isna().tolist() == TABLE["gaps"].isna().tolist()
    assert found["gaps"].dropna().tolist() == [1, 2, 3, 5, 6, 7]
    assert [None if pd.isna(one) else str(one) for one in found["mixed"]] == [*TABLE["mixed"].tolist()[:6], None]
    assert found["none"].isna().all()
    assert float(found["cost_usd"].sum()) == pytest.approx(float(llmnb.calls()["cost_usd"].sum()))
    assert sources.parquet().ParquetFile(got.path).num_row_groups == 3
    assert (got.status.rows, got.status.done, got.status.is_counted) == (7, 7, True)
    assert "7 rows" in repr(got)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    whole = llm.map(rows_of(kind, tmp_path), PROMPT)
    assert (len(sim.requests), whole.run_id) == (7, got.run_id)
    assert whole["text"].tolist() == found["text"].tolist()
    assert llmnb.runs()["rows"].tolist() == [7]


def test_failures_equal_rows_and_an_iterator(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """What an iterator gave is known when its failed rows are asked again, also what no file could hold."""
    sim.reset()
    fault = Answer(fault=Fault("status", status=400, error_type="invalid_request_error"))
    sim.rule(lambda request: fault if "bad" in request.prompt else f"echo {request.prompt}")

    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"word": word, "what": Path(word)} for word in ("a", "bad", "a", "b", "a"))
        yield {"word": None, "what": datetime(2026, 1, 1), "more": 1}
        yield {"word": "c", "more": 2}

    got = llm.map(rows(), lambda row: f"Say {row['word']}" if row["word"] else 7 / 0, out=tmp_path / "out.parquet")
    found = got.frame()
    assert found["error"].notna().tolist() == [False, True, False, False, False, True, False]
    assert "ZeroDivisionError" in found["error"][5]
    assert found["what"].tolist()[:2] == ["a", "bad"]
    assert found["more"].dropna().tolist() == [1, 2]
    assert found["output_tokens"].sum() == llmnb.calls()["output_tokens"].sum()
    assert (got.status.rows, got.status.failed) == (7, 2)
    sim.reset()
    sim.rule("fine")
    again = got.retry_failed()
    assert again.frame()["text"].tolist()[:2] == ["echo Say a", "fine"]
    assert len(sim.requests) == 1


class Mood(enum.Enum):
    """How it sounds."""

    GOOD = "good"
    BAD = "bad"


class Found(BaseModel):
    """A value with fields of every kind."""

    name: str
    age: int | None
    share: float
    sure: bool
    tags: list[str]
    mood: Mood
    more: list[dict[str, int]]


async def test_values_have_their_types(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """A schema's fields are columns of their types, also where the first rows have none; the async twin writes, too."""
    sim.reset()
    value = {"name": "Ann", "age": 3, "share": 1, "sure": True, "tags": ["a"], "mood": "bad", "more": [{"a": 1}]}
    late = {**value, "age": None, "share": 0.5}
    sim.rule(lambda request: Answer(text=json.dumps(value if "5" in request.prompt else late)))
    rows = [None, None, None, "4", "5"]
    got = await llm.amap(iter(rows), "{{ value }}", schema=Found, out=str(tmp_path / "out.parquet"))
    found = got.frame()
    kinds = {field.name: str(field.type) for field in sources.parquet().read_schema(got.path)}
    assert (kinds["age"], kinds["share"], kinds["sure"], kinds["mood"]) == ("int64", "double", "bool", "string")
    assert found["name"].dropna().tolist() == ["Ann", "Ann"]
    assert found["age"].dropna().tolist() == [3]
    assert found["share"].dropna().tolist() == [0.5, 1.0]
    assert list(found["tags"][4]) == ["a"]
    assert (found["mood"][4], found["more"][4]) == ("bad", '[{"a": 1}]')


def test_what_names_the_rows_is_a_column(llm: llmnb.LLM, tmp_path: Path) -> None:
    """A frame's index, by its name; no rows are a file, too."""
    frame = pd.DataFrame({"word": ["a", "b"]}, index=pd.Index(["x", "x"], name="who"))
    found = llm.map(frame, "Say {{ word }}", out=tmp_path / "out.parquet").frame()
    assert found["who"].tolist() == ["x", "x"]
    none = llm.map(frame[:0], "Say {{ word }}", out=tmp_path / "none.parquet").frame()
    assert none.empty
    assert {"word", "text", "cost_usd", "error"} <= set(none.columns)


@pytest.mark.parametrize(
    ("out", "said"),
    [("out.csv", "ends with .parquet"), ("nowhere/out.parquet", "no folder that can be written")],
)
def test_what_cannot_be_written(sim: Simulator, llm: llmnb.LLM, tmp_path: Path, out: str, said: str) -> None:
    """It is said before anything is sent."""
    with pytest.raises(InvalidRequest, match=said):
        llm.map(["a"], "{{ value }}", out=tmp_path / out)
    assert sim.requests == []


@pytest.mark.parametrize(
    ("name", "text"), [("rows.jsonl", '{"word": "a"}\n[1]\n'), ("rows.jsonl", "{"), ("rows.parquet", "none")]
)
def test_a_file_that_is_none(sim: Simulator, llm: llmnb.LLM, tmp_path: Path, name: str, text: str) -> None:
    """It is read before anything is sent."""
    (tmp_path / name).write_text(text)
    for out in (None, tmp_path / "out.parquet"):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            llm.map(tmp_path / name, "{{ word }}", out=out)
    assert sim.requests == []


def test_a_file_that_cannot_be_written_in_the_end(
    sim: Simulator, llm: llmnb.LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are kept, the error says so, and nothing half-written stays."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("llmnb.jobs.written.os.replace", full)
        with pytest.raises(OSError, match="No space") as caught:
            llm.map(["a", "b"], "{{ value }}", out=tmp_path / "out.parquet")
    assert "2 of 2 rows are answered and kept" in str(caught.value.__notes__)
    assert [path.name for path in tmp_path.iterdir()] == ["llmnb-home"]
    got = llm.map(["a", "b"], "{{ value }}", out=tmp_path / "out.parquet")
    assert got.frame()["text"].tolist() == ["echo a", "echo b"]
    assert len(sim.requests) == 2
