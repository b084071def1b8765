"""What is told of the SDK's retries, and how long it waits for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.events import Done, Retry, StreamEvent
from llmnb.records import calling
from llmnb.settings import load
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning, forget_warnings
from llmnb.views import views

HI: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "Hi"}],
}


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated API in the environment, no wait longer than 20 ms, and nothing warned of before."""
    forget_warnings()
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "0.02")
    with serve_simulator(environ=True) as simulator:
        yield simulator


@pytest.fixture
def client(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped client."""
    with anthropic.Anthropic() as plain:
        yield llmnb.wrap(plain)


def told(client: anthropic.Anthropic) -> list[Retry]:
    """The retries that are told while a call is made."""
    retries: list[Retry] = []
    with calling(on_wait=retries.append):
        client.messages.create(**HI)
    return retries


def test_each_wait_is_told_before_it_begins(sim: Simulator, client: anthropic.Anthropic) -> None:
    """With its number, how many there can be, how long it takes, and why; the wait is the one the API asked for."""
    sim.fail("rate_limited", retry_after_ms=7)
    sim.fail("overloaded", retry_after_ms=11)
    assert told(client) == [Retry(0.007, 2, "rate limited", 3), Retry(0.011, 3, "overloaded", 3)]
    assert 18 <= llmnb.calls()["wait_ms"].item() < 1000


def test_an_absurd_wait_is_cut_and_said_once(sim: Simulator, client: anthropic.Anthropic) -> None:
    """An hour becomes what the setting allows, and one warning says so and names the setting."""
    sim.fail("rate_limited", retry_after_s=3600, times=2)
    with pytest.warns(LlmnbWarning, match=r"3,600 s.*LLMNB_LONGEST_RETRY_WAIT_S") as caught:
        (first, second) = told(client)
    assert first.wait_s == second.wait_s == 0.02
    assert "asked to wait 3,600 s" in first.reason
    assert len(caught) == 1


def test_the_sdks_own_wait_is_told_as_it_is_waited(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Where the API asks for none, what is told is what the SDK would have waited, cut to the setting."""
    sim.fail("server_error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LlmnbWarning)
        (retry,) = told(client)
    assert retry == Retry(0.02, 2, retry.reason, 3)
    assert retry.reason.startswith("status 500")


def test_the_last_failure_announces_nothing(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Two retries are told and not a third, and the SDK's error comes out as it is."""
    sim.fail("overloaded", times=None, retry_after_ms=1)
    retries: list[Retry] = []
    with pytest.raises(anthropic.APIStatusError), calling(on_wait=retries.append):
        client.messages.create(**HI)
    assert [retry.attempt for retry in retries] == [2, 3]


def test_a_copy_with_other_retries_is_believed(sim: Simulator, client: anthropic.Anthropic) -> None:
    """How often is repeated is asked of the client that sends, and of the call."""
    sim.fail("overloaded", times=None, retry_after_ms=1)
    for asking in (client.with_options(max_retries=1), client.copy(max_retries=1)):
        retries: list[Retry] = []
        with pytest.raises(anthropic.APIStatusError), calling(on_wait=retries.append):
            asking.messages.create(**HI)
        assert [(retry.attempt, retry.max_attempts) for retry in retries] == [(2, 2)]


def test_what_is_not_repeated_is_not_told(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A request that is refused for good is no retry."""
    retries: list[Retry] = []
    with pytest.raises(anthropic.NotFoundError), calling(on_wait=retries.append):
        client.messages.create(**{**HI, "model": "claude-nobody-1"})
    assert retries == []


def test_a_lost_connection_is_told(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the wait is the SDK's own, told as what it is at most."""
    monkeypatch.setattr("anthropic._base_client.time.sleep", lambda _: None)
    retries: list[Retry] = []
    with anthropic.Anthropic(base_url="http://127.0.0.1:9", max_retries=1) as plain:
        client = llmnb.wrap(plain)
        with calling(on_wait=retries.append), pytest.raises(anthropic.APIConnectionError):
            client.messages.create(**HI)
    assert retries == [Retry(0.5, 2, "no connection", 2)]


def test_a_stream_gives_them_as_events(sim: Simulator) -> None:
    """`Retry` comes before the text, in sync streams."""
    sim.fail("overloaded", retry_after_ms=3)
    events = list(llmnb.LLM().stream("Hi"))
    assert events[0] == Retry(0.003, 2, "overloaded", 3)
    assert isinstance(events[-1], Done)


async def test_an_async_stream_gives_them_as_events(sim: Simulator) -> None:
    """`Retry` comes before the text, in async streams."""
    sim.fail("overloaded", retry_after_ms=3)
    events = [event async for event in llmnb.LLM().astream("Hi")]
    assert events[0] == Retry(0.003, 2, "overloaded", 3)


class Seen:
    """A view that notes what it is shown, and how many requests the server had seen by then."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self.shown: list[tuple[StreamEvent, int]] = []

    def open(self, model: str, stop: object) -> None: ...

    def show(self, event: StreamEvent) -> None:
        self.shown.append((event, len(self._sim.requests)))

    def close(self, error: BaseException | None = None) -> None: ...


@pytest.mark.parametrize("door", ["ask", "aask"])
async def test_a_view_shows_a_wait_while_it_lasts(sim: Simulator, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    """The view hears of the retry when only the failed attempt has been sent."""
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "0.3")
    seen = Seen(sim)
    monkeypatch.setattr(views, "view", lambda _: seen)
    sim.fail("overloaded", retry_after_ms=250)
    llm = llmnb.LLM(cache=False)
    reply = llm.ask("Hi") if door == "ask" else await llm.aask("Hi")
    assert seen.shown[0] == (Retry(0.25, 2, "overloaded", 3), 1)
    assert sum(isinstance(event, Retry) for event, _ in seen.shown) == 1
    assert reply.text


@pytest.mark.parametrize("door", ["stream", "astream"])
async def test_a_stream_tells_while_it_waits(sim: Simulator, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    """Of `stream()` and `astream()`, too, the reader has the retry when only the failed attempt has been sent."""
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "0.3")
    sim.fail("overloaded", retry_after_ms=250)
    llm = llmnb.LLM(cache=False)
    if door == "stream":
        events = llm.stream("Hi")
        first, sent = next(events), len(sim.requests)
        rest = list(events)
    else:
        coming = llm.astream("Hi")
        first, sent = await anext(coming), len(sim.requests)
        rest = [event async for event in coming]
    assert (first, sent) == (Retry(0.25, 2, "overloaded", 3), 1)
    assert isinstance(rest[-1], Done)


@pytest.mark.parametrize("door", ["stream", "astream"])
async def test_leaving_in_the_wait_sends_nothing_more(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """Who has heard of the retry may go: no second attempt is made."""
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "30")
    sim.fail("overloaded", retry_after_ms=30_000)
    llm = llmnb.LLM(cache=False)
    if door == "stream":
        events = llm.stream("Hi")
        next(events)
        events.close()
    else:
        coming = llm.astream("Hi")
        await anext(coming)
        await coming.aclose()
    assert len(sim.requests) == 1
    assert llmnb.calls()["status"].item() == "error"


# An error before any content ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_events", [-1, 0])
def test_an_early_error_is_repeated(sim: Simulator, client: anthropic.Anthropic, after_events: int) -> None:
    """As a 529 would be: one row, two attempts, nothing billed for the first, and the time to the first token."""
    sim.fail("error_event", after_events=after_events)
    retries: list[Retry] = []
    with calling(on_wait=retries.append), client.messages.create(**HI, stream=True) as events:
        assert [event.type for event in events][-1] == "message_stop"
    assert [(retry.attempt, retry.reason[:10]) for retry in retries] == [(2, "overloaded")]
    [row] = llmnb.calls().to_dict("records")
    assert (row["status"], row["attempts"], row["cost_nanousd"]) == ("ok", 2, sim.billed().price_nanousd)
    assert 0 < row["wait_ms"] <= row["ttft_ms"] <= row["latency_ms"]


def test_an_early_error_at_last_is_the_sdks_error(sim: Simulator, client: anthropic.Anthropic) -> None:
    """With the class that its status has, after all retries; it cost nothing, and the row says what it was."""
    sim.fail("error_event", after_events=0, times=None, error_type="rate_limit_error")
    with pytest.raises(anthropic.RateLimitError):
        client.messages.create(**HI, stream=True)
    [row] = llmnb.calls().to_dict("records")
    assert (row["status"], row["attempts"], row["error_type"]) == ("error", 3, "rate_limit_error")
    assert (row["cost_nanousd"], bool(row["estimated"])) == (0, False)


def test_a_raw_response_is_not_read_ahead(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Who asked for the body as it is gets it, with the error in it."""
    sim.fail("error_event", after_events=0)
    with client.messages.with_streaming_response.create(**HI, stream=True) as response:
        assert not response.is_closed
        assert "overloaded_error" in response.read().decode()
    assert len(sim.requests) == 1


def test_a_lost_attempt_stays_on_the_books_when_the_next_one_is_a_hit(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API may have read the request that got no answer: it is an estimate, also where nothing more is asked."""
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
    sim.fail("close_before_headers")
    with anthropic.Anthropic() as plain:
        client = llmnb.wrap(plain, cache=True)
        with calling(tag="lost", on_wait=lambda wait: ask_meanwhile(client)):
            client.messages.create(**HI)
    rows = {row["tag"]: row for row in llmnb.calls().to_dict("records")}
    lost, meanwhile = rows["lost"], rows["meanwhile"]
    assert (lost["source"], lost["status"], lost["attempts"]) == ("cache", "ok", 2)
    assert lost["estimated"]
    assert lost["input_tokens"] > 0
    assert lost["cost_nanousd"] == lost["input_tokens"] * 2_000
    assert lost["saved_usd"] == pytest.approx(meanwhile["cost_nanousd"] / 1e9)


def ask_meanwhile(client: anthropic.Anthropic) -> None:
    """Somebody else asks the same, and gets an answer."""
    with calling(tag="meanwhile", on_wait=None):
        client.messages.create(**HI)


def test_a_death_in_the_wait_is_found_later(sim: Simulator, client: anthropic.Anthropic) -> None:
    """While it is waited for, the call is noted as under way, in the file that the next process looks into."""
    sim.fail("overloaded", retry_after_ms=5)
    noted: list[str] = []

    def look(retry: Retry) -> None:
        found = list((load().home / "spool" / "underway").iterdir())
        noted.append("".join(path.read_text() for path in found))

    with calling(on_wait=look):
        client.messages.create(**HI)
    assert '"attempts":2' in noted[0].replace(" ", "")
    assert llmnb.calls()["status"].item() == "ok"
