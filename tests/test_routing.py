"""When a model cannot answer the next one does: through every door, one row a hop, and the reply says who and why."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb import routing
from llmnb.errors import IncompleteReply, InvalidRequest
from llmnb.events import Retry, Text
from llmnb.middleware.entry import Entry
from llmnb.pacing import pacer
from llmnb.routing import FAILURES, OPEN_S, Breakers, Candidate, Hop
from llmnb.settings import load
from llmnb.simulator import Answer, Clock, Fault, Limits, Simulator

FIRST, SECOND = "claude-opus-5-5", "claude-sonnet-5-5"
OPENAI = "openai:gpt-5.2"
BUSY = {"kind": "overloaded", "times": None, "match": {"model": FIRST}, "retry_after_ms": 1}


@dataclass
class Word:
    """What is extracted."""

    word: str


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "0.001")
    monkeypatch.setenv("LLMNB_CACHE", "off")
    routing.breakers.reset()
    routing.forget_numbers()
    yield
    routing.breakers.reset()
    routing.forget_numbers()


def rows() -> list[dict[str, Any]]:
    """The calls on the books, oldest first."""
    return llmnb.calls().to_dict("records")[::-1]


def asked(llm: llmnb.LLM, way: str) -> llmnb.Reply:
    """One answer, in one of the ways."""
    if way == "ask":
        return llm("Hi")
    if way == "streamed":
        return llm("Hi", max_tokens=60_000)
    if way == "aask":
        return asyncio.run(llm.aask("Hi"))
    if way == "Chat":
        return llm.chat()("Hi")
    if way == "stream":
        list(llm.stream("Hi"))
    else:
        asyncio.run(_drained(llm))
    return llmnb.last()


async def _drained(llm: llmnb.LLM) -> None:
    async for _ in llm.astream("Hi"):
        pass


@pytest.mark.parametrize("way", ["ask", "streamed", "aask", "Chat", "stream", "astream"])
def test_the_next_one_answers(sim: Simulator, way: str) -> None:
    """After the first one's own retries; each is a row, the second under the first, and the reply says why."""
    sim.fail(**BUSY)
    reply = asked(llmnb.LLM([FIRST, SECOND]), way)
    assert reply.model == SECOND
    assert reply.route is not None
    assert reply.route.hops == (Hop(FIRST, "overloaded"), Hop(SECOND, "answered"))
    assert reply.route.why == f"{SECOND} answered ({FIRST}: overloaded)"
    first, second = rows()
    assert (first["status"], first["attempts"], second["status"], second["attempts"]) == ("error", 3, "ok", 1)
    assert second["parent_uid"] == first["uid"]
    assert second["cost_nanousd"] == sim.billed().price_nanousd


def test_extract_and_a_chat_go_on(sim: Simulator) -> None:
    """What a question has become since (a schema, a history) goes to whoever answers."""
    sim.fail(**BUSY)
    llm = llmnb.LLM([FIRST, SECOND])
    sim.script(Answer(text='{"word": "yes"}'), match={"model": SECOND})
    assert llm.extract("Say yes", Word) == Word("yes")
    assert "format" in sim.requests[-1].body["output_config"]
    chat = llm.chat()
    chat("one")
    chat("two")
    assert [message["role"] for message in sim.requests[-1].body["messages"]] == ["user", "assistant", "user"]
    assert sim.requests[-1].body["model"] == SECOND


def test_a_stream_tells_and_goes_on_only_before_content(sim: Simulator) -> None:
    """A change of model is a `Retry` event; once there was text, what breaks off is an incomplete reply."""
    sim.fail(**BUSY)
    llm = llmnb.LLM([FIRST, SECOND])
    events = [event for event in llm.stream("Hi") if isinstance(event, Retry)]
    assert events[-1] == Retry(0.0, 2, f"{FIRST}: overloaded", 2)
    sim.reset()
    sim.script(Answer(text="one two three four", deltas=4, fault=Fault("truncate", after_events=2)))
    shown: list[str] = []
    with pytest.raises(IncompleteReply) as caught:
        shown.extend(event.text for event in llm.stream("Hi") if isinstance(event, Text))
    assert "".join(shown) == caught.value.partial != ""
    assert len(sim.requests) == 1


def test_what_is_wrong_with_the_request_is_raised(sim: Simulator) -> None:
    """The next model would refuse it, too."""
    sim.fail("status", status=400)
    with pytest.raises(anthropic.BadRequestError):
        llmnb.LLM([FIRST, SECOND])("Hi")
    assert len(sim.requests) == 1


def test_the_last_error_is_raised_as_it_is(sim: Simulator) -> None:
    """When nobody can answer."""
    sim.fail("overloaded", times=None, retry_after_ms=1)
    with pytest.raises(anthropic.APIStatusError) as caught:
        llmnb.LLM([FIRST, SECOND])("Hi")
    assert caught.value.status_code == 529
    assert [row["model_requested"] for row in rows()] == [FIRST, SECOND]


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
@pytest.mark.parametrize("late", [FIRST, OPENAI])
def test_who_shows_nothing_in_time_is_left(sim: Simulator, way: str, late: str) -> None:
    """The connection is closed, the row says cancelled; the last one is waited for."""
    if late == OPENAI:
        pytest.importorskip("openai")
    sim.rule(Answer(text="late", fault=Fault("stall", after_events=0)), match={"model": late.removeprefix("openai:")})
    reply = asked(llmnb.LLM(llmnb.Router([late, SECOND], first_token_s=0.15)), way)
    assert reply.model == SECOND
    assert reply.route is not None
    assert reply.route.hops[0] == Hop(late, "nothing within 0.15 s")
    *left, last = [row["status"] for row in rows()]
    assert left in ([], ["cancelled"])  # on a busy machine it may not even have been sent by then
    assert last == "ok"


@pytest.mark.parametrize("on_refusal", [False, True])
def test_a_refusal_is_an_answer_unless_told_otherwise(sim: Simulator, on_refusal: bool) -> None:
    """It is what the model said."""
    sim.rule(Answer(refusal=True), match={"model": FIRST})
    reply = llmnb.LLM(llmnb.Router([FIRST, SECOND], on_refusal=on_refusal))("Hi")
    assert reply.refused is not on_refusal
    assert len(rows()) == 1 + on_refusal


def test_who_failed_again_and_again_is_not_asked_first(sim: Simulator) -> None:
    """After three calls in a row the next one answers at once."""
    sim.fail(**BUSY)
    llm = llmnb.LLM([FIRST, SECOND])
    for _ in range(FAILURES):
        llm("Hi")
    before = len(sim.requests)
    reply = llm("Hi")
    assert len(sim.requests) == before + 1
    assert reply.route is not None
    assert reply.route.hops == (Hop(SECOND, "answered"),)


@pytest.mark.parametrize("is_ours", [True, False], ids=["key of the environment", "client"])
def test_what_one_key_may_not_do_another_may(sim: Simulator, monkeypatch: pytest.MonkeyPatch, is_ours: bool) -> None:
    """An account that has used up its limits opens no breaker for another at the same address."""

    def llm(key: str) -> llmnb.LLM:
        if is_ours:
            monkeypatch.setenv("ANTHROPIC_API_KEY", key)
            return llmnb.LLM([FIRST, SECOND])
        client = anthropic.Anthropic(api_key=key, base_url=sim.url)
        stack.enter_context(client)
        return llmnb.LLM([FIRST, SECOND], client=client)

    sim.fail(kind="rate_limited", times=None, match={"model": FIRST}, retry_after_ms=1)
    with ExitStack() as stack:
        for _ in range(FAILURES):
            llm("one")("Hi")
        for key, asked_first in (("one", SECOND), ("another", FIRST)):
            route = llm(key)("Hi").route
            assert route is not None
            assert route.hops[0].model == asked_first


def test_an_account_of_another_provider_is_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a breaker goes by tells keys apart, and has none in it."""
    places = set[str]()
    for key in ("sk-one", "sk-another", "sk-one"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        question = llmnb.LLM([OPENAI, SECOND])._question("Hi", {})
        assert question.routing is not None
        places.add(question.routing.ways[0].candidate.place)
    assert len(places) == 2
    assert not any("sk-" in place for place in places)


def test_a_breaker_tries_again_with_one_call() -> None:
    """Half open after its time; an outage of the provider is one of all its models, an overload is not."""
    now = [0.0]
    breakers = Breakers(lambda: now[0])
    one, other = Candidate("anthropic", FIRST), Candidate("anthropic", SECOND)
    for _ in range(FAILURES):
        breakers.failed(one, all_models=False)
    assert (breakers.allow(one), breakers.allow(other)) == (False, True)
    now[0] = OPEN_S
    assert (breakers.allow(one), breakers.allow(one)) == (True, False)
    breakers.answered(one)
    assert breakers.allow(one)
    for _ in range(FAILURES):
        breakers.failed(one, all_models=True)
    assert not breakers.allow(other)


def test_policies_go_by_the_ledgers_numbers(sim: Simulator) -> None:
    """The cheapest by what a usual call costs on each; the fastest by the median time to the first token."""
    sim.rule(Answer(text="slow", tokens_per_second=20), match={"model": SECOND})
    for _ in range(3):
        for model in (FIRST, SECOND):
            list(llmnb.LLM(model, max_tokens=60_000).stream("Hi"))
    expected = soonest()
    cheapest = llmnb.LLM(llmnb.Router([FIRST, SECOND, "my-own-model"], policy="cheapest"))("Hi")
    fastest = llmnb.LLM(llmnb.Router([SECOND, FIRST], policy="fastest"))("Hi")
    assert (cheapest.model, fastest.model) == (SECOND, expected)


def soonest() -> str:
    """The model that showed something soonest, half of the time: on a busy machine not always the same one."""
    calls = llmnb.calls()
    calls = calls[calls["ttft_ms"].notna()]
    return str(calls.groupby("model_requested")["ttft_ms"].median().idxmin())


def test_the_fastest_is_found_among_models_of_several_providers(sim: Simulator) -> None:
    """Each of which nothing is known is tried three times; from then on the fastest is asked, whoever serves it."""
    pytest.importorskip("openai")
    sim.rule(Answer(text="slow", first_token_s=0.05), match=lambda seen: not seen.is_chat)
    sim.rule(Answer(text="slower", first_token_s=0.1), match={"model": "gpt-4o"})
    llm = llmnb.LLM(llmnb.Router([FIRST, "openai:gpt-4o", OPENAI], policy="fastest"), max_tokens=4_000)

    def answered() -> str:
        list(llm.stream("Hi"))
        return llmnb.last().model

    tried = [answered() for _ in range(9)]
    assert tried == [FIRST] * 3 + ["gpt-4o"] * 3 + ["gpt-5.2"] * 3
    expected = soonest()
    routing._numbers.clear()  # half a minute later
    assert answered() == expected


def test_a_provider_that_is_out_of_reach_is_left_with_all_its_models(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three calls without a connection no other model of it is asked, and those of others are."""
    pytest.importorskip("openai")
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        llm = llmnb.LLM([OPENAI, FIRST])
        routes = [llm("Hi").route for _ in range(FAILURES)]
        assert {route.why for route in routes if route} == {f"{FIRST} answered ({OPENAI}: out of reach)"}
        reply = llmnb.LLM(["openai:gpt-4o", FIRST], max_tokens=4_000)("Hi")
    assert reply.route is not None
    assert reply.route.hops == (Hop(FIRST, "answered"),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []},
        {"models": ["a", "a"]},
        {"models": ["a"], "policy": "best"},
        {"models": ["a"], "first_token_s": 0},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest):
        llmnb.Router(**wrong)
    with pytest.raises(InvalidRequest):
        llmnb.LLM([])


def test_one_call_may_name_its_own_model(sim: Simulator) -> None:
    """Then there is no route."""
    reply = llmnb.LLM([FIRST, SECOND])("Hi", model="claude-haiku-5-5")
    assert (reply.model, reply.route) == ("claude-haiku-5-5", None)


class Jumps:
    """The time of pacing, on whose waits an event loop of its own moves on as well: nobody sleeps."""

    def __init__(self, clock: Clock) -> None:
        self.now, self._clock, self.waited_s = clock.now, clock, 0.0

    def real_s(self, seconds: float) -> float:
        """Nothing: both clocks have moved."""
        self.waited_s += seconds
        return self._clock.real_s(seconds)

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop on this time."""
        jumps = self

        class Loop(asyncio.SelectorEventLoop):
            def time(self) -> float:
                return super().time() + jumps.waited_s

        return Loop()


def test_waiting_for_a_budget_is_not_late(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for which other calls hold the money goes to its model when they end, however long they take."""
    llmnb.set_budget(usd="0.02", per="day")
    jumps = Jumps(Clock.jumping())
    sim.fail(kind="stall", times=1, match={"model": FIRST})  # so that the money is held until it is closed
    first = llmnb.LLM(FIRST, max_tokens=500, display="none").stream("Hi")
    next(first)
    waits = Entry.waits

    def waited(entry: Entry) -> None:
        waits(entry)
        jumps.real_s(60)
        first.close()

    monkeypatch.setattr(Entry, "waits", waited)
    llm = llmnb.LLM(llmnb.Router([FIRST, SECOND], first_token_s=20), max_tokens=500, display="none")
    with asyncio.Runner(loop_factory=jumps.loop) as runner:
        reply = runner.run(llm.aask("Hi"))
    assert jumps.waited_s >= 60
    assert reply.route is not None
    assert reply.route.hops == (Hop(FIRST, "answered"),)


@pytest.mark.parametrize("is_held", [True, False])
def test_what_we_hold_back_ourselves_is_not_late(monkeypatch: pytest.MonkeyPatch, is_held: bool) -> None:
    """A call that waits for the account's rate limit longer than the router would for a model is asked all the same."""
    clock = Clock.jumping()
    with Simulator(clock=clock, limits=Limits(requests_per_minute=2, enforce=True)) as sim:
        for name, value in sim.environ().items():
            monkeypatch.setenv(name, value)
        jumps = pacer(load()).clock = Jumps(clock)
        llm = llmnb.LLM(llmnb.Router([FIRST, SECOND], first_token_s=20), display="none")
        for _ in range(2):
            assert llm("Hi").model == FIRST
        with asyncio.Runner(loop_factory=jumps.loop) as runner:
            if not is_held:
                clock.advance(120)
                loop = runner.get_loop()

                def stalled(_: object) -> Answer:
                    loop.call_soon_threadsafe(jumps.real_s, 60)  # once it is under way
                    return Answer(fault=Fault("stall", after_events=0))

                sim.rule(stalled, match={"model": FIRST})
            reply = runner.run(llm.aask("Hi"))
    assert reply.route is not None
    assert jumps.waited_s > 20
    late = (Hop(FIRST, "nothing within 20 s"), Hop(SECOND, "answered"))
    assert reply.route.hops == ((Hop(FIRST, "answered"),) if is_held else late)
