"""`llmnb.runs()` and `llmnb.get_run()`: what is kept of runs, whoever made them."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import anthropic
import pandas as pd
import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.jobs.description import at_work
from llmnb.jobs.results import Results
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

from .. import processes


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache."""
    return llmnb.LLM(cache=False, project="thesis")


def test_the_runs_are_a_frame(sim: Simulator, llm: llmnb.LLM) -> None:
    """The newest first, with what each is about, how far it came and what it cost, in dollars of the bill."""
    assert llmnb.runs().empty
    first = llm.map(["a", "b"], llmnb.Template("Say\n {{ value }}", name="say", version=3))
    sim.reset()
    sim.rule(lambda request: Answer(text="No.", refusal=True) if "evil" in request.prompt else None)

    def shout(row: pd.Series) -> str:
        return f"{row['word']}!"

    second = llmnb.LLM("claude-haiku-5-5", cache=False).map([{"word": "a"}, {"word": "evil"}, {"word": None}], shout)
    found = llmnb.runs()
    assert found["run_id"].tolist() == [second.run_id, first.run_id]
    assert found["prompt"].tolist() == [f"{shout.__qualname__}(row)", "Say {{ value }}"]
    assert found["template"][1] == "say@3"
    assert (found["model"][0], found["project"][1]) == ("claude-haiku-5-5", "thesis")
    assert found[["rows", "done", "failed"]].values.tolist() == [[3, 2, 1], [2, 2, 0]]
    assert (found["state"] == "finished").all()
    calls = llmnb.calls()
    for run_id, cost in zip(found["run_id"], found["cost_usd"], strict=True):
        assert cost == pytest.approx(float(calls[calls["run_id"] == run_id]["cost_usd"].sum()))
        assert cost > 0
    assert (found["began"] <= found["changed"]).all()
    began = found["began"][1]
    llm.map(["a", "b", "c"], llmnb.Template("Say\n {{ value }}", name="say", version=3))
    assert llmnb.runs()["run_id"].tolist() == [first.run_id, second.run_id]
    assert (llmnb.runs()["rows"][0], llmnb.runs()["began"][0]) == (3, began)


def test_a_run_can_be_had_again(sim: Simulator, llm: llmnb.LLM) -> None:
    """By its id, or the beginning of it: its answers in the order of the rows, and here the work itself."""
    sim.rule(
        lambda request: Answer(text=f"echo {request.prompt}", first_token_s=0.05 if "slow" in request.prompt else 0)
    )
    got = llm.map(["slow", "b", "b", "c"], "Say {{ value }}")
    run = llmnb.get_run(got.run_id[:6])
    assert (run.run_id, run.state, run.rows, run.done, run.failed) == (got.run_id, "finished", 4, 4, 0)
    frame = run.frame()
    assert frame["prompt"].tolist() == ["Say slow", "Say b", "Say c"]
    assert frame["text"].tolist() == ["echo Say slow", "echo Say b", "echo Say c"]
    assert frame.index.tolist() == [0, 1, 3]
    assert float(frame["cost_usd"].sum()) == pytest.approx(float(run.cost_usd)) == pytest.approx(got["cost_usd"].sum())
    assert "4 of 4 rows" in repr(run)
    pd.testing.assert_frame_equal(run.resume()[["text"]], pd.DataFrame(got[["text"]]))
    run_id = run.run_id
    del got, run
    llm.map(["another"], "Say {{ value }}!")  # the newest is known in any case
    gc.collect()
    with pytest.raises(InvalidRequest, match=r"the same call of llm\.map again"):
        llmnb.get_run(run_id).resume()
    with pytest.raises(InvalidRequest, match=r"llmnb\.runs\(\)"):
        llmnb.get_run("nope")


def test_values_and_failures_of_a_run(sim: Simulator, llm: llmnb.LLM) -> None:
    """A schema's fields are columns; what failed has its error, and can be asked again."""
    fault = Answer(fault=Fault("status", status=400, error_type="invalid_request_error"))
    sim.rule(lambda request: fault if "bad" in request.prompt else '{"name": "Ann", "age": 3}')
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    schema |= {"required": ["name", "age"]}
    got = llm.map(["good", "bad"], "Who? {{ value }}", schema=schema)
    run = llmnb.get_run(got.run_id)
    frame = run.frame()
    assert frame[["name", "age"]].iloc[0].tolist() == ["Ann", 3]
    assert "BadRequestError" in frame["error"].iloc[1]
    assert run.failed == 1
    sim.reset()
    sim.rule('{"name": "Bob", "age": 4}')
    assert run.retry_failed()["name"].tolist() == ["Ann", "Bob"]
    assert llmnb.get_run(got.run_id).failed == 0


CHILD = """
import llmnb
llmnb.LLM(cache=False).map([f"row {n}" for n in range(60)], "Say {{ value }}", concurrency=2)
"""


def test_a_run_of_another_process(sim: Simulator, llmnb_home: Path) -> None:
    """It is running as long as that lives; when it is killed the rows tell how far it came."""
    sim.rule(lambda request: Answer(text="Hi", first_token_s=0.01 if len(sim.requests) < 9 else 60))
    child = processes.Python(["-c", CHILD], env={**os.environ, **sim.environ()})
    try:
        until = time.monotonic() + 60
        while not ((found := llmnb.runs()).shape[0] and found["done"][0] >= 5) and time.monotonic() < until:
            time.sleep(0.01)
        assert found["state"][0] == "running"
        assert found["rows"][0] == 60
    finally:
        child.kill()
        child.wait()
    found = llmnb.runs()
    assert found["state"][0] == "stopped"
    assert 5 <= found["done"][0] < 60
    assert found["cost_usd"][0] > 0
    (folder,) = (llmnb_home / "runs").iterdir()
    with at_work(folder):  # another kernel goes on with it; a lock of one's own is somebody's, too
        assert llmnb.runs()["state"][0] == "running"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": 3, "more": 1}'])
def test_a_description_that_cannot_be_read(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path, text: str) -> None:
    """The rows are there all the same, and say what they can."""
    got = llm.map(["a", "b"], "Say {{ value }}")
    (path,) = (llmnb_home / "runs").glob("*/run.json")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(text)
    assert llmnb.runs()["run_id"].tolist() == [got.run_id]
    assert llmnb.get_run(got.run_id).frame()["text"].notna().all()


def test_lines_tell_their_cost_without_being_read(tmp_path: Path) -> None:
    """A value with a field of that name, and text that looks like one, change nothing; later lines win."""
    results = Results(tmp_path / "rows.jsonl")
    facts = {"value": {"x": 1, "cost_nanousd": 7}, "text": ',"cost_nanousd":5,\ud800', "cost_nanousd": 11, "n": 1}
    results.add(b"k" * 16, "answered", facts)
    results.add(b"l" * 16, "failed", {"cost_nanousd": None, "error": "no"})
    results.add(b"k" * 16, "answered", {**facts, "text": "again"})
    results.close()
    again = Results(tmp_path / "rows.jsonl")
    assert again.spent_nanousd == results.spent_nanousd == 22
    assert again.facts(b"k" * 16) == {**facts, "text": "again"}
    assert again.counts() == (1, 1)
    assert (again.has(b"l" * 16), again.has(b"l" * 16, but_failed=True), again.is_new(b"l" * 16)) == (
        True,
        False,
        False,
    )
    again.close()


@pytest.mark.parametrize("text", ["plain", "é \u2028 \0 \\", "half a pair: \ud800"])
def test_facts_are_read_as_they_were_written(tmp_path: Path, text: str) -> None:
    """With numbers of any size, and text that is none in UTF-8."""
    results = Results(tmp_path / "rows.jsonl")
    facts = {"text": text, "value": {"big": 10**30, "x": 0.1, "far": float("inf"), "none": None}, "cost_nanousd": 1}
    results.add(b"k" * 16, "answered", facts)
    results.close()
    again = Results(tmp_path / "rows.jsonl")
    assert again.facts(b"k" * 16) == facts
    assert again.facts(b"l" * 16) is None
    again.close()


def test_what_rows_cost_is_counted_once(tmp_path: Path) -> None:
    """Lines of one's own and of other processes, in whatever order they stand and however often they are read."""
    one, other = Results(tmp_path / "rows.jsonl"), Results(tmp_path / "rows.jsonl")
    one.add(b"k" * 16, "failed", {"at": 0, "cost_nanousd": 1})
    other.add(b"k" * 16, "failed", {"at": 0, "cost_nanousd": 10})
    one.add(b"l" * 16, "answered", {"at": 0, "cost_nanousd": 100})
    one.add(b"k" * 16, "failed", {"at": 0, "cost_nanousd": 1_000})
    assert one.catch_up() == [b"k" * 16]
    assert (one.spent_nanousd, one.facts(b"k" * 16), one.is_new(b"k" * 16)) == (
        1_111,
        {"at": 0, "cost_nanousd": 1_000},
        True,
    )
    other.add(b"k" * 16, "answered", {"at": 0, "cost_nanousd": 10_000})
    assert (one.catch_up(), one.catch_up()) == ([b"k" * 16], [])
    assert (one.has(b"k" * 16, but_failed=True), one.is_new(b"k" * 16)) == (True, False)
    assert len(other.catch_up()) == 3
    assert one.spent_nanousd == other.spent_nanousd == 11_111
    for results in (one, other):
        results.close()


def test_a_password_in_the_address_is_not_written_down(llmnb_home: Path) -> None:
    """Of a gateway, say: neither with the run nor anywhere else."""
    client = anthropic.Anthropic(api_key="sk-ant-none", base_url="http://me:secret@127.0.0.1:9", max_retries=0)
    with pytest.raises(anthropic.APIConnectionError):
        llmnb.LLM(client=client, cache=False).map(["a"], "Say {{ value }}", errors="raise")
    assert list(llmnb.runs()["run_id"])
    written = [path for path in llmnb_home.rglob("*") if path.is_file()]
    assert any(b"127.0.0.1:9" in path.read_bytes() for path in written)
    assert not [path for path in written if b"secret" in path.read_bytes()]
