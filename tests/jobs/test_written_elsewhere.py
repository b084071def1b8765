"""`out=` where the rows are not asked one by one by this process: in message batches, and by a Dask cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.jobs import sources
from llmnb.jobs.batches import service
from llmnb.simulator import Clock, Simulator
from llmnb.testing import serve_simulator

SAY = "Say {{ word }}"
WORDS = ["a", "b", "a", "bad", "c", "d", "e"]


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """One whose batches take no time."""
    clock = Clock.jumping()
    monkeypatch.setattr(service, "clock", clock)
    monkeypatch.setattr(sources, "PIECE", 3)
    with serve_simulator(clock=clock, environ=True, batch_seconds=600) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)
        yield simulator
        assert simulator.crashes == []


@pytest.fixture(params=["batch", "cluster"])
def way(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """How `map` is told to ask."""
    if request.param == "batch":
        yield {"via": "batch"}
        return
    from distributed import Client, LocalCluster

    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield {"executor": client}


@pytest.mark.parametrize("kind", ["iterator", "parquet"])
def test_the_file_is_that_of_rows_asked_here(
    sim: Simulator, llmnb_home: Path, tmp_path: Path, way: dict[str, Any], kind: str
) -> None:
    """With equal and failing rows; nothing is asked again but what failed, and the money is that of the bill."""
    sim.fail("status", status=400, match=lambda request: "bad" in request.prompt, times=1)
    frame, llm = pd.DataFrame({"word": WORDS}), llmnb.LLM(cache=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    rows = iter(frame.to_dict("records")) if kind == "iterator" else tmp_path / "rows.parquet"
    got = llm.map(rows, SAY, out=tmp_path / "out.parquet", **way)
    found = got.frame()
    assert found["word"].tolist() == WORDS
    assert found["text"].fillna("").tolist() == [f"echo Say {word}" if word != "bad" else "" for word in WORDS]
    assert found["error"].notna().tolist() == [word == "bad" for word in WORDS]
    assert round(found["cost_usd"].sum() * 1e9) == sum(one.price_nanousd or 0 for one in sim.billing)
    assert (got.status.rows, got.status.failed, got.status.is_counted) == (7, 1, True)
    again = got.retry_failed()
    assert again.frame()["text"].tolist() == [f"echo Say {word}" for word in WORDS]
    assert (again.status.kept, again.status.done) == (6, 1)
    here = llm.map(frame, SAY)
    assert (here.status.kept, here.run_id) == (7, got.run_id)


async def test_an_async_iterator_in_batches(sim: Simulator, llmnb_home: Path) -> None:
    """Its rows come on the loop that sends the batch."""

    async def rows() -> AsyncIterator[str]:
        for word in WORDS:
            await asyncio.sleep(0)
            yield word

    got = await llmnb.LLM(cache=False).amap(rows(), "Say {{ value }}", via="batch")
    assert got["text"].tolist() == [f"echo Say {word}" for word in WORDS]
