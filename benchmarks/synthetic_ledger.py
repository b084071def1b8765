"""A ledger of any size: a year of calls by 8 people on 12 projects with 9 models, the same ones at every making."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llmnb.ledger import open_ledger, upkeep
from llmnb.ledger.connection import open_writer
from llmnb.settings import Settings

DAYS = 365
PROJECTS = [
    "thesis",
    "survey",
    "triage",
    "agents",
    "evals",
    "papers",
    "support",
    "search",
    "legal",
    "notes",
    "etl",
    None,
]
USERS = ["ann", "ben", "cem", "dora", "eve", "finn", "gita", "hugo"]
MODELS = [
    ("anthropic", "claude-sonnet-5-5", 2, 10), ("anthropic", "claude-haiku-5-5", 0.5, 2.5),
    ("anthropic", "claude-opus-5-5", 4, 20), ("anthropic", "claude-fable-5-2", 8, 40),
    ("anthropic", "claude-sonnet-4-5", 3, 15), ("bedrock", "claude-sonnet-5-5", 2, 10),
    ("vertex", "claude-opus-5-5", 4, 20), ("openai", "gpt-5.2", 1.75, 14), ("local", "qwen3-72b", None, None),
]  # fmt: skip
"""Provider, model and dollars per million tokens of input and output; None: unpriced."""
ZONE = "Europe/Oslo"
_AT_ONCE = 100_000
_NANO_PER_TOKEN = 1_000  # a dollar per million tokens
_CONSTANT = {
    "is_call": "1", "stream": "1", "wait_ms": "0", "cache_write_1h_tokens": "0",
    "cache_write_unsplit_tokens": "0", "web_search_requests": "0", "web_fetch_requests": "0",
    "service_tier": "'standard'", "price_id": "'genai-prices:synthetic'",
}  # fmt: skip
_FILLED = (
    "uid", "ts", "model_requested", "model", "provider", "project", "user", "session", "notebook", "cell", "status",
    "source", "stop_reason", "error_type", "attempts", "latency_ms", "ttft_ms", "input_tokens", "cache_read_tokens",
    "cache_write_5m_tokens", "output_tokens", "thinking_tokens", "cost_nanousd", "saved_nanousd", "estimated",
    "request_id",
)  # fmt: skip


def ledger_of(folder: Path, rows: int) -> Path:
    """The ledger of so many rows in a folder, its roll-ups made; built in minutes when it is not there."""
    path = folder / f"ledger-{rows}.db"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".making")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{making}{suffix}").unlink(missing_ok=True)
        fill(making, rows)
        making.rename(path)
    return path


def fill(path: Path, rows: int) -> None:
    """Writes the calls into a new ledger, without its roll-ups, and folds them."""
    open_writer(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        columns = (*_FILLED, *_CONSTANT)
        values = ", ".join([*("?" * len(_FILLED)), *_CONSTANT.values()])
        sql = f"INSERT INTO calls ({', '.join(columns)}) VALUES ({values})"
        for batch in _batches(rows):
            connection.execute("BEGIN")
            connection.executemany(sql, batch)
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    upkeep.fold(open_ledger(path), Settings(timezone=ZONE))


def _batches(rows: int) -> Iterator[Iterator[tuple[Any, ...]]]:
    chance = np.random.default_rng(5)
    span_us = DAYS * 86_400_000_000
    first_us = time.time_ns() // 1000 - span_us
    for begin in range(0, rows, _AT_ONCE):
        size = min(_AT_ONCE, rows - begin)
        # a little out of order, as calls end later than they begin
        ts = first_us + (np.arange(begin, begin + size) + chance.random(size) * 20) * (span_us / (rows + 20))
        yield _batch(chance, ts.astype(np.int64), begin)


def _batch(chance: np.random.Generator, ts: np.ndarray, begin: int) -> Iterator[tuple[Any, ...]]:
    size = len(ts)
    model = chance.choice(len(MODELS), size, p=[0.3, 0.2, 0.1, 0.05, 0.1, 0.08, 0.05, 0.07, 0.05])
    project, user = chance.integers(0, len(PROJECTS), size), chance.integers(0, len(USERS), size)
    luck = chance.random(size)
    failed, cached = luck < 0.02, luck > 0.9
    spent = np.where(failed | cached, 0, 1)
    tokens_in, read = chance.integers(50, 8_000, size) * spent, chance.integers(0, 20_000, size) * spent
    written, out = chance.integers(0, 2_000, size) * spent, chance.integers(10, 2_000, size) * spent
    latency = chance.lognormal(8, 0.7, size)
    ttft = latency * chance.uniform(0.05, 0.4, size)
    price_in, price_out = (np.array([found[at] or 0 for found in MODELS])[model] for at in (2, 3))
    cost = (tokens_in + read * 0.1 + written * 1.25) * price_in + out * price_out
    cost = (cost * _NANO_PER_TOKEN).astype(np.int64)
    saved = np.where(cached, 9_000_000, (read * 0.9 - written * 0.25) * price_in * _NANO_PER_TOKEN).astype(np.int64)
    unpriced = np.array([found[2] is None for found in MODELS])[model] & (spent == 1)
    names, providers = [found[1] for found in MODELS], [found[0] for found in MODELS]
    models = [names[at] for at in model]
    users = [USERS[at] for at in user]
    return zip(
        [f"{at:016x}-{number:08d}" for number, at in enumerate(ts.tolist(), begin)],
        ts.tolist(),
        models,
        models,
        [providers[at] for at in model],
        [PROJECTS[at] for at in project],
        users,
        [f"{name}-laptop:4711:{at // 10**10}:ab12" for name, at in zip(users, ts.tolist(), strict=True)],
        [f"analysis-{at % 40}.ipynb" for at in (project * 8 + user).tolist()],
        [f"3f2c9a10-8d7e-4b57-9a52-{at:012d}" for at in chance.integers(0, 50, size).tolist()],
        ["error" if bad else "ok" for bad in failed.tolist()],
        ["cache" if hit else "live" for hit in cached.tolist()],
        [None if bad else "end_turn" for bad in failed.tolist()],
        ["overloaded_error" if bad else None for bad in failed.tolist()],
        np.where(luck < 0.05, 2, 1).tolist(),
        latency.tolist(),
        ttft.tolist(),
        tokens_in.tolist(),
        read.tolist(),
        written.tolist(),
        out.tolist(),
        (out // 4).tolist(),
        [None if lacks else at for lacks, at in zip(unpriced.tolist(), cost.tolist(), strict=True)],
        saved.tolist(),
        [0] * size,
        [f"req_011CU{number:018d}" for number in range(begin, begin + size)],
        strict=True,
    )
