"""Every call ends as exactly one ledger row, however it ends, and the row says how."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
from typing import Any

import anthropic
import httpx2
import pandas as pd
import pytest
from anthropic import APIRequest
from anthropic._models import FinalRequestOptions

from llmnb.ledger import books
from llmnb.middleware.ledger import LedgerPart
from llmnb.middleware.ledgered import Ledgered
from llmnb.records import Call
from llmnb.settings import load
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.fault import Fault

from .conftest import QUESTION, row, rows

LONG = Answer(text="A word and another. " * 400, deltas=200)


def held_against(simulator: Simulator, written: dict[str, Any]) -> None:
    """The row equals the provider's own record, class by class and in money."""
    simulator.settle()
    [billed] = simulator.billing
    for name in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"):
        assert written[name] == getattr(billed, name), name
    assert written["output_tokens"] == billed.output_tokens
    assert written["cost_nanousd"] == billed.price_nanousd
    assert written["request_id"] == billed.request_id
    assert not written["estimated"]


# To its end -----------------------------------------------------------------------------------------------------------


def test_create(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A plain call: one row, equal to the provider's record."""
    message = client.messages.create(**QUESTION)
    written = row()
    assert (written["status"], written["stop_reason"], written["stream"]) == ("ok", message.stop_reason, False)
    assert (written["project"], written["provider"], written["attempts"]) == ("thesis", "anthropic", 1)
    assert (written["model_requested"], written["model"]) == ("claude-sonnet-5-5", message.model)
    assert written["latency_ms"] > 0
    assert pd.isna(written["ttft_ms"])
    held_against(simulator, written)


def test_stream_read_to_its_end(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A raw event stream: the time to the first token is on the row, too."""
    for _ in client.messages.create(**QUESTION, stream=True):
        pass
    written = row()
    assert (written["status"], written["stream"]) == ("ok", True)
    assert 0 < written["ttft_ms"] <= written["latency_ms"]
    held_against(simulator, written)


async def test_async_create_and_stream(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """The async client leaves the same rows."""
    await async_client.messages.create(**QUESTION)
    held_against(simulator, row())
    simulator.reset()
    async for _ in await async_client.messages.create(**QUESTION, stream=True):
        pass
    held_against(simulator, rows()[-1])
    assert [written["status"] for written in rows()] == ["ok", "ok"]


def test_max_tokens_and_refusals_are_ends_like_any_other(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """They are answers, with a stop_reason that says so."""
    simulator.script("far too long " * 200, Answer(refusal=True))
    client.messages.create(**{**QUESTION, "max_tokens": 5})
    client.messages.create(**QUESTION)
    assert [(written["status"], written["stop_reason"]) for written in rows()] == [
        ("ok", "max_tokens"),
        ("ok", "refusal"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_before_any_output_is_free(simulator: Simulator, client: anthropic.Anthropic, stream: bool) -> None:
    """The Claude API bills nothing for it, although its answer has a usage; what was written before one is billed."""
    simulator.script(Answer(refusal=True), Answer(refusal="bio", text="I would say"))
    for _ in range(2):
        answer: Any = client.messages.create(**QUESTION, stream=stream)
        if stream:
            list(answer)
    free, billed = rows()
    assert (free["status"], free["stop_reason"]) == ("ok", "refusal")
    assert (free["input_tokens"], free["output_tokens"], free["cost_nanousd"], free["estimated"]) == (0, 0, 0, False)
    assert billed["cost_nanousd"] == simulator.billed().price_nanousd > 0


# Errors and retries ---------------------------------------------------------------------------------------------------


def test_an_error_of_the_api_is_a_row_that_cost_nothing(client: anthropic.Anthropic) -> None:
    """Named as the API names it; unknown models too, which would be unpriced if they had cost anything."""
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**QUESTION, "model": "claude-nonsense-9"})
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**QUESTION, "model": "claude-nonsense-9"}, stream=True)
    for written in rows():
        assert (written["status"], written["error_type"]) == ("error", "not_found_error")
        assert (written["cost_nanousd"], written["output_tokens"]) == (0, 0)
        assert not written["estimated"]


@pytest.mark.parametrize("stream", [False, True])
def test_retries_are_attempts_of_one_row(simulator: Simulator, client: anthropic.Anthropic, stream: bool) -> None:
    """Two failures, then an answer: three attempts, the waiting kept, no error left on the row."""
    simulator.fail("rate_limited", retry_after_ms=30)
    simulator.fail("overloaded", retry_after_ms=30)
    answer = client.messages.create(**QUESTION, stream=stream)
    if stream:
        list(answer)
    written = row()
    assert (written["status"], written["attempts"]) == ("ok", 3)
    assert pd.isna(written["error_type"])
    assert 60 <= written["wait_ms"] < written["latency_ms"]
    held_against_last(simulator, written)


def held_against_last(simulator: Simulator, written: dict[str, Any]) -> None:
    simulator.settle()
    assert written["cost_nanousd"] == simulator.billing[-1].price_nanousd == simulator.billed().price_nanousd


def test_retries_used_up_leave_the_last_error(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """One row with all attempts."""
    simulator.fail("overloaded", times=None, retry_after_ms=1)
    with pytest.raises(anthropic.APIStatusError):
        client.with_options(max_retries=4).messages.create(**QUESTION)
    written = row()
    assert (written["status"], written["attempts"], written["error_type"]) == ("error", 5, "overloaded_error")


def test_calls_that_share_a_key_of_the_users_own_stay_apart(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """An idempotency key may be used twice; the rows are keyed by the call."""
    simulator.fail("overloaded", retry_after_ms=1)
    for _ in range(2):
        client.messages.create(**QUESTION, extra_headers={"Idempotency-Key": "mine"})
    assert [(written["status"], written["attempts"]) for written in rows()] == [("ok", 2), ("ok", 1)]


def test_a_copying_part_outside_does_not_split_the_row(simulator: Simulator) -> None:
    """Middleware of the user's own may copy the request on each attempt."""
    import llmnb

    def copying(request: anthropic.APIRequest, call_next: anthropic.CallNext) -> Any:
        return call_next(request.copy())

    simulator.fail("overloaded", retry_after_ms=1)
    with simulator.client(middleware=[copying]) as plain:
        llmnb.wrap(plain).messages.create(**QUESTION)
    assert (row()["status"], row()["attempts"]) == ("ok", 2)


def test_no_connection_is_an_error_that_cost_nothing(client: anthropic.Anthropic) -> None:
    """What was never sent is known to be free."""
    nowhere = client.with_options(base_url="http://127.0.0.1:9", max_retries=0)
    with pytest.raises(anthropic.APIConnectionError):
        nowhere.messages.create(**QUESTION)
    written = row()
    assert (written["status"], written["error_type"]) == ("error", "APIConnectionError")
    assert (written["input_tokens"], written["cost_nanousd"], bool(written["estimated"])) == (0, 0, False)


def test_a_time_out_after_sending_keeps_an_estimate_of_the_input(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """The API may have read the request, and may bill it: the row says about how much, and that it is estimated."""
    simulator.fail("slow_headers", seconds=60)
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(max_retries=0, timeout=0.2).messages.create(**QUESTION)
    written = row()
    assert (written["status"], written["error_type"]) == ("error", "APITimeoutError")
    assert written["input_tokens"] > 0
    assert written["cost_nanousd"] == written["input_tokens"] * 2_000
    assert written["estimated"]


# Closed early ---------------------------------------------------------------------------------------------------------


def cancelled(written: dict[str, Any], simulator: Simulator) -> None:
    """Input as the provider counts it, output estimated and between nothing and all."""
    assert written["status"] == "cancelled"
    assert written["estimated"]
    assert written["input_tokens"] == simulator.billing[-1].input_tokens if simulator.billing else True
    assert 0 < written["output_tokens"] < 2_100
    assert written["cost_nanousd"] == written["input_tokens"] * 2_000 + written["output_tokens"] * 10_000


def test_break_and_close(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Leaving the loop and closing the stream."""
    simulator.script(LONG)
    stream = client.messages.create(**QUESTION, stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            break
    stream.close()
    cancelled(row(), simulator)


def test_an_exception_in_the_loop(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The user's own code fails inside a `with` block."""
    simulator.script(LONG)

    def read() -> None:
        with client.messages.stream(**QUESTION) as stream:
            for event in stream:
                if event.type == "text":
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    cancelled(row(), simulator)


def test_keyboard_interrupt_in_the_loop(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Ctrl-C while reading."""
    simulator.script(LONG)

    def read() -> None:
        with client.messages.create(**QUESTION, stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    cancelled(row(), simulator)


def test_a_dropped_stream(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Left in a variable that goes away: garbage collection ends the call."""
    simulator.script(LONG)
    stream = client.messages.create(**QUESTION, stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            break
    del stream, event
    gc.collect()
    cancelled(row(), simulator)


def test_a_stream_never_read(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Nothing is known but what was sent: the input is estimated."""
    stream = client.messages.create(**QUESTION, stream=True)
    del stream
    gc.collect()
    written = row()
    assert (written["status"], bool(written["estimated"])) == ("cancelled", True)
    assert written["input_tokens"] > 0


async def test_task_cancellation_while_reading(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """A cancelled task: the row is written before the cancellation goes on."""
    simulator.script(Answer(text="A word and another. " * 400, deltas=200, fault=Fault("stall", after_events=20)))
    reading = asyncio.Event()

    async def read() -> None:
        seen = 0
        async for event in await async_client.messages.create(**QUESTION, stream=True):
            seen += event.type == "content_block_delta"
            if seen == 20:
                reading.set()

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled(row(), simulator)


async def test_task_cancellation_before_the_answer(
    simulator: Simulator, async_client: anthropic.AsyncAnthropic
) -> None:
    """Cancelled while waiting for headers: sent, perhaps billed, so estimated."""
    simulator.fail("slow_headers", seconds=60)
    task = asyncio.create_task(async_client.messages.create(**QUESTION))
    while not simulator.requests:  # noqa: ASYNC110 - another thread's list, which no event tells of
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    written = row()
    assert (written["status"], written["error_type"]) == ("cancelled", "CancelledError")
    assert written["estimated"]


async def test_an_async_break_and_close(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """Leaving an `async with` block early."""
    simulator.script(LONG)
    async with async_client.messages.stream(**QUESTION) as stream:
        async for _ in stream.text_stream:
            break
    cancelled(row(), simulator)


# Broken streams -------------------------------------------------------------------------------------------------------


def test_an_end_without_message_stop_is_truncated(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The SDK gives no error at all; the row does not call it ok."""
    simulator.script(Answer(text="A word. " * 50, deltas=40, fault=Fault("truncate", after_events=10)))
    list(client.messages.create(**QUESTION, stream=True))
    written = row()
    assert (written["status"], bool(written["estimated"])) == ("truncated", True)
    assert written["output_tokens"] > 0
    assert pd.isna(written["stop_reason"])


@pytest.mark.parametrize("kind", ["drop", "reset"])
def test_a_connection_lost_midway_is_truncated(simulator: Simulator, client: anthropic.Anthropic, kind: str) -> None:
    """The raw network error reaches the caller, and its name the row."""
    simulator.script(Answer(text="A word. " * 50, deltas=40, fault=Fault(kind, after_events=10)))
    with pytest.raises(httpx2.HTTPError) as caught:
        list(client.messages.create(**QUESTION, stream=True))
    written = row()
    assert (written["status"], written["error_type"]) == ("truncated", type(caught.value).__name__)
    assert written["output_tokens"] > 0


def test_an_error_event_is_an_error(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """After content: what came is kept as an estimate. The SDK raises its own error, untouched."""
    simulator.script(Answer(text="A word. " * 50, deltas=40, fault=Fault("error_event", after_events=10)))
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(**QUESTION, stream=True))
    written = row()
    assert (written["status"], written["error_type"], bool(written["estimated"])) == (
        "error",
        "overloaded_error",
        True,
    )


@pytest.mark.parametrize("kind", ["comments", "unknown_events", "unknown_blocks", "split_utf8", "gzip"])
def test_odd_but_correct_streams_are_on_the_books_in_full(
    simulator: Simulator, client: anthropic.Anthropic, kind: str
) -> None:
    """Nothing of this is a fault to the SDK, and nothing of it is one to the ledger."""
    simulator.script(Answer(text="Wörter, 字, 🦉. " * 20, fault=Fault(kind)))
    list(client.messages.create(**QUESTION, stream=True))
    written = row()
    assert written["status"] == "ok"
    held_against(simulator, written)
    assert written["ttft_ms"] > 0


def test_json_where_a_stream_was_asked_for_is_on_the_books(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The SDK yields no events then, but the answer was paid for."""
    simulator.fail("json_for_sse")
    list(client.messages.create(**QUESTION, stream=True))
    assert row()["status"] == "ok"
    held_against(simulator, row())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_copy_of_a_stream_in_a_forked_child_is_nobodys_call(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """The parent reads it to its end; the child drops its copy after that, and the row stays as it is."""
    simulator.script(LONG)
    stream = client.messages.create(**QUESTION, stream=True)
    next(stream)
    fork = multiprocessing.get_context("fork")
    parent_is_done = fork.Event()

    def child() -> None:
        parent_is_done.wait()
        stream.close()
        assert books().settle()

    process = fork.Process(target=child)
    process.start()
    list(stream)
    before = row()
    parent_is_done.set()
    process.join()
    assert process.exitcode == 0
    assert before["status"] == "ok"
    assert row() == before


def test_thousands_of_calls_may_wait_for_their_retry_at_once() -> None:
    """However many fail together, each goes on as the one row it was."""
    recorded: dict[str, Call] = {}

    class Kept:
        def begin(self, call: Any, origin: Any = None) -> None: ...

        def record(self, call: Call, children: Any = ()) -> None:
            recorded[call.uid] = call

    part = LedgerPart(Ledgered(Kept(), load()))

    def attempt(number: int, taken: int) -> None:
        options = FinalRequestOptions(
            method="post", url="/v1/messages", json_data=QUESTION, idempotency_key=f"{number}"
        )
        flow = part.flow(APIRequest(options=options, cast_to=object, retries_taken=taken))
        next(flow)
        with pytest.raises(httpx2.ReadError):
            flow.throw(httpx2.ReadError("gone"))

    for taken in range(2):
        for number in range(2_500):
            attempt(number, taken)
    assert len(recorded) == 2_500
    assert {call.attempts for call in recorded.values()} == {2}
