"""`python -m benchmarks.map_contestant NAME`: asks many rows its own way, as often as it is told.

A line of JSON on stdin says how many rows, at which concurrency, of which server; a line on stdout says how long it
took. `default`, `aiohttp` and `same` are what a person would write with the SDK alone, a semaphore and a gather: over
its default connections, over its own of aiohttp, and over those that llmnb uses. `map` is `llm.map` with everything on:
ledger, cache, pacing, `budget_usd`, and every row on disk when it is finished. `map_day` has a budget of the day, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

MODEL, MAX_TOKENS = "claude-sonnet-5-5", 1_024
TEXT = "Explain write-ahead logging in SQLite, with its checkpoints, to someone who knows what a B-tree is."


def main(name: str) -> None:
    """Does what the lines say until they end."""
    for line in sys.stdin:
        told = json.loads(line)
        os.environ["ANTHROPIC_BASE_URL"] = told["url"]
        frame = pd.DataFrame({"text": [f"{told['round']}.{row}: {TEXT}" for row in range(told["rows"])]})
        cpu, wall = time.process_time(), time.perf_counter()
        answered = CONTESTANTS[name](frame, told["concurrency"])
        wall = time.perf_counter() - wall
        if name.startswith("map"):
            settle()  # what is written behind is charged to who had it written
        spent = time.process_time() - cpu
        assert len(answered) == told["rows"]
        assert answered.notna().all()
        told = {"wall_s": wall, "cpu_s": spent, "peak_mb": peak_mb()}
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def bare(frame: pd.DataFrame, concurrency: int, http_client: Any = None) -> pd.Series[str]:
    """A gather over the SDK."""
    import anthropic

    async def asked() -> list[str]:
        free = asyncio.Semaphore(concurrency)
        async with anthropic.AsyncAnthropic(http_client=http_client) as client:

            async def ask(text: str) -> str:
                async with free:
                    message = await client.messages.create(
                        model=MODEL, max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": f"In short: {text}"}]
                    )
                    return "".join(block.text for block in message.content if block.type == "text")

            return await asyncio.gather(*map(ask, frame["text"]))

    return pd.Series(asyncio.run(asked()))


def over_aiohttp(frame: pd.DataFrame, concurrency: int) -> pd.Series[str]:
    """The same over the SDK's own client of aiohttp."""
    import anthropic

    return bare(frame, concurrency, anthropic.DefaultAioHttpClient())


def same_transport(frame: pd.DataFrame, concurrency: int) -> pd.Series[str]:
    """The same over llmnb's connections."""
    from llmnb import connections

    client = connections.http_client()
    assert client is not None, connections.described()
    return bare(frame, concurrency, client)


def mapped(frame: pd.DataFrame | Path, concurrency: int, **options: Any) -> pd.Series[str]:
    """`llm.map` with everything on."""
    return ask_all(frame, concurrency, **options)["text"]


def mapped_in_a_day(frame: pd.DataFrame, concurrency: int) -> pd.Series[str]:
    """The same where each call is held against a budget that all kernels share."""
    import llmnb

    if not llmnb.budgets().shape[0]:
        llmnb.set_budget(usd=1_000_000, per="day")
    return mapped(frame, concurrency)


def ask_all(frame: pd.DataFrame | Path, concurrency: int, **options: Any) -> Any:
    """What `llm.map` gives."""
    import llmnb

    llm = llmnb.LLM(MODEL, max_tokens=MAX_TOKENS)
    return llm.map(
        frame, "In short: {{ text }}", concurrency=concurrency, **{"progress": False, "budget_usd": 100_000, **options}
    )


def settle() -> None:
    """Has everything on disk that is written behind."""
    from llmnb.cache.responses import responses
    from llmnb.ledger import books

    books().settle()
    responses().settle()


CONTESTANTS = {
    "default": bare,
    "aiohttp": over_aiohttp,
    "same": same_transport,
    "map": mapped,
    "map_day": mapped_in_a_day,
}

if __name__ == "__main__":
    main(sys.argv[1])
