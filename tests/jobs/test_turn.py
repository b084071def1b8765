"""Two calls that work at the same run at the same time: no row is paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.jobs import turn
from llmnb.jobs.comparing import runs
from llmnb.jobs.description import LOCK
from llmnb.locks import LockFile, try_lock
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


def _other(llm: llmnb.LLM) -> turn.Turn:
    llm.map(["a"], "Say {{ value }}")
    job = llmnb.get_run(llmnb.runs()["run_id"][0])._job
    assert job is not None
    return turn.Turn(job.folder, job.settings)


def _in_a_thread(other: turn.Turn) -> Callable[[], None]:
    thread = threading.Thread(target=other.wait)
    thread.start()
    thread.join()
    return other.close


def _on_another_machine(other: turn.Turn) -> Callable[[], None]:
    file = LockFile(other._folder / LOCK)
    assert file.descriptor is not None
    assert try_lock(file.descriptor)
    os.write(file.descriptor, json.dumps({"pid": os.getpid(), "host": "another"}).encode())
    return file.close


@pytest.mark.parametrize("taken", [_in_a_thread, _on_another_machine])
async def test_what_ends_by_itself_is_waited_for(
    sim: Simulator,
    llm: llmnb.LLM,
    monkeypatch: pytest.MonkeyPatch,
    taken: Callable[[turn.Turn], Callable[[], None]],
) -> None:
    """A cell holds up its event loop, and neither another thread nor a process of the same number elsewhere."""
    sim.rule("fine")
    give_back = taken(_other(llm))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            give_back()

    monkeypatch.setattr(turn, "_sleep", sleep)
    with pytest.warns(LlmnbWarning, match="no row is paid twice"):
        got = llm.map(ROWS, "Say {{ value }}")
    assert (got.status.kept, len(pauses)) == (1, 3)


def test_a_run_that_asks_itself_is_refused(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row would wait for the run, which waits for its row."""
    monkeypatch.setattr(turn, "PAUSE_S", 0.001)
    sim.rule(lambda request: f"echo {request.prompt}")

    def prompt(row: Any) -> str:
        return row.value if row.value != "b" else llm.map(["c"], prompt)["text"][0]

    got = llm.map(ROWS, prompt)
    assert got["text"].tolist()[::2] == ["echo a", "echo c"]
    assert "neither would end" in got["error"][1]


def test_what_was_stopped_is_waited_for(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends on llmnb's own thread; as long as nobody has stopped it, the thread that asked would wait for ever."""
    sim.rule("fine")
    first = _other(llm)
    caller = first._caller = turn.Caller(threading.get_ident())
    first.wait()
    with pytest.raises(InvalidRequest, match="neither would end"):
        llm.map(ROWS, "Say {{ value }}")
    caller.thread = None
    monkeypatch.setattr(turn, "_sleep", lambda _seconds: first.close())
    assert llm.map(ROWS, "Say {{ value }}").status.kept == 1


def _must_not_wait(_: float) -> None:
    pytest.fail("it waits")


FORKS = """
import os, time, llmnb
def prompt(row):
    if row.value == "b":
        if (child := os.fork()) == 0:
            time.sleep(600)
        print(child, flush=True)
        time.sleep(600)
    return row.value
llmnb.LLM(cache=False).map(["a", "b"], prompt, concurrency=1, progress=False)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_a_forked_child_has_no_lock(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is killed, and a pool that its prompts began lives on: the same cell does not wait for that."""
    sim.rule(lambda request: f"echo {request.prompt}")
    kernel = processes.Python(["-c", FORKS], env={**os.environ, **sim.environ()}, stdout=subprocess.PIPE)
    assert kernel.stdout is not None
    child = int(kernel.stdout.readline())
    try:
        kernel.kill()
        kernel.wait()

        def prompt(row: Any) -> str:
            return row.value

        prompt.__qualname__ = "prompt"
        monkeypatch.setattr(turn, "PAUSE_S", 0.0)
        monkeypatch.setattr(turn, "_sleep", _must_not_wait)
        os.kill(child, 0)  # is there
        assert "running" not in llmnb.runs()["state"].tolist()
        assert llm.map(["a", "b"], prompt)["text"].tolist() == ["echo a", "echo b"]
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        kernel.stdout.close()


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


@pytest.mark.parametrize("by_judge", [False, True])
async def test_comparisons_of_other_prompts_go_side_by_side(sim: Simulator, by_judge: bool) -> None:
    """A task compares some, or has them judged, and a cell others: neither waits, and both are on the books."""
    asked = threading.Event()

    def answer(request: SeenRequest) -> Answer:
        is_judged = "You judge" in request.prompt
        if is_judged == by_judge and "slow" in request.prompt:
            asked.set()
            return Answer(text="fine", first_token_s=600)
        verdict = json.dumps({"reasoning": "so", "winner": "tie"})
        return Answer(text=verdict if is_judged else f"{request.body['model']} says {request.prompt}")

    sim.rule(answer)
    judged: dict[str, Any] = {"judge": llmnb.LLM(cache=False), "criteria": "best", "progress": False}
    task = asyncio.ensure_future(llmnb.acompare(["slow", "slower"], contestants(), **judged))
    try:
        assert await asyncio.to_thread(asked.wait, 60)
        got = llmnb.compare(["quick", "quicker"], contestants(), **judged)
        assert got.frame()["answer"].notna().all()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told, calls = llmnb.runs(), llmnb.calls()
    ended = calls[calls["status"] == "ok"]  # what was stopped is in no row
    assert float(told["cost_usd"].sum()) == pytest.approx(float(ended["cost_usd"].sum()))
    assert not list(Path(told["path"][0]).parent.rglob(f"{LOCK}.*"))


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
