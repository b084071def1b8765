"""What the response cache costs: hits and misses as CPU time of the calling process against live calls, in one run.

The simulator runs in a process of its own. Contestants are measured in turn, A B A B, and the ratio of the medians is
given. The CPU time is that of all threads, so that writing in the background counts, too.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from benchmarks.calls import DELTAS, TEXT, TOKENS_A_DELTA, cpu_in_turn, ratio, simulator

if TYPE_CHECKING:
    import anthropic

    from llmnb.settings import Settings

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 4_000,
    "messages": [{"role": "user", "content": "Explain write-ahead logging in SQLite, with its checkpoints."}],
}
ENTRIES, ASKED, LOOKS = 100_000, 100, 10


def run() -> list[dict[str, object]]:
    """The measurements."""
    with tempfile.TemporaryDirectory() as home, simulator() as url:
        os.environ.update(
            LLMNB_HOME=home, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="sk-ant-benchmark", LLMNB_DISPLAY="none"
        )
        return [*_hits(4), *_hits(64), *_streams(), *_misses(), *_many(Path(home))]


def _hits(kilobytes: int) -> Iterator[dict[str, object]]:

    import llmnb

    text = (TEXT * (kilobytes // 4 + 1))[: kilobytes * 1_000]
    raw = _answered(text)
    question = {**QUESTION, "system": f"In {kilobytes} kB.", "max_tokens": 20_000}
    cached = llmnb.wrap(raw, cache=True)
    cached.messages.create(**question)
    time.sleep(0.5)  # it is on disk
    cpu = cpu_in_turn(
        {"raw": lambda: raw.messages.create(**question), "hit": lambda: cached.messages.create(**question)}
    )
    target = {4: 0.42, 64: 0.48}[kilobytes]
    yield ratio(f"hit through create, {kilobytes} kB, CPU ÷ live create", cpu["hit"] / cpu["raw"], target)


def _streams() -> Iterator[dict[str, object]]:

    import llmnb

    raw = _answered(TEXT)
    short = llmnb.wrap(raw, cache=True)
    reply, most = "a " * DELTAS * TOKENS_A_DELTA, 2 * DELTAS * TOKENS_A_DELTA
    long = {deltas: llmnb.wrap(_answered(reply, deltas), cache=True) for deltas in (1, DELTAS)}
    asked = {deltas: {**QUESTION, "system": f"Once {deltas:,}", "max_tokens": most} for deltas in long}
    for client, question in ((short, QUESTION), *((long[deltas], asked[deltas]) for deltas in long)):
        _read(client.messages.create(**question, stream=True))
    time.sleep(0.5)
    cpu = cpu_in_turn(
        {
            "raw": lambda: raw.messages.create(**QUESTION),
            "short": lambda: _read(short.messages.create(**QUESTION, stream=True)),
            "one": lambda: _read(long[1].messages.create(**asked[1], stream=True)),
            "many": lambda: _read(long[DELTAS].messages.create(**asked[DELTAS], stream=True)),
        }
    )
    yield ratio("streamed hit, 4 kB, CPU ÷ live create", cpu["short"] / cpu["raw"], 0.8)
    yield ratio(f"streamed hit, once {DELTAS:,} deltas, CPU ÷ the same text, once one", cpu["many"] / cpu["one"], 1.1)


def _misses() -> Iterator[dict[str, object]]:

    import llmnb

    raw = _answered(TEXT)
    logged, cached = llmnb.wrap(raw), llmnb.wrap(raw, cache=True)
    numbers = itertools.count()

    def ask(client: anthropic.Anthropic) -> Callable[[], object]:
        def call() -> object:
            text = f"{next(numbers)}: {QUESTION['messages'][0]['content']}"
            return client.messages.create(**{**QUESTION, "messages": [{"role": "user", "content": text}]})

        return call

    cpu = cpu_in_turn({"raw": ask(raw), "logged": ask(logged), "miss": ask(cached)})
    yield ratio("miss with ledger row and cache write, CPU ÷ raw create", cpu["miss"] / cpu["raw"], 1.25)
    yield {"name": "of which the ledger", "value": cpu["logged"] / cpu["raw"], "unit": "×", "target": None, "ok": True}


def _many(home: Path) -> Iterator[dict[str, object]]:
    """Hits among a hundred entries and among a hundred thousand, in any order, as time on the wall."""

    import llmnb
    from llmnb.settings import load

    raw = _answered(TEXT)
    questions = [{**QUESTION, "system": f"You are number {number}."} for number in range(ASKED)]
    clients = {}
    for entries in (ASKED, ENTRIES):
        settings = load(home=home / str(entries), cache_limit=4 * 2**30)
        clients[entries] = llmnb.wrap(raw, cache=True, settings=settings)
        for question in questions:
            clients[entries].messages.create(**question)
        _fill(settings, entries - ASKED)
    time.sleep(0.5)
    times: dict[int, list[float]] = {entries: [] for entries in clients}
    for _ in range(LOOKS):
        for entries, client in clients.items():
            for question in questions:
                begin = time.perf_counter()
                client.messages.create(**question)
                times[entries].append(time.perf_counter() - begin)
    few, many = (statistics.median(found) for found in times.values())
    yield ratio(f"hit latency among {ENTRIES:,} entries ÷ among {ASKED}", many / few, 1.2)
    yield {"name": "hit latency, 4 kB", "value": few * 1e6, "unit": "µs", "target": None, "ok": True}


def _fill(settings: Settings, count: int) -> None:
    """Other entries of the same size, with keys that stand between those in use."""
    from llmnb.cache.backends import Item
    from llmnb.cache.responses import responses

    cache = responses(settings)
    cache.settle()
    [name, *_] = cache.backend.names()
    data = cache.backend.get(name) or b""
    for first in range(0, count, 2_000):
        names = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(first, min(first + 2_000, count))]
        cache.backend.put([Item(name, data) for name in names])


def _answered(text: str, deltas: int | None = None) -> anthropic.Anthropic:
    """A client that the simulator answers with this text.

    The HTTP client says so: a header of the SDK's client would be part of the question, and be kept with it.
    """
    import anthropic

    headers = {"x-simulator-reply": quote(text)} | ({} if deltas is None else {"x-simulator-deltas": str(deltas)})
    return anthropic.Anthropic(http_client=anthropic.DefaultHttpxClient(headers=headers))


def _read(stream: Any) -> None:
    for _ in stream:
        pass
