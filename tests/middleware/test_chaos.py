"""Chaos: processes that call at random, meet faults and are killed; afterwards books and bill agree."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

import llmnb
from llmnb.ledger import books
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

from .. import processes
from .conftest import QUESTION

THREADS = 4
CHILD = """
import random, sys, threading, warnings
import anthropic, llmnb

seed, calls = int(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore")
client = llmnb.wrap(anthropic.Anthropic(max_retries=2), project="chaos")
question = {question!r}

def work(number):
    dice = random.Random(f"{{seed}} {{number}}")
    for _ in range(calls):
        try:
            if dice.random() < 0.5:
                client.messages.create(**question)
                continue
            with client.messages.create(**question, stream=True) as stream:
                stop = dice.randrange(60) if dice.random() < 0.3 else None
                for count, _ in enumerate(stream):
                    if count == stop:
                        break
        except Exception:
            pass

threads = [threading.Thread(target=work, args=(number,)) for number in range({threads})]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


CODE = CHILD.format(question=QUESTION, threads=THREADS)


def faults(simulator: Simulator) -> None:
    """A bad day: one request in seven goes wrong in one way or another."""
    simulator.fail("overloaded", probability=0.04, retry_after_ms=1)
    simulator.fail("server_error", probability=0.03, retry_after_ms=1)
    for kind in ("drop", "truncate", "error_event"):
        simulator.fail(kind, probability=0.03, after_events=5)


def run_and_kill(simulator: Simulator, dice: random.Random, calls: int) -> None:
    """One process, killed once the server has seen a random number of its requests, or left alone to its end."""
    before, after = len(simulator.requests), dice.randrange(2 * THREADS * calls)
    child = processes.Python(
        ["-c", CODE, str(dice.getrandbits(32)), str(calls)], env={**os.environ, **simulator.environ()}
    )
    while child.poll() is None and len(simulator.requests) - before < after:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()


def agree(simulator: Simulator, kills: int) -> str:
    """Holds the books against the bill; a line that says what was held."""
    simulator.settle()
    books().adopt()
    table: list[dict[str, Any]] = llmnb.calls(where={"project": "chaos"}).to_dict("records")
    assert max(Counter(row["uid"] for row in table).values()) == 1
    in_flight = THREADS * kills
    reached = sum(seen.attempt == 0 for seen in simulator.requests)
    assert reached <= len(table) <= reached + in_flight
    assert "running" not in {row["status"] for row in table}
    rows = {row["request_id"]: row for row in table if isinstance(row["request_id"], str)}
    billed = {record.request_id: record for record in simulator.billing if record.status == 200}
    lost = [request_id for request_id in billed if request_id not in rows]
    # answered, but the answer never arrived, or the process died before it knew: such a call is on the books as an
    # estimate, without the id of that answer
    unsure = [row for row in table if row["estimated"]]
    assert len(lost) <= sum(row["attempts"] for row in unsure)
    exact = [(row, billed[request_id]) for request_id, row in rows.items() if request_id in billed]
    exact = [(row, record) for row, record in exact if row["status"] == "ok" and not row["estimated"]]
    assert sum(row["cost_nanousd"] for row, _ in exact) == sum(record.price_nanousd or 0 for _, record in exact)
    for row, record in exact:
        assert (row["output_tokens"], row["cost_nanousd"]) == (record.output_tokens, record.price_nanousd)
    assert len(exact) > len(table) / 4
    assert all(row["estimated"] for row in table if row["status"] in ("cancelled", "truncated", "interrupted"))
    return f"{len(table)} calls, {len(exact)} exact, {Counter(row['status'] for row in table)}"


def chaos(rounds: int, calls: int, seed: int) -> None:
    """Processes one after the other on one ledger, each killed somewhere."""
    dice = random.Random(seed)
    with serve_simulator(seed=seed) as simulator:
        faults(simulator)
        for _ in range(rounds):
            run_and_kill(simulator, dice, calls)
        print(f"seed {seed}, {rounds} processes: {agree(simulator, rounds)}")
        assert simulator.crashes == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_books_and_bill_agree_after_kills() -> None:
    """Three processes, killed at random."""
    chaos(rounds=3, calls=20, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 6))
def test_books_and_bill_agree_after_many_kills(seed: int) -> None:
    """The same with 100 kills over four seeds."""
    chaos(rounds=25, calls=100, seed=seed)
