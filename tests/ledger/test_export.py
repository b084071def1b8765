"""Exports: every format holds the rows of `calls()`, memory stays flat, and nothing half-written is left."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest

from llmnb.errors import InvalidRequest
from llmnb.ledger import CALL_COLUMNS, Ledger, Store, calls
from llmnb.ledger import export as room
from llmnb.ledger.export import export

TS = 1_795_608_000_123_456  # 2026-11-25 12:00:00.123456 UTC


@pytest.fixture
def filled(store: Store, make_call, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three calls and a child, read in pages of two."""
    monkeypatch.setattr(room, "PAGE", 2)
    monkeypatch.setenv("LLMNB_TIMEZONE", "Europe/Oslo")
    store.write(make_call(uid="a", ts=TS, project='x,"y"', cost_nanousd=None), [])
    store.write(
        make_call(uid="b", ts=TS + 1, status="error", error_type="overloaded_error", latency_ms=1500.0),
        [make_call(uid="b.1", ts=TS + 1, parent_uid="b", is_call=False, model="small")],
    )
    store.write(make_call(uid="c", ts=TS + 2, cache_read_tokens=5, cache_write_1h_tokens=7, stop_reason="end_turn"))
    return store


def test_csv(filled: Store, tmp_path: Path) -> None:
    """A header, and a line a row, oldest first; what is missing is empty."""
    assert export(tmp_path / "calls.csv", ledger=filled.path) == 4
    rows = list(csv.DictReader((tmp_path / "calls.csv").read_text().splitlines()))
    assert list(rows[0]) == list(CALL_COLUMNS)
    assert [row["uid"] for row in rows] == ["a", "b", "b.1", "c"]
    assert (rows[0]["project"], rows[0]["cost_nanousd"], rows[0]["ts"]) == (
        'x,"y"', "", "2026-11-25T13:00:00.123456+01:00",
    )  # fmt: skip


def test_json_lines(filled: Store, tmp_path: Path) -> None:
    """An object a line, with numbers as numbers; only what was asked for."""
    assert export(tmp_path / "calls.jsonl", ledger=filled.path, where={"status": "error"}) == 1
    (row,) = map(json.loads, (tmp_path / "calls.jsonl").read_text().splitlines())
    assert (row["uid"], row["is_call"], row["output_tokens"], row["cost_usd"]) == ("b", True, 20, 0.00022)


def test_parquet_is_the_frame_of_calls(filled: Store, tmp_path: Path) -> None:
    """Typed columns, equal to `calls()`."""
    assert export(tmp_path / "calls.parquet", ledger=filled.path) == 4
    read = pd.read_parquet(tmp_path / "calls.parquet")
    frame = calls(path=filled.path, children=True).sort_values("ts", kind="stable").reset_index(drop=True)
    assert list(read) == list(frame)
    assert set(read["uid"]) == set(frame["uid"])
    assert read["ts"].tolist() == sorted(frame["ts"].tolist())
    assert read["cost_nanousd"].sum() == frame["cost_nanousd"].sum()


def test_opentelemetry(filled: Store, tmp_path: Path) -> None:
    """A span a line in OTLP's JSON, with the names of the conventions; input counts what was cached, too."""
    assert export(tmp_path / "spans.json", "otel", ledger=filled.path) == 4
    spans = {}
    for line in (tmp_path / "spans.json").read_text().splitlines():
        (span,) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
        spans[span["name"], span["startTimeUnixNano"]] = span
    last = spans["chat claude-sonnet-5-5", str((TS + 2) * 1000)]
    facts = {entry["key"]: next(iter(entry["value"].values())) for entry in last["attributes"]}
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.request.model"] == "claude-sonnet-5-5"
    assert facts["gen_ai.usage.input_tokens"] == str(10 + 5 + 7)
    assert facts["gen_ai.usage.output_tokens"] == "20"
    failed, child = spans["chat claude-sonnet-5-5", str((TS + 1) * 1000)], spans["chat small", str((TS + 1) * 1000)]
    assert failed["status"] == {"code": 2}
    assert int(failed["endTimeUnixNano"]) - int(failed["startTimeUnixNano"]) == 1_500_000_000
    assert (child["parentSpanId"], child["traceId"]) == (failed["spanId"], failed["traceId"])


def test_memory_stays_flat(ledger: Ledger, make_call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the rows take no more memory."""
    monkeypatch.setattr(room, "PAGE", 200)
    peaks: list[int] = []
    for _ in range(2):
        ledger.write_all([(make_call(ts=TS), ()) for _ in range(len(peaks) * 2_400 + 800)])
        tracemalloc.start()
        export(tmp_path / "calls.csv", ledger=ledger.path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_export_that_fails_leaves_what_was_there(filled: Store, tmp_path: Path) -> None:
    """The old file stays and no part is left behind; an unknown ending or name says what to do."""
    path = tmp_path / "calls.csv"
    path.write_text("precious")
    with pytest.raises(InvalidRequest, match="unknown name 'statsu' in where"):
        export(path, ledger=filled.path, where={"statsu": "ok"})
    with pytest.raises(InvalidRequest, match="in format"):
        export(tmp_path / "calls.xlsx", ledger=filled.path)
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["calls.csv"]


def test_without_a_ledger_the_file_is_empty_but_for_its_head(tmp_path: Path) -> None:
    """No call yet is no error."""
    assert export(tmp_path / "calls.csv", ledger=tmp_path / "none.db") == 0
    assert (tmp_path / "calls.csv").read_text().startswith("uid,")
