"""Chaos in one process: questions by every door, over both wires, that meet faults and are left, stopped and dropped.

A run is a seed: it decides what is asked, of which models, what goes wrong on the way, and when whoever asks has had
enough. Every question has a name of its own, which the server sees (`metadata.user_id`) and its rows carry as their
tag, so that books and bill can be held against each other however it ended. What threads and event loops make of a seed
differs from time to time; what must hold never does.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import httpx2
import pandas as pd

import llmnb
from llmnb import slots
from llmnb.errors import IncompleteReply, LlmnbError
from llmnb.events import Done
from llmnb.interrupts import Stopped
from llmnb.pacing import pacer
from llmnb.records import calling
from llmnb.routing import breakers
from llmnb.settings import load
from llmnb.simulator import Answer, BillingRecord, Clock, Fault, Limits, Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.simulator.billing import TOKEN_FIELDS
from llmnb.views import views

CLAUDE, CHEAP, GPT, GEMINI = "claude-sonnet-5-5", "claude-haiku-5-5", "openai:gpt-5.2", "gemini:gemini-2.5-flash"
MODELS = (CLAUDE, CHEAP, GPT, GEMINI, "openai:gpt-4o")
LONG = "You answer in one line. " * 300
"""A system prompt that is worth caching, on either wire."""
STREAMED = 60_000
"""max_tokens from which on the SDK demands a stream."""
STEPS = 6
"""So many times in a run somebody asks: one question, or several at once."""
EXPECTED = (
    anthropic.APIError,
    httpx2.HTTPError,
    LlmnbError,
    ValueError,  # of a body that is garbled, as the SDK says it
    asyncio.CancelledError,
    Stopped,
)


@dataclass
class Word:
    """What is extracted."""

    word: str


class EnoughError(Exception):
    """Raised by whoever reads, in the middle of an answer."""


@dataclass
class Question:
    """One thing that is done, with a name that is found in the books and at the server."""

    name: str
    door: str
    model: Any
    prompt: str
    options: dict[str, Any]
    end: str
    after: int
    answers: list[Answer]
    outcome: str = ""
    is_done: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the model refuses, at last."""
        return bool(self.answers[-1].refusal)


class World:
    """A server on whose clock no wait takes time, with rate limits that are soon reached, and one ledger."""

    def __init__(self, monkeypatch: Any) -> None:
        self.clock = Clock.jumping()
        limits = Limits(requests_per_minute=120, input_tokens_per_minute=400_000, enforce=True)
        self.sim = Simulator(clock=self.clock, limits=limits).start()
        monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
        for name, value in {**self.sim.environ(), "LLMNB_LONGEST_RETRY_WAIT_S": "0.001"}.items():
            monkeypatch.setenv(name, value)
        self.plans: dict[str, list[Answer]] = {}
        self.watched: dict[str, Question] = {}
        self.sim.rule(self._reply)
        monkeypatch.setattr(views, "view", lambda name: Reader(self.watched[name]) if name in self.watched else None)
        pacer(load()).clock = self.clock
        self.sync = llmnb.wrap(self.sim.client(), cache=True)

    def close(self) -> None:
        """Ends the server."""
        self.sync.close()
        self.sim.stop()
        assert self.sim.crashes == []

    def _reply(self, seen: SeenRequest) -> Answer:
        left = self.plans.get(name_of(seen)) or []
        return left.pop(0) if left else Answer(text='{"word": "ready"}', delta_tokens=2)


def name_of(seen: SeenRequest) -> str:
    """The name of the question that a request belongs to, on either wire."""
    told = (seen.body.get("metadata") or {}).get("user_id")
    return str(told or seen.body.get("safety_identifier") or seen.body.get("user") or "")


# What is asked --------------------------------------------------------------------------------------------------------

FAULTS = (
    [Fault(kind, retry_after_ms=1) for kind in ("rate_limited", "overloaded", "server_error")]
    + [Fault("status", status=400), Fault("reset_before_headers"), Fault("close_before_headers")]
    + [Fault("error_event", after_events=at, error_type=name) for at in (-1, 0, 2) for name in ("api_error", None)]
    + [
        Fault(kind, after_events=at)
        for kind in ("reset", "drop", "truncate", "bad_json", "bad_utf8")
        for at in (0, 1, 4)
    ]
    + [Fault(kind, seconds=5) for kind in ("slow_headers", "stall", "slow_body", "json_for_sse", "gzip", "split_utf8")]
    + [Fault(kind) for kind in ("comments", "unknown_events", "unknown_blocks")]
)
TOOL_DOORS = ("tools", "atools", "tools stream")
VALUE_DOORS = ("extract", "aextract", "into", "ainto")
CHAT_DOORS = ("chat", "achat", "chat stream", "achat stream")
DOORS = (
    *("create", "stream", "acreate", "astream"),
    *("ask", "aask", "ask stream", "ask astream", "watched", "awatched"),
    *CHAT_DOORS,
    *TOOL_DOORS,
    *VALUE_DOORS,
)
STREAMS = ("stream", "astream", *(door for door in DOORS if "stream" in door or "into" in door))


def is_async(door: str) -> bool:
    """Whether a door has to be awaited."""
    return (door.startswith("a") and not door.startswith("ask")) or door == "ask astream"


class Run:
    """One seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.name = f"run-{seed}"
        self.dice = random.Random(seed)
        self.asked: list[Question] = []
        self.ran: Counter[str] = Counter()
        """How often the tool ran, by question."""

    def question(self, *, only_async: bool | None = None) -> Question:
        """The next one."""
        dice = self.dice
        door = dice.choice([door for door in DOORS if only_async is None or is_async(door) is only_async])
        name = f"{self.name}-{len(self.asked)}"
        options: dict[str, Any] = {"metadata": {"user_id": name}}
        is_wrapped = door in ("create", "stream", "acreate", "astream")
        options["max_tokens"] = 500 if is_wrapped or dice.random() < 0.5 else STREAMED if dice.random() < 0.5 else 8_000
        model: Any = dice.choice((CLAUDE, CHEAP) if is_wrapped else MODELS)
        if not is_wrapped and dice.random() < 0.25:
            names = dice.sample(MODELS, 2)
            policy = dice.choice(("given", "cheapest", "fastest"))
            model = llmnb.Router(names, policy=policy, on_refusal=dice.random() < 0.5)
            options["max_tokens"] = 8_000
        if model == "openai:gpt-4o" or (options["max_tokens"] == STREAMED and "gpt-4o" in str(model)):
            options["max_tokens"] = 4_000
        if dice.random() < 0.25:
            options["system"] = LONG
        ends = ["whole"] * 6 + (["leave", "close", "drop", "raise"] if door in STREAMS else [])
        ends += ["cancel", "cancel late"] if is_async(door) else []
        ends += ["stop"] * 4 if "watched" in door else []
        found = Question(
            name=name,
            door=door,
            model=model,
            prompt=f"{self.name}: question {dice.randrange(4)}",
            options=options,
            end=dice.choice(ends),
            after=dice.randrange(8),
            answers=self._answers(door),
        )
        found.options["cache"] = dice.random() < 0.5
        if dice.random() < 0.4 and (before := [one for one in self.asked if isinstance(one.model, str)]):
            self._repeat(dice.choice(before), found, is_wrapped)
        self.asked.append(found)
        self.world.plans[name] = list(found.answers)
        return found

    def _repeat(self, before: Question, found: Question, is_wrapped: bool) -> None:
        """Asks what was asked before once more, perhaps by another door, and perhaps while it is still being asked."""
        if is_wrapped and ":" in before.model:
            return
        found.model, found.prompt = before.model, before.prompt
        found.options = {**before.options, "metadata": found.options["metadata"], "cache": True}

    def _answers(self, door: str) -> list[Answer]:
        dice, size = self.dice, self.dice.randint(1, 3)
        text = " ".join(dice.choice(("one", "two", "three", "sjø", "字", "🎉")) for _ in range(dice.randint(1, 40)))
        if door in VALUE_DOORS:
            text = '{"word": "' + text + '"}' if dice.random() < 0.7 else '{"wort": "wrong"}'
        pace = dice.choice((None, 0.01))
        said = Answer(
            text=text, delta_tokens=size, delta_delay_s=pace, thinking=dice.choice((None, None, "Let me see."))
        )
        whole = [said]
        if dice.random() < 0.05:
            whole = [Answer(refusal=True)]
        if door in TOOL_DOORS:
            calls = [("shout", {"text": text[:8]}), ("shout", {"text": "two"}), ("whisper", {}), ("shout", {"txt": 1})]
            whole.insert(0, Answer(tool_calls=dice.sample(calls, dice.randint(1, 3)), delta_tokens=size))
        answers: list[Answer] = []
        for answer in whole:
            while dice.random() < 0.4:
                fault = dice.choice(FAULTS)
                if not (answer.refusal and fault.kind == "unknown_blocks"):  # a refusal has none
                    answers.append(_with(answer, fault))
            answers.append(answer)
        return answers

    # How it is asked --------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Everything, one step after the other."""
        self.chats = {False: llmnb.LLM(CLAUDE).chat(), True: llmnb.LLM(GPT).chat()}
        asyncio.run(self._go())

    async def _go(self) -> None:
        async with self.world.sim.async_client() as plain:
            self.asynchronous = llmnb.wrap(plain, cache=True)
            for _ in range(STEPS):
                shape = self.dice.choice(("sync", "sync", "async", "async", "threads", "gather", "both"))
                if shape in ("sync", "threads", "both"):
                    count = 1 if shape == "sync" else 2
                    questions = [self.question(only_async=False) for _ in range(count)]
                    with ThreadPoolExecutor(count) as threads:
                        loop = asyncio.get_running_loop()
                        running = [loop.run_in_executor(threads, self.ask, one) for one in questions]
                        if shape == "both":
                            await self.aask(self.question(only_async=True))
                        await asyncio.gather(*running)
                else:
                    count = 1 if shape == "async" else 3
                    await asyncio.gather(*(self.aask(self.question(only_async=True)) for _ in range(count)))
            gc.collect()
            await asyncio.sleep(0)

    def ask(self, one: Question) -> None:
        """Asks by a sync door."""
        try:
            with calling(tag=one.name, project=self.name):
                self._doors()[one.door](one)
            one.outcome = one.outcome or "whole"
        except EXPECTED as error:
            one.outcome = type(error).__name__
            if isinstance(error, IncompleteReply) and self.dice.random() < 0.5:
                self._resumed(one, error)
        except EnoughError:
            one.outcome = "raised"

    def _resumed(self, one: Question, error: IncompleteReply) -> None:
        try:
            with calling(tag=one.name, project=self.name):
                reply = error.resume()
            assert reply.text.startswith(error.partial.rstrip()), (one, reply.text, error.partial)
            one.outcome = "resumed"
        except EXPECTED:
            pass

    async def aask(self, one: Question) -> None:
        """Asks by an async door."""
        task = asyncio.ensure_future(self._aask(one))
        if one.end == "cancel":
            for _ in range(one.after * 3):
                await asyncio.sleep(0)
            task.cancel()
        elif one.end == "cancel late":
            await asyncio.wait([task], timeout=one.after / 300)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _aask(self, one: Question) -> None:
        try:
            with calling(tag=one.name, project=self.name):
                await self._adoors()[one.door](one)
            one.outcome = one.outcome or "whole"
        except EXPECTED as error:
            one.outcome = type(error).__name__
        except EnoughError:
            one.outcome = "raised"

    def _doors(self) -> dict[str, Callable[[Question], Any]]:
        return {
            "create": lambda one: self.world.sync.messages.create(**self._plain(one)),
            "stream": self._plain_stream,
            "ask": lambda one: self._told(one, self._llm(one)(one.prompt, **self._options(one))),
            "ask stream": lambda one: self._read(one, self._llm(one).stream(one.prompt, **self._options(one))),
            "watched": lambda one: self._llm(one)(one.prompt, **self._shown(one)),
            "chat": lambda one: self._chat(one, lambda chat, options: chat(one.prompt, **options)),
            "chat stream": lambda one: self._chat(
                one, lambda chat, options: self._read(one, chat.stream(one.prompt, **options))
            ),
            "tools": lambda one: self._llm(one)(one.prompt, tools=self._tools(one), **self._options(one)),
            "tools stream": lambda one: self._read(
                one, self._llm(one).stream(one.prompt, tools=self._tools(one), **self._options(one))
            ),
            "extract": lambda one: self._llm(one).extract(one.prompt, Word, **self._options(one)),
            "into": lambda one: self._read(one, self._llm(one).stream(one.prompt, into=Word, **self._options(one))),
        }

    def _adoors(self) -> dict[str, Callable[[Question], Any]]:
        return {
            "acreate": lambda one: self.asynchronous.messages.create(**self._plain(one)),
            "astream": self._plain_astream,
            "aask": self._aasked,
            "ask astream": lambda one: self._aread(one, self._llm(one).astream(one.prompt, **self._options(one))),
            "awatched": lambda one: self._llm(one).aask(one.prompt, **self._shown(one)),
            "achat": self._achat,
            "achat stream": self._achat,
            "atools": lambda one: self._llm(one).aask(one.prompt, tools=self._tools(one), **self._options(one)),
            "aextract": lambda one: self._llm(one).aextract(one.prompt, Word, **self._options(one)),
            "ainto": lambda one: self._aread(one, self._llm(one).astream(one.prompt, into=Word, **self._options(one))),
        }

    def _llm(self, one: Question) -> Any:
        return llmnb.LLM(one.model)

    def _options(self, one: Question) -> dict[str, Any]:
        return {**one.options, "tag": one.name, "project": self.name}

    def _shown(self, one: Question) -> dict[str, Any]:
        self.world.watched[one.name] = one
        return {**self._options(one), "display": one.name}

    def _plain(self, one: Question) -> dict[str, Any]:
        kept = {name: value for name, value in one.options.items() if name != "cache"}
        return {"model": one.model, "messages": [{"role": "user", "content": one.prompt}], **kept}

    def _plain_stream(self, one: Question) -> None:
        self._read(one, self.world.sync.messages.create(**self._plain(one), stream=True))

    async def _plain_astream(self, one: Question) -> None:
        await self._aread(one, await self.asynchronous.messages.create(**self._plain(one), stream=True))

    async def _aasked(self, one: Question) -> None:
        self._told(one, await self._llm(one).aask(one.prompt, **self._options(one)))

    def _told(self, one: Question, reply: Any) -> None:
        assert reply.text or reply.refused, one
        one.outcome = f"whole, {reply.source}"

    def _chat(self, one: Question, ask: Callable[[Any, dict[str, Any]], Any]) -> None:
        chat, before = self._of(one)
        try:
            ask(chat, self._options(one))
        except BaseException:
            self._check_history(one, chat, before, has_failed=True)
            raise
        self._check_history(one, chat, before)

    async def _achat(self, one: Question) -> None:
        chat, before = self._of(one)
        try:
            if one.door == "achat":
                await chat.aask(one.prompt, **self._options(one))
            else:
                await self._aread(one, chat.astream(one.prompt, **self._options(one)))
        except BaseException:
            self._check_history(one, chat, before, has_failed=True)
            raise
        self._check_history(one, chat, before)

    def _of(self, one: Question) -> tuple[Any, int]:
        """A chat of its own, others may be asking, too: one that goes on with what was said in this run."""
        one.options.pop("system", None)
        one.model = GPT if "claude" not in str(one.model) else CLAUDE
        chat = self.chats[one.model == GPT].fork()
        return chat, len(chat.messages)

    def _check_history(self, one: Question, chat: Any, before: int, *, has_failed: bool = False) -> None:
        grown = len(chat.messages) - before
        was_left = one.outcome in ("left", "closed") or has_failed
        assert grown in (0, 2), one
        if was_left and not one.is_done:
            assert grown == 0, one
        elif not was_left and not one.is_refused:
            assert grown == 2, one
        if grown:
            self.chats[one.model == GPT] = chat

    def _tools(self, one: Question) -> list[Callable[..., Any]]:
        def shout(text: str) -> str:
            """In capital letters."""
            self.ran[one.name] += 1
            return text.upper()

        async def whisper() -> str:
            """Quietly."""
            self.ran[one.name] += 1
            await asyncio.sleep(0)
            raise ValueError("too quiet")

        return [shout, whisper]

    # How it is read ---------------------------------------------------------------------------------------------------

    def _read(self, one: Question, events: Any) -> None:
        """Reads a stream to the end that the question has."""
        for count, event in enumerate(events):
            one.is_done = isinstance(event, Done)
            if one.end != "whole" and count >= one.after:
                self._enough(one)
                if one.end == "close":
                    events.close()
                return

    async def _aread(self, one: Question, events: Any) -> None:
        count = 0
        async for event in events:
            one.is_done = isinstance(event, Done)
            if one.end in ("leave", "close", "drop", "raise") and count >= one.after:
                self._enough(one)
                if one.end == "close":
                    await (events.aclose() if hasattr(events, "aclose") else events.close())
                return
            count += 1

    def _enough(self, one: Question) -> None:
        one.outcome = "closed" if one.end == "close" else "left"
        if one.end == "raise":
            raise EnoughError


class Reader:
    """A view that is looked at until its reader presses Stop."""

    def __init__(self, one: Question) -> None:
        self._one, self._seen = one, 0
        self._stop: Callable[[], None] | None = None

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        self._stop = stop

    def show(self, event: Any) -> None:
        self._seen += 1
        if self._one.end == "stop" and self._seen > self._one.after and self._stop is not None:
            self._stop()

    def close(self, error: BaseException | None = None) -> None:
        pass


# What must hold afterwards --------------------------------------------------------------------------------------------


def check(run: Run) -> Counter[str]:
    """Holds a run's books against the bill, and that nothing is left over; counts how rows and questions ended."""
    world = run.world
    world.sim.settle()
    found = llmnb.calls(where={"project": run.name}).to_dict("records")
    rows, seen = _by_name(found, lambda row: row["tag"]), _by_name(world.sim.requests, name_of)
    bills = {record.request_id: record for record in world.sim.billing if record.status == 200}
    assert max(Counter(row["uid"] for row in found).values()) == 1
    for one in run.asked:
        _check_question(one, rows.pop(one.name, []), seen.pop(one.name, []), bills)
    assert rows == {}
    assert seen == {}
    assert slots.slots.under_way == 0
    assert all(account.waiting == 0 for account in pacer(load()).known.values())
    counts = Counter(f"row {row['status']}{' ≈' if row['estimated'] else ''}" for row in found)
    counts.update(f"{one.door}: {one.outcome}" for one in run.asked)
    counts["rows"] += len(found)
    counts["retried rows"] += sum(row["attempts"] > 1 for row in found)
    counts["hits"] += sum(row["source"] == "cache" for row in found)
    counts["bills"] += len(bills)
    counts["held back"] += sum(bool(row["wait_ms"] and row["wait_ms"] > 0) for row in found)
    return counts


def _by_name(things: Any, name: Callable[[Any], str]) -> dict[str, list[Any]]:
    found = defaultdict[str, list[Any]](list)
    for thing in things:
        found[name(thing)].append(thing)
    return dict(found)


def _check_question(
    one: Question, rows: list[dict[str, Any]], seen: list[SeenRequest], bills: dict[str, BillingRecord]
) -> None:
    one.options.pop("system", None)  # it would fill the screen
    told = (one, rows, [(request.status, bills.get(request.request_id)) for request in seen])
    assert all(row["status"] != "running" for row in rows), told
    cached = [row for row in rows if row["source"] == "cache"]
    hits = [row for row in cached if row["attempts"] == 1]
    assert all(row["cost_nanousd"] == 0 for row in hits), told
    # an answer may be in the cache by the second attempt, and the first may have been billed
    live = [row for row in rows if row not in hits]
    # an attempt that was cancelled may not have reached the server, and one that did is of a row
    unsure = [
        row for row in live if row["estimated"] or row["status"] in ("cancelled", "error") or row["source"] == "cache"
    ]
    attempts = sum(row["attempts"] for row in live)
    assert attempts - len(unsure) <= len(seen) <= attempts, told
    billed = {request.request_id: bills[request.request_id] for request in seen if request.request_id in bills}
    known = {row["request_id"]: row for row in live if isinstance(row["request_id"], str)}
    for request_id, row in known.items():
        _check_row(row, billed.get(request_id), told)
    for row in live:
        assert row["estimated"] or isinstance(row["request_id"], str) or row["cost_nanousd"] == 0, told
    lost = [record for request_id, record in billed.items() if request_id not in known and record.price_nanousd]
    assert len(lost) <= sum(row["attempts"] for row in live if row["estimated"]), told
    if all(not row["estimated"] for row in live):
        assert sum(row["cost_nanousd"] for row in live) == sum(bill.price_nanousd or 0 for bill in billed.values()), (
            told
        )


def _check_row(row: dict[str, Any], bill: BillingRecord | None, told: object) -> None:
    if not row["estimated"]:
        for name in TOKEN_FIELDS:
            assert row[name] == (getattr(bill, name) if bill else 0), (name, told)
        assert row["cost_nanousd"] == ((bill.price_nanousd or 0) if bill else 0), told
        return
    # a chat completion that has said why it stops is whole, also when its usage did not come
    is_whole = row["status"] == "ok" and row["provider"] != "anthropic"
    assert row["status"] in ("cancelled", "truncated", "error") or row["attempts"] > 1 or is_whole, told
    if bill is not None and row["attempts"] == 1 and pd.notna(row["ttft_ms"]) and bill.price_nanousd:
        # once a token was seen the input is known, and what was written is what was read, about
        for name in ("input_tokens", "cache_read_tokens"):
            assert row[name] == getattr(bill, name) or "claude" not in row["model"], (name, told)
        assert row["output_tokens"] <= 2 * bill.output_tokens + 5, told


def _with(answer: Answer, fault: Fault) -> Answer:
    return replace(answer, fault=fault)


def run(world: World, seed: int) -> Counter[str]:
    """One run, and what it counted."""
    breakers.reset()
    world.sim.requests.clear()
    world.sim.billing.clear()
    world.plans.clear()
    world.watched.clear()
    made = Run(world, seed)
    made.go()
    return check(made)
