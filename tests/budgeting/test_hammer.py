"""Many processes at one budget, against the bill of the simulator: never over the limit, and used to its end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import llmnb
from llmnb.budgeting import set_budget, statuses
from llmnb.budgeting.guard import guard
from llmnb.ledger import books
from llmnb.places import PostgresPlace
from llmnb.settings import load
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

from .. import processes
from .conftest import rows

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "Explain write-ahead logging in SQLite."}],
}
OUTPUT_NANOUSD = 10_000
MOST_HELD = 1000 * OUTPUT_NANOUSD + 60 * 2_000
"""What one call holds without a history: all its output, and the bound of its input, under sixty tokens."""

CHILD = """
import random, sys, threading, warnings
import anthropic, httpx2, llmnb

seed, threads, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
warnings.simplefilter("ignore")
client = llmnb.wrap(anthropic.Anthropic(max_retries=4), project="hammer")
question = {question!r}

def once(dice):
    kind = dice.choice(kinds)
    if kind == "create":
        client.messages.create(**question)
        return
    with client.messages.create(**question, stream=True) as stream:
        stop = dice.randrange(40) if kind == "break" else None
        for count, _ in enumerate(stream):
            if count == stop:
                break

def work(number):
    dice = random.Random(f"{{seed}} {{number}}")
    while True:
        try:
            once(dice)
        except llmnb.BudgetExceeded as error:
            if not error.partial:
                return
        except (anthropic.APIError, httpx2.HTTPError):  # a stream that breaks off raises what httpx2 does
            pass

print("ready", flush=True)
sys.stdin.readline()
workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
"""
CODE = CHILD.format(question=QUESTION)


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in nano-dollars: the provider's bill, the books, and the limit."""

    billed: int
    booked: int
    limit: int
    calls: int
    waited: int

    def __str__(self) -> str:
        over, left = self.billed - self.limit, self.limit - self.booked
        return f"{self.calls} calls, {self.waited} waited, over {over / 1e9:+.6f} $, left {left / 1e9:.6f} $"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """An API with its own bill."""
    with serve_simulator(seed=7) as running:
        yield running
        assert running.crashes == []


def started(simulator: Simulator, count: int, threads: int, kinds: str, seed: int) -> list[processes.Python]:
    """Processes that begin all at once."""
    children = [
        processes.Python(
            ["-c", CODE, str(seed * 100 + number), str(threads), kinds],
            env={**os.environ, **simulator.environ()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return children


def hammer(
    simulator: Simulator, usd: str, *, count: int, threads: int, kinds: str, seed: int = 1, kills: int = 0
) -> Outcome:
    """Has processes spend a budget to its end; `kills` of them are killed on the way, and others take their place."""
    limit = set_budget(usd=usd, per="total", project="hammer").budget.allowance
    dice = random.Random(seed)
    children = started(simulator, count, threads, kinds, seed)
    for child in children:
        go(child)
    for number in range(kills):
        time.sleep(dice.uniform(0.1, 0.6))
        victim = children.pop(dice.randrange(len(children)))
        victim.send_signal(signal.SIGKILL)
        ended(victim)
        children += started(simulator, 1, threads, kinds, seed + number + 1)
        go(children[-1])
    for child in children:
        ended(child)
        assert child.returncode == 0
    return settled(simulator, limit)


def go(child: processes.Python) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def ended(child: processes.Python) -> None:
    child.wait()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()


def settled(simulator: Simulator, limit: int) -> Outcome:
    """What it came to once everything is on the books; nothing is held any more, and the counter is the sum."""
    simulator.settle()
    books().adopt()
    guard(load()).tidy()
    (status,) = statuses()
    ((booked, calls, waited),) = rows("SELECT sum(cost_nanousd), sum(cost_nanousd > 0), sum(wait_ms > 0) FROM calls")
    assert status.held_amount == 0
    assert status.spent_amount == booked
    outcome = Outcome(simulator.billed().price_nanousd, booked, limit, calls, waited)
    print(outcome)
    return outcome


# ----------------------------------------------------------------------------------------------------------------------


def test_four_processes_spend_one_budget_to_its_end(simulator: Simulator) -> None:
    """Not streamed, so that nothing can be cut off: the bill is within the limit, and no call that fitted was left."""
    outcome = hammer(simulator, "0.25", count=4, threads=2, kinds="create")
    assert outcome.billed == outcome.booked <= outcome.limit
    assert outcome.limit - outcome.booked < MOST_HELD
    assert outcome.calls > 50
    assert outcome.waited > 0
    assert len(llmnb.calls(where={"error_type": "BudgetExceeded"})) == 8


def test_processes_spend_one_budget_of_a_team(
    simulator: Simulator, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PostgreSQL, as processes of several machines would: the bill is within the limit, which is used to its end."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    outcome = hammer(simulator, "0.08", count=2, threads=3, kinds="create,stream")
    assert outcome.billed == outcome.booked <= outcome.limit
    assert outcome.limit - outcome.booked < MOST_HELD
    assert outcome.calls > 10
    assert outcome.waited > 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_eight_processes_spend_one_budget_to_its_end(
    simulator: Simulator, seed: int, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with eight, four threads each, and streams among them, of which some are left early."""
    if where == "postgres":
        monkeypatch.setenv("LLMNB_STORE_URL", request.getfixturevalue("postgres").url)
    outcome = hammer(simulator, "4", count=8, threads=4, kinds="create,create,stream,stream,break", seed=seed)
    # of a stream that was left, the API bills what was under way, and the books estimate what was read
    left_early = sum(row[0] for row in rows("SELECT count(*) FROM calls WHERE status = 'cancelled'"))
    assert outcome.billed <= outcome.limit + left_early * MOST_HELD
    assert outcome.limit - outcome.booked < MOST_HELD
    assert outcome.calls > 1_000


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_eight_processes_with_a_history_waste_little(simulator: Simulator) -> None:
    """With the 99th percentile held the last of the money is used, too; the bound is that of two answers beyond it."""
    hammer(simulator, "0.8", count=8, threads=2, kinds="create")
    outcome = hammer(simulator, "4", count=8, threads=4, kinds="create", seed=2)
    assert outcome.billed <= outcome.limit + 32 * MOST_HELD
    assert outcome.limit - outcome.booked < MOST_HELD


@pytest.mark.soak
def test_kills_in_the_middle_leave_nothing_held(simulator: Simulator) -> None:
    """What the dead had under way is booked as an estimate, and what they held beyond that goes to others."""
    outcome = hammer(simulator, "0.25", count=2, threads=2, kinds="create,stream", kills=2)
    interrupted = rows("SELECT count(*) FROM calls WHERE status = 'interrupted'")[0][0]
    assert outcome.billed <= outcome.limit + interrupted * MOST_HELD
    assert outcome.limit - outcome.booked < MOST_HELD


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_many_kills_leave_nothing_held(simulator: Simulator, seed: int) -> None:
    """The same with eight processes, forty kills, and an API that has a bad day.

    What is known for sure keeps the limit. A call whose end nobody saw is on the books as an estimate, and billed at
    most what it could take: by so much for each of them, and no more, can the bill pass the line.
    """
    simulator.fail("overloaded", probability=0.05, retry_after_ms=1)
    simulator.fail("server_error", probability=0.03, retry_after_ms=1)
    for kind in ("drop", "truncate", "error_event"):
        simulator.fail(kind, probability=0.02, after_events=5)
    outcome = hammer(simulator, "3", count=8, threads=4, kinds="create,stream,stream,break", seed=seed, kills=40)
    ((unsure, sure),) = rows("SELECT sum(estimated), sum(CASE WHEN estimated THEN 0 ELSE cost_nanousd END) FROM calls")
    assert sure <= outcome.limit
    assert outcome.billed <= sure + unsure * MOST_HELD
    assert outcome.billed <= outcome.limit + unsure * MOST_HELD
    assert outcome.limit - outcome.booked < MOST_HELD
