"""Budgets around real calls: held before, settled after, refused, waited for, cut off, however the call is made."""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.budgeting import BudgetStatus, set_budget, statuses
from llmnb.budgeting.guard import guard
from llmnb.errors import BudgetExceeded, StoreError, UnknownPrice
from llmnb.ledger import books, open_ledger
from llmnb.middleware import budget as budget_room
from llmnb.middleware.budget import BudgetPart
from llmnb.middleware.entry import Entry
from llmnb.records import Call, calling
from llmnb.settings import load
from llmnb.simulator import Answer, Simulator
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator
from llmnb.trouble import BudgetWarning, LlmnbWarning, forget_warnings

from .conftest import QUESTION, row, rows

LONG = Answer(text="A word and another. " * 400, deltas=200)


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Every test hears every warning anew."""
    forget_warnings()


def standing() -> BudgetStatus:
    """How the one budget stands, with all rows written."""
    assert books().settle()
    (status,) = statuses()
    return status


def spent_is_what_the_rows_say() -> None:
    """Nothing is held any more, and the budget has taken what is on the books."""
    status = standing()
    assert status.held_amount == 0
    assert status.spent_amount == sum(written["cost_nanousd"] or 0 for written in rows())


async def asked(simulator: Simulator) -> None:
    """Until the server has seen a request."""
    while not simulator.requests:  # noqa: ASYNC110 - it runs in a thread of its own
        await asyncio.sleep(0.005)


def text_of(event: Any) -> str:
    """The text that an event of a stream brings."""
    is_text = event.type == "content_block_delta" and event.delta.type == "text_delta"
    return event.delta.text if is_text else ""


async def test_a_call_leaves_no_circle(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """When it has ended all that was known of it is gone, and nobody has to look for it among all other objects."""
    set_budget(usd=1, per="day")
    llm = llmnb.LLM(client=async_client, display="none", cache=False)
    gc.collect()
    before = _entries()
    gc.disable()
    try:
        for question in ("one", "two", "three"):
            await llm.aask(question)
        assert books().settle()
        left = [entry for entry in _entries() if entry not in before]
    finally:
        gc.enable()
    assert len(left) <= 1  # the connection, which is kept, was opened in the context of the first


def _entries() -> list[Entry]:
    return [entry for entry in gc.get_objects() if isinstance(entry, Entry)]


# Refused --------------------------------------------------------------------------------------------------------------


def test_a_call_that_does_not_fit_is_not_sent(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The error says what is left and needed, when there is more, and how to raise it; the row costs nothing."""
    set_budget(usd="0.001", per="day", project="thesis")
    with pytest.raises(BudgetExceeded) as refused:
        client.messages.create(**QUESTION)
    error = refused.value
    assert (error.unit, error.limit, error.left) == ("usd", Decimal("0.001"), Decimal("0.001"))
    assert isinstance(error.needed, Decimal)
    assert error.needed > error.left
    assert error.resets_at is not None
    for says in (
        "$0.001 a day for project 'thesis'",
        "Nothing was sent",
        "begins anew on",
        "llmnb.set_budget(usd=0.01",
    ):
        assert says in str(error)
    assert simulator.requests == []
    written = row()
    assert (written["status"], written["error_type"], written["cost_nanousd"]) == ("error", "BudgetExceeded", 0)
    assert not written["estimated"]


Ask = Callable[[anthropic.Anthropic], object]
DOORS: dict[str, Ask] = {
    "create": lambda client: client.messages.create(**QUESTION),
    "stream": lambda client: list(client.messages.create(**QUESTION, stream=True)),
    "helper": lambda client: client.messages.stream(**QUESTION).__enter__(),
    "raw": lambda client: client.messages.with_raw_response.create(**QUESTION),
    "streaming response": lambda client: client.messages.with_streaming_response.create(**QUESTION).__enter__(),
    "beta": lambda client: client.beta.messages.create(**QUESTION),
    "LLM": lambda client: llmnb.LLM(client=client, display="none")("Hi"),
    "LLM.stream": lambda client: list(llmnb.LLM(client=client).stream("Hi")),
    "Chat": lambda client: llmnb.LLM(client=client, display="none").chat()("Hi"),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_closed(simulator: Simulator, client: anthropic.Anthropic, door: str) -> None:
    """Whichever way a call is made, and never retried."""
    set_budget(usd=0, per="total")
    with pytest.raises(BudgetExceeded, match="never begins anew"):
        DOORS[door](client)
    assert simulator.requests == []
    assert row()["attempts"] == 1


async def test_async_doors_are_closed(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """The async client and the async twins."""
    set_budget(usd=0, per="total")
    with pytest.raises(BudgetExceeded):
        await async_client.messages.create(**QUESTION)
    with pytest.raises(BudgetExceeded):
        await llmnb.LLM(client=async_client, display="none").aask("Hi")
    assert simulator.requests == []


def test_what_costs_nothing_needs_no_budget(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Counting tokens and listing models go on."""
    set_budget(usd=0, per="total")
    client.messages.count_tokens(model=QUESTION["model"], messages=QUESTION["messages"])
    client.models.list()
    assert len(simulator.requests) == 2


def test_a_replayed_answer_needs_no_budget(simulator: Simulator, client: anthropic.Anthropic, tmp_path: Any) -> None:
    """It stands outside: what is answered without the API is not paid for."""
    with llmnb.record(tmp_path / "cassette.jsonl"):
        client.messages.create(**QUESTION)
    set_budget(usd=0, per="total")
    with llmnb.replay(tmp_path / "cassette.jsonl"):
        client.messages.create(**QUESTION)


def test_a_model_without_a_price_is_refused(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Unless it is allowed by name; the error says both ways out."""
    set_budget(usd=5, per="day")
    with pytest.raises(UnknownPrice, match=r"allow_unpriced=\['my-model'\].*tool.llmnb.prices"):
        client.messages.create(**{**QUESTION, "model": "my-model"})
    assert simulator.requests == []
    set_budget(usd=5, per="day", allow_unpriced=["my-model"])
    with suppress(anthropic.NotFoundError):
        client.messages.create(**{**QUESTION, "model": "my-model"})
    assert len(simulator.requests) == 1


# Settled --------------------------------------------------------------------------------------------------------------


def _break(client: anthropic.Anthropic) -> None:
    for number, _ in enumerate(client.messages.create(**QUESTION, stream=True)):
        if number == 5:
            break


def _raise(client: anthropic.Anthropic) -> None:
    with client.messages.create(**QUESTION, stream=True) as stream:
        for _ in stream:
            raise ValueError("mine")


def _drop(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(**QUESTION, stream=True)
    next(iter(stream))
    del stream
    gc.collect()


ENDS: dict[str, tuple[Answer | None, Fault | None, Ask]] = {
    "ok": (None, None, DOORS["create"]),
    "stream": (None, None, DOORS["stream"]),
    "helper": (None, None, lambda client: client.messages.stream(**QUESTION).__enter__().close()),
    "refused by the API": (None, Fault("status", status=400), DOORS["create"]),
    "retried": (None, Fault("overloaded", retry_after_ms=1), DOORS["create"]),
    "retried in vain": (None, Fault("server_error", retry_after_ms=1, times=9), DOORS["create"]),
    "no answer": (None, Fault("reset_before_headers"), DOORS["create"]),
    "truncated": (LONG, Fault("truncate", after_events=20), DOORS["stream"]),
    "dropped connection": (LONG, Fault("drop", after_events=20), DOORS["stream"]),
    "error event": (LONG, Fault("error_event", after_events=20), DOORS["stream"]),
    "break": (LONG, None, _break),
    "exception": (LONG, None, _raise),
    "garbage": (LONG, None, _drop),
    "json for a stream": (None, Fault("json_for_sse"), DOORS["stream"]),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_settles(simulator: Simulator, client: anthropic.Anthropic, end: str) -> None:
    """What was held is let go, and what is on the books is spent, however the call ends."""
    set_budget(usd=5, per="day")
    answer, fault, act = ENDS[end]
    if answer is not None:
        simulator.script(answer if fault is None else Answer(text=answer.text, deltas=answer.deltas, fault=fault))
    elif fault is not None:
        simulator.fail(fault, times=fault.times or 1)
    with suppress(Exception):
        act(client)
    gc.collect()
    assert len(rows()) == 1
    spent_is_what_the_rows_say()
    assert guard(load()).reservations.open == {}


async def test_a_cancelled_call_settles(simulator: Simulator, async_client: anthropic.AsyncAnthropic) -> None:
    """While it waits for the first byte."""
    set_budget(usd=5, per="day")
    simulator.script(Answer(first_token_s=30))
    task = asyncio.create_task(async_client.messages.create(**QUESTION))
    await asked(simulator)
    assert statuses()[0].held_amount > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert row()["status"] == "cancelled"
    spent_is_what_the_rows_say()


def test_money_is_held_while_the_answer_comes_and_until_its_row_is_written(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """There is no moment at which it is neither held nor spent, or both."""
    set_budget(usd=5, per="day")
    path = load().ledger_path
    stream = client.messages.create(**QUESTION, stream=True)
    next(iter(stream))
    with closing(sqlite3.connect(path)) as connection:
        ((held,),) = connection.execute("SELECT amount FROM reservations").fetchall()
        assert connection.execute("SELECT count(*) FROM budget_spent").fetchone() == (0,)
        assert held > 0
        for _ in stream:
            pass
        seen: set[tuple[bool, bool]] = set()
        while True:
            (state,) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM reservations), EXISTS (SELECT 1 FROM budget_spent WHERE amount > 0)"
            ).fetchall()
            seen.add((bool(state[0]), bool(state[1])))
            if state == (0, 1):
                break
    assert seen <= {(True, False), (False, True)}


def test_tokens_are_counted_in_all_classes(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A budget in tokens takes what was read, also from the cache, and what was written."""
    set_budget(tokens=100_000, per="day")
    text = {"type": "text", "text": "Guidance. " * 2000, "cache_control": {"type": "ephemeral"}}
    for _ in range(2):
        client.messages.create(**QUESTION, system=[text])
    simulator.settle()
    billed = simulator.billed()
    assert billed.cache_read_tokens > 0
    assert standing().spent == (
        billed.input_tokens
        + billed.cache_read_tokens
        + billed.cache_write_5m_tokens
        + billed.cache_write_1h_tokens
        + billed.output_tokens
    )


def test_a_thread_is_held_for_with_its_last_turn(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The body of the second turn says nothing of the first, and is held for all the same."""
    set_budget(tokens=100_000, per="day")
    betas = ["message-threads-2026-08-12"]
    long = [{"role": "user", "content": "Guidance. " * 500}]
    first = client.beta.messages.create(**{**QUESTION, "messages": long}, thread={"type": "create"}, betas=betas)
    held: list[int] = []
    simulator.script(Answer(text="Yes.", first_token_s=0.3))
    thread: Any = {"type": "continue", "previous_message_id": first.id}
    asking = threading.Thread(
        target=lambda: client.beta.messages.create(**QUESTION, thread=thread, betas=betas), daemon=True
    )
    asking.start()
    while not held or not held[-1]:
        held.append(statuses()[0].held_amount)
    asking.join()
    assert held[-1] > first.usage.input_tokens + first.usage.output_tokens + QUESTION["max_tokens"]


# Waiting --------------------------------------------------------------------------------------------------------------


def enough_for_one() -> None:
    """A budget with room for one question at a time, and for the answers of several."""
    set_budget(usd="0.0082", per="day")


def test_a_call_waits_for_another_to_end(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """It goes as soon as the other has settled for less than it held; its row says how long it waited."""
    enough_for_one()
    simulator.script(Answer(text="Yes.", first_token_s=0.5), Answer(text="No."))
    first = threading.Thread(target=lambda: client.messages.create(**QUESTION))
    first.start()
    while not simulator.requests:
        time.sleep(0.005)
    assert client.messages.create(**QUESTION).content
    first.join()
    waited = rows()[-1]
    assert waited["status"] == "ok"
    assert 250 < waited["wait_ms"] < 5_000
    spent_is_what_the_rows_say()


async def test_waiting_does_not_block_the_event_loop(
    simulator: Simulator, async_client: anthropic.AsyncAnthropic
) -> None:
    """Eight tasks want what there is money for two of at a time, and all get it in the end."""
    set_budget(usd="0.0125", per="day")
    simulator.script(*[Answer(text="Yes.", first_token_s=0.05)] * 8)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(async_client.messages.create(**QUESTION) for _ in range(8)))
    ticking.cancel()
    assert ticks > 10
    assert [written["status"] for written in rows()] == ["ok"] * 8
    spent_is_what_the_rows_say()


async def test_who_gives_up_waiting_has_sent_nothing(
    simulator: Simulator, async_client: anthropic.AsyncAnthropic
) -> None:
    """The row is cancelled, at no cost, not even an estimated one."""
    enough_for_one()
    simulator.script(Answer(text="Yes.", first_token_s=1))
    first = asyncio.create_task(async_client.messages.create(**QUESTION))
    await asked(simulator)
    second = asyncio.create_task(async_client.messages.create(**QUESTION))
    await asyncio.sleep(0.2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await first
    assert len(simulator.requests) == 1
    (cancelled,) = (written for written in rows() if written["status"] == "cancelled")
    assert (cancelled["cost_nanousd"], cancelled["input_tokens"]) == (0, 0)
    spent_is_what_the_rows_say()


def test_a_call_inside_an_answer_that_is_being_read_does_not_wait_for_ever(
    simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer cannot end before the call does: after a moment it is refused, and says why."""
    monkeypatch.setattr(budget_room, "OWN_PATIENCE_S", 0.2)
    enough_for_one()
    stream = client.messages.create(**QUESTION, stream=True)
    next(iter(stream))
    with pytest.raises(BudgetExceeded, match="is held by 1 call under way"):
        client.messages.create(**QUESTION)
    stream.close()
    spent_is_what_the_rows_say()


def test_an_llm_asked_inside_its_own_stream_does_not_wait_for_ever(
    simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the live view asks from a thread of its own."""
    monkeypatch.setattr(budget_room, "OWN_PATIENCE_S", 0.2)
    enough_for_one()
    # a stream is read ahead of who asks for its events, and one that was read to its end holds nothing any more
    simulator.script(Answer(text="A word and another. " * 40, deltas=40, fault=Fault("stall", after_events=20)))
    llm = llmnb.LLM(client=client, display="print", max_tokens=500)
    began = time.monotonic()
    events = llm.stream("Explain write-ahead logging in SQLite.")
    next(events)
    with pytest.raises(BudgetExceeded, match="under way"):
        llm("Explain checkpoints in SQLite.")
    events.close()
    assert time.monotonic() - began < 30


def test_patience_ends(simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call does not wait longer than others can last; before that it says that it waits."""
    monkeypatch.setattr(budget_room, "PATIENCE_S", 0.4)
    monkeypatch.setattr(budget_room, "_SAID_AFTER_S", 0.1)
    enough_for_one()
    stream = client.messages.create(**QUESTION, stream=True)
    next(iter(stream))
    caught: list[BaseException] = []

    def other() -> None:
        try:
            client.messages.create(**QUESTION)
        except BudgetExceeded as error:
            caught.append(error)

    with pytest.warns(BudgetWarning, match="the call waits"):
        in_a_thread(other)
    assert re.search(r"After \d+ s, \$0.005.* of the budget of \$0.0082 a day is held by 1 call", str(caught[0]))
    stream.close()


def in_a_thread(act: Callable[[], object]) -> None:
    """Does it in a thread of its own, and waits for it."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


# Cut off --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_answers() -> None:
    """A history of a hundred answers of fifty tokens, so that no more than that is held for the next."""
    now_us = time.time_ns() // 1000 - 40 * 24 * 3_600_000_000
    history = [
        Call(f"old-{n}", now_us, "claude-sonnet-5-5", project="thesis", status="ok", output_tokens=50)
        for n in range(100)
    ]
    open_ledger().write_all([(call, ()) for call in history])


SLOW = Answer(text="A word and another. " * 400, delta_tokens=1, tokens_per_second=3_000)


def test_a_stream_is_cut_off_where_it_would_cross_the_line(
    simulator: Simulator, client: anthropic.Anthropic, short_answers: None
) -> None:
    """The text so far is kept, the connection is closed, and what was spent is near the line."""
    status = set_budget(usd="0.005", per="day")
    simulator.script(SLOW)
    text = ""

    def read() -> None:
        nonlocal text
        for event in client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True):
            text += text_of(event)

    with pytest.raises(BudgetExceeded, match="cut off after") as cut:
        read()
    error = cut.value
    assert len(text) > 500
    assert error.partial.startswith(text)
    assert len(error.partial) - len(text) < 500
    assert error.usage is not None
    assert error.usage.output_tokens > 100
    simulator.settle()
    (billed,) = simulator.billing
    assert billed.aborted
    assert not billed.complete
    written = [found for found in rows() if found["error_type"] == "BudgetExceeded"]
    assert [found["status"] for found in written] == ["truncated"]
    # the answer's tokens are estimated from its text, and some were under way when it was cut off
    assert billed.price_nanousd is not None
    assert 0.5 * status.budget.allowance < billed.price_nanousd < 1.15 * status.budget.allowance
    assert standing().held_amount == 0


async def test_an_async_stream_is_cut_off_too(
    simulator: Simulator, async_client: anthropic.AsyncAnthropic, short_answers: None
) -> None:
    """In the same way."""
    set_budget(usd="0.005", per="day")
    simulator.script(SLOW)
    with pytest.raises(BudgetExceeded, match="cut off after") as cut:
        async for _ in await async_client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True):
            pass
    assert cut.value.partial.startswith("A word and another.")
    simulator.settle()
    assert simulator.billing[0].aborted


def test_an_llm_stream_is_cut_off_too(simulator: Simulator, client: anthropic.Anthropic, short_answers: None) -> None:
    """`llm.stream`, and `llm.ask` where the answer is streamed underneath."""
    set_budget(usd="0.005", per="day")
    simulator.script(SLOW)
    llm = llmnb.LLM(client=client, project="thesis", display="none", max_tokens=4000)
    with pytest.raises(BudgetExceeded) as cut:
        list(llm.stream("Explain write-ahead logging in SQLite."))
    assert cut.value.partial.startswith("A word and another.")


def test_a_compressed_stream_is_cut_off_too(
    simulator: Simulator, client: anthropic.Anthropic, short_answers: None
) -> None:
    """It is read again as it grows."""
    set_budget(usd="0.005", per="day")
    simulator.script(Answer(text=SLOW.text, delta_tokens=1, tokens_per_second=3_000, fault=Fault("gzip")))
    with pytest.raises(BudgetExceeded) as cut:
        for _ in client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True):
            pass
    assert cut.value.partial.startswith("A word and another.")


def test_a_stream_takes_what_is_free(simulator: Simulator, client: anthropic.Anthropic, short_answers: None) -> None:
    """An answer that is longer than usual holds more as it goes on, and comes to its end."""
    set_budget(usd=1, per="day")
    simulator.script(SLOW)
    held: set[int] = set()
    with closing(sqlite3.connect(load().ledger_path)) as connection:
        for _ in client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True):
            held |= {amount for (amount,) in connection.execute("SELECT amount FROM reservations")}
    assert len(held) > 3
    assert rows()[-1]["status"] == "ok"
    spent_is_what_the_rows_say()


def test_an_input_that_turns_out_larger_is_held_for(
    simulator: Simulator, client: anthropic.Anthropic, short_answers: None
) -> None:
    """What `message_start` tells replaces the bound; where there is no money for it, the answer ends there."""
    set_budget(usd="0.01", per="day")
    simulator.script(Answer(text=SLOW.text, start_usage={"input_tokens": 100_000}, tokens_per_second=3_000))
    with pytest.raises(BudgetExceeded, match="cut off after") as cut:
        for _ in client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True):
            pass
    assert len(cut.value.partial) < 100


def test_a_stream_whose_max_tokens_are_held_is_not_watched(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """It cannot cross any line."""
    set_budget(usd="0.0051", per="day")
    simulator.script(Answer(text="A word and another. " * 400))
    events = list(client.messages.create(**QUESTION, stream=True))
    assert events[-1].type == "message_stop"
    assert rows()[-1]["stop_reason"] == "max_tokens"


# Warned of ------------------------------------------------------------------------------------------------------------


def test_a_budget_that_warns_lets_everything_pass(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """And says so at each line once."""
    simulator.script(*[Answer(text="A word and another. " * 20)] * 5)
    client.messages.create(**QUESTION)
    set_budget(usd=Decimal(row()["cost_nanousd"]) / 10**9 * 4, per="day", action="warn")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(4):
            client.messages.create(**QUESTION)
            assert books().settle()
    assert len(simulator.requests) == 5
    texts = [str(warning.message) for warning in said]
    assert [text.partition(" of ")[0] for text in texts] == ["llmnb: 50 %", "llmnb: 100 %"]


def test_the_last_call_before_a_line_says_that_it_was_crossed(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """At its end, not with the next call, of which nobody knows whether it comes."""
    set_budget(usd="0.0068", per="day")
    simulator.script(Answer(text="A word and another. " * 90))
    with pytest.warns(BudgetWarning, match="50 % of the budget of \\$0.0068 a day is spent") as said:
        client.messages.create(**QUESTION)
    assert said[0].filename.endswith("test_budget.py")


# The ledger in trouble ------------------------------------------------------------------------------------------------


def test_a_locked_ledger_stops_what_a_known_budget_may_forbid(
    simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is spent by surprise; the error says why, and how to go on all the same."""
    monkeypatch.setattr(budget_room, "LOCKED_S", 0.2)
    set_budget(usd=5, per="day")
    client.messages.create(**QUESTION)
    books().settle()
    with closing(sqlite3.connect(load().ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"\$5.00 a day stands.*another process.*LLMNB_BUDGETS=off"):
            client.messages.create(**QUESTION)
        assert len(simulator.requests) == 1
        monkeypatch.setenv("LLMNB_BUDGETS", "off")
        with pytest.warns(LlmnbWarning, match="asking for the budget"):
            client.messages.create(**QUESTION)
        other.execute("ROLLBACK")


def test_a_ledger_that_is_locked_for_a_moment_delays_a_call(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """And nothing else."""
    set_budget(usd=5, per="day")
    client.messages.create(**QUESTION)
    books().settle()
    with closing(sqlite3.connect(load().ledger_path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        client.messages.create(**QUESTION)
    assert len(simulator.requests) == 2
    spent_is_what_the_rows_say()


def test_a_locked_ledger_delays_nobody_without_a_budget(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Also where some other project has one."""
    set_budget(usd=5, per="day", project="other")
    client.messages.create(**QUESTION)
    books().settle()
    with closing(sqlite3.connect(load().ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        client.messages.create(**QUESTION)
        assert time.monotonic() - began < 2
        other.execute("ROLLBACK")


def test_a_broken_ledger_breaks_no_call(simulator: Simulator, client: anthropic.Anthropic, llmnb_home: Any) -> None:
    """Where no budget is known the call goes on, and what is wrong is said."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").mkdir()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client.messages.create(**QUESTION)
        books().settle()
    assert any("looking for budgets" in str(warning.message) for warning in said)
    (llmnb_home / "ledger.db").rmdir()
    assert books().settle()
    assert len(simulator.requests) == 1


def test_a_streamed_answer_outlives_a_lock(
    simulator: Simulator, client: anthropic.Anthropic, short_answers: None
) -> None:
    """The answer is paid for anyway: it goes on, and is held for again when the ledger is free."""
    set_budget(usd=1, per="day")
    simulator.script(SLOW)
    with closing(sqlite3.connect(load().ledger_path, isolation_level=None)) as other:
        text = ""
        for number, event in enumerate(client.messages.create(**{**QUESTION, "max_tokens": 4000}, stream=True)):
            if number == 10:
                other.execute("BEGIN IMMEDIATE")
            text += text_of(event)
        other.execute("ROLLBACK")
    assert text == SLOW.text


# Where there is none --------------------------------------------------------------------------------------------------


def test_without_budgets_nothing_is_opened_or_written(
    simulator: Simulator, client: anthropic.Anthropic, llmnb_home: Any
) -> None:
    """The first call of a new home makes no ledger before its row does."""
    stream = client.messages.create(**QUESTION, stream=True)
    assert not (llmnb_home / "ledger.db").exists()
    stream.close()
    assert row()["status"] == "cancelled"


def test_budgets_can_be_switched_off(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a deadline with a broken ledger."""
    set_budget(usd=0, per="total")
    monkeypatch.setenv("LLMNB_BUDGETS", "off")
    with simulator.client() as plain:
        llmnb.wrap(plain).messages.create(**QUESTION)
    assert len(simulator.requests) == 1


def test_rows_that_go_elsewhere_are_not_held_for(simulator: Simulator) -> None:
    """Money that no row would ever let go of is not held in the first place."""
    set_budget(usd=0, per="total")

    class Elsewhere:
        def begin(self, call: object, origin: object = None) -> None:
            """Keeps nothing."""

        def record(self, call: object, children: object = ()) -> None:
            """Keeps nothing."""

    with simulator.client() as plain:
        wrapped = llmnb.wrap(plain, books=Elsewhere())  # pyright: ignore[reportArgumentType]
        assert all(part.guard is None for part in wrapped.middleware if isinstance(part, BudgetPart))
        wrapped.messages.create(**QUESTION)


def test_wrapping_again_makes_no_second_part(client: anthropic.Anthropic) -> None:
    """One call holds once."""
    again = llmnb.wrap(client, tag="again")
    assert [type(part).__name__ for part in again.middleware].count("BudgetPart") == 1


def test_the_budget_of_a_project_is_for_its_calls_however_it_is_named(simulator: Simulator) -> None:
    """By the client, or by the context of a call."""
    set_budget(usd=0, per="total", project="closed")
    with simulator.client() as plain:
        open_client, closed = llmnb.wrap(plain, project="open"), llmnb.wrap(plain, project="closed")
        open_client.messages.create(**QUESTION)
        with pytest.raises(BudgetExceeded):
            closed.messages.create(**QUESTION)
        with calling(project="closed"), pytest.raises(BudgetExceeded):
            open_client.messages.create(**QUESTION)
    assert len(simulator.requests) == 1


def test_two_ledgers_have_two_sets_of_budgets(llmnb_home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client keeps to the ledger it was wrapped for."""
    with serve_simulator() as simulator, simulator.client() as plain:
        here = llmnb.wrap(plain)
        set_budget(usd=0, per="total")
        monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{llmnb_home}/other.db")
        llmnb.wrap(plain).messages.create(**QUESTION)
        with pytest.raises(BudgetExceeded):
            here.messages.create(**QUESTION)
