"""`llmnb.metrics` as Prometheus reads it, and the log line of a call."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import llmnb
from llmnb import hearing
from llmnb.errors import InvalidRequest
from llmnb.metrics import Meters
from llmnb.records import Call
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.trouble import LlmnbWarning, forget_warnings

from . import processes

MODEL = "claude-sonnet-5-5"


@pytest.fixture(autouse=True)
def _nobody_listens() -> Iterator[None]:
    yield
    assert hearing.hearers == []


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of all samples of that name with these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"llmnb_{name}" and labels.items() <= sample.labels.items()
    )


def asked(sim: Simulator) -> llmnb.LLM:
    """Calls of many kinds: live, streamed, from the cache, retried, refused by the API, left in the middle."""
    llm = llmnb.LLM(MODEL, project="thesis", prompt_cache=None)
    sim.script(
        Answer(text="Hello there"), Answer(text="word " * 30), Fault("overloaded", retry_after_s=0), Answer(text="Ok")
    )
    llm("a"), llm("a")
    assert list(llm.stream("b"))
    llm("c")
    with pytest.raises(anthropic.APIStatusError):
        llm("d", extra_body={"max_tokens": -1})
    sim.script(Answer(text="word " * 30, delta_tokens=1, fault=Fault("stall", after_events=3)))  # else it came whole
    for _ in llm.stream("e"):
        break
    return llm


def test_registered_once_and_taken_out(sim: Simulator) -> None:
    """Into a registry of the user's; again is once, and it can be had back as it was."""
    registry = llmnb.metrics.register(CollectorRegistry())
    assert llmnb.metrics.register(registry) is registry
    llmnb.LLM(MODEL)("Hi")
    assert counted(registry, "requests_total") == 1
    llmnb.metrics.unregister(registry)
    llmnb.metrics.unregister(registry)
    assert list(registry.collect()) == []


def test_an_endpoint_serves_them(sim: Simulator) -> None:
    """The text that Prometheus scrapes, over HTTP, parsed by its own reader, agrees with the ledger row by row."""
    with llmnb.metrics.serve(0) as served:
        asked(sim)
        text = urllib.request.urlopen(served.url, timeout=10).read().decode()
        registry = served.registry
        rows = llmnb.calls()
        live = rows[rows["source"] == "live"]
        families = {family.name for family in text_string_to_metric_families(text)}
        assert {"llmnb_requests", "llmnb_tokens", "llmnb_cost_usd", "llmnb_request_duration_seconds"} <= families
        labels = {"provider": "anthropic", "model": MODEL, "project": "thesis"}
        assert counted(registry, "requests_total", **labels) == len(rows) == 6
        assert counted(registry, "requests_total", source="cache") == 1
        assert counted(registry, "errors_total", error_type="invalid_request_error") == 1
        assert counted(registry, "errors_total", error_type="cancelled") == 1
        assert counted(registry, "errors_total") == 2
        assert counted(registry, "retries_total") == 1
        for kind in ("input", "output", "cache_read"):
            assert counted(registry, "tokens_total", type=kind) == live[f"{kind}_tokens"].sum()
        assert counted(registry, "cost_usd_total") == pytest.approx(float(rows["cost_usd"].sum()))
        hit = rows[rows["source"] == "cache"]
        assert counted(registry, "cache_saved_usd_total") == pytest.approx(float(hit["saved_usd"].sum()))
        assert counted(registry, "request_duration_seconds_count") == 3
        assert counted(registry, "time_to_first_token_seconds_count") == 1
        with pytest.raises(InvalidRequest, match="Take another port"):
            llmnb.metrics.serve(int(served.url.split(":")[2].split("/")[0]))


COUNTED = """
import urllib.request
import llmnb

with llmnb.metrics.serve(0) as served:
    llmnb.LLM()("Hi", cache=False)
    lines = urllib.request.urlopen(served.url, timeout=10).read().decode().splitlines()
    print(sum(float(line.split()[-1]) for line in lines if line.startswith("llmnb_requests_total")))
"""


def test_processes_that_share_a_folder_are_counted_together(sim: Simulator, tmp_path: Path) -> None:
    """As prometheus_client does it where it is told to, so that several kernels need one endpoint only."""
    env = {**os.environ, **sim.environ(), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for calls in (1, 2):
        process = processes.Python(["-c", COUNTED], env=env, stdout=subprocess.PIPE)
        assert float(process.communicate()[0]) == calls


def test_a_call_leaves_one_line(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """However it ends, also retried: its row's fields, ready for JSON, and neither prompt nor answer."""
    with caplog.at_level(logging.INFO, "llmnb.calls"):
        asked(sim)("the secret prompt", log_content=True)
    records = [record for record in caplog.records if record.name == "llmnb.calls"]
    told = [(record.status, record.source, record.attempts) for record in records]
    assert told == [
        ("ok", "live", 1),
        ("ok", "cache", 1),
        ("ok", "live", 1),
        ("ok", "live", 2),
        ("error", "live", 1),
        ("cancelled", "live", 1),
        ("ok", "live", 1),
    ]
    rows = llmnb.calls().iloc[::-1]
    assert [record.total_cost_nanousd for record in records] == rows["cost_nanousd"].tolist()
    assert records[0].getMessage().startswith(f"{MODEL} · ok · ")
    assert records[1].getMessage().split(" · ")[2] == "from cache"
    plain = {name: value for record in records for name, value in vars(record).items() if name != "args"}
    assert "secret" not in json.dumps(plain)
    assert (records[0].project, records[0].model) == ("thesis", MODEL)


def test_nobody_is_told_by_default(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """Off is the default: logging takes warnings only, and nothing is counted."""
    assert not hearing.is_heard()
    llmnb.LLM(MODEL)("Hi")
    assert caplog.records == []


def test_who_listens_and_fails_harms_nothing(sim: Simulator) -> None:
    """The call goes on, and one warning says so."""

    def hear(rows: object) -> None:
        raise ZeroDivisionError

    forget_warnings()
    hearing.hearers.append(hear)
    try:
        with pytest.warns(LlmnbWarning, match="metrics or logs"):
            assert llmnb.LLM(MODEL)("Hi").text
    finally:
        hearing.hearers.remove(hear)


def test_a_stream_that_ends_in_the_middle_of_counting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that garbage collection ends while its thread holds a lock of the client's."""
    registry = CollectorRegistry()
    meters = Meters(registry)
    ended = [Call("uid", 0, MODEL, model=MODEL, status="ok")]
    dropped, labels = [ended], meters._requests.labels

    def found(*values: str) -> object:
        with meters._requests._lock:
            if dropped:
                meters.hear(dropped.pop())
        return labels(*values)

    monkeypatch.setattr(meters._requests, "labels", found)
    meters.hear(ended)
    assert counted(registry, "requests_total") == 2
