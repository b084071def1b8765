"""Requests of a run that are sent without being built anew: to the server and to the user they are the SDK's own."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from anthropic import Omit
from pydantic import BaseModel

import llmnb
from llmnb import connections
from llmnb.keys import Around
from llmnb.middleware import alike
from llmnb.middleware.direct import DirectPart, for_many
from llmnb.simulator import Fault, SeenRequest, Simulator

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'llmnb[aiohttp]'")
FAULTS = (
    Fault("rate_limited", retry_after_ms=1),
    Fault("overloaded", retry_after_ms=1),
    Fault("status", status=400),
    Fault("reset_before_headers"),
    Fault("close_before_headers"),
    Fault("drop"),
    Fault("gzip"),
)


def asked(rows: list[str], **options: Any) -> Any:
    """One row after the other, so that the first shows the way and the second takes it."""
    return llmnb.LLM(max_tokens=50, cache=False).map(rows, "Say {{ value }}", concurrency=1, progress=False, **options)


def without_own(request: SeenRequest) -> dict[str, str]:
    """The headers of a request but those that are another's for each."""
    own = ("idempotency-key", "x-stainless-retry-count")
    return {name.lower(): value for name, value in dict(request.headers).items() if name.lower() not in own}


def test_the_server_cannot_tell(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and bodies are those that the SDK sends by itself."""
    assert asked(["a", "b", "sjø"], extra_headers={"x-of-mine": "1"}).error.isna().all()
    direct = list(sim.requests)
    monkeypatch.setenv("LLMNB_TRANSPORT", "httpx")
    assert asked(["a", "b", "sjø"], extra_headers={"x-of-mine": "1"}, fresh=True).error.isna().all()
    for ours, theirs in zip(direct, sim.requests[len(direct) :], strict=True):
        assert without_own(ours) == without_own(theirs)
        assert ours.body == theirs.body


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
def test_what_goes_wrong_is_told_as_over_the_sdk(sim: Simulator, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows in the frame and in the books, to the token."""
    told: list[Any] = []
    for transport in ("auto", "httpx"):
        monkeypatch.setenv("LLMNB_TRANSPORT", transport)
        sim.fail(fault, match=f"two {transport}")
        frame = asked([f"one {transport}", f"two {transport}"])
        books = llmnb.calls(where={"run_id": frame.run_id}).sort_values("ts").tail(2)
        facts = ["status", "attempts", "input_tokens", "output_tokens", "estimated", "error_type", "cost_usd"]
        told.append(
            (
                re.sub(f"req_\\w+|{transport}", "…", frame[["error", "input_tokens", "output_tokens"]].to_json()),
                json.loads(books[facts].to_json(orient="values")),
            )
        )
    (ours, our_books), (theirs, their_books) = told
    assert ours == theirs
    for mine, its in zip(our_books, their_books, strict=True):  # a prompt is a letter longer
        assert mine[0:2] == its[0:2]
        assert mine[4] == its[4]
        assert abs(mine[2] - its[2]) <= 4


def test_rows_after_the_first_are_built_by_nobody(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the SDK's `create` nor by httpx2; a way out of that would be taken in silence."""
    sent: list[bool] = []
    plain = DirectPart._through_the_sdk

    async def through_the_sdk(part: DirectPart, *request: Any) -> Any:
        sent.append(True)
        return await plain(part, *request)

    monkeypatch.setattr(DirectPart, "_through_the_sdk", through_the_sdk)
    monkeypatch.setattr("llmnb.middleware.direct.RECORDS_SPANS", "nobody")  # other tests of this process did
    assert asked(["a", "b", "c", "d", "e"]).error.isna().all()
    assert sent == [True]


def test_attempts_of_a_call_are_counted(sim: Simulator) -> None:
    """As the API is told of retries."""
    sim.fail(Fault("overloaded", retry_after_ms=1), match="two", times=2)
    assert asked(["one", "two"]).error.isna().all()
    counts = [dict(request.headers).get("x-stainless-retry-count") for request in sim.requests]
    assert counts == ["0", "0", "1", "2"]


def test_whoever_listens_to_the_sdk_hears_of_every_call(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """With its logging on, each goes the SDK's way."""
    with caplog.at_level(logging.DEBUG, "anthropic"):
        asked(["one", "two", "three"])
    assert sum(record.message.startswith("HTTP Response") for record in caplog.records) == 3


async def test_other_clients_stay_as_they_are(sim: Simulator) -> None:
    """One with connections of its own, and one of another class."""
    async with sim.async_client() as plain:
        assert not for_many(llmnb.wrap(plain))._client.__class__.__name__.startswith("Aio")
        assert len(for_many(plain).middleware) == 0


async def test_what_differs_in_more_than_its_messages_is_the_sdks_to_make(sim: Simulator) -> None:
    """Each request says what it was asked to, in whatever order they come."""
    question: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 50}
    asked_for: list[dict[str, Any]] = [
        {**question, "messages": [{"role": "user", "content": "one"}]},
        {**question, "messages": [{"role": "user", "content": "two"}]},
        {**question, "max_tokens": 60, "messages": [{"role": "user", "content": "three"}]},
        {**question, "messages": [{"role": "user", "content": [{"type": "text", "text": "four"}]}]},
        {**question, "system": "Be brief.", "messages": [{"role": "user", "content": "five"}]},
        {**question, "system": "Be long.", "messages": [{"role": "user", "content": "six"}]},
        {**question, "messages": [{"role": "user", "content": "seven"}]},
    ]
    async with sim.async_client(http_client=connections.http_client()) as plain:
        client = for_many(plain)
        for arguments in [*asked_for, *asked_for]:
            response = await alike.created(client, arguments)
            assert (await response.parse()).role == "assistant"
        assert getattr(client, "_llmnb_alike").options(asked_for[0]) is not None  # noqa: B009 - the last was like it
    assert [request.body for request in sim.requests] == [*asked_for, *asked_for]


class Kind(BaseModel):
    """What a row is."""

    kind: str


def look(where: str) -> str:
    """Looks there."""
    return where


SYSTEM = "You are a careful annotator. " * 400
SETTINGS: dict[str, dict[str, Any]] = {
    "text": {"system": SYSTEM},
    "blocks": {"system": [{"type": "text", "text": SYSTEM}, {"type": "text", "text": "Answer in one word."}]},
    "schema": {"system": SYSTEM, "schema": Kind, "retries": 0},
    "tools": {"system": SYSTEM, "tools": [look]},
    "headers": {"system": SYSTEM, "extra_headers": {"x-of-mine": "1", "x-stainless-lang": Omit()}},
    "body": {"system": SYSTEM, "extra_body": {"metadata": {"user_id": "me"}}},
}
HABITS = ("auto", "blocks")
"""Whether that is marked is told by how soon the calls before followed each other, which no two runs do alike."""


@pytest.mark.parametrize(
    ("mode", "settings"),
    [(mode, name) for mode in ("5m", "auto") for name in SETTINGS if (mode, name) != HABITS]
    + [("1h", "text"), (None, "blocks")],
)
def test_a_row_is_the_request_that_it_would_be_alone(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, mode: Any, settings: str
) -> None:
    """On the wire and in the response cache, whatever the parts inside make of it: there it is found, and not paid
    again.
    """
    sim.rule("fine")
    llm = llmnb.LLM(max_tokens=50, display="none", prompt_cache=mode)
    told: list[Any] = []
    kept: list[str] = []
    plain = Around.key

    def key(*given: Any) -> str:
        kept.append(plain(*given))
        return kept[-1]

    def none(*_: object) -> None:
        """What the SDK makes is made again for each row."""

    monkeypatch.setattr(Around, "key", key)
    for _ in range(2):
        sent = len(sim.requests)
        llm.map(["a", "b", "c"], "Say {{ value }}", concurrency=1, progress=False, fresh=True, **SETTINGS[settings])
        told.append(([(without_own(request), request.body) for request in sim.requests[sent:]], kept[:]))
        kept.clear()
        monkeypatch.setattr(alike.Alike, "options", none)
    assert told[0] == told[1]
    assert [len(each) for each in told[0]] == [3, 3]
