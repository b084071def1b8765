"""Chaos: processes call at random, meet faults and are killed; afterwards the books and the bill agree, call by call.

Every call carries a name of its own, in a header that the server sees and as the tag of its row, so that the two can be
held against each other however the call ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.simulator import Simulator
from llmnb.simulator.billing import TOKEN_FIELDS, BillingRecord
from llmnb.testing import serve_simulator

from .conftest import QUESTION

pytestmark = pytest.mark.soak

LANE = """
import asyncio, os, random, signal, sys, threading, time, warnings
import anthropic, llmnb
from llmnb.records import calling

warnings.simplefilter("ignore")
name, kills, last_calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(name)
question = {question!r}

def asked(call):
    return {{**question, "extra_headers": {{"x-call": call}}}}

def ask(client, call, dice):
    with calling(tag=call):
        if dice.random() < 0.4:
            return client.messages.create(**asked(call))
        stream = client.messages.create(**asked(call), stream=True)
    stop = dice.randrange(40) if dice.random() < 0.4 else None
    for count, _ in enumerate(stream):
        if count == stop:
            return stream.close() if dice.random() < 0.5 else None  # or dropped

async def aask(client, call, dice):
    with calling(tag=call):
        stream = await client.messages.create(**asked(call), stream=True)
    async for _ in stream:
        if dice.random() < 0.01:
            raise ValueError("enough")

def ask_on(lane, calls, dice, client=None):
    client = client or llmnb.wrap(anthropic.Anthropic(max_retries=2))
    for number in range(calls):
        try:
            ask(client, f"{{lane}}-{{number}}", dice)
        except Exception:
            pass

async def aask_on(lane, calls, dice):
    async with anthropic.AsyncAnthropic(max_retries=2) as plain:
        client = llmnb.wrap(plain)
        for number in range(0, calls, 3):
            asks = (aask(client, f"{{lane}}-{{number + more}}", dice) for more in range(3))
            await asyncio.gather(*asks, return_exceptions=True)

def work(lane, calls, seed):
    thread = threading.Thread(target=ask_on, args=(lane + "-thread", calls // 3, random.Random(seed + "t")))
    thread.start()
    asyncio.run(aask_on(lane + "-task", calls // 3, random.Random(seed + "a")))
    ask_on(lane + "-main", calls // 3, random.Random(seed + "m"))
    thread.join()

wrapped = llmnb.wrap(anthropic.Anthropic(max_retries=2))  # its ledger is open when the workers are forked
for number in range(kills + 1):
    ask_on(f"{{name}}-{{number}}-before", 1, dice, wrapped)
    pid = os.fork()
    if pid == 0:
        work(f"{{name}}-{{number}}", last_calls if number == kills else 10**9, f"{{name}} {{number}}")
        os._exit(0) if dice.random() < 0.5 else sys.exit()
    if number < kills:
        time.sleep(dice.uniform(0, 0.3))  # a random moment
        os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == (signal.SIGKILL if number < kills else 0)
"""


def a_bad_day(simulator: Simulator) -> None:
    """About one request in seven goes wrong in one way or another."""
    simulator.fail("overloaded", probability=0.03, retry_after_ms=1)
    simulator.fail("server_error", probability=0.02, retry_after_ms=1)
    simulator.fail("close_before_headers", probability=0.02)
    for kind in ("drop", "truncate", "error_event", "reset"):
        simulator.fail(kind, probability=0.02, after_events=5)
    simulator.fail("error_event", probability=0.02, after_events=0)
    simulator.fail("gzip", probability=0.05)


def bills(simulator: Simulator) -> dict[str, list[BillingRecord]]:
    """By call: what the provider billed for its attempts."""
    simulator.settle()
    records = {record.request_id: record for record in simulator.billing}
    found: dict[str, list[BillingRecord]] = defaultdict(list)
    for seen in simulator.requests:
        billed = records.get(seen.request_id)
        found[seen.headers["x-call"]] += [billed] if billed is not None and billed.status == 200 else []
    return found


def held_against(row: dict[str, Any], billed: list[BillingRecord]) -> None:
    """A row equals the bill to the token, or says that it is an estimate."""
    if row["estimated"]:
        # once a token was seen the input is known; what the server broke off before any content is not billed
        if row["attempts"] == 1 and pd.notna(row["ttft_ms"]) and billed[0].price_nanousd:
            assert row["input_tokens"] == billed[0].input_tokens, (row, billed)
        return
    assert row["status"] in ("ok", "error"), row
    for name in TOKEN_FIELDS:
        assert row[name] == sum(getattr(record, name) for record in billed), (name, row, billed)
    assert row["cost_nanousd"] == sum(record.price_nanousd or 0 for record in billed), (row, billed)


def agree(simulator: Simulator, home: Path) -> str:
    """Holds every call of the books against the bill; a line that says what was held."""
    billed = bills(simulator)
    rows: list[dict[str, Any]] = llmnb.calls().to_dict("records")
    assert [call for call, count in Counter(row["tag"] for row in rows).items() if count > 1] == []
    assert billed.keys() - {row["tag"] for row in rows} == set()
    for row in rows:
        if row["tag"] in billed:
            held_against(row, billed[row["tag"]])
        else:  # the process was killed when the request was about to be sent, or the connection was
            assert row["estimated"] or row["cost_nanousd"] == 0, row
    assert list(home.glob("spool/**/*.jsonl")) == []
    statuses = Counter(row["status"] for row in rows)
    assert statuses.keys() <= {"ok", "error", "cancelled", "truncated", "interrupted"}
    assert statuses["ok"] > len(rows) / 3
    return f"{len(rows)} calls {dict(statuses)}, {sum(map(bool, (row['estimated'] for row in rows)))} estimated"


def chaos(home: Path, *, seed: int, lanes: int, kills: int, last_calls: int) -> None:
    """Lanes side by side on one ledger; each forks workers one after the other, and kills all but the last."""
    with serve_simulator(seed=seed) as simulator:
        a_bad_day(simulator)
        command = [sys.executable, "-W", "ignore", "-c", LANE.format(question={**QUESTION, "max_tokens": 80})]
        running = [
            subprocess.Popen(
                [*command, f"{seed}-{lane}", str(kills), str(last_calls)], env={**os.environ, **simulator.environ()}
            )
            for lane in range(lanes)
        ]
        assert [process.wait() for process in running] == [0] * lanes
        print(f"seed {seed}, {lanes * kills} kills: {agree(simulator, home)}")
        assert simulator.crashes == []


needs_fork = pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="no fork, no kill -9")


@needs_fork
def test_books_and_bill_agree_after_kills(llmnb_home: Path) -> None:
    """Two lanes, four kills each."""
    chaos(llmnb_home, seed=1, lanes=2, kills=4, last_calls=60)


@needs_fork
@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [2, 3])
def test_books_and_bill_agree_after_a_hundred_kills(llmnb_home: Path, seed: int) -> None:
    """Four lanes, 25 kills each, and at the end four writers of 1,000 calls each."""
    chaos(llmnb_home, seed=seed, lanes=4, kills=25, last_calls=1_000)
