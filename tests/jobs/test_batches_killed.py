"""Runs in batches whose process is killed, again and again and for real, and two of them at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmnb
from llmnb.ledger import open_ledger, settle
from llmnb.simulator import Clock, Simulator
from llmnb.testing import serve_simulator

from .. import processes

SCALE = 300.0
CHILD = """
import sys
import time
import llmnb
from llmnb.jobs.batches import service
from llmnb.simulator import Clock
then, real, scale = map(float, sys.argv[3:])
service.clock = Clock(then + (time.time() - real) * scale, scale=scale)  # the server's
service.MOST_REQUESTS = int(sys.argv[2])
rows = [f"row {n}" for n in range(int(sys.argv[1]))]
got = llmnb.LLM(cache=False).map(rows, "Say {{ value }}", via="batch")
if got["error"].str.startswith("not known whether it was sent").any():
    sys.exit(3)
assert got["text"].tolist() == [f"echo Say {row}" for row in rows], got
"""


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with serve_simulator(clock=Clock(scale=SCALE), environ=True, batch_seconds=90) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)
        yield simulator
        assert simulator.crashes == []


def started(sim: Simulator, rows: int, most: int) -> processes.Python:
    """A kernel with that many rows, and so many to a batch."""
    clock = sim.clock.now(), time.time(), SCALE
    return processes.Python(["-c", CHILD, str(rows), str(most), *map(str, clock)])


def noted(home: Path) -> int:
    """How much is noted of batches."""
    return sum(path.stat().st_size for path in home.glob("runs/*/batches.jsonl"))


def check(sim: Simulator, rows: int) -> None:
    """Every row was asked once, is billed once and is on the books once, to the nano-dollar."""
    sent = Counter(
        request["params"]["messages"][0]["content"]
        for seen in sim.requests
        if (seen.method, seen.path) == ("POST", "/v1/messages/batches")
        for request in seen.body["requests"]
    )
    assert sent == Counter({f"Say row {n}": 1 for n in range(rows)})
    settle(open_ledger().path)
    with open_ledger().transaction(reading=True) as connection:
        booked = connection.execute("SELECT cost_nanousd, output_tokens FROM calls").fetchall()
    assert sorted(booked) == sorted((one.price_nanousd, one.output_tokens) for one in sim.billing)
    assert len(booked) == rows


@pytest.mark.parametrize(("rows", "kills"), [(4, 1), pytest.param(400, 40, marks=pytest.mark.soak)])
def test_killed_again_and_again(sim: Simulator, llmnb_home: Path, rows: int, kills: int) -> None:
    """At moments of chance, with more rows each time, and with two kernels at the same run; the books are the bill."""
    chance = random.Random(rows)
    most = max(2, rows // kills // 2)
    for number in range(kills):
        known = noted(llmnb_home)
        children = [started(sim, rows * (number + 1) // kills, most) for _ in range(1 + number % 2)]
        until = time.monotonic() + 20
        while noted(llmnb_home) == known and time.monotonic() < until:
            time.sleep(0.002)  # what dies before that has sent nothing
        time.sleep(chance.uniform(0, 0.4))
        for child in children:
            child.kill()
            child.wait()
    ended = {child.wait() for child in [started(sim, rows, most) for _ in range(2)]}
    if 3 in ended:  # killed between the note that a batch will be whole and its last byte: a person looks, and says so
        known = llmnb.batches()
        for name in known["name"][known["state"] == "unknown"]:
            llmnb.get_batch(name).forget()
        ended = {started(sim, rows, most).wait()}
    assert ended == {0}
    check(sim, rows)
    assert llmnb.LLM(cache=False).map([f"row {n}" for n in range(rows)], "Say {{ value }}").status.kept == rows
