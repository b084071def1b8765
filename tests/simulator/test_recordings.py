"""Real recordings, served over HTTP to the real SDK: what went in comes out, and the bill reads it right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llmnb.simulator import Simulator

FOLDER = os.environ.get("LLMNB_TEST_RECORDINGS")
METAS = sorted(Path(FOLDER).glob("*.meta.json")) if FOLDER else []

pytestmark = pytest.mark.skipif(not METAS, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")


def last_usage(body: bytes) -> dict[str, Any]:
    """The usage a stream ends with, the start's laid under it."""
    events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data:")]
    start = next(event["message"]["usage"] for event in events if event["type"] == "message_start")
    return start | next(event["usage"] for event in events if event["type"] == "message_delta")


@pytest.mark.parametrize("meta", METAS, ids=[path.name[:3] for path in METAS])
def test_a_recording_is_served_verbatim_and_billed(sim: Simulator, meta: Path) -> None:
    """Status and body are the recorded ones; input and output on the bill are the recorded totals."""
    recorded = json.loads(meta.read_text())
    request, response = recorded["request"], recorded["response"]
    body = (meta.parent / response["file"]).read_bytes()
    sim.replay(response["status"], response["headers"], body, response["kind"])
    reply = httpx2.request(request["method"], sim.url + request["path"], json=request["body"] or None)
    assert (reply.status_code, reply.content) == (response["status"], body)
    if request["path"].split("?")[0] != "/v1/messages":
        assert sim.billing == []
        return
    record = sim.billing[-1]
    if response["status"] != 200:
        assert (record.status, record.price_nanousd) == (response["status"], 0)
        return
    usage = last_usage(body) if response["kind"] == "sse" else json.loads(body)["usage"]
    assert record.complete
    assert record.input_tokens == usage["input_tokens"]
    assert record.output_tokens == usage["output_tokens"]
    assert record.cache_read_tokens == (usage.get("cache_read_input_tokens") or 0)
    written = record.cache_write_5m_tokens + record.cache_write_1h_tokens
    assert written == (usage.get("cache_creation_input_tokens") or 0)
    compactions = [item for item in usage.get("iterations") or [] if item["type"] == "compaction"]
    assert len(record.iterations) == len(compactions)
