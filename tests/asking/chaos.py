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
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import anthropic
import httpx2

import llmnb
from llmnb.errors import IncompleteReply, LlmnbError
from llmnb.events import Done
from llmnb.interrupts import Stopped
from llmnb.records import calling
from llmnb.routing import breakers
from llmnb.simulator import Answer, Fault

from .chaos_books import check
from .chaos_world import (
    CHEAP,
    CLAUDE,
    DOORS,
    FAULTS,
    GPT,
    LONG,
    MODELS,
    STREAMED,
    STREAMS,
    TOOL_DOORS,
    VALUE_DOORS,
    Question,
    Word,
    World,
    is_async,
)

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


class EnoughError(Exception):
    """Raised by whoever reads, in the middle of an answer."""


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
    return check(world, made.name, made.asked)
