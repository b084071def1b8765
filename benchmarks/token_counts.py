"""How far offline counts are from what is billed: on recorded calls of the real API, and on the simulator.

Before calibration a count is what ships with llmnb. After it, it is corrected with billed calls: on the recordings with
the other recorded calls of all models (each is left out of its own correction), on the simulator with the calls before.
The constants that ship were read off these recordings, so that their first figure flatters; the simulator's tokeniser
is its own, and nothing was fitted to it. Errors are relative, of the whole input: text, tools, images, schemas.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmnb.simulator.tokenizer import count_request
from llmnb.tokens import Counter, vocabulary
from llmnb.tokens.calibration import Pair, fitted

Row = dict[str, object]
"""name, value, unit, target (None: for information), ok."""

COMPACTED = ("023", "036")
"""Recordings whose input the API compacted before it billed: what was counted was not read."""
_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_MODEL = "claude-sonnet-5-5"


def run() -> list[Row]:
    """The measurements of this room."""
    ways: dict[str, Callable[[dict[str, Any]], float]] = {"bytes / 4": _quarter, "characters": _counted(None)}
    words = vocabulary.load()
    if words is not None:
        ways["cl100k_base"] = _counted(words)
    rows = [*_on("simulator", simulated(), ways)]
    if folder := os.environ.get("LLMNB_TEST_RECORDINGS"):
        rows += _on("recordings", recorded(Path(folder)), ways)
    return [*rows, _time("characters", Counter(_MODEL))]


def _on(where: str, calls: list[tuple[dict[str, Any], int]], ways: dict[str, Callable[..., float]]) -> list[Row]:
    rows: list[Row] = []
    plain = statistics.mean(abs(_quarter(body) / billed - 1) for body, billed in calls)
    for name, count in ways.items():
        pairs: list[Pair] = [(count(body), float(billed)) for body, billed in calls]
        before = [abs(counted / billed - 1) for counted, billed in pairs]
        after = [
            abs(fitted(_MODEL, name, pairs[:at] + pairs[at + 1 :]).billed(counted) / billed - 1)
            for at, (counted, billed) in enumerate(pairs)
        ]
        told = f"input tokens by {name}, {len(pairs)} calls of the {where}, mean error"
        ours = name != "bytes / 4"
        rows.append(_row(f"{told}, as shipped", before, plain if ours else None))
        rows.append(_row(f"{told}, calibrated", after, 0.15 if ours else None))
        rows.append(
            {**_row(f"{told[:-10]}median error, calibrated", after, None), "value": 100 * statistics.median(after)}
        )
    return rows


def _row(name: str, errors: list[float], target: float | None) -> Row:
    value = statistics.mean(errors)
    goal = None if target is None else round(100 * target, 1)
    return {"name": name, "value": 100 * value, "unit": "%", "target": goal, "ok": target is None or value <= target}


def _quarter(body: dict[str, Any]) -> float:
    """What most people use: bytes of all that is sent as text, divided by four."""
    return len(json.dumps([body.get("system"), body.get("tools"), body["messages"]], ensure_ascii=False).encode()) / 4


def _counted(words: Callable[[str], float] | None) -> Callable[[dict[str, Any]], float]:
    def count(body: dict[str, Any]) -> float:
        counter = Counter(body["model"]) if words is None else Counter(body["model"], words)
        return counter.request(body).tokens

    return count


# Calls with a known bill ----------------------------------------------------------------------------------------------


def recorded(folder: Path) -> list[tuple[dict[str, Any], int]]:
    """Recorded requests and the input tokens that the API counted, before its own tools added to them."""
    found: list[tuple[dict[str, Any], int]] = []
    for path in sorted(folder.glob("*.meta.json")):
        meta = json.loads(path.read_text())
        body = meta["request"].get("body") or {}
        if "messages" in body and meta["response"]["status"] == 200 and not path.name.startswith(COMPACTED):
            answer = (folder / meta["response"]["file"]).read_text()
            numbers = [re.search(rf'"{name}":\s*(\d+)', answer) for name in _INPUTS]
            found.append((body, sum(int(number[1]) for number in numbers if number)))
    return found


def simulated() -> list[tuple[dict[str, Any], int]]:
    """Prompts of a working day, and what the simulator bills for them: prose, code, data, tools, other languages."""
    here = Path(__file__).parent.parent
    texts = [
        *((here / name).read_text() for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "Makefile")),
        *(path.read_text() for path in sorted((here / "llmnb").glob("*.py"))[:12]),
        json.dumps([{"id": at, "score": at * 1.37, "label": f"row {at}"} for at in range(60)]),
        "\n".join(f"{at},{at * 7919 % 1000 / 7:.4f},group {at % 5}" for at in range(100)),
        "Die Fähigkeit, große Datenmengen zu verarbeiten, hängt von vielen Dingen ab. " * 20,
        "昨日の会議で決まった内容を、来週の月曜日までに全員へメールで共有してください。" * 15,
    ]
    tool = {"name": "search", "description": "Finds papers.", "input_schema": {"type": "object", "properties": {}}}
    bodies: list[dict[str, Any]] = []
    for at, text in enumerate(texts):
        for length in (400, 2_500, 9_000):
            message = {"role": "user", "content": f"Summarise this:\n\n{text[:length]}"}
            extra = [{}, {"system": "You are a careful editor. " * 20}, {"tools": [tool]}][at % 3]
            bodies.append({"model": _MODEL, "max_tokens": 500, "messages": [message], **extra})
    return [(body, count_request(body)) for body in bodies]


def _time(name: str, counter: Counter) -> Row:
    text = (Path(__file__).parent.parent / "README.md").read_text()[:4_000]
    begin = time.process_time()
    for _ in range(2_000):
        counter.text(text)
    value = (time.process_time() - begin) / 2_000 * 1e6
    return {
        "name": f"4,000 characters counted by {name}, CPU",
        "value": value,
        "unit": "µs",
        "target": None,
        "ok": True,
    }


if __name__ == "__main__":
    for line in run():
        print(line)
