"""Every fault of the simulator through every door, sync and async: outcome, history, ledger row, and the money."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio

import llmnb
from llmnb.errors import IncompleteReply
from llmnb.events import Done
from llmnb.records import calling
from llmnb.simulator import Answer, BillingRecord, Clock, Fault, Simulator
from llmnb.simulator.fault import KINDS
from llmnb.testing import serve_simulator

MODEL = "claude-sonnet-5-5"
STREAMED = 60_000
"""max_tokens from which on the SDK demands a stream."""
TEXT = '{"word": "one two three four five six sjø 字"}'


@dataclass
class Word:
    """What is extracted."""

    word: str


def word_count(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


@dataclass(frozen=True)
class Case:
    """A fault, and what becomes of a call: ok, retried (an attempt more), refused, or broken off.

    A reset takes with it what the client has not read yet, be it the answer's headers: that call is `lost`, one way or
    the other. `as_json` is the same for answers that come in one piece, `bills_attempts` whether the failed attempt may
    be billed.
    """

    fault: Fault
    streamed: str
    as_json: str
    bills_attempts: bool = False


CASES = [
    Case(Fault("rate_limited", retry_after_ms=1), "retried", "retried"),
    Case(Fault("overloaded", retry_after_ms=1), "retried", "retried"),
    Case(Fault("server_error", retry_after_ms=1), "retried", "retried"),
    Case(Fault("status", status=400), "refused", "refused"),
    Case(Fault("slow_headers", seconds=5), "ok", "ok"),
    Case(Fault("reset_before_headers"), "retried", "retried", bills_attempts=True),
    Case(Fault("close_before_headers"), "retried", "retried", bills_attempts=True),
    Case(Fault("stall", seconds=5), "ok", "ok"),
    Case(Fault("reset"), "lost", "lost"),
    Case(Fault("drop"), "broken", "retried", bills_attempts=True),
    Case(Fault("truncate"), "broken", "ok"),
    Case(Fault("error_event"), "broken", "ok"),
    Case(Fault("error_event", after_events=0), "retried", "ok"),
    Case(Fault("error_event", after_events=-1, error_type="api_error"), "retried", "ok"),
    Case(Fault("error_event", after_events=0, error_type="invalid_request_error"), "refused", "ok"),
    Case(Fault("bad_json"), "broken", "ok"),
    Case(Fault("bad_utf8"), "broken", "ok"),
    *(
        Case(Fault(kind, seconds=5), "ok", "ok")
        for kind in ("split_utf8", "comments", "unknown_events", "unknown_blocks", "json_for_sse", "gzip", "slow_body")
    ),
]
BROKEN = (IncompleteReply, httpx2.HTTPError, anthropic.APIStatusError, ValueError)


def test_no_fault_is_left_out() -> None:
    """A fault that the simulator learns has to be in the matrix."""
    assert {case.fault.kind for case in CASES} == KINDS


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulator, str]]:
    """One simulator, on whose clock no wait takes time, and one ledger: to begin anew takes longer than a case."""
    with serve_simulator(clock=Clock.jumping()) as simulator:
        yield simulator, str(tmp_path_factory.mktemp("matrix"))
        assert simulator.crashes == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(served: tuple[Simulator, str]) -> AsyncIterator[tuple[anthropic.Anthropic, anthropic.AsyncAnthropic]]:
    """Clients of it."""
    simulator, _ = served
    with simulator.client() as client:
        async with simulator.async_client() as async_client:
            yield client, async_client


@pytest.fixture
def doors(
    served: tuple[Simulator, str],
    clients: tuple[anthropic.Anthropic, anthropic.AsyncAnthropic],
    monkeypatch: pytest.MonkeyPatch,
) -> Doors:
    """Everything that can be called of it, without waits between attempts."""
    simulator, home = served
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)  # after a lost connection it is the SDK's
    environment = {**simulator.environ(), "LLMNB_LONGEST_RETRY_WAIT_S": "0.001", "LLMNB_HOME": home}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Doors(simulator, *clients)


class Doors:
    """The ways of asking; each gives the text of its answer."""

    def __init__(self, sim: Simulator, client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic) -> None:
        self.sim = sim
        self.sync, self.asynchronous = llmnb.wrap(client), llmnb.wrap(async_client)
        self.llm = llmnb.LLM(MODEL, cache=False, max_tokens=STREAMED)
        self.chat = self.llm.chat()
        self.asked = dict[str, Any](model=MODEL, max_tokens=500, messages=[{"role": "user", "content": "Hi"}])

    def all(self) -> dict[str, Callable[[], str] | Callable[[], Awaitable[str]]]:
        """By name; those that begin with a are async, `as_json` is in the names of those that do not stream."""
        return {
            "create as_json": self.create,
            "acreate as_json": self.acreate,
            "stream": self.stream,
            "astream": self.astream,
            "LLM as_json": lambda: self.llm("Hi", max_tokens=500).text,
            "aLLM as_json": self.aask_json,
            "LLM": lambda: self.llm("Hi").text,
            "aLLM": self.aask,
            "LLM.stream": self.events,
            "aLLM.stream": self.aevents,
            "Chat": lambda: self.chat("Hi").text,
            "aChat": self.achat,
            "tools": lambda: self.llm("Hi", tools=[word_count]).text,
            "atools": self.atools,
            "extract": lambda: self.llm.extract("Hi", Word).word,
            "aextract": self.aextract,
        }

    def create(self) -> str:
        return _text(self.sync.messages.create(**self.asked))

    async def acreate(self) -> str:
        return _text(await self.asynchronous.messages.create(**self.asked))

    def stream(self) -> str:
        with self.sync.messages.create(**self.asked, stream=True) as events:
            return "".join(map(_delta, events))

    async def astream(self) -> str:
        async with await self.asynchronous.messages.create(**self.asked, stream=True) as events:
            return "".join([_delta(event) async for event in events])

    async def aask_json(self) -> str:
        return (await self.llm.aask("Hi", max_tokens=500)).text

    async def aask(self) -> str:
        return (await self.llm.aask("Hi")).text

    def events(self) -> str:
        *events, end = self.llm.stream("Hi")
        assert isinstance(end, Done)
        return "".join(getattr(event, "text", "") for event in events)

    async def aevents(self) -> str:
        *events, end = [event async for event in self.llm.astream("Hi")]
        assert isinstance(end, Done)
        return "".join(getattr(event, "text", "") for event in events)

    async def achat(self) -> str:
        return (await self.chat.aask("Hi")).text

    async def atools(self) -> str:
        return (await self.llm.aask("Hi", tools=[word_count])).text

    async def aextract(self) -> str:
        return (await self.llm.aextract("Hi", Word)).word


def _text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _delta(event: Any) -> str:
    return getattr(event.delta, "text", "") if event.type == "content_block_delta" else ""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault.kind} {case.fault.after_events}")
async def test_a_fault_through_every_door(doors: Doors, case: Case) -> None:
    """What comes is whole or an error, a chat remembers only what is whole, and books and bill agree."""
    billed = dict[str, list[BillingRecord]]()
    for name, ask in doors.all().items():
        expected = _expected(name, case)
        is_wrapped = name.split()[0] in ("create", "acreate", "stream", "astream")
        doors.sim.script(Answer(text=TEXT, delta_tokens=2, fault=case.fault))
        before, turns = len(doors.sim.billing), len(doors.chat.messages)
        error: BaseException | None = None
        text = ""
        with calling(tag=name, run_id=repr(case)):
            try:
                came = ask()
                text = came if isinstance(came, str) else await came
            except BROKEN as failed:
                error = failed
        doors.sim.settle()
        _check_outcome(name, case, expected, is_wrapped, text, error)
        grown = 2 if "Chat" in name and error is None else 0
        assert len(doors.chat.messages) == turns + grown, name
        billed[name] = doors.sim.billing[before:]
    found = llmnb.calls(where={"run_id": repr(case)}).to_dict("records")
    rows = {row["tag"]: row for row in found}
    assert len(found) == len(rows) == len(billed)
    for name, row in rows.items():
        _check_books(name, case, _expected(name, case), row, billed[name])


def _expected(name: str, case: Case) -> str:
    return case.as_json if "as_json" in name else case.streamed


def _check_outcome(
    name: str, case: Case, expected: str, is_wrapped: bool, text: str, error: BaseException | None
) -> None:
    if expected == "lost":
        assert (error is None) == bool(text) or isinstance(error, BROKEN), name
    elif expected == "refused":
        assert isinstance(error, anthropic.APIStatusError), name
    elif expected == "broken" and not is_wrapped:
        assert isinstance(error, IncompleteReply), name
        assert TEXT.startswith(error.partial), name
        assert error.partial, name
    elif expected == "broken":  # the SDK's own behaviour, which for a clean end is none
        assert (error is None) == (case.fault.kind == "truncate"), name
    else:
        assert error is None, (name, error)
        if expected == "ok" and not (is_wrapped and case.fault.kind == "json_for_sse"):
            assert text == ("one two three four five six sjø 字" if "extract" in name else TEXT), name
        assert text or (is_wrapped and case.fault.kind == "json_for_sse"), name


def _check_books(name: str, case: Case, expected: str, row: dict[str, Any], billed: list[BillingRecord]) -> None:
    money = sum(record.price_nanousd or 0 for record in billed)
    if expected == "lost":
        assert row["estimated"], name
        return
    status = {"ok": ("ok",), "retried": ("ok",), "refused": ("error",), "broken": ("error", "truncated")}
    # of a garbled stream all may have come, and the books have what it says at its end
    is_whole = row["status"] == "ok" and case.fault.kind in ("bad_json", "bad_utf8")
    assert is_whole or row["status"] in status[expected], (name, row["status"])
    assert row["attempts"] == (2 if expected == "retried" else 1), name
    if expected == "broken" and not is_whole:
        assert row["estimated"], name
        assert row["input_tokens"] == billed[-1].input_tokens, name
        assert 0 < row["output_tokens"] <= 2 * billed[-1].output_tokens + 5, name
    elif expected == "retried" and case.bills_attempts:  # the API may have read the request, so the books say about
        assert row["estimated"], name
        assert row["cost_nanousd"] >= money > 0, name
    else:
        assert not row["estimated"], name
        assert row["cost_nanousd"] == money, name
