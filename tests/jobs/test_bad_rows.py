"""Rows, schemas and disks that `llm.map` can do nothing with: what is lost, and that nothing else is."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest

import llmnb
from llmnb.jobs import results
from llmnb.simulator import Answer, Fault, Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.simulator.json_value import as_object, as_objects
from llmnb.trouble import LlmnbWarning, forget_warnings


@pytest.fixture(autouse=True)
def _echo(sim: Simulator) -> None:
    sim.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache, so that what is not asked again was on disk."""
    return llmnb.LLM("claude-haiku-4-5", cache=False)


def refused(message: str, status: int = 400, kind: str = "invalid_request_error") -> Answer:
    """The API's no to a request."""
    return Answer(fault=Fault("status", status=status, error_type=kind, message=message, should_retry=False))


# What the API refuses -------------------------------------------------------------------------------------------------


def test_a_schema_that_the_api_refuses(sim: Simulator, llm: llmnb.LLM) -> None:
    """There is one error that says what is wrong with it, not one a row, and nothing was paid."""
    said = "output_config.format.schema: For 'string' type, property 'pattern' has an unsupported regex"
    sim.reset()
    sim.rule(lambda request: refused(said) if "output_config" in request.body else "{}")
    schema = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
    with pytest.raises(anthropic.BadRequestError, match="unsupported regex") as caught:
        llm.map([str(n) for n in range(200)], "Say {{ value }}", schema=schema, concurrency=4)
    assert "the first rows all failed so (8 of them)" in str(caught.value.__notes__)
    assert 8 <= len(sim.requests) < 8 + 4
    assert sim.billed().price_nanousd == 0


def test_a_row_that_is_too_long(sim: Simulator, llm: llmnb.LLM) -> None:
    """It has the error, the others their answers, and it is not asked a second time in the same call."""
    got = llm.map(["a", "word " * 210_000, "b"], "{{ value }}")
    assert "prompt is too long: 210008 tokens > 200000 maximum" in got["error"][1]
    assert got["text"].dropna().tolist() == ["echo a", "echo b"]
    assert (len(sim.requests), float(got["cost_usd"][1])) == (3, 0.0)


@pytest.mark.parametrize(
    "answer",
    [
        refused("prompt is too long: 205008 tokens > 200000 maximum"),
        refused("Request exceeds the maximum size", 413, "request_too_large"),
        refused("messages.0.content.0.image.source.base64: image exceeds 5 MB maximum"),
        refused("Could not process image"),
        refused("This model's maximum context length is 8192 tokens."),
    ],
    ids=["prompt", "request", "large picture", "picture", "compatible"],
)
def test_rows_that_are_wrong_themselves_stand_first(sim: Simulator, llm: llmnb.LLM, answer: Answer) -> None:
    """What is wrong with ten rows themselves says nothing of the others, though nothing was answered before."""
    sim.reset()
    sim.rule(lambda request: answer if "long" in request.prompt else f"echo {request.prompt}")
    got = llm.map([*(f"long {n}" for n in range(10)), "a", "b"], "{{ value }}", concurrency=2)
    assert got["error"].notna().tolist() == [True] * 10 + [False] * 2
    assert got["text"].tolist()[10:] == ["echo a", "echo b"]


# Rows with nothing in them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["{{ word }}", lambda row: row["word"]], ids=["template", "function"])
def test_rows_without_a_value(sim: Simulator, llm: llmnb.LLM, prompt: Any) -> None:
    """Empty and blank texts, and all that pandas writes for what is missing, are errors of their rows; none is sent."""
    values = ["a", "", " \n", None, float("nan"), pd.NA, pd.NaT, "b"]
    got = llm.map(pd.DataFrame({"word": pd.Series(values, dtype=object)}), prompt)
    assert got["error"].isna().tolist() == [True, *[False] * 6, True]
    assert got["error"].str.startswith("InvalidRequest: ").sum() == 6
    assert got["cost_usd"].tolist()[1:-1] == [0.0] * 6
    assert sorted(request.prompt for request in sim.requests) == ["a", "b"]


# Tools ----------------------------------------------------------------------------------------------------------------


def test_tools_run_for_each_row(sim: Simulator, llm: llmnb.LLM) -> None:
    """With what the row asks; what a row cost is that of all its turns, and one whose tool fails harms no other."""
    ran = list[str]()

    def look(city: str) -> str:
        """Looks out of the window."""
        ran.append(city)
        if city == "Rome":
            raise ValueError("no window")
        return f"rain in {city}"

    def answer(request: SeenRequest) -> Answer:
        last = as_objects(request.body["messages"])[-1]["content"]
        if isinstance(last, str):
            return Answer(tool_calls=[("look", {"city": last.split()[-1]})])
        return Answer(text=str(as_object(as_objects(last)[0])["content"]))

    sim.reset()
    sim.rule(answer)
    got = llm.map(["Oslo", "Rome", "Bonn"], "Look at {{ value }}", tools=[look], concurrency=2)
    assert sorted(ran) == ["Bonn", "Oslo", "Rome"]
    assert (got["text"][0], got["text"][2]) == ("rain in Oslo", "rain in Bonn")
    assert "no window" in got["text"][1]
    assert len(sim.requests) == 6
    assert round(got["cost_usd"].sum() * 1e9) == sim.billed().price_nanousd
    assert llm.map(["Oslo", "Rome", "Bonn"], "Look at {{ value }}", tools=[look]).status.kept == 3


# A disk that fills ----------------------------------------------------------------------------------------------------


class Disk:
    """The `os` of a disk with so many bytes left, which is full, and has room again after so many refusals."""

    def __init__(self, room: int, refusals: int | None) -> None:
        self._room, self._refusals = room, refusals

    def write(self, descriptor: int, data: bytes) -> int:
        """As much as there is room for, as a disk does."""
        if self._refusals == 0:
            return os.write(descriptor, data)
        if not self._room:
            if self._refusals is not None:
                self._refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(descriptor, data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.mark.parametrize(("room", "fit"), [(1_800, 5), (0, 0)], ids=["in the middle", "from the first"])
@pytest.mark.parametrize("refusals", [None, 1, 3], ids=["for good", "for a moment", "for a while"])
def test_a_disk_that_fills(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch, room: int, fit: int, refusals: int | None
) -> None:
    """The frame is whole, one warning says so, and what found room, then or in the end, is not asked again."""
    rows = [f"row {n}" for n in range(20)]
    forget_warnings()
    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patched.setattr(results, "os", Disk(room, refusals))
        got = llm.map(rows, "{{ value }}", concurrency=2)
    assert [str(one.message)[:41] for one in caught if one.category is LlmnbWarning] == [
        "llmnb failed while saving a finished row "
    ]
    assert got["text"].tolist() == [f"echo {row}" for row in rows]
    asked = len(sim.requests)
    again = llm.map(rows, "{{ value }}", concurrency=2)
    assert again["text"].tolist() == got["text"].tolist()
    assert again.status.kept == (fit if refusals is None else 20)
    assert len(sim.requests) == asked + 20 - again.status.kept


def test_a_line_that_another_process_was_cut_off_in(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path) -> None:
    """The line that stands right behind it is read, and only the row that was cut off is asked again."""
    sim.reset()
    sim.rule('{"key":"a","of":["b"]}')
    schema = {"type": "object", "properties": {"key": {"type": "string"}, "of": {"type": "array"}}}
    rows = [f"row {n}" for n in range(4)]
    llm.map(rows, "{{ value }}", schema=schema, concurrency=1)
    (path,) = llmnb_home.glob("runs/*/rows.jsonl")
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    for cut in (len(first) - 1, 100, 9):
        path.write_bytes(b"".join([first[:cut], second, *others]))
        got = llm.map(rows, "{{ value }}", schema=schema)
        assert (got.status.kept, got["key"].tolist()) == (3, ["a"] * 4)
        assert llm.map(rows, "{{ value }}", schema=schema).status.kept == 4
