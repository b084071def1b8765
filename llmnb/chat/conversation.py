"""`Chat`: a conversation that remembers, and that a failed call leaves as it was."""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, Protocol, Unpack, cast

from llmnb.asking.content import Block, content_of
from llmnb.asking.params import Options
from llmnb.asking.question import Question
from llmnb.asking.turns import Turn, messages_of, turns_of
from llmnb.asking.window import Guard, Sent, WhenFull
from llmnb.chat import file
from llmnb.chat.named import check_free, registered
from llmnb.chat.shown import Shown
from llmnb.chat.spent import Spent
from llmnb.client import label
from llmnb.errors import InvalidRequest
from llmnb.events import StreamEvent
from llmnb.plain_numbers import whole
from llmnb.records import Call, Usage
from llmnb.reply import Reply
from llmnb.templates import opened

if TYPE_CHECKING:
    from anthropic.types import MessageParam

    from llmnb.asking.content import Prompt
    from llmnb.estimate import Estimate
    from llmnb.llm import LLM


class Watcher(Protocol):
    """Wants to know when a chat has other turns; called in the thread that changed them, and must not raise."""

    def chat_changed(self) -> None: ...


class Chat(Shown):
    """A conversation. `chat("…")` asks with everything said before, and remembers the answer.

    A call that fails or is stopped leaves the conversation as it was. So does an answer that the API's classifiers
    refused, and one without any content: the API takes neither back. Both are still returned, and counted in the costs.

    What tools were asked and gave is a part of it: `chat("…", tools=[…])`, or `tools` for every question.

    When it grows out of the model's context window, `when_full` says what is done: "error" refuses the question, "trim"
    sends the oldest turns no more, "compact" has them summarised, which is a call of its own; either is said in a
    warning. `window_tokens` is how large the window is; default: the model's, where it is known: for models that ollama
    runs, give it (ollama itself leaves out what is too long, and says nothing). `chat.messages` keeps everything.

    Make one with `llm.chat()`; read one with `Chat.load(path)`.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        name: str | None = None,
        system: str | None = None,
        tools: Any = None,
        when_full: WhenFull = "error",
        window_tokens: int | None = None,
    ) -> None:
        name = None if name is None else label(name, "the name of a chat")
        if name is not None and not name.strip():
            raise InvalidRequest("the name of a chat cannot be empty; leave it out for a chat without one")
        self.llm = llm
        self.name = name
        self.system = system
        self.tools = tools
        self.guard = Guard(when_full, window_tokens)
        self._sent = Sent()
        self._definitions: list[dict[str, Any]] = []
        self._label = name or f"chat-{os.urandom(4).hex()}"
        self._turns: tuple[Turn, ...] = ()
        self._before = Spent()
        self._calls: dict[str, Call] = {}
        self._answering = threading.Lock()
        self._watchers = weakref.WeakSet[Watcher]()

    # What was said ----------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[MessageParam]:
        """The conversation as the SDK's `messages`: user and assistant in turn, thinking blocks included; a copy."""
        return cast("list[MessageParam]", copy.deepcopy(messages_of(self._turns)))

    @property
    def sent_messages(self) -> list[MessageParam]:
        """What of them goes before the next question: without turns that did not fit, or with their summary; a copy."""
        return cast("list[MessageParam]", copy.deepcopy(self._sent.messages(self._turns)))

    @property
    def when_full(self) -> WhenFull:
        """What is done when the context window is full: "error", "trim" or "compact"; can be set."""
        return self.guard.when_full

    @when_full.setter
    def when_full(self, policy: WhenFull) -> None:
        self.guard = replace(self.guard, when_full=policy)

    @property
    def usage(self) -> Usage:
        """Tokens of every call of this chat: failed, stopped and undone ones, too, as far as they were billed."""
        return self._spent().usage

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars of every call of this chat that has a price; None when none has. See `unpriced_calls`.

        A fork starts at 0: what its parent cost is counted there.
        """
        return self._spent().cost_usd

    @property
    def unpriced_calls(self) -> int:
        """How many calls of this chat have no price and are missing from `cost_usd`."""
        return self._spent().unpriced_calls

    # Asking -----------------------------------------------------------------------------------------------------------

    def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Asks with everything said before. As `LLM.ask`; on any error the chat stays as it was.

        Raises:
            InvalidRequest: this chat is still answering; `fork()` it to ask in parallel.
        """
        question, content = self._ready(prompt, options)
        with self._turn():
            self._sent = _told_by(self._room(question, content), Question.ask)
            return self._next(question, content).ask()

    __call__ = ask

    async def aask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """The async twin of `ask`."""
        question, content = self._ready(prompt, options)
        with self._turn():
            await self._make_room(question, content)
            return await self._next(question, content).aask()

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Generator[StreamEvent, None, Reply]:
        """As `LLM.stream`. The turn is remembered once the answer is whole, before `Done` comes."""
        return self._stream(*self._ready(prompt, options))

    def _stream(self, question: Question, content: str | list[Block]) -> Generator[StreamEvent, None, Reply]:
        with self._turn():
            self._sent = _told_by(self._room(question, content), Question.ask)
            return (yield from self._next(question, content).stream())

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncGenerator[StreamEvent]:
        """The async twin of `stream`."""
        return self._astream(*self._ready(prompt, options))

    async def _astream(
        self, question: Question, content: str | list[Block], *, kept: int | None = None, on_loop_thread: bool = False
    ) -> AsyncGenerator[StreamEvent]:
        """The events of an answer that takes the place of all turns but the first `kept` once it is whole."""
        with self._turn():
            if kept is None or kept >= self._sent.left_out:
                await self._make_room(question, content, kept, on_loop_thread=on_loop_thread)
            question = self._next(question, content, kept)
            async with aclosing(question.astream(on_loop_thread=on_loop_thread)) as events:
                async for event in events:
                    yield event

    def estimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """What asking this next would read (everything said before, too), write and cost; as `LLM.estimate`."""
        from llmnb.asking.estimating import estimated

        settings = self.llm._settings  # pyright: ignore[reportPrivateUsage]
        return estimated(self._next(*self._ready(prompt, options)), settings, exact=exact)

    async def aestimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """The async twin of `estimate`."""
        from llmnb.asking.estimating import aestimated

        settings = self.llm._settings  # pyright: ignore[reportPrivateUsage]
        return await aestimated(self._next(*self._ready(prompt, options)), settings, exact=exact)

    # Going back and on ------------------------------------------------------------------------------------------------

    def undo(self, turns: int = 1) -> Chat:
        """Forgets the last questions and their answers. What they cost stays counted.

        Raises:
            InvalidRequest: there are not that many turns, or the chat is still answering.
        """
        count = whole(turns)
        if count is None or not 1 <= count <= len(self._turns):
            raise InvalidRequest(_nothing_to_undo(turns, len(self._turns)))
        with self._turn():
            self._turns = self._turns[:-count]
            if self._sent.left_out > len(self._turns):
                self._sent = Sent()
        self._changed()
        return self

    def clear(self) -> Chat:
        """Forgets everything said, to begin anew under the same name. What it cost stays counted."""
        with self._turn():
            self._turns, self._sent = (), Sent()
        self._changed()
        return self

    def fork(self, name: str | None = None) -> Chat:
        """A second conversation that goes on from here by itself.

        Raises:
            InvalidRequest: there is a chat called `name` already.
        """
        check_free(name)
        fork = Chat(self.llm, name=name, system=self.system, tools=self.tools)
        fork._turns, fork._sent, fork.guard = self._turns, self._sent, self.guard
        fork._definitions = self._definitions
        return registered(fork)

    def __copy__(self) -> Chat:
        return self.fork()  # two that shared locks and rows would both count what either cost

    def __deepcopy__(self, memo: object) -> Chat:
        return self.fork()

    def __reduce__(self) -> Never:
        raise TypeError("a chat cannot be pickled: chat.save(path), and there llmnb.Chat.load(path)")

    # On disk ----------------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the conversation to a JSON file (mode 0600), all of it or nothing; returns its path.

        Saved are what was said, the model and its settings, and the costs. Not saved are the client and `extra_…`,
        `metadata` and `timeout` parameters: they may hold secrets.

        Raises:
            InvalidRequest: a content block holds something that JSON cannot.
            OSError: the file cannot be written.
        """
        options = self.llm.options
        spent = self._spent()
        saved = file.SavedChat(
            name=self.name,
            model=self.llm.model,
            system=self.system if self.system is not None else options.get("system"),
            options={key: options[key] for key in file.SAVED_OPTIONS if key in options},
            messages=messages_of(self._turns),
            models=[turn.model for turn in self._turns],
            lengths=[len(turn.messages) for turn in self._turns],
            definitions=self._definitions,
            left_out=self._sent.left_out,
            summary=list(self._sent.summary),
            router=None if self.llm.router is None else self.llm.router.arguments,
            usage=spent.usage,
            cost_nanousd=spent.cost_nanousd,
            unpriced_calls=spent.unpriced_calls,
        )
        return file.write(Path(path).expanduser(), saved)

    @classmethod
    def load(cls, path: str | PathLike[str], *, llm: LLM | None = None) -> Chat:
        """The conversation that `save` wrote; a named one takes the place of the kernel's chat of that name.

        Args:
            path: the file.
            llm: the LLM to go on with; default: one with the saved model, or models, and settings.

        Raises:
            InvalidRequest: the file holds no chat, is damaged, or was written by a newer llmnb.
            OSError: the file cannot be read.
        """
        from llmnb.llm import LLM
        from llmnb.routing import Router

        saved = file.read(Path(path).expanduser())
        system = saved.system if isinstance(saved.system, str) else None
        if llm is None:
            model = saved.model if saved.router is None else Router(**saved.router)
            llm = LLM(model, system=cast("Any", saved.system), **cast("Any", saved.options))
        chat = cls(llm, name=saved.name, system=system)
        chat._turns = tuple(turns_of(saved.messages, saved.models, saved.lengths))
        chat._sent, chat._definitions = Sent(saved.left_out, tuple(saved.summary)), saved.definitions
        chat._before = Spent(saved.usage, saved.cost_nanousd, saved.unpriced_calls)
        return registered(chat)

    # ------------------------------------------------------------------------------------------------------------------

    def _ready(self, prompt: Prompt, options: Mapping[str, Any]) -> tuple[Question, str | list[Block]]:
        """Everything that can be refused is refused here, before a generator is handed out."""
        if type(prompt) is not str:
            prompt, options = opened(prompt, options)
        content = copy.deepcopy(content_of(prompt))
        if self.system is not None:
            options = {"system": self.system, **options}
        if self.tools is not None:
            options = {"tools": self.tools, **options}
        question = self.llm._question([], options, chat=self._label)  # pyright: ignore[reportPrivateUsage]
        return question, content

    def _next(self, question: Question, content: str | list[Block], kept: int | None = None) -> Question:
        question = self._with_tools(question)
        model, all_turns = question.plan.model, self._turns
        turns = all_turns[:kept]

        @contextmanager
        def again() -> Generator[None]:
            with self._turn():
                if self._turns is not all_turns:
                    raise InvalidRequest("the chat has gone on since this answer broke off: ask the question again")
                yield

        def keep(reply: Reply) -> None:
            for one in reply.turns:
                if one.call is None:  # the books failed; what the reply says is all there is
                    self._before = self._before.plus(one.usage, one.cost.nanousd)
            if (turn := Turn.of(content, reply, model)) is not None:
                self._turns = (*turns, turn)
                if question.plan.tools is not None:
                    self._definitions = list(question.plan.tools.definitions)
            self._changed()

        messages = [*self._sent.messages(turns, model), {"role": "user", "content": content}]
        return replace(question, messages=messages, on_call=self._heard, on_reply=keep, entered=again)

    def _with_tools(self, question: Question) -> Question:
        """The question with the tools of earlier turns, not to be called: the API wants to know what it reads of."""
        plan = question.plan
        if plan.tools is not None or not self._definitions or not any(turn.has_tools for turn in self._turns):
            return question
        known = {"tools": self._definitions, "tool_choice": {"type": "none"}}
        return replace(question, plan=replace(plan, arguments={**known, **plan.arguments}))

    def _room(
        self, question: Question, content: str | list[Block], kept: int | None = None
    ) -> Generator[Question, Reply, Sent]:
        """What is to be sent from now on; gives what has to be asked for it."""
        asked = replace(
            self._with_tools(question), messages=[{"role": "user", "content": content}], on_call=self._heard
        )
        return self.guard.fitted(asked, self._turns[:kept], self._sent)

    async def _make_room(
        self, question: Question, content: str | list[Block], kept: int | None = None, *, on_loop_thread: bool = False
    ) -> None:
        room = self._room(question, content, kept)
        try:
            asked = next(room)
            while True:
                asked = room.send(await asked.aask_quietly(on_loop_thread=on_loop_thread))
        except StopIteration as end:
            self._sent = end.value

    def _heard(self, call: Call) -> None:
        self._calls[call.uid] = call  # attempts of one call share the uid; the last row has them all

    def _spent(self) -> Spent:
        return self._before.plus_all(tuple(self._calls.values()))

    @contextmanager
    def _turn(self) -> Generator[None]:
        if not self._answering.acquire(blocking=False):
            raise InvalidRequest(
                "this chat is still answering: wait for it (or close its stream), or fork() it to ask in parallel"
            )
        try:
            yield
        finally:
            self._answering.release()

    def _changed(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.chat_changed()


# ----------------------------------------------------------------------------------------------------------------------


def _told_by(room: Generator[Question, Reply, Sent], ask: Callable[[Question], Reply]) -> Sent:
    try:
        asked = next(room)
        while True:
            asked = room.send(ask(asked))
    except StopIteration as end:
        return end.value


def _nothing_to_undo(turns: object, there: int) -> str:
    if there == 0:
        return "nothing to undo: this chat has no turn yet"
    plural = "" if there == 1 else "s"
    has = f"this chat has {there} turn{plural}"
    return f"nothing to undo: give a number of turns from 1 to {there}, as {has}, not {turns!r}"
