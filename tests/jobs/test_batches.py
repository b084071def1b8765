"""`llm.map(via="batch")`: the rows of the live path at half the price, sent once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.commands.console import explained
from llmnb.errors import BudgetExceeded, InvalidRequest, StoreError
from llmnb.jobs.batches import notes, service
from llmnb.jobs.batches.notes import Notes
from llmnb.jobs.batches.run import BatchRun
from llmnb.jobs.batches.sending import Sender
from llmnb.jobs.batches.service import Service
from llmnb.jobs.batches.upload import Upload
from llmnb.jobs.results import Results
from llmnb.ledger import open_ledger, settle
from llmnb.middleware import batch_results
from llmnb.places import PostgresPlace
from llmnb.simulator import Clock, Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning, forget_warnings

SAY = "Say {{ value }}"
WORDS = ["a", "b", "c", "a"]


class Killed(BaseException):
    """Stands for the end of the process: nothing after it is done, and what is on disk stays."""


class Person(BaseModel):
    """What a row says."""

    name: str
    age: int


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Jumps over every wait, of the server's and of ours."""
    clock = Clock.jumping()
    monkeypatch.setattr(service, "clock", clock)
    return clock


@pytest.fixture
def sim(clock: Clock) -> Iterator[Simulator]:
    with serve_simulator(clock=clock, environ=True, batch_seconds=600) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def llm(sim: Simulator) -> llmnb.LLM:
    """Without the response cache, so that what is not sent again was on disk."""
    del sim
    return llmnb.LLM(cache=False, project="thesis")


def sent(sim: Simulator) -> list[list[str]]:
    """The prompts of each batch that was sent."""
    return [
        [request["params"]["messages"][0]["content"] for request in seen.body["requests"]]
        for seen in sim.requests
        if (seen.method, seen.path) == ("POST", "/v1/messages/batches")
    ]


def books_agree(sim: Simulator) -> None:
    """What is on the books is what was billed, message by message."""
    settle(open_ledger().path)
    with open_ledger().transaction(reading=True) as connection:
        rows = connection.execute(
            "SELECT cost_nanousd, input_tokens, output_tokens FROM calls WHERE source = 'live' AND output_tokens > 0"
        ).fetchall()
    billed = [(one.price_nanousd, one.input_tokens, one.output_tokens) for one in sim.billing if one.output_tokens]
    assert sorted(rows) == sorted(billed)


def notes_of(home: Path) -> Notes:
    """The notes of the only run."""
    (folder,) = (home / "runs").iterdir()
    return Notes(folder)


# What comes back ------------------------------------------------------------------------------------------------------


def test_the_frame_is_that_of_the_live_path(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path) -> None:
    """Row by row, at half the price; the batch is noted, its requests are forgotten when all is done with them."""
    got = llm.map(WORDS, SAY, via="batch")
    assert sent(sim) == [["Say a", "Say b", "Say c"]]
    books_agree(sim)
    calls = llmnb.calls(where={"run_id": got.run_id})
    assert (set(calls["project"]), set(calls["service_tier"]), len(calls)) == ({"thesis"}, {"batch"}, 3)
    assert (got.status.succeeded, got.status.half_nanousd) == (3, got.status.cost_nanousd)
    (note,) = notes_of(llmnb_home).all.values()
    assert (note.stage, note.counts["succeeded"], note.ended - note.created) == ("read", 3, 600)
    assert not note.requests_path.exists()
    asked = len(sim.requests)
    again = llm.map(WORDS, SAY, via="batch")
    assert (len(sim.requests), again.status.kept) == (asked, 4)
    live = llmnb.LLM(cache=False, project="thesis", tag="other", max_tokens=8191).map(WORDS, SAY)
    assert live["cost_usd"].sum() == pytest.approx(2 * got["cost_usd"].sum())
    same = ["value", "text", "error", "input_tokens", "output_tokens", "stop_reason"]
    pd.testing.assert_frame_equal(pd.DataFrame(live[same]), pd.DataFrame(got[same]))
    assert (list(live.columns), set(got["source"])) == (list(got.columns), {"batch"})


def test_values_are_put_right_in_the_next_batch(sim: Simulator, llm: llmnb.LLM) -> None:
    """A schema makes columns; what does not fit goes back with what is wrong, at half the price, too."""
    sim.reset()

    def answer(request: Any) -> str:
        text = str(request.body["messages"])
        bad = ("wrong" in text and "does not fit" not in text) or "hopeless" in text
        return '{"name": "x"}' if bad else json.dumps({"name": request.prompt[:9], "age": 30})

    sim.rule(answer)
    got = llm.map(["Ann", "wrong", "hopeless"], "{{ value }}", schema=Person, via="batch", retries=1)
    assert [len(batch) for batch in sent(sim)] == [3, 2]
    assert (got["name"][0], got["age"][1]) == ("Ann", 30)
    assert "age: Field required" in got["error"][2]
    assert "after 2 attempts" in got["error"][2]
    books_agree(sim)
    assert got["cost_usd"].sum() == pytest.approx(float(llmnb.calls()["cost_usd"].sum()))


def test_both_paths_share_the_response_cache(sim: Simulator, llmnb_home: Path) -> None:
    """What a batch answered costs the live path nothing, and what was asked live is in no batch."""
    llm = llmnb.LLM()
    llm.map(["a"], SAY, via="batch")
    assert (llm("Say a").source, llm("Say b").source) == ("cache", "live")
    for folder in (llmnb_home / "runs").iterdir():
        folder.rename(llmnb_home / "gone")
    before = len(sim.requests)
    got = llm.map(["a", "b"], SAY, via="batch")
    assert (got["text"].tolist(), set(got["source"])) == (["echo Say a", "echo Say b"], {"cache"})
    assert (len(sim.requests), got.status.cached, float(got["cost_usd"].sum())) == (before, 2, 0.0)
    books_agree(sim)


def test_batches_keep_to_the_limits(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of how many requests one has, and of how many bytes."""
    monkeypatch.setattr(service, "MOST_REQUESTS", 3)
    got = llm.map([str(n) for n in range(8)], SAY, via="batch")
    assert [len(batch) for batch in sent(sim)] == [3, 3, 2]
    assert got["text"].tolist() == [f"echo Say {n}" for n in range(8)]
    monkeypatch.setattr(service, "MOST_BYTES", 5_000)
    llm.map([letter * 1_000 for letter in "abcdefghi"], SAY, via="batch")
    sizes = [len(request.raw) for request in sim.requests if request.path == "/v1/messages/batches"]
    assert max(sizes) < 5_000
    books_agree(sim)


@pytest.mark.parametrize("mode", ["auto", "1h"])
def test_a_long_system_prompt_is_cached_where_that_was_asked(sim: Simulator, mode: Any) -> None:
    """Only then: how many requests of a batch find what one of them wrote, nobody knows."""
    guide = "You are an editor. " * 600
    llmnb.LLM(cache=False, system=guide, prompt_cache=mode).map(["a", "b"], SAY, via="batch")
    requests = next(seen.body for seen in sim.requests if "requests" in seen.body)["requests"]
    marks = [block.get("cache_control") for block in requests[0]["params"]["system"] if isinstance(block, dict)]
    assert marks == ([{"type": "ephemeral", "ttl": "1h"}] if mode == "1h" else [])
    books_agree(sim)


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        (None, {"tools": [len]}, "several turns"),
        (["claude-sonnet-5-5", "claude-haiku-5-5"], {}, "one model"),
        ("openai:gpt-5.2", {}, "no Message Batches API"),
        ("claude-opus-5-5", {"speed": "fast"}, "fast"),
        (None, {"via": "bath"}, '"live", "batch" or "auto"'),
        (None, {"within": "2h"}, "within"),
    ],
    ids=["tools", "several models", "another provider", "fast", "no such way", "a deadline"],
)
def test_what_cannot_go_into_a_batch_is_refused(sim: Simulator, model: Any, options: Any, why: str) -> None:
    """Before anything is sent, with the reason."""
    with pytest.raises(InvalidRequest, match=why):
        llmnb.LLM(model).map(["a"], SAY, **{"via": "batch", **options})
    assert sim.requests == []


def test_an_unknown_model_is_told_at_once(sim: Simulator) -> None:
    """And not of every row, an hour later."""
    with pytest.raises(anthropic.NotFoundError):
        llmnb.LLM("claude-unheard-of").map(WORDS, SAY, via="batch")
    assert sent(sim) == []


# Requests that fail ---------------------------------------------------------------------------------------------------


def test_only_what_failed_is_sent_again(sim: Simulator, llm: llmnb.LLM) -> None:
    """Once by itself where another try may help; else by the same call; an answer that failed by `.retry_failed()`."""
    sim.fail("overloaded", match="busy")
    sim.fail("status", status=400, match="bad")
    sim.fail("overloaded", match="hopeless", times=2)
    got = llm.map(["fine", "busy", "bad", "hopeless"], SAY, via="batch")
    assert sent(sim) == [["Say fine", "Say busy", "Say bad", "Say hopeless"], ["Say busy", "Say hopeless"]]
    assert got["text"].tolist()[:2] == ["echo Say fine", "echo Say busy"]
    assert [error.partition(":")[0] for error in got["error"][2:]] == ["invalid_request_error", "overloaded_error"]
    assert (got.status.errored, got.status.failed) == (4, 2)
    again = got.retry_failed()
    assert sent(sim)[2:] == [["Say bad", "Say hopeless"]]
    assert again["text"].tolist() == [f"echo Say {word}" for word in ("fine", "busy", "bad", "hopeless")]
    books_agree(sim)


def test_a_failure_can_be_raised(sim: Simulator, llm: llmnb.LLM) -> None:
    """With errors="raise", when the results are there; those that were answered are kept."""
    sim.fail("status", status=400, match="bad")
    with pytest.raises(llmnb.LlmnbError, match="invalid_request_error"):
        llm.map(["fine", "bad"], SAY, via="batch", errors="raise")
    assert llm.map(["fine"], SAY, via="batch").status.kept == 1


def test_expired_requests_are_sent_once_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that takes too long: what was processed is an answer, and the rest goes into another, and then fails."""
    monkeypatch.setattr(service, "LONGEST_POLL_S", 4 * 3600)
    with serve_simulator(clock=clock, environ=True, batch_seconds=4 * 24 * 3600) as sim:
        got = llmnb.LLM().map(["a", "b", "c", "d"], SAY, via="batch")
        assert [len(batch) for batch in sent(sim)] == [4, 3]
        assert (got.status.succeeded, got.status.expired) == (1, 6)
        assert got["error"].notna().tolist() == [False, True, True, True]
        assert got["error"][1].startswith("expired: the batch came to its end")
        books_agree(sim)


async def test_a_cancelled_batch(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path) -> None:
    """Its rows say so and are not sent again by themselves; the same call sends them."""

    class Cancelling:
        """Cancels the first batch that it hears of."""

        def __init__(self) -> None:
            self.is_done = False

        async def look(self, api: Service, batch_id: str) -> Any:
            if not self.is_done:
                self.is_done = True
                await api.cancel(batch_id)
            return await api._client.messages.batches.retrieve(batch_id)

    cancelling = Cancelling()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "look", lambda self, batch_id: cancelling.look(self, batch_id))
        got = await llm.amap(WORDS, SAY, via="batch")
    assert got["error"].str.startswith("canceled: the batch was cancelled").all()
    assert (len(sent(sim)), set(llmnb.calls()["status"])) == (1, {"cancelled"})
    assert (await llm.amap(WORDS, SAY, via="batch"))["text"].notna().all()
    books_agree(sim)


# Killed, and lost -----------------------------------------------------------------------------------------------------


def _kill_before_sending(patch: pytest.MonkeyPatch) -> None:
    async def killed(*_: Any) -> None:
        raise Killed

    patch.setattr(Service, "send", killed)


def _kill_when_it_is_whole(patch: pytest.MonkeyPatch) -> None:
    async def killed(self: Service, requests: Any, headers: Any, before_the_end: Any) -> None:
        before_the_end()
        raise Killed

    patch.setattr(Service, "send", killed)


def _kill_before_the_id_is_noted(patch: pytest.MonkeyPatch) -> None:
    tell = Sender.tell

    def killed(self: Sender, note: Any, **facts: Any) -> Any:
        if "created" in facts:
            raise Killed
        return tell(self, note, **facts)

    patch.setattr(Sender, "tell", killed)


def _kill_while_waiting(patch: pytest.MonkeyPatch) -> None:
    async def killed(self: BatchRun) -> None:
        raise Killed

    patch.setattr(BatchRun, "_wait", killed)


def _kill_in_the_results(patch: pytest.MonkeyPatch) -> None:
    take, taken = BatchRun._take, []

    def killed(self: BatchRun, *given: Any) -> None:
        if len(taken) == 2:
            raise Killed
        taken.append(given)
        take(self, *given)

    patch.setattr(BatchRun, "_take", killed)


def _kill_when_all_is_read(patch: pytest.MonkeyPatch) -> None:
    def killed(self: BatchRun, sender: Sender) -> None:
        if self._heard:
            raise Killed

    patch.setattr(BatchRun, "_close", killed)


@pytest.mark.parametrize(
    ("kill", "batches"),
    [
        (_kill_before_sending, 1),
        (_kill_before_the_id_is_noted, 1),
        (_kill_while_waiting, 1),
        (_kill_in_the_results, 1),
        (_kill_when_all_is_read, 1),
    ],
    ids=["noted", "sent", "waiting", "half read", "read"],
)
async def test_killed_at_any_stage_nothing_is_paid_twice(
    sim: Simulator, llm: llmnb.LLM, kill: Any, batches: int
) -> None:
    """The same call finds the batch again, wherever it was left, and every row is there and on the books once."""
    with pytest.MonkeyPatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            await llm.amap(WORDS, SAY, via="batch")
    got = await llm.amap([*WORDS, "new"], SAY, via="batch")
    assert got["text"].tolist() == [f"echo Say {word}" for word in (*WORDS, "new")]
    prompts = [prompt for batch in sent(sim) for prompt in batch]
    assert sorted(prompts) == sorted({f"Say {word}" for word in (*WORDS, "new")})
    assert sim.billed().requests == 4
    books_agree(sim)


async def test_a_batch_that_looks_like_ours_is_not_taken_for_it(sim: Simulator, llm: llmnb.LLM) -> None:
    """Another's, made at the same time with as many requests: its results tell, and a person has to judge again."""
    with pytest.MonkeyPatch.context() as patch:
        _kill_when_it_is_whole(patch)
        with pytest.raises(Killed):
            await llm.amap(WORDS, SAY, via="batch")
    question: Any = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    with sim.client() as other:
        other.messages.batches.create(requests=[{"custom_id": f"{n}", "params": question} for n in range(3)])
    assert (await llm.amap(WORDS, SAY, via="batch"))["error"].str.contains("not known whether it was sent").all()
    assert (len(sent(sim)), len(llmnb.calls())) == (1, 0)  # the other's are read by nobody


@pytest.mark.parametrize("after_s", [0, 300, None], ids=["shown at once", "shown late", "never shown"])
async def test_a_send_whose_answer_is_lost(
    sim: Simulator, clock: Clock, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch, after_s: int | None
) -> None:
    """It is looked for at the API, and not sent again: what the API never shows, a person has to judge."""
    find, began = Service.find, clock.now()

    async def late(self: Service, note: Any, taken: Any) -> Any:
        return None if after_s is None or clock.now() - began < after_s else await find(self, note, taken)

    with monkeypatch.context() as patch:
        patch.setattr(Service, "find", late)
        _lose_the_answer(patch)
        got = await llm.amap([*WORDS, "\ud800"], SAY, via="batch")
    assert len(sent(sim)) == 1
    assert "half a character" in got["error"][4]
    if after_s is None:
        assert got["error"][:4].str.contains("not known whether it was sent: .*cut off .ValueError: half").all()
        assert clock.now() - began >= service.SETTLED_S
        row = llmnb.batches().iloc[0]
        assert (row["state"], row["requests"]) == ("unknown", 3)
        with pytest.raises(InvalidRequest, match=f"llmnb batches forget {row['name']}"):
            llmnb.get_batch(row["name"]).look()
        with pytest.raises(InvalidRequest, match="its id is not known yet"):
            llm.map(WORDS, SAY)
        got = await llm.amap(WORDS, SAY, via="batch")
    assert got["text"][:4].notna().all()
    assert (len(sent(sim)), held()) == (1, [])
    books_agree(sim)


def _lose_the_answer(patch: pytest.MonkeyPatch) -> None:
    create = anthropic.resources.messages.AsyncBatches.create

    async def losing(self: Any, **given: Any) -> Any:
        await create(self, **given)
        raise ValueError("half a JSON document")

    patch.setattr(anthropic.resources.messages.AsyncBatches, "create", losing)


def test_what_never_arrived_is_sent_again_when_a_person_says_so(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that llmnb has for it, since the API's id is not known; the money that was held for it is free."""
    llmnb.set_budget(usd=5, per="day", project="thesis")
    with monkeypatch.context() as patch:
        _kill_when_it_is_whole(patch)
        with pytest.raises(Killed):
            llm.map(WORDS, SAY, via="batch")
    assert "process ended" in llm.map(WORDS, SAY, via="batch")["error"][0]
    assert (sent(sim), len(held())) == ([], 1)
    name = llmnb.batches()["name"][0]
    assert repr(llmnb.get_batch(name[:6])) == f"<batch {name}, unknown: 3 requests>"
    llmnb.get_batch(name).forget()
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert (len(sent(sim)), held()) == (1, [])
    books_agree(sim)


def test_what_broke_off_before_its_end_never_arrived(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The network, or the disk on which it would be noted that it may have arrived: it is sent again, or nothing is."""
    real, began = Upload._body, clock.now()
    broken: list[int] = []

    async def breaking(self: Upload, pieces: Any, deadline: Any) -> Any:
        async for piece in real(self, pieces, deadline):
            yield piece
            if not broken:
                broken.append(len(piece))
                raise ConnectionResetError("the network went away")

    monkeypatch.setattr(Upload, "_body", breaking)
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert (len(broken), len(sent(sim))) == (1, 1)
    assert clock.now() - began < 900
    no_room = notes._write

    def full(path: Any, data: Any, **options: Any) -> None:
        if isinstance(data, bytes) and b'"is_whole":true' in data:
            raise OSError(28, "No space left on device")
        no_room(path, data, **options)

    monkeypatch.setattr(notes, "_write", full)
    with pytest.raises(StoreError, match="Nothing was sent"):
        llm.map(["new"], SAY, via="batch")
    assert len(sent(sim)) == 1
    books_agree(sim)


async def test_stopped_before_its_end_it_holds_no_money(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Stop while a large batch is on its way: it never arrived, and is sent when the call is made again."""
    llmnb.set_budget(usd=5, per="day", project="thesis")
    begun = asyncio.Event()

    async def slow(self: Upload, pieces: Any, deadline: Any) -> Any:
        yield pieces[0]
        begun.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Upload, "_body", slow)
        asking = asyncio.ensure_future(llm.amap(WORDS, SAY, via="batch"))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (held(), llmnb.batches().empty) == ([], True)
    assert (await llm.amap(WORDS, SAY, via="batch"))["text"].notna().all()
    assert len(sent(sim)) == 1
    books_agree(sim)


def test_a_server_that_fails_is_asked_once(sim: Simulator, llm: llmnb.LLM) -> None:
    """The SDK does not repeat a send by itself: that could be a second batch. A rate limit is waited for."""
    posts = lambda seen: seen.method == "POST" and seen.path == "/v1/messages/batches"  # noqa: E731
    sim.fail("rate_limited", match=posts, any_route=True, retry_after_s=7)
    sim.fail("server_error", match=posts, any_route=True)
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert len(sent(sim)) == 3
    times = [seen.at for seen in sim.requests if posts(seen)]
    assert times[1] - times[0] >= 7
    books_agree(sim)


def test_polling_is_polite(sim: Simulator, llm: llmnb.LLM) -> None:
    """More and more seldom, a minute at most, and as late as the API asks for; trouble on its side ends no wait."""
    looks = lambda seen: seen.method == "GET" and "/msgbatch_" in seen.path and "results" not in seen.path  # noqa: E731
    sim.fail("rate_limited", match=looks, any_route=True, retry_after_s=200, times=3, should_retry=False)
    sim.fail("server_error", match=looks, any_route=True, times=1, should_retry=False)
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    times = [seen.at for seen in sim.requests if looks(seen)]
    gaps = [after - before for before, after in pairwise(times)]
    assert sum(gap >= 200 for gap in gaps) >= 2
    assert max(gaps) < 400
    assert len(times) < 20


async def test_two_kernels_with_the_same_cell(sim: Simulator, llm: llmnb.LLM) -> None:
    """One of them sends, one reads, both have all rows, and each message is on the books once."""
    one, other = await asyncio.gather(
        llm.amap(WORDS, SAY, via="batch"), llmnb.LLM(cache=False, project="thesis").amap(WORDS, SAY, via="batch")
    )
    assert one["text"].tolist() == other["text"].tolist() == [f"echo Say {word}" for word in WORDS]
    assert (len(sent(sim)), sim.billed().requests) == (1, 3)
    books_agree(sim)


def test_stopped_it_says_how_to_come_back(sim: Simulator, llm: llmnb.LLM) -> None:
    """Ctrl-C ends the waiting and not the batch; the same call waits on."""

    class Interrupting:
        """A display that is there when a person presses Ctrl-C."""

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self, status: Any) -> None:
            if status.waiting and not status.is_over:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmnb.display.run_progress.progress", lambda **_: Interrupting())
        with pytest.raises(KeyboardInterrupt, match=r"The batch goes on at the API.*llmnb batches cancel msgbatch_"):
            llm.map(WORDS, SAY, via="batch")
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert len(sent(sim)) == 1


def test_what_cannot_be_noted_is_not_sent(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: without a note a batch might be paid twice."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmnb.jobs.batches.notes._write", full)
    with pytest.raises(StoreError, match="Nothing was sent"):
        llm.map(WORDS, SAY, via="batch")
    assert sent(sim) == []


@pytest.mark.parametrize("place", ["notes", "rows"])
def test_a_disk_that_is_full_at_the_end_costs_nothing(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither is the batch forgotten while rows of it are in memory only, nor its requests while its note is open."""
    real = notes._write

    def full(path: Any, data: Any, **options: Any) -> None:
        if place == "rows" or not isinstance(data, bytes) or b'"stage":"read"' not in data:
            return real(path, data, **options)
        raise OSError(28, "No space left on device")

    def no_room(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(notes, "_write", full)
        if place == "rows":
            patch.setattr(Results, "_write", no_room)
        forget_warnings()  # what ends behind an earlier test may have said so already
        with pytest.warns(LlmnbWarning):
            got = llm.map(WORDS, SAY, via="batch")
        assert got["text"].notna().all()
    forget_warnings()
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert len(sent(sim)) == 1


# Money ----------------------------------------------------------------------------------------------------------------


def test_budget_usd_is_kept_over_several_batches(sim: Simulator) -> None:
    """Rows that might not be paid wait for what the others leave; what is never left is not asked, and says so."""
    sim.reset()
    sim.rule(Answer(text="word " * 60))
    llm = llmnb.LLM("claude-sonnet-5-5", max_tokens=100, cache=False)
    got = llm.map([str(n) for n in range(10)], SAY, via="batch", budget_usd="0.0026")
    assert [len(batch) for batch in sent(sim)] == [4, 2, 1]
    assert got["error"].str.contains("not asked: it could cost more than is left").sum() == 3
    assert got["cost_usd"].sum() <= 0.0026
    books_agree(sim)


@pytest.mark.parametrize("is_read", [True, False], ids=["no row", "nothing to be read"])
def test_what_the_books_could_not_make_a_row_of_counts_against_the_budget(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    """With what the answer says that it used, or the most it can have cost; lines beside it are on the books."""
    real = batch_results.Booking._rows

    def broken(self: Any, line: Any) -> Any:
        if line["result"]["message"]["content"][0]["text"].endswith(" 0"):
            raise ValueError("a kind of usage that nobody knows")
        return real(self, line)

    monkeypatch.setattr(batch_results.Booking, "_rows", broken)
    if not is_read:
        monkeypatch.setattr("llmnb.jobs.batches.taking.rows_of", lambda *_, **__: {}["usage"])
    llm = llmnb.LLM("claude-sonnet-5-5", max_tokens=100, cache=False)
    with pytest.warns(LlmnbWarning):
        got = llm.map(["0", "1"], SAY, via="batch", budget_usd="0.0013")
    assert (len(llmnb.calls()), got["text"].notna().sum()) == (1, 2)
    assert got["cost_usd"].isna().tolist() == [not is_read, False]
    costs = sorted(one.price_nanousd for one in sim.billing)
    assert not is_read or [int(cost * 1e9 + 0.5) for cost in sorted(got["cost_usd"])] == costs


def test_set_budget_is_asked_before_a_batch_is_sent(sim: Simulator, llm: llmnb.LLM) -> None:
    """The money is held while the batch is away, by nobody's process, and let go when it is on the books."""
    llmnb.set_budget(usd="0.05", per="day", project="thesis")
    with pytest.raises(BudgetExceeded, match="a batch: up to"):
        llm.map([str(n) for n in range(9)], SAY, via="batch")
    assert sent(sim) == []
    small = llmnb.LLM(cache=False, project="thesis", max_tokens=500)
    with pytest.MonkeyPatch.context() as patch:
        _kill_while_waiting(patch)
        with pytest.raises(Killed):
            small.map([str(n) for n in range(9)], SAY, via="batch")
    assert len(held()) == 1
    with pytest.raises(BudgetExceeded):
        small("Hi", max_tokens=8_000)
    assert small.map([str(n) for n in range(9)], SAY, via="batch")["text"].notna().all()
    assert held() == []
    books_agree(sim)


def test_a_teams_ledger(sim: Simulator, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In PostgreSQL the money of a batch is held, and its rows are there once, as in a file."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    llmnb.set_budget(usd="0.05", per="day", project="thesis")
    llm = llmnb.LLM(cache=False, project="thesis", max_tokens=500)
    with pytest.MonkeyPatch.context() as patch:
        _kill_in_the_results(patch)
        with pytest.raises(Killed):
            llm.map(WORDS, SAY, via="batch")
    assert len(held()) == 1
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    assert (held(), len(llmnb.calls()), len(sent(sim))) == ([], 3, 1)
    books_agree(sim)


def held() -> list[Any]:
    """What is held of budgets."""
    with open_ledger().transaction(reading=True) as connection:
        return connection.execute("SELECT amount FROM reservations").fetchall()


def test_a_network_that_is_down_is_no_reason_to_send_again(sim: Simulator, llm: llmnb.LLM) -> None:
    """After a restart the API cannot be asked how far the batch is: it is waited for all the same."""
    with pytest.MonkeyPatch.context() as patch:
        _kill_when_all_is_read(patch)
        with pytest.raises(Killed):
            llm.map(["a", "busy"], SAY, via="batch")
    sim.fail("server_error", match=lambda seen: seen.method == "GET", any_route=True, times=4, should_retry=False)
    assert llm.map(["a", "busy"], SAY, via="batch")["text"].notna().all()
    assert len(sent(sim)) == 1
    books_agree(sim)


# Which way ------------------------------------------------------------------------------------------------------------


def job_of(llm: llmnb.LLM, rows: Any = WORDS, **options: Any) -> Any:
    """What a call would do."""
    return llm._job(rows, SAY, {"via": "auto", **options})


def test_auto_chooses_by_when_the_rows_are_needed(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says why: a day is enough for every batch, less by how long one's own took, or where live is too slow."""
    assert job_of(llm, within="1d").why.startswith("batch: every batch ends within 24 hours")
    assert job_of(llm, within="2h").why.startswith("live: a batch might take up to 24 hours (none of yours")
    tools = job_of(llmnb.LLM(tools=[{"type": "web_search_20250305", "name": "web_search"}]), within="7d")
    assert (tools.via, "several turns" in tools.why) == ("live", True)
    for number in range(3):
        llm.map([str(number)], SAY, via="auto", within="24h")
    assert len(sent(sim)) == 3
    chosen = job_of(llm, within="15m")
    assert chosen.via == "batch"
    assert chosen.why == "batch: none of your last 3 took longer than 10 min, at half the price"
    assert job_of(llm, within="11m").via == "live"
    monkeypatch.setenv("LLMNB_REQUESTS_PER_MINUTE", "1")
    slow = job_of(llmnb.LLM(), [str(number) for number in range(40)], within="11m")
    assert (slow.via, slow.why.partition(";")[0]) == (
        "batch",
        "batch: live it would take about 37 min",
    )  # three are finished


def test_rows_in_a_batch_are_not_asked_live(sim: Simulator, llm: llmnb.LLM) -> None:
    """They would be paid twice; "auto" waits on for their batch, however little time there is."""
    with pytest.MonkeyPatch.context() as patch:
        _kill_while_waiting(patch)
        with pytest.raises(Killed):
            llm.map(WORDS, SAY, via="batch")
    with pytest.raises(InvalidRequest, match=r"in a batch \(msgbatch_.*llmnb batches cancel msgbatch_"):
        llm.map(WORDS, SAY)
    assert llm.map(WORDS, SAY, via="auto", within="1m")["source"].tolist() == ["batch"] * 4
    assert llm.map([*WORDS, "new"], SAY)["source"].tolist() == ["batch"] * 4 + ["live"]
    books_agree(sim)


def test_an_estimate_at_the_price_of_a_batch(sim: Simulator, llm: llmnb.LLM) -> None:
    """Half of the live one."""
    live, batch = (llm.map(WORDS, SAY, dry_run=True, **options) for options in ({}, {"via": "batch"}))
    assert batch.cost_most_usd == live.cost_most_usd / 2
    assert "at the price of message batches" in str(batch)
    assert "live: a batch might take up to 24 hours" in str(llm.map(WORDS, SAY, dry_run=True, via="auto", within="2h"))
    assert sim.requests == []


def test_progress_says_what_is_waited_for() -> None:
    """Which batch, since when and until when, and what was saved; in words that only change when there is news."""
    from llmnb.display.batch_progress import note
    from llmnb.display.run_progress import said
    from llmnb.jobs.batches.status import BatchStatus

    now = time.time()
    waiting = BatchStatus(4, waited_s=130.0, waiting=("msgbatch_1",), sent=3, ends_by=now + 60)
    told = said(waiting, "batch: why")
    begin = "batch: why · 0 of 4 rows · $0 · 3 in progress in batch msgbatch_1, sent 2 min ago (most end within an"
    assert told.startswith(begin)
    assert "at the latest" in told
    assert "(yours took 10 min at most)" in said(replace(waiting, usual_s=600.0))
    assert note(waiting).endswith("Stop ends the waiting only; to end it: llmnb batches cancel msgbatch_1")
    assert note(replace(waiting, is_over=True)) == ""
    over = BatchStatus(4, done=4, seconds=130.0, succeeded=2, expired=1, half_nanousd=5_000_000, is_over=True)
    assert said(over) == "4 of 4 rows · $0 · 2 succeeded, 1 expired · half the price: $0.0050 saved · 2 min"


# Kept batches ---------------------------------------------------------------------------------------------------------


def waiting(llm: llmnb.LLM, prompt: Any = SAY) -> str:
    """The id of a batch that nobody waits for."""
    with pytest.MonkeyPatch.context() as patch:
        _kill_while_waiting(patch)
        with pytest.raises(Killed):
            llm.map(WORDS, prompt, via="batch")
    return str(llmnb.batches()["batch_id"][0])


def test_batches_are_listed_and_waited_for(sim: Simulator, llm: llmnb.LLM) -> None:
    """Also from a kernel that knows no frame: its results are on the books, with the run's labels, and rows once."""
    assert llmnb.batches().empty
    batch_id = waiting(llm)
    asked = len(sim.requests)
    listed = llmnb.batches()
    assert (len(sim.requests), listed["state"][0], listed["requests"][0]) == (asked, "in progress", 3)
    found = llmnb.get_batch(batch_id[:14])
    assert (found.id, found.look().state, found.counts) == (batch_id, "in progress", {})
    with pytest.raises(InvalidRequest, match=f"has not ended.*llmnb batches wait {batch_id}"):
        list(found.results())
    assert found.wait(progress=False).counts["succeeded"] == 3
    assert repr(found) == f"<batch {batch_id}, ended: 3 requests, 3 succeeded>"
    assert {result["message"]["content"][0]["text"] for _, result in found.results()} >= {"echo Say a"}
    calls = llmnb.calls()
    assert (set(calls["run_id"]), set(calls["project"]), len(calls)) == ({found.run_id}, {"thesis"}, 3)
    assert llmnb.batches(refresh=True)["state"].tolist() == ["ended"]
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    row = llmnb.batches().iloc[0]
    assert (row["state"], row["succeeded"], (row["ended"] - row["created"]).total_seconds()) == ("read", 3, 600)
    assert (len(llmnb.calls()), len(sent(sim))) == (3, 1)
    books_agree(sim)


def test_rows_in_a_batch_at_another_address(
    sim: Simulator, clock: Clock, llm: llmnb.LLM, recwarn: pytest.WarningsRecorder
) -> None:
    """They are another run's there, and paid there, too: that is said before they are sent, and how to come back."""
    batch_id = waiting(llm)
    with serve_simulator(1, clock, environ=True, batch_seconds=600) as other:
        assert llm.map(["new"], SAY, via="batch", progress=False)["text"].notna().all()
        assert len(recwarn) == 0
        assert llm.map([*WORDS, "new", "newer"], SAY, via="batch", progress=False)["text"].notna().all()
        (said,) = [str(warning.message) for warning in recwarn]
        assert said.startswith(f"3 of these rows are in a batch at another address already: {batch_id} at {sim.url}")
        assert f"paid, at {other.url}" in said
        assert f"to {sim.url}" in said
        assert sent(other)[-1] == ["Say a", "Say b", "Say c", "Say newer"]
        assert llm.map([*WORDS, "new", "newer"], SAY, via="batch", progress=False).status.kept == 6
        assert llmnb.get_batch(batch_id).look().state == "ended"  # asked where it is
    got = llm.map(WORDS, SAY, via="batch", progress=False)
    assert got["text"].tolist() == ["echo Say a", "echo Say b", "echo Say c", "echo Say a"]
    assert (len(sent(sim)), len(recwarn)) == (1, 1)


def test_rows_asked_live_that_a_batch_at_another_address_holds(
    sim: Simulator, clock: Clock, llm: llmnb.LLM, recwarn: pytest.WarningsRecorder, tmp_path: Path
) -> None:
    """That is said before the first of them is asked, and nothing is looked through for it; of an iterator, too."""
    batch_id = waiting(llm)
    with serve_simulator(1, clock, environ=True) as other:
        assert llm.map(["new"], SAY, progress=False)["text"].notna().all()
        assert len(recwarn) == 0
        other.rule(lambda request: f"{len(recwarn)} {request.prompt}")
        got = llm.map(["newest", *WORDS, "newer"], SAY, progress=False, concurrency=1)
        assert got["text"].tolist() == ["0 Say newest", "1 Say a", "1 Say b", "1 Say c", "1 Say a", "1 Say newer"]
        told = f"Rows of this run are in a batch at another address already: {batch_id} at {sim.url}"
        assert str(recwarn.pop().message).startswith(told)
        assert llm.map(["new", *WORDS], SAY, progress=False).status.kept == 5
        llm.map(iter(["last"]), SAY, progress=False, out=tmp_path / "out.parquet")
        assert len(recwarn) == 0
        llm.map(iter(["a"]), SAY, progress=False, fresh=True, out=tmp_path / "out.parquet")
        assert str(recwarn.pop().message).startswith(told)


def test_a_function_of_rows_that_a_batch_at_another_address_holds(sim: Simulator, clock: Clock, llm: llmnb.LLM) -> None:
    """It is called once a row, and never on the loop: it may take its time."""
    threads: list[str] = []

    def prompt(row: Any) -> str:
        threads.append(threading.current_thread().name)
        return f"Say {row.value}"

    waiting(llm, prompt)
    threads.clear()
    with serve_simulator(1, clock, environ=True), pytest.warns(LlmnbWarning, match="at another address already"):
        asyncio.run(llm.amap(WORDS, prompt, progress=False))
    assert threads == ["llmnb-rows"] * 4


def test_results_that_are_no_longer_kept(sim: Simulator, clock: Clock, llm: llmnb.LLM) -> None:
    """After a long holiday: it is said, and what to do."""
    batch_id = waiting(llm)
    clock.advance(31 * 24 * 3_600)
    with pytest.raises(InvalidRequest, match=f"29 days.*llmnb batches forget {batch_id}"):
        llm.map(WORDS, SAY, via="batch")
    llmnb.get_batch(batch_id).forget()
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()


def test_a_batch_is_cancelled_or_forgotten(sim: Simulator, llm: llmnb.LLM) -> None:
    """What is cancelled is not billed; the rows of one that was deleted are asked again when it is forgotten."""
    batch_id = waiting(llm)
    cancelled = llmnb.get_batch(batch_id).cancel()
    assert repr(cancelled) == f"<batch {batch_id}, canceling: 3 requests>"
    assert cancelled.wait(progress=False).state == "ended"
    with sim.client() as other:
        other.messages.batches.delete(batch_id)
    with pytest.raises(anthropic.NotFoundError) as gone:
        llm.map(WORDS, SAY, via="batch")
    assert any(f"llmnb batches forget {batch_id}" in note for note in gone.value.__notes__)
    with pytest.raises(anthropic.NotFoundError) as gone:
        llmnb.get_batch(batch_id).look()
    assert f"llmnb batches forget {batch_id}" in str(explained(gone.value))
    llmnb.get_batch(batch_id).forget()
    assert llm.map(WORDS, SAY, via="batch")["text"].notna().all()
    with pytest.raises(InvalidRequest, match="there is no batch 'x'"):
        llmnb.get_batch("x")
    books_agree(sim)


def test_the_command_line(sim: Simulator, llm: llmnb.LLM) -> None:
    """The same from a shell, for people and for scripts."""
    from typer.testing import CliRunner

    from llmnb.commands import main as cli

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, ["batches", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "No batches yet" in run("list")
    batch_id = waiting(llm)
    assert f"{batch_id}  " in run("list")
    assert "in progress" in run("show", batch_id)
    assert json.loads(run("wait", batch_id, "--json"))["succeeded"] == 3
    assert len(run("results", batch_id).splitlines()) == 3
    assert json.loads(run("list", "--refresh", "--json"))[0]["state"] == "ended"
    assert "ended: 3 requests" in run("cancel", batch_id)
    assert "is forgotten" in run("forget", batch_id, "--yes")
    books_agree(sim)
