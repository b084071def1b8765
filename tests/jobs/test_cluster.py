"""`llm.map(…, executor=)` on three real Dask workers with a ledger in PostgreSQL, and Redis; one of them is killed."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.errors import BudgetExceeded, InvalidRequest, LlmnbError
from llmnb.jobs.cluster.crew import Crew
from llmnb.jobs.purse import Purse
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.limits import Limits
from llmnb.testing import serve_simulator

from ..postgres_server import PostgresServer
from ..redis_server import RedisServer

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright"),
]
WORKERS = 3
PRELOADED = ["distributed", "anthropic", "anthropic.types.beta", "genai_prices.data", "pandas", "psycopg", "redis"]
"""What a worker would spend its first seconds with; nothing of llmnb is imported before it begins."""


@dataclass
class Site:
    """A cluster whose workers share services, and what a driver needs to share them, too."""

    cluster: Any
    client: Any
    sim: Simulator
    environ: dict[str, str]

    def pids(self) -> list[int]:
        """The processes of the workers."""
        return list(self.client.run(os.getpid).values())


@pytest.fixture(scope="module")
def _site(
    _postgres_of_the_run: PostgresServer, _redis_of_the_run: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    import dask.config
    from distributed import Client, LocalCluster
    from distributed.utils import get_mp_context

    _redis_of_the_run.flush()
    environ = {
        "LLMNB_STORE_URL": _postgres_of_the_run.new_database(),
        "LLMNB_CACHE_URL": _redis_of_the_run.url,
        "LLMNB_HOME": str(tmp_path_factory.mktemp("cluster")),
    }
    limits = Limits(requests_per_minute=105, enforce=True)  # fewer than these tests ask
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        serve_simulator(limits=limits) as sim,
    ):
        environ |= sim.environ()
        get_mp_context().set_forkserver_preload(PRELOADED)
        options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0", "env": environ}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            yield Site(cluster, client, sim, environ)
        assert sim.crashes == []


@pytest.fixture
def site(_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The cluster, and this process as its driver."""
    for name, value in _site.environ.items():
        monkeypatch.setenv(name, value)
    return _site


def test_a_worker_without_a_key_or_with_other_books_is_refused(site: Site) -> None:
    """Before anything is sent, with what to do; the key of this process is not lent to it."""
    site.sim.reset()
    llm, (first, *_) = llmnb.LLM(), site.client.scheduler_info()["workers"]

    def told(**environ: str) -> str:
        before = {name: site.environ.get(name) for name in environ}
        site.client.run(_set, environ, workers=[first])
        try:
            with pytest.raises(InvalidRequest) as raised:
                llm.map(["a"], "{{ value }}", executor=site.client)
        finally:
            site.client.run(_set, before, workers=[first])
        return str(raised.value)

    assert f"the Dask worker {first} cannot ask: MissingKey" in told(ANTHROPIC_API_KEY="")
    assert "asks http://127.0.0.1:9" in told(ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    assert "has another ledger" in told(LLMNB_STORE_URL="")
    assert "has another response cache" in told(LLMNB_CACHE_URL="")
    assert "SettingsError" in told(LLMNB_CACHE="perhaps")
    assert site.sim.requests == []


def test_it_stays_inside_a_budget_of_the_store(site: Site) -> None:
    """`set_budget`, as everywhere: what was spent, and what is held, by whichever worker counts."""
    site.sim.reset()
    site.sim.rule(lambda request: f"echo {request.prompt}")
    budget = llmnb.set_budget(usd="0.0012", per="total")
    llm, rows = llmnb.LLM(max_tokens=50), [f"Cheap {n}" for n in range(40)]
    try:
        with pytest.raises(BudgetExceeded):
            llm.map(rows, "{{ value }}", concurrency=6, executor=site.client)
    finally:
        llmnb.remove_budget(budget)
    site.sim.settle()
    assert 0 < (site.sim.billed().price_nanousd or 0) <= 1_200_000
    assert llmnb.usage()["cost_nanousd"].sum() == site.sim.billed().price_nanousd


def test_a_worker_that_comes_late_and_cannot_ask_ends_the_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go through all rows in no time, each with an error."""
    first, *_ = site.client.scheduler_info()["workers"]

    def checked(crew: Crew, address: str, said: Any) -> None:
        site.client.run(_set, {"LLMNB_CACHE": "perhaps"}, workers=[first])  # after it was looked at

    monkeypatch.setattr(Crew, "_check", checked)
    site.sim.reset()
    try:
        with pytest.raises(LlmnbError, match=f"the Dask worker {first} cannot ask: SettingsError"):
            llmnb.LLM().map([f"Late {n}" for n in range(6)], "{{ value }}", executor=site.client)
    finally:
        site.client.run(_set, {"LLMNB_CACHE": None}, workers=[first])


def test_a_row_that_kills_its_workers(site: Site) -> None:
    """Is a row that failed, at a cost that nobody knows, and takes no other row with it."""

    def die(reason: str) -> str:
        """Ends it."""
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return reason

    def answer(request: Any) -> Answer:
        return Answer(tool_calls=[("die", {"reason": "b"})] if request.prompt == "b" else [], text="fine")

    site.sim.reset()
    site.sim.rule(answer)
    site.cluster.scheduler.allowed_failures = 0
    try:
        got = llmnb.LLM().map(["a", "b", "c"], "{{ value }}", concurrency=1, tools=[die], executor=site.client)
    finally:
        site.cluster.scheduler.allowed_failures = 3
    assert got["text"].fillna("").tolist() == ["fine", "", "fine"]
    assert got["error"][1].startswith("KilledWorker")
    assert pd.isna(got["cost_usd"][1])
    assert (got.status.failed, got.status.unpriced) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "concurrency", "kills"),
    [(60, 12, 1), pytest.param(300, 24, 4, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])],
)
def test_a_killed_worker_costs_no_row_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch, rows: int, concurrency: int, kills: int
) -> None:
    """But those that it was being answered: they are on the books as interrupted, and another worker asks them again.

    All workers together stay inside the account's limit, and books and bill agree.
    """
    site.client.wait_for_workers(WORKERS, timeout=60)
    count, victims, settle, gone = itertools.count(1), set[int](), Purse.settle, list[int]()

    def settled(purse: Purse, held: int, cost_nanousd: int | None) -> None:
        if cost_nanousd is None:  # nobody knows it
            gone.append(held)
        settle(purse, held, cost_nanousd)

    monkeypatch.setattr(Purse, "settle", settled)

    def answer(request: Any) -> Answer:
        number = next(count)
        if number % 60 == 20 and len(victims) < kills:
            victim = list(site.cluster.workers.values())[len(victims) % WORKERS].pid
            victims.add(victim)
            os.kill(victim, signal.SIGKILL)
        return Answer(text=f"echo {request.prompt}", first_token_s=0.3)

    site.sim.reset()
    site.sim.rule(answer)
    frame = pd.DataFrame({"n": range(rows)})
    llm = llmnb.LLM(max_tokens=50, tag=f"{rows} rows")
    got = llm.map(frame, f"Row {{{{ n }}}} of {rows}", concurrency=concurrency, executor=site.client, budget_usd=1)
    site.sim.settle()
    assert got["error"].isna().all()
    assert got["text"].tolist() == [f"echo Row {n} of {rows}" for n in range(rows)]
    seen = site.sim.requests
    refused = [request for request in seen if request.status == 429]
    assert len(refused) <= 1 + 2 * kills  # a worker that has just begun may be early; nobody asks again and again
    seen = [request for request in seen if request.status != 429]
    times = Counter(request.prompt for request in seen)
    twice = {prompt for prompt, asked in times.items() if asked > 1}
    again = len(seen) - rows
    calls = llmnb.calls(where={"run_id": got.run_id, "source": "live"})
    known, lost = calls[calls["status"] == "ok"], calls[calls["status"] == "interrupted"]
    assert len(known) + len(lost) == len(calls)
    # what was answered is there for all before the books know of it: what they call "ok" is asked once, and where the
    # worker was killed between the two, whoever was given its row has found the answer
    unknown = rows - len(known)
    assert 0 <= unknown <= len(llmnb.calls(where={"run_id": got.run_id, "source": "cache"}))
    # one that was about to be sent is on the books, too
    assert again + unknown <= len(lost) <= concurrency * kills
    assert len(victims) == kills
    assert gone or not len(lost)  # it may have been killed between two rows
    assert again <= len(gone)  # as much as they could cost is taken out of budget_usd
    assert {int(session.split(":")[1]) for session in lost["session"]} <= victims
    assert not known["estimated"].any()
    assert lost["estimated"].all()
    billed = {record.request_id: record for record in site.sim.billing if record.status == 200}
    for row in known.to_dict("records"):
        record = billed.pop(row["request_id"])
        assert (row["output_tokens"], row["cost_nanousd"]) == (record.output_tokens, record.price_nanousd)
    assert len({request.prompt for request in seen if request.request_id in billed} - twice) <= unknown
    assert len(billed) == again + unknown
    assert len(known["session"].unique()) >= WORKERS - 1  # the others, at least


def _set(environ: dict[str, str | None]) -> None:
    for name, value in environ.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
