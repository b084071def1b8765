"""Calls on an account with small limits: paced by what its answers say, all through, with one clock for both sides."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest

import llmnb
from benchmarks.pacing import measured
from llmnb.display import cards
from llmnb.display.answer import Answer, Prose, Waiting
from llmnb.events import Throttled
from llmnb.pacing import pacer
from llmnb.settings import load
from llmnb.simulator import Clock, Limits, Simulator

from .conftest import QUESTION


@pytest.fixture
def account() -> Iterator[tuple[Simulator, anthropic.Anthropic]]:
    """An account of 20 requests a minute that says 429 to the 21st; time passes only while somebody waits."""
    clock = Clock.jumping()
    with Simulator(clock=clock, limits=Limits(requests_per_minute=20, enforce=True)) as simulator:
        with simulator.client() as plain:
            pacer(load()).clock = clock
            yield simulator, llmnb.wrap(plain)
        assert simulator.crashes == []


def ask(client: anthropic.Anthropic, number: int) -> Any:
    """One small question."""
    asked = {**QUESTION, "max_tokens": 20, "messages": [{"role": "user", "content": f"{number}"}]}
    return client.messages.create(**asked)


def test_calls_keep_inside_the_limits_that_answers_tell(account: tuple[Simulator, anthropic.Anthropic]) -> None:
    """Forty calls of eight threads: one is refused at most, where threads look at the same moment; a row says how long
    its call was held back."""
    simulator, client = account
    began = simulator.clock.now()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: ask(client, number), range(40)))
    statuses = [seen.status for seen in simulator.requests]
    assert statuses.count(200) == 40
    assert len(statuses) <= 41
    rows = llmnb.calls()
    assert set(rows["status"]) == {"ok"}
    assert rows["wait_ms"].max() > 0
    assert simulator.clock.now() - began >= 0.9 * 60  # the second twenty take a minute
    assert rows["cost_nanousd"].sum() == simulator.billed().price_nanousd


def test_another_providers_calls_are_paced_by_its_own_headers(
    account: tuple[Simulator, anthropic.Anthropic], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits that are told as `x-ratelimit-*`: thirty calls on an account of twenty a minute, and hardly a 429."""
    pytest.importorskip("openai")
    simulator, _ = account
    for name, value in simulator.environ().items():
        monkeypatch.setenv(name, value)
    llm = llmnb.LLM("openai:gpt-4o", max_tokens=20, cache=False)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: llm(f"{number}"), range(30)))
    statuses = [seen.status for seen in simulator.requests]
    assert statuses.count(200) == 30
    assert len(statuses) <= 33  # unpaced it would be twice that
    assert llmnb.calls()["wait_ms"].max() > 0


def test_a_stream_holds_its_place_until_it_ends(account: tuple[Simulator, anthropic.Anthropic]) -> None:
    """What it is expected to write is held until then, and not longer."""
    _, client = account
    for number in range(12):  # until the limits are near
        ask(client, number)
    paced = next(iter(pacer(load()).known.values()))
    assert paced.is_near

    def held() -> int:
        found: list[int] = []
        paced._update(lambda allowance: found.append(len(allowance.held)))  # pyright: ignore[reportPrivateUsage]
        return found[0]

    with client.messages.create(**QUESTION, stream=True) as events:
        next(iter(events))
        assert held() == 1
        list(events)
    assert held() == 0


def test_a_call_that_is_held_back_says_so(
    account: tuple[Simulator, anthropic.Anthropic], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits, how long and for which limit; then that it goes, and then the answer comes. A view draws that."""
    simulator, client = account
    for number in range(18):
        ask(client, number)
    for name, value in simulator.environ().items():
        monkeypatch.setenv(name, value)
    llm = llmnb.LLM("claude-sonnet-5-5", max_tokens=20, cache=False)
    answer, lines = Answer(), list[str]()
    told = list[Throttled]()
    for number in range(4):
        for event in llm.stream(f"once more {number}"):
            answer.apply(event)
            if isinstance(event, Throttled):
                told.append(event)
                lines += [cards.waiting_text(part) for part in answer.parts if isinstance(part, Waiting)]
    waits = [event for event in told if event.wait_s]
    assert {(event.limit, event.per_minute) for event in waits} == {("requests", 20.0)}
    assert waits[0].wait_s > 1
    assert told[-1] == Throttled(0.0)
    assert "◷ waiting 3 s for the account's limit of 20 requests a minute" in lines
    assert lines[-1] == ""
    assert isinstance(answer.parts[-1], Prose)


def test_switched_off_nothing_is_held_back(
    account: tuple[Simulator, anthropic.Anthropic], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the API refuses, and says so."""
    simulator, _ = account
    monkeypatch.setenv("LLMNB_PACING", "off")
    with simulator.client(max_retries=0) as plain:
        client = llmnb.wrap(plain, settings=load())
        for number in range(20):
            ask(client, number)
        with pytest.raises(anthropic.RateLimitError):
            ask(client, 20)


def test_a_mix_is_hardly_ever_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's calls, fewer, all at once: short and long ones, limited by requests and by tokens."""
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "LLMNB_PACING", "LLMNB_DISPLAY", "LLMNB_CACHE"):
        monkeypatch.setenv(name, "")
    paced = measured("on", calls=80)
    assert paced["failed"] == 0
    assert paced["refused"] < 0.03
