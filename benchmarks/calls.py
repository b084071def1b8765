"""What llmnb adds to a call: CPU time of the calling process against the raw SDK, in the same run.

The simulator runs in a process of its own and answers with about 4 kB of text. Each pair is measured in turn, A B A B,
many times over, and the ratio of the medians is given. A turn lasts as long for each, and long enough to contain two
writings of what came together (`later.TOGETHER_S`): of shorter ones all fall to whoever comes that much later. It ends
when all that its calls left to be written is on disk. Folding, which falls due once in some thousands of rows, is in
`ledger_write`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

ROUNDS = 11
TURN_S = 0.5
FIRST_TOKENS = 300
DELTAS = 3_000
TOKENS_A_DELTA = 3  # as the simulator cuts its answers
TEXT = "Write-ahead logging appends each change to a log before it touches the table. " * 52
QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 4_000,
    "messages": [{"role": "user", "content": "Explain write-ahead logging in SQLite, with its checkpoints."}],
}


def run() -> list[dict[str, object]]:
    """The measurements."""
    with tempfile.TemporaryDirectory() as home, simulator() as url:
        os.environ.update(
            LLMNB_HOME=home, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="sk-ant-benchmark", LLMNB_DISPLAY="none"
        )
        return [*_short(), *_long(), *_first_token()]


def _short() -> Iterator[dict[str, object]]:
    import anthropic

    import llmnb

    class Nothing(anthropic.Middleware):
        """What any middleware costs: the SDK copies the request for it, and dresses the response twice."""

        def handle(self, request: anthropic.APIRequest, call_next: anthropic.CallNext) -> anthropic.APIResponse[Any]:
            return call_next(request)

    headers = {"x-simulator-reply": quote(TEXT)}
    raw = anthropic.Anthropic(default_headers=headers)
    idle = raw.copy(middleware=[Nothing()])
    wrapped = llmnb.wrap(raw)
    llm = llmnb.LLM("claude-sonnet-5-5", max_tokens=4_000, client=raw, cache=False)
    prompt = QUESTION["messages"][0]["content"]
    cpu = cpu_in_turn(
        {
            "raw": lambda: raw.messages.create(**QUESTION),
            "idle": lambda: idle.messages.create(**QUESTION),
            "wrap": lambda: wrapped.messages.create(**QUESTION),
            "ask": lambda: llm.ask(prompt),
        }
    )
    yield ratio("logged create through wrap, CPU ÷ raw create", cpu["wrap"] / cpu["raw"], 1.12)
    yield ratio("LLM.ask, display off, CPU ÷ raw create", cpu["ask"] / cpu["raw"], 1.20)
    floor = cpu["idle"] / cpu["raw"]
    yield {"name": "of which any middleware", "value": floor, "unit": "×", "target": None, "ok": True}
    yield {"name": "raw create, CPU", "value": cpu["raw"] * 1e3, "unit": "ms", "target": None, "ok": True}


def _long() -> Iterator[dict[str, object]]:
    import anthropic

    import llmnb

    headers = {"x-simulator-reply": quote("a " * DELTAS * TOKENS_A_DELTA)}
    raw = anthropic.Anthropic(default_headers=headers)
    wrapped = llmnb.wrap(raw)
    llm = llmnb.LLM("claude-sonnet-5-5", max_tokens=2 * DELTAS * TOKENS_A_DELTA, client=raw, cache=False)
    question = {**QUESTION, "max_tokens": 2 * DELTAS * TOKENS_A_DELTA}
    prompt = QUESTION["messages"][0]["content"]
    counted = sum(event.type == "content_block_delta" for event in raw.messages.create(**question, stream=True))
    cpu = cpu_in_turn(
        {
            "raw": lambda: _read(raw.messages.create(**question, stream=True)),
            "wrap": lambda: _read(wrapped.messages.create(**question, stream=True)),
            "helper": lambda: _read_helper(raw, question),
            "stream": lambda: _read(llm.stream(prompt)),
        }
    )
    name = f"logged {counted:,}-delta stream through wrap, CPU ÷ raw stream"
    yield ratio(name, cpu["wrap"] / cpu["raw"], 1.05)
    yield ratio(f"LLM.stream, {counted:,} deltas, CPU ÷ messages.stream()", cpu["stream"] / cpu["helper"], 0.75)
    yield {"name": "raw stream, CPU", "value": cpu["raw"] * 1e3, "unit": "ms", "target": None, "ok": True}


def _first_token() -> Iterator[dict[str, object]]:
    """What it costs to look for an error event before any content, which is repeated then: the body is read ahead."""
    import anthropic

    import llmnb
    from llmnb.middleware import ledger

    headers = {"x-simulator-reply": quote(TEXT)}
    raw = anthropic.Anthropic(default_headers=headers)
    wrapped = llmnb.wrap(raw)
    looks = ledger.may_be_read_ahead
    seconds: dict[str, list[float]] = {"raw": [], "looking": [], "not looking": []}
    try:
        for _ in range(FIRST_TOKENS + 1):
            seconds["raw"].append(_seconds_to_text(raw))
            seconds["looking"].append(_seconds_to_text(wrapped))
            ledger.may_be_read_ahead = lambda request, http: False
            seconds["not looking"].append(_seconds_to_text(wrapped))
            ledger.may_be_read_ahead = looks
    finally:
        ledger.may_be_read_ahead = looks
    ms = {name: statistics.median(times[1:]) * 1e3 for name, times in seconds.items()}
    names = {
        "raw": "first token of a stream, raw",
        "not looking": "through wrap, without a look for an early error",
        "looking": "through wrap",
    }
    for name, told in names.items():
        yield {"name": told, "value": ms[name], "unit": "ms", "target": None, "ok": True}


def _seconds_to_text(client: Any) -> float:
    begin = time.perf_counter()
    with client.messages.create(**QUESTION, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                return time.perf_counter() - begin
    raise AssertionError("no text came")


def _read(stream: Any) -> None:
    for _ in stream:
        pass


def _read_helper(client: Any, question: dict[str, Any]) -> None:
    with client.messages.stream(**question) as stream:
        for _ in stream:
            pass


def cpu_in_turn(contestants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds a call of each, what it writes included, measured in turn, the first round not counted."""
    from llmnb.cache.responses import responses
    from llmnb.ledger import books

    rows, answers = books(), responses()  # to find them by the settings takes long, which is nobody's
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(ROUNDS + 1):
        for name, call in contestants.items():
            calls, end = 0, time.perf_counter() + TURN_S
            begin = time.process_time()
            while time.perf_counter() < end:
                call()
                calls += 1
            rows.settle()  # else what the rows cost would be charged to the next contestant
            answers.settle()
            if round_number:
                seconds[name].append((time.process_time() - begin) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratio(name: str, value: float, target: float) -> dict[str, object]:
    return {"name": name, "value": value, "unit": "×", "target": target, "ok": value <= target}


@contextmanager
def simulator() -> Iterator[str]:
    # with limits so high that pacing, which is at work in every call, has no reason to hold one back
    command = [sys.executable, "-m", "llmnb.simulator", "--limits", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
