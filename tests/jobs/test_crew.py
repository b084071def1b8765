"""What a run on a Dask cluster gives, refuses and sends, on workers that are threads of this process."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pandas as pd
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.jobs.cluster import crew
from llmnb.jobs.cluster.common import Seen
from llmnb.jobs.cluster.fitness import Report, Wanted
from llmnb.jobs.cluster.parcel import outcome_of
from llmnb.jobs.cluster.parcel import told as sent
from llmnb.simulator import Answer, Fault, Simulator
from llmnb.simulator.limits import Limits
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning, forget_warnings

from .test_map import Interrupting


class Person(BaseModel):
    """What a row says."""

    name: str
    age: int


_CONNECT = "distributed.comm.timeouts.connect"


@contextmanager
def _cluster(workers: int = 2) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    options = {"processes": False, "n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def _client() -> Iterator[Any]:
    with _cluster() as client:
        yield client


@pytest.fixture
def client(_client: Any, sim: Simulator) -> Any:
    """A client of a cluster that asks the simulator."""
    sim.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)
    return _client


@pytest.fixture
def own_client(sim: Simulator) -> Iterator[Any]:
    """A client of a cluster that a test may break."""
    import dask.config
    import distributed  # noqa: F401 - has settings of its own

    with dask.config.set({_CONNECT: dask.config.get(_CONNECT)}), _cluster() as client:  # restored afterwards
        yield client


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache."""
    return llmnb.LLM(cache=False, project="thesis")


def test_the_same_frame_comes_back(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """As without a cluster: rows in order, each with its cost or its error; what is finished is not asked again."""
    sim.fail("status", status=400, match=lambda request: "Say c" in request.prompt, times=2)
    frame = pd.DataFrame({"word": ["a", "b", "c", "a"], "text": [1, 2, 3, 4]}, index=[7, 7, 2, 1])
    here = llm.map(frame, "Say {{ word }}")
    there = llm.map(frame, "Say {{ word }}", executor=client, fresh=True)
    pd.testing.assert_frame_equal(here.drop(columns="error"), there.drop(columns="error"))
    assert there["text_llm"].tolist()[:2] == ["echo Say a", "echo Say b"]
    assert "BadRequestError" in there["error"].iloc[2]
    asked = len(sim.requests)
    assert there.status.cost_nanousd == llmnb.calls()["cost_nanousd"].sum() / 2
    again = llm.map(frame, "Say {{ word }}", executor=client)  # what failed at no cost is asked again
    assert len(sim.requests) == asked + 1
    assert again["error"].isna().all()


def test_what_a_notebook_defines_travels(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """Schemas, tools, and templates with a system prompt of each row."""
    sim.reset()
    sim.rule(lambda request: '{"name": "Ann", "age": 30}')
    got = llm.map(["a"], "{{ value }}", schema=Person, executor=client)
    assert (got["name"][0], got["age"][0]) == ("Ann", 30)
    ran = list[int]()

    def word_count(text: str) -> int:
        """How many words a text has."""
        ran.append(len(text.split()))
        return ran[-1]

    sim.reset()
    sim.script(Answer(tool_calls=[("word_count", {"text": "one two"})]), "two words")
    template = llmnb.Template("Count", system="For {{ value }}.")
    got = llm.map(["Bob"], template, tools=[word_count], executor=client)
    assert (got["text"][0], sim.requests[-1].body["system"]) == ("two words", "For Bob.")


async def test_the_async_twin(llm: llmnb.LLM, client: Any) -> None:
    """With the same client, in a cell that awaits."""
    got = await llm.amap(["a", "b"], "Say {{ value }}", executor=client)
    assert got["text"].tolist() == ["echo Say a", "echo Say b"]


def test_several_models(sim: Simulator, client: Any) -> None:
    """A list of models answers at the workers, too; the next one where one is overloaded."""
    sim.fail("overloaded", retry_after_ms=1, match={"model": "claude-opus-5-5"}, times=9)
    got = llmnb.LLM(["claude-opus-5-5", "claude-haiku-5-5"], cache=False).map(["a"], "{{ value }}", executor=client)
    assert got["text"].tolist() == ["echo a"]
    assert set(llmnb.calls(where={"status": "ok"})["model"]) == {"claude-haiku-5-5"}


def test_no_key_goes_through_the_scheduler(
    sim: Simulator, llm: llmnb.LLM, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither with the run, nor with a row, nor in an error, whose request has it in its headers."""
    scheduler, said = client.cluster.scheduler, list[bytes]()

    def look(request: Any) -> Answer | Fault:
        said.extend(pickle.dumps(task.run_spec) for task in tuple(scheduler.tasks.values()))
        said.extend(scheduler.worker_plugins.values())
        return Answer(text="yes") if "fine" in request.prompt else Fault("status", status=400)

    sim.reset()
    sim.rule(look)
    with pytest.raises(anthropic.BadRequestError) as raised:
        llm.map(["fine", "bad"], "{{ value }}", executor=client, errors="raise")
    assert raised.value.status_code == 400
    said.append(pickle.dumps(raised.value))
    said.append(repr(scheduler.get_events()).encode())
    said.append(caplog.text.encode())
    key = os.environ["ANTHROPIC_API_KEY"].encode()
    assert len(said) > 5
    assert not any(key in one for one in said)


def test_stopped_it_stops_the_workers(
    sim: Simulator, llm: llmnb.LLM, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends what is under way there, keeps what is finished, and leaves nothing on the cluster."""
    sim.reset()
    sim.rule(
        lambda request: Answer(text=f"echo {request.prompt}", first_token_s=None if "fast" in request.prompt else 60)
    )
    rows = ["fast 1", "fast 2", "slow 1", "slow 2"]
    with monkeypatch.context() as patched:
        patched.setattr("llmnb.display.run_progress.progress", lambda **_: Interrupting())
        with pytest.raises(KeyboardInterrupt, match=r"Stopped\. 2 of 4 rows are answered and kept"):
            llm.map(rows, "{{ value }}", executor=client)
    scheduler = client.cluster.scheduler
    until = time.monotonic() + 30
    while time.monotonic() < until and (scheduler.tasks or _runs(scheduler) or _left(sim) < 2):
        time.sleep(0.01)
    assert (_left(sim), list(scheduler.tasks), _runs(scheduler)) == (2, [], [])
    assert set(llmnb.calls()["status"]) == {"ok", "cancelled"}
    sim.reset()
    sim.rule(lambda request: f"echo {request.prompt}")
    assert llm.map(rows, "{{ value }}", executor=client).status.kept == 2


def _left(sim: Simulator) -> int:
    return sum(request.disconnected_at is not None for request in sim.requests)


def _runs(scheduler: Any) -> list[str]:
    return [name for name in scheduler.worker_plugins if name.startswith("llmnb-run")]


class Watching(Interrupting):
    """A progress display that does something once rows are held back."""

    def __init__(self, then: Callable[[str], object]) -> None:
        self._then: Callable[[str], object] | None = then

    def __call__(self, status: Any) -> None:
        if status.held and self._then is not None:
            then, self._then = self._then, None
            then(status.held_for)


def _watched(monkeypatch: pytest.MonkeyPatch, then: Callable[[str], object]) -> None:
    monkeypatch.setattr("llmnb.display.run_progress.progress", lambda **_: Watching(then))
    monkeypatch.setattr(crew, "_LOOKS_EVERY_S", 0.05)
    monkeypatch.setattr(crew, "_PATIENCE_S", 0.0)


def test_without_a_worker_it_waits_and_says_so(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the progress and, where nobody looks at that, by a warning; a worker that comes is asked."""
    sim.rule(lambda request: f"echo {request.prompt}")
    forget_warnings()
    told = list[str]()
    with _cluster(0) as client:

        def heard(held_for: str) -> None:
            told.append(held_for)
            client.cluster.scale(1)

        _watched(monkeypatch, heard)
        with pytest.warns(LlmnbWarning, match="the rows wait for a worker of the Dask cluster"):
            got = llm.map(["a", "b"], "{{ value }}", executor=client)
    assert got["text"].tolist() == ["echo a", "echo b"]
    assert told == ["a worker of the Dask cluster"]


def test_what_workers_wait_for_is_shown(llm: llmnb.LLM, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no cluster: the account's limit, and how many rows it holds back."""

    def stop(held_for: str) -> None:
        assert "2 requests a minute" in held_for
        raise KeyboardInterrupt

    _watched(monkeypatch, stop)
    with serve_simulator(limits=Limits(requests_per_minute=2, enforce=True)) as sim:
        for name, value in sim.environ().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(KeyboardInterrupt, match="2 of 5 rows"):
            llm.map(range(5), "{{ value }}", executor=client, concurrency=1)
        assert [request.status for request in sim.requests] == [200, 200]


async def test_a_client_that_is_awaited(sim: Simulator, llm: llmnb.LLM) -> None:
    """As in a notebook that awaits; its cluster may live on the same loop."""
    from distributed import Client, LocalCluster

    sim.rule(lambda request: f"echo {request.prompt}")
    options: dict[str, Any] = {"processes": False, "n_workers": 1, "dashboard_address": ":0", "asynchronous": True}
    async with LocalCluster(**options) as cluster, Client(cluster, asynchronous=True) as client:
        got = await llm.amap(["a", "b"], "{{ value }}", executor=client)
    assert got["text"].tolist() == ["echo a", "echo b"]


def test_a_scheduler_that_is_gone_ends_the_run(sim: Simulator, llm: llmnb.LLM, own_client: Any) -> None:
    """With what to make of it, before the first row and in the middle."""

    def answer(request: Any) -> Answer:
        import dask.config

        dask.config.set({_CONNECT: "300ms"})  # how long Dask waits for one that is gone
        own_client._timeout = 0.3
        own_client.loop.add_callback(own_client.cluster.scheduler.close)
        return Answer(text="late", first_token_s=60)

    sim.rule(answer)
    for _ in range(2):
        with pytest.raises(LlmnbError, match=r"or its scheduler is out of reach|is a Dask client that is closed"):
            llm.map(["a"], "{{ value }}", executor=own_client)
    assert len(sim.requests) == 1


def test_a_cluster_that_goes_away_ends_the_run(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """With what to make of it; what is finished is kept."""
    sim.reset()
    slow = threading.Event()

    def answer(request: Any) -> Answer:
        if "slow" in request.prompt and not slow.is_set():
            slow.set()
            return Answer(text="late", first_token_s=60)
        return Answer(text=f"echo {request.prompt}")

    def lose() -> None:
        from distributed import Future

        slow.wait(30)
        client.cancel([Future(key, client) for key in tuple(client.futures)])

    sim.rule(answer)
    thread = threading.Thread(target=lose)
    thread.start()
    with pytest.raises(LlmnbError, match="restarted or closed"):
        llm.map(["fast", "slow"], "{{ value }}", executor=client, concurrency=1)
    thread.join()
    assert llm.map(["fast", "slow"], "{{ value }}", executor=client).status.kept == 1


@pytest.mark.parametrize(("budget_usd", "requests"), [(0.02, 1), (0.03, 4)], ids=["empty", "enough"])
def test_what_a_lost_worker_cost_is_gone(
    sim: Simulator, llm: llmnb.LLM, own_client: Any, budget_usd: float, requests: int
) -> None:
    """Of `budget_usd`, too: as much as its row could cost. Its row is asked again only where that is left once more."""
    client = own_client

    def answer(request: Any) -> Answer:
        if len(sim.requests) == 1:
            address = next(address for address, names in client.processing().items() if names)
            client.loop.add_callback(client.retire_workers, [address])
            return Answer(text="never", first_token_s=60)
        return Answer(text=f"echo {request.prompt}")

    sim.rule(answer)
    options: dict[str, Any] = {"executor": client, "concurrency": 1, "max_tokens": 1_000}  # a cent each, at most
    got = llm.map(["row 1", "row 2", "row 3"], "{{ value }}", budget_usd=budget_usd, **options)
    assert sim.requests[0].disconnected_at is not None  # a worker that goes in peace ends what it asks
    assert len(sim.requests) == requests
    statuses = llmnb.calls(where={"run_id": got.run_id})["status"].tolist()
    assert sorted(statuses) == ["cancelled", *["ok"] * (requests - 1)]
    assert got["text"].notna().sum() == requests - 1
    if requests == 1:
        assert "its worker was lost" in got["error"][0]


def test_what_a_worker_left_behind_is_found(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """By the one that is given its row: what became of it is handed on, and what was only begun is for the driver."""
    from llmnb.jobs.cluster.handed import Before, Handed

    sim.reset()
    begin, seen = Handed.begin, list[Before]()
    facts = {"text": "handed on", "cost_nanousd": 5, "full_nanousd": 5, "saved_nanousd": 0, "output_tokens": 1}

    def found(notes: Handed, row: str) -> Before:
        if row == "0":
            notes.hand_in(row, {**facts, "input_tokens": 1, "source": "live"})
        elif row == "1":
            begin(notes, row)
        seen.append(begin(notes, row))
        return seen[-1]

    sim.rule(lambda request: f"echo {request.prompt}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Handed, "begin", found)
        got = llm.map(["a", "b"], "{{ value }}", executor=client, concurrency=1)
    assert [(one.is_begun, one.facts is not None) for one in seen] == [(True, True), (True, False), (False, False)]
    assert got["text"].tolist() == ["handed on", "echo b"]
    assert got["cost_usd"][0] * 10**9 == 5
    assert len(sim.requests) == 1


def test_an_error_that_was_paid_is_handed_on(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """To the worker that is given the row next; one that cost nothing is not, and is asked again."""
    from llmnb.jobs.cluster.handed import Handed

    begin, hand_in, noted = Handed.begin, Handed.hand_in, list[tuple[dict[str, Any], bool]]()

    def hand(notes: Handed, row: str, facts: dict[str, Any], *, failed: bool = False) -> None:
        noted.append((facts, failed))
        hand_in(notes, row, facts, failed=failed)

    def found(notes: Handed, row: str) -> Any:
        for facts, failed in noted:
            hand_in(notes, row, facts, failed=failed)
        return begin(notes, row)

    sim.reset()
    sim.rule(lambda request: Fault("status", status=400) if "free" in request.prompt else "not a number")
    options: dict[str, Any] = {"executor": client, "concurrency": 1, "schema": int, "retries": 0}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Handed, "hand_in", hand)
        first = llm.map(["free", "paid"], "{{ value }}", **options)
        assert [(facts["cost_nanousd"] > 0, failed) for facts, failed in noted] == [(True, True)]
        sent = len(sim.requests)
        patched.setattr(Handed, "begin", found)
        with pytest.raises(LlmnbError, match="ExtractionFailed"):
            llm.map(["other"], "{{ value }}", **options, errors="raise")
    assert first["error"].notna().all()
    assert len(sim.requests) == sent


def test_what_cannot_be_asked_elsewhere_is_refused(sim: Simulator, llm: llmnb.LLM, client: Any) -> None:
    """Before anything is sent, with what to do."""
    own = llmnb.LLM(client=sim.client(), cache=False)
    refused: list[tuple[llmnb.LLM, dict[str, Any], str]] = [
        (llm, {"executor": "tcp://10.0.0.1:8786"}, "must be the client of a Dask cluster"),
        (own, {}, "client= holds a key"),
        (llm, {"extra_headers": {"X-Api-Key": "sk"}}, "holds a key, which would go through the cluster's scheduler"),
        (llm, {"tools": [len_of], "approve": True}, "approve=True asks a person"),
        (llm, {"tools": [len_of], "approve": threading.Lock().acquire}, "cannot be sent to the workers"),
        (llm, {"via": "batch"}, 'goes with via="live" only'),
    ]
    for asked, options, message in refused:
        with pytest.raises(InvalidRequest, match=message):
            asked.map(["a"], "{{ value }}", **{"executor": client, **options})
    assert sim.requests == []


def len_of(text: str) -> int:
    """How long a text is."""
    return len(text)


FOUND = {
    "in_ledger": True,
    "in_cache": True,
    "is_file": True,
    "is_folder": True,
    "same_host": True,
    "ledger": "there.db",
    "cache": "there",
}
"""What a worker on this machine sees."""


def told(*, has_purse: bool = False, **found: bool) -> str | None:
    """What is said of a worker that sees this."""
    wanted = Wanted(server="s", ledger="here.db", has_cache_url=False, has_purse=has_purse)
    return wanted.trouble(Report(llmnb.__version__, "s", Seen(**{**FOUND, **found})))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"same_host": False}, "LLMNB_STORE_URL=postgresql://"),
        ({"in_ledger": False, "is_file": False}, "has another ledger"),
        ({"in_cache": False, "is_folder": False}, "has another response cache"),
        ({"in_cache": False, "is_file": False, "has_purse": True}, "LLMNB_CACHE_URL=redis://"),
    ],
    ids=["file elsewhere", "other ledger", "other cache", "purse"],
)
def test_workers_that_keep_other_books(found: dict[str, bool], message: str) -> None:
    """A ledger that is a file of this machine serves no other one."""
    assert message in (told(**found) or "")
    assert told() is None
    assert told(same_host=False, is_file=False) is None
    wanted = Wanted(server="s", ledger="here.db", has_cache_url=False, has_purse=False)
    assert "install the same" in (wanted.trouble(Report("0.0.1")) or "")
    assert "install llmnb[dask] there" in (wanted.trouble(ModuleNotFoundError("llmnb")) or "")


def test_folders_of_each_worker_are_warned_of() -> None:
    """With a ledger for all, and a response cache for each machine."""
    forget_warnings()
    with pytest.warns(LlmnbWarning, match="LLMNB_CACHE_URL=redis://"):
        assert told(in_cache=False, is_file=False) is None


@pytest.mark.parametrize("error", [ValueError("a"), anthropic.APIConnectionError(request=None)], ids=["own", "sdk"])  # type: ignore[arg-type]
def test_any_error_travels(error: Exception) -> None:
    """As it is, or as a text."""
    from llmnb.jobs.asking import Outcome

    again = outcome_of(sent(Outcome.unasked(error))).error
    assert (type(again), str(again)) == (type(error), str(error))

    class Local(Exception):  # noqa: N818 - what a user may define
        """One that another process does not know."""

    again = outcome_of(sent(Outcome.unasked(Local("sad")))).error
    assert (type(again), str(again)) == (RuntimeError, "Local: sad")
