"""What must hold after a chaos run: the books agree with the bill, however each question ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

import llmnb
from llmnb import slots
from llmnb.pacing import pacer
from llmnb.settings import load
from llmnb.simulator import BillingRecord
from llmnb.simulator.answer import SeenRequest
from llmnb.simulator.billing import TOKEN_FIELDS

from .chaos_world import Question, World, name_of


def check(world: World, project: str, asked: Sequence[Question]) -> Counter[str]:
    """Holds a run's books against the bill, and that nothing is left over; counts how rows and questions ended."""
    world.sim.settle()
    found = llmnb.calls(where={"project": project}).to_dict("records")
    rows, seen = _by_name(found, lambda row: row["tag"]), _by_name(world.sim.requests, name_of)
    bills = {record.request_id: record for record in world.sim.billing if record.status == 200}
    assert max(Counter(row["uid"] for row in found).values()) == 1
    for one in asked:
        _check_question(one, rows.pop(one.name, []), seen.pop(one.name, []), bills)
    assert rows == {}
    assert seen == {}
    assert slots.slots.under_way == 0
    assert all(account.waiting == 0 for account in pacer(load()).known.values())
    counts = Counter(f"row {row['status']}{' ≈' if row['estimated'] else ''}" for row in found)
    counts.update(f"{one.door}: {one.outcome}" for one in asked)
    counts["rows"] += len(found)
    counts["retried rows"] += sum(row["attempts"] > 1 for row in found)
    counts["hits"] += sum(row["source"] == "cache" for row in found)
    counts["bills"] += len(bills)
    counts["held back"] += sum(bool(row["wait_ms"] and row["wait_ms"] > 0) for row in found)
    return counts


def _by_name(things: Any, name: Callable[[Any], str]) -> dict[str, list[Any]]:
    found = defaultdict[str, list[Any]](list)
    for thing in things:
        found[name(thing)].append(thing)
    return dict(found)


def _check_question(
    one: Question, rows: list[dict[str, Any]], seen: list[SeenRequest], bills: dict[str, BillingRecord]
) -> None:
    one.options.pop("system", None)  # it would fill the screen
    told = (one, rows, [(request.status, bills.get(request.request_id)) for request in seen])
    assert all(row["status"] != "running" for row in rows), told
    cached = [row for row in rows if row["source"] == "cache"]
    hits = [row for row in cached if row["attempts"] == 1]
    assert all(row["cost_nanousd"] == 0 for row in hits), told
    # an answer may be in the cache by the second attempt, and the first may have been billed
    live = [row for row in rows if row not in hits]
    # an attempt that was cancelled may not have reached the server, and one that did is of a row
    unsure = [
        row for row in live if row["estimated"] or row["status"] in ("cancelled", "error") or row["source"] == "cache"
    ]
    attempts = sum(row["attempts"] for row in live)
    assert attempts - len(unsure) <= len(seen) <= attempts, told
    billed = {request.request_id: bills[request.request_id] for request in seen if request.request_id in bills}
    known = {row["request_id"]: row for row in live if isinstance(row["request_id"], str)}
    for request_id, row in known.items():
        _check_row(row, billed.get(request_id), told)
    for row in live:
        assert row["estimated"] or isinstance(row["request_id"], str) or row["cost_nanousd"] == 0, told
    lost = [record for request_id, record in billed.items() if request_id not in known and record.price_nanousd]
    assert len(lost) <= sum(row["attempts"] for row in live if row["estimated"]), told
    if all(not row["estimated"] for row in live):
        assert sum(row["cost_nanousd"] for row in live) == sum(bill.price_nanousd or 0 for bill in billed.values()), (
            told
        )


def _check_row(row: dict[str, Any], bill: BillingRecord | None, told: object) -> None:
    if not row["estimated"]:
        for name in TOKEN_FIELDS:
            assert row[name] == (getattr(bill, name) if bill else 0), (name, told)
        assert row["cost_nanousd"] == ((bill.price_nanousd or 0) if bill else 0), told
        return
    # a chat completion that has said why it stops is whole, also when its usage did not come
    is_whole = row["status"] == "ok" and row["provider"] != "anthropic"
    assert row["status"] in ("cancelled", "truncated", "error") or row["attempts"] > 1 or is_whole, told
    if bill is not None and row["attempts"] == 1 and pd.notna(row["ttft_ms"]) and bill.price_nanousd:
        # once a token was seen the input is known, and what was written is what was read, about
        for name in ("input_tokens", "cache_read_tokens"):
            assert row[name] == getattr(bill, name) or "claude" not in row["model"], (name, told)
        assert row["output_tokens"] <= 2 * bill.output_tokens + 5, told
