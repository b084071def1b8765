"""Two calls that work at the same run at the same time: no row is paid twice."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.jobs import turn
from llmnb.jobs.comparing import runs
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.trouble import LlmnbWarning, forget_warnings

from .. import processes

ROWS = ["a", "b", "c"]
CHILD = """
import llmnb
llmnb.LLM(cache=False).map(["a", "b", "c"], "Say {{ value }}", concurrency=1)
"""


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache."""
    return llmnb.LLM(cache=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_the_second_process_waits_for_the_first(
    sim: Simulator, llm: llmnb.LLM, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says whom it waits for; when that is killed, it asks what is not finished."""
    hangs = threading.Event()

    def answer(request: SeenRequest) -> Answer:
        is_first = request.prompt == "Say b" and not hangs.is_set()
        if is_first:
            hangs.set()
        return Answer(text=f"echo {request.prompt}", first_token_s=600 if is_first else None)

    sim.rule(answer)
    child = processes.Python(["-c", CHILD], env={**os.environ, **sim.environ()})
    assert hangs.wait(60)
    assert llmnb.runs()["state"].tolist() == ["running"]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()

    monkeypatch.setattr(turn, "_sleep", sleep)
    with pytest.warns(LlmnbWarning, match=rf"worked at by process {child.pid}.* no row is paid twice"):
        got = llm.map(ROWS, "Say {{ value }}", concurrency=1)
    assert (got.status.kept, got.status.done, len(pauses)) == (1, 2, 3)
    assert [seen.prompt for seen in sim.requests if seen.is_message] == ["Say a", "Say b", "Say b", "Say c"]
    assert llmnb.runs()["state"].tolist() == ["finished"]


def test_the_second_task_waits_for_the_first(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one kernel, too; each row is asked once, and both have all answers."""
    monkeypatch.setattr(turn, "PAUSE_S", 0.001)
    sim.rule(lambda request: Answer(text=f"echo {request.prompt}", first_token_s=0.05))

    async def both() -> list[Any]:
        return await asyncio.gather(*(llm.amap(ROWS, "Say {{ value }}", concurrency=1) for _ in range(2)))

    with pytest.warns(LlmnbWarning, match="another call in this kernel"):
        got = asyncio.run(both())
    assert [one["text"].tolist() for one in got] == [[f"echo Say {row}" for row in ROWS]] * 2
    assert sorted(one.status.kept for one in got) == [0, 3]
    assert len(sim.requests) == 3


def test_a_call_that_would_wait_for_ever_is_refused(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task on the loop that the second call would hold up."""
    asked = threading.Event()

    def answer(_: SeenRequest) -> Answer:
        asked.set()
        return Answer(text="fine", first_token_s=600)

    sim.rule(answer)

    async def both() -> None:
        task = asyncio.ensure_future(llm.amap(ROWS, "Say {{ value }}"))
        assert await asyncio.to_thread(asked.wait, 60)
        try:
            with pytest.raises(InvalidRequest, match="await the task"):
                llm.map(ROWS, "Say {{ value }}")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(both())


def test_waiting_can_be_stopped(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, and the one that has the run goes on."""
    sim.rule("fine")
    llm.map(ROWS, "Say {{ value }}")
    job = llmnb.get_run(llmnb.runs()["run_id"][0])._job
    assert job is not None
    other = turn.Turn(job.folder, job.settings)
    other.wait()

    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(turn, "_sleep", pressed)
    with pytest.raises(KeyboardInterrupt, match=r"Stopped.*nothing was sent"):
        llm.map([*ROWS, "d"], "Say {{ value }}")
    other.close()
    assert len(sim.requests) == 3
    assert llm.map([*ROWS, "d"], "Say {{ value }}").status.kept == 3


# Comparisons ----------------------------------------------------------------------------------------------------------

MODELS = ["claude-opus-5-5", "claude-sonnet-5-5"]
COMPARES = f"""
import llmnb
llmnb.compare(["a", "b"], [llmnb.LLM(name, cache=False) for name in {MODELS}], concurrency=1, progress=False)
"""


def contestants() -> list[llmnb.LLM]:
    """Two of them, without the response cache."""
    return [llmnb.LLM(name, cache=False) for name in MODELS]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_a_comparison_waits_for_that_of_another_process(
    sim: Simulator, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says whom it waits for; when that is killed, only answers that had not come are asked for."""
    monkeypatch.setattr(turn, "PAUSE_S", 0.01)
    hangs, asked = threading.Event(), list[tuple[str, str]]()

    def answer(request: SeenRequest) -> Answer:
        asked.append((request.body["model"], request.prompt))
        is_first = asked[-1] == (MODELS[0], "b") and not hangs.is_set()
        if is_first:
            hangs.set()
        return Answer(text=f"echo {request.prompt}", first_token_s=600 if is_first else None)

    sim.rule(answer)
    child = processes.Python(["-c", COMPARES], env={**os.environ, **sim.environ()})
    assert hangs.wait(60)
    said: list[str] = []

    def told(text: str, _: object) -> None:
        said.append(text)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    monkeypatch.setattr(runs, "warn_user", told)
    frame = llmnb.compare(["a", "b"], contestants(), progress=False).frame()
    assert frame["answer"].tolist() == ["echo a", "echo a", "echo b", "echo b"]
    assert len(said) == 1
    assert f"worked at by process {child.pid}" in said[0]
    assert asked.count((MODELS[0], "b")) == 2
    assert asked.count((MODELS[0], "a")) == 1  # finished, and on disk, before the next one was asked
    assert set(llmnb.runs()["state"]) == {"finished"}


async def test_comparisons_of_one_kernel(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once, and a map over the same rows: each answer is asked for once, whatever they have in common."""
    monkeypatch.setattr(turn, "PAUSE_S", 0.001)
    sim.rule(lambda request: Answer(text=f"echo {request.prompt}", first_token_s=0.05))
    one, other = contestants()
    with pytest.warns(LlmnbWarning, match="another call in this kernel"):
        got = await asyncio.gather(
            llmnb.acompare(["a", "b"], {"one": one, "other": other}, progress=False),
            llmnb.acompare(["a", "b"], {"other": other, "one": one}, judge=one, criteria="best", progress=False),
            llmnb.acompare(["b", "a"], {"other": other}, score=len, progress=False),
        )
    assert [comparison.frame()["answer"].notna().all() for comparison in got] == [True] * 3
    asked = [(seen.body["model"], seen.prompt) for seen in sim.requests if "You judge" not in str(seen.body)]
    assert len(asked) == len(set(asked)) == 4


async def test_a_comparison_that_would_wait_for_ever_is_refused(sim: Simulator) -> None:
    """It holds up the loop on which a task compares the same."""
    asked = threading.Event()

    def answer(_: SeenRequest) -> Answer:
        asked.set()
        return Answer(text="fine", first_token_s=600)

    sim.rule(answer)
    task = asyncio.ensure_future(llmnb.acompare(["a", "b"], contestants(), progress=False))
    assert await asyncio.to_thread(asked.wait, 60)
    try:
        with pytest.raises(InvalidRequest, match="acompare"):
            llmnb.compare(["a", "b"], contestants(), progress=False)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_file_system_without_locks(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, with one warning."""
    forget_warnings()
    monkeypatch.setattr(turn, "lock_if_can", lambda _: None)
    sim.rule("fine")
    with pytest.warns(LlmnbWarning, match="has no locks"):
        assert llm.map(ROWS, "Say {{ value }}").status.done == 3
    assert llm.map(ROWS, "Say {{ value }}").status.kept == 3
    forget_warnings()
