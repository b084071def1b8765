"""A killed process: at every stage of a call, what was under way is on the books afterwards, marked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.fault import Fault

from .. import processes
from .conftest import QUESTION, rows

CHILD = """
import anthropic, llmnb, os, signal, sys

stage = sys.argv[1]
client = llmnb.wrap(anthropic.Anthropic(max_retries=1), project="killed")
question = {question!r}
if stage == "after":
    client.messages.create(**question)
elif stage in ("sent", "retry"):
    print("sending", flush=True)
    client.messages.create(**question)
else:
    seen = 0
    for event in client.messages.create(**question, stream=True):
        seen += event.type == "content_block_delta"
        if stage == "started" or seen == 20:
            print("reading", flush=True)
            signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""

STALLED = Answer(text="A word and another. " * 40, deltas=40, fault=Fault("stall", after_events=20))


def kill_at(stage: str, simulator: Simulator) -> None:
    """Runs a child that asks a question, and kills it at a stage of the call."""
    child = processes.Python(
        ["-c", CHILD.format(question=QUESTION), stage],
        env={**os.environ, **simulator.environ()},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    if stage != "after":
        child.stdout.readline()
    if stage in ("sent", "retry"):
        wanted = 1 if stage == "sent" else 2
        while len(simulator.requests) < wanted:
            time.sleep(0.005)
    if stage != "after":
        child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def what_the_next_process_finds() -> list[dict[str, Any]]:
    """The books after another process has recorded something, without that something."""
    from llmnb.ledger import books
    from llmnb.records import Call

    books().record(Call(uid="next", ts=time.time_ns() // 1000, model_requested="m", project="next", status="ok"))
    return [written for written in rows() if written["project"] == "killed"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
@pytest.mark.parametrize("stage", ["sent", "started", "reading", "after", "retry"])
def test_a_kill_leaves_one_row_that_says_so(simulator: Simulator, stage: str) -> None:
    """Sent and unanswered, after message_start, in the middle of the text, after the end, and in a second attempt."""
    if stage == "sent":
        simulator.fail("slow_headers", seconds=600)
    elif stage == "retry":
        simulator.fail("overloaded", retry_after_ms=1)
        simulator.fail("slow_headers", seconds=600)
    elif stage != "after":
        simulator.script(STALLED)
    kill_at(stage, simulator)
    [written] = what_the_next_process_finds()
    assert written["status"] == ("ok" if stage == "after" else "interrupted")
    assert bool(written["estimated"]) is (stage != "after")
    assert written["attempts"] == (2 if stage == "retry" else 1)
    assert written["input_tokens"] > 0
    assert written["cost_nanousd"] == written["input_tokens"] * 2_000 + written["output_tokens"] * 10_000
    if stage in ("started", "reading"):
        simulator.settle()
        assert written["input_tokens"] == simulator.billing[0].input_tokens


def test_nothing_is_left_behind_by_calls_that_ended(simulator: Simulator, llmnb_home: Path) -> None:
    """The notes of calls under way are bounded by how many there are at once, and gone with the process."""
    code = (
        "import anthropic, llmnb\n"
        f"client = llmnb.wrap(anthropic.Anthropic())\nfor _ in range(20): client.messages.create(**{QUESTION!r})\n"
        "import pathlib, os\n"
        "files = list(pathlib.Path(os.environ['LLMNB_HOME']).glob('spool/underway/*'))\n"
        "print([file.stat().st_size <= 64 * 1024 for file in files])\n"
    )
    done = processes.run(["-c", code], env={**os.environ, **simulator.environ()}, check=True)
    assert done.stdout == "[True]\n"
    assert list(llmnb_home.glob("spool/**/*.jsonl")) == []
    assert [written["status"] for written in rows()] == ["ok"] * 20
    assert len(llmnb.calls()) == 20
