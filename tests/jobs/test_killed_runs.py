"""A run whose process is killed, again and again and for real: a finished row is never paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import llmnb
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.answer import SeenRequest

from .. import processes

CONCURRENCY = 4
SEED = 20261126
PAUSES = (None, 0.001, 0.004)
"""Seconds before an answer: rows that are in flight at a kill are at different stages."""
CHILD = f"""
import sys
import llmnb
rows = [f"row {{n}}" for n in range(int(sys.argv[1]))]
llmnb.LLM(cache=False).map(rows, "Say {{{{ value }}}}", concurrency={CONCURRENCY})
"""


class Killed:
    """A run that is killed when so many of its rows have been asked; what the server and the disk say of it."""

    def __init__(self, sim: Simulator, home: Path, chance: random.Random) -> None:
        self._sim, self._home, self._chance = sim, home, chance
        self._pid = 0
        self._begun = threading.Event()
        self._asked, self._kill_at, self._when_answered = 0, 0, False
        sim.rule(self._answer)

    def start_and_kill(self, rows: int, kill_at: int) -> None:
        """Runs with so many rows, and is gone when it asks the row of that number, or has just got its answer."""
        self._asked, self._kill_at = 0, kill_at
        self._when_answered = self._chance.random() < 0.5
        self._begun.clear()
        child = processes.Python(["-c", CHILD, str(rows)], env={**os.environ, **self._sim.environ()})
        self._pid = child.pid
        self._begun.set()
        assert child.wait() in (-signal.SIGKILL, 0 if self._when_answered else -signal.SIGKILL)
        self._hear_all_of_it()

    def on_disk(self) -> set[int]:
        """The rows whose lines are whole."""
        lines = [line for path in self._home.glob("runs/*/rows.jsonl") for line in path.read_bytes().splitlines(True)]
        texts = [json.loads(line)["row"]["text"] for line in lines if line.endswith(b"}}\n")]
        return {int(text.split()[-1]) for text in texts}

    def billed(self) -> dict[str, int]:
        """The row of each request on the server's bill."""
        asked = {seen.request_id: _row_of(seen) for seen in self._sim.requests if seen.is_message}
        return {record.request_id: asked[record.request_id] for record in self._sim.billing}

    def _answer(self, request: SeenRequest) -> Answer:
        self._asked += 1
        pause = self._chance.choice(PAUSES)
        if self._asked == self._kill_at:
            assert self._begun.wait(30)
            if not self._when_answered:
                self._kill()
            else:  # an answer without a pause is written before the server's loop comes to what is put off
                asyncio.get_running_loop().call_soon(self._kill)
                pause = None
        return Answer(text=f"echo row {_row_of(request)}", first_token_s=pause)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _hear_all_of_it(self) -> None:
        """Until the server has read what the process sent before it died: whoever connects now is let in after it."""
        address = urlsplit(self._sim.url)
        with socket.create_connection((address.hostname, address.port)) as last:
            last.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
            assert last.recv(1)
        until = time.monotonic() + 30
        while self._sim.open_connections and time.monotonic() < until:
            time.sleep(0.001)
        self._sim.settle()


def _row_of(request: SeenRequest) -> int:
    return int(request.prompt.split()[-1])


@pytest.fixture
def killed(sim: Simulator, llmnb_home: Path) -> Killed:
    """A run to kill at moments of chance."""
    print(f"seed {SEED}")
    return Killed(sim, llmnb_home, random.Random(SEED))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
@pytest.mark.parametrize(
    ("rows", "kills"), [(24, 2), pytest.param(2_000, 40, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_a_finished_row_is_never_paid_twice(sim: Simulator, killed: Killed, rows: int, kills: int) -> None:
    """With rows added in between; those in flight at a kill are paid again, and interrupted in the ledger."""
    chance = random.Random(SEED + 1)
    lost, known = Counter[int](), killed.billed()
    for number in range(kills):
        there = rows // 2 + rows // 2 * number // kills
        left = there - len(killed.on_disk())
        killed.start_and_kill(there, kill_at=min(left, chance.randint(1, rows // kills)))
        bill, finished = killed.billed(), killed.on_disk()
        in_flight = [row for request, row in bill.items() if request not in known and row not in finished]
        assert len(in_flight) == len(set(in_flight)) <= CONCURRENCY
        lost.update(in_flight)
        _check_books(bill, finished, killed_so_often=number + 1)
        known = bill
    got = llmnb.LLM(cache=False).map([f"row {n}" for n in range(rows)], "Say {{ value }}", concurrency=CONCURRENCY)
    assert got["text"].tolist() == [f"echo row {n}" for n in range(rows)]
    assert got.status.kept == len(finished)
    bill = killed.billed()
    assert Counter(bill.values()) == Counter(range(rows)) + lost
    prices = {bill[record.request_id]: record.price_nanousd or 0 for record in sim.billing}
    assert round(got["cost_usd"].sum() * 1e9) == sum(prices.values())
    interrupted = _check_books(bill, set(range(rows)), killed_so_often=kills)
    print(f"{rows:,} rows, {kills} kills: {lost.total()} asked again, {interrupted} interrupted in the ledger")


def _check_books(bill: dict[str, int], finished: set[int], *, killed_so_often: int) -> int:
    """Every request on the bill is on the books, by its id or as an interrupted call; how many of these there are."""
    calls = llmnb.calls()
    statuses = Counter[str](calls["status"])
    assert statuses.keys() <= {"ok", "interrupted"}
    answered = calls["request_id"][calls["status"] == "ok"].tolist()
    assert len(answered) == len(set(answered))
    assert finished <= {bill[request] for request in answered}
    assert len(bill) <= len(calls) <= len(finished) + killed_so_often * CONCURRENCY
    assert statuses["interrupted"] <= killed_so_often * CONCURRENCY
    return statuses["interrupted"]
