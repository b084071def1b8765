"""One question and its answer: sends the request, reads what comes back, and builds the reply. Shows nothing.

Streams are read as raw events (`create(stream=True)`). The ledger hands over what it knows of the call, so that a reply
and the books agree by construction.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llmnb import slots, unread
from llmnb.asking.figures import figures, rows_of
from llmnb.asking.params import Plan
from llmnb.errors import IncompleteReply, LlmnbError
from llmnb.events import Retry, Wait
from llmnb.messages import models, wire
from llmnb.messages.accumulate import Accumulator, OutOfOrder, Piece, pieces_of
from llmnb.middleware import alike
from llmnb.records import Call, Ended, PromptMarks, Usage, calling
from llmnb.reply import Reply
from llmnb.unread import Unread

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.types import Message

SyncClient = Callable[[], "Anthropic"]
AsyncClient = Callable[[], "AsyncAnthropic"]


class Exchange:
    """Asks once. `reply` is the answer once it is whole.

    `ask`, `aask`, `stream` and `astream` are four ways to do the same; use one of them, once. `limit` is how many
    requests the process may have under way, `shown_in` is passed to the reply, `on_call` is told each row (a retried
    call tells several, with one uid), `on_wait` the waits before retries and for rate limits; `tells_input` has a
    tool's input come piece by piece.
    """

    def __init__(
        self,
        plan: Plan,
        messages: Sequence[Any],
        *,
        limit: int,
        chat: str | None = None,
        shown_in: str | None = None,
        on_call: Callable[[Call], None] | None = None,
        on_wait: Callable[[Wait], None] | None = None,
        tells_input: bool = False,
    ) -> None:
        self.plan = plan
        self._call: Ended | None = None
        self._marks: PromptMarks | None = None
        self.reply: Reply | None = None
        self.shown_in = shown_in
        self.on_wait: Callable[[Wait], None] | None = on_wait  # who is told of waits while they last
        self.on_held: Callable[[bool], None] | None = None
        """Who is told, with True, that it begins to wait for something of ours (a free slot, the account's limits), and
        with False that it goes."""
        self._retries: list[Retry] = []
        self._on_call = on_call
        self._limit = limit
        self._owner = slots.this_owner()  # a live answer is read by another thread than the one that waits for it
        self._arguments: dict[str, Any] = {**plan.arguments, "messages": list(messages)}
        self._ledger = plan.ledger if chat is None else {**plan.ledger, "chat": chat}
        self._tells_input = tells_input
        self._pieces = Accumulator(tells_input=tells_input)

    # In one piece -----------------------------------------------------------------------------------------------------

    def ask(self, client: SyncClient) -> Reply:
        """The whole answer, streamed underneath where the SDK demands it."""
        if self.plan.must_stream:
            for _ in self.stream(client):
                pass
            return self.replied()
        with self._slot(), self._calling(), _Advice(self.plan):
            asked: Any = client()
            if unread.is_enough(asked):
                response = asked.messages.with_raw_response.create(**self._arguments)
                message = unread.of(response) or _parsed(response)
            else:
                message = asked.messages.create(**self._arguments)
        return self._finish(message)

    async def aask(self, client: AsyncClient) -> Reply:
        """The async twin of `ask`."""
        if self.plan.must_stream:
            async for _ in self.astream(client):
                pass
            return self.replied()
        async with self._aslot():
            with self._calling(), _Advice(self.plan):
                asked: Any = client()
                if unread.is_enough(asked):
                    response = await alike.created(asked, self._arguments)
                    message = unread.of(response) or await _aparsed(response)
                else:
                    message = await asked.messages.create(**self._arguments)
        return self._finish(message)

    # Piece by piece ---------------------------------------------------------------------------------------------------

    def stream(self, client: SyncClient) -> Generator[Piece | Wait]:
        """The pieces of the answer as they come. Closing the generator closes the HTTP stream at once."""
        broke: Exception | None = None
        with self._slot(), _Advice(self.plan):
            with self._calling():
                body = client().messages.create(**self._arguments, stream=True)
            try:
                yield from self._retried()
                if _is_json(body):
                    yield from self._answer_in_json(body.response.read())
                else:
                    add = self._pieces.add
                    for event in body:
                        if (piece := add(event)) is not None:
                            yield piece
            except Exception as error:
                if not self._broke_off(error):
                    raise
                broke = error
            finally:
                body.close()
        self._finish_stream(broke)

    async def astream(self, client: AsyncClient) -> AsyncGenerator[Piece | Wait]:
        """The async twin of `stream`."""
        broke: Exception | None = None
        self._held(True)
        async with self._aslot():
            self._held(False)
            with _Advice(self.plan):
                body: Any = None
                if self.on_wait is None:
                    async with aclosing(self._opened(client)) as opening:
                        async for told in opening:
                            if isinstance(told, Wait):
                                yield told
                            else:
                                body = told
                            del told
                else:
                    with self._calling():
                        body = await client().messages.create(**self._arguments, stream=True)
                try:
                    if _is_json(body):
                        for piece in self._answer_in_json(await body.response.aread()):
                            yield piece
                    else:
                        add = self._pieces.add
                        async for event in body:
                            if (piece := add(event)) is not None:
                                yield piece
                except Exception as error:
                    _let_go(error)
                    if not self._broke_off(error):
                        raise
                    broke = error
                finally:
                    await body.close()
                    del body  # what is left of its generators closes now, in this loop: see `_let_go`
        self._finish_stream(broke)

    async def _opened(self, client: AsyncClient) -> AsyncGenerator[Any]:
        """The waits while they last, and at the end the stream that has begun."""
        told = asyncio.Queue[Wait | None]()
        self.on_wait = told.put_nowait
        with self._calling():
            task = asyncio.ensure_future(cast("Any", client()).messages.create(**self._arguments, stream=True))

        def over(_: object) -> None:
            told.put_nowait(None)

        task.add_done_callback(over)
        is_handed_on = False
        try:
            while (wait := await told.get()) is not None:
                yield wait
            body, is_handed_on = task.result(), True
            yield body
        finally:
            if not is_handed_on:  # it was left while it was waited for
                task.cancel()
                await asyncio.wait([task])
                with suppress(BaseException):
                    await task.result().close()

    def _answer_in_json(self, body: bytes) -> list[Piece]:
        """Some servers answer stream=true with one JSON message: the answer is there, if in one piece."""
        from anthropic.types import Message

        data: Any = json.loads(body)
        if not isinstance(data, dict) or "content" not in data:
            raise self._incomplete(f"the server answered a stream with JSON that is no message: {body[:200]!r}")
        message = Message.construct(**cast("dict[str, Any]", data))
        self._finish(message)
        return list(pieces_of(message.content, tells_input=self._tells_input))

    # The end ----------------------------------------------------------------------------------------------------------

    def _slot(self) -> AbstractContextManager[None]:
        return slots.slots.hold(self._limit, self._owner)

    def _aslot(self) -> AbstractAsyncContextManager[None]:
        return slots.slots.ahold(self._limit, self._owner)

    def _held(self, is_held: bool) -> None:
        if self.on_held is not None:
            self.on_held(is_held)

    def _calling(self) -> AbstractContextManager[None]:
        told: dict[str, Any] = {} if self.on_held is None else {"on_held": self.on_held}
        return calling(
            **self._ledger, **told, owner=self._owner, on_end=self._ended, on_marked=self._marked, on_wait=self._waits
        )

    def _waits(self, wait: Wait) -> None:
        if self.on_wait is not None:
            self.on_wait(wait)
        elif isinstance(wait, Retry):
            self._retries.append(wait)

    def _retried(self) -> list[Retry]:
        """The attempts that nobody was told of while they were waited for."""
        told, self._retries = self._retries, []
        return told

    def _marked(self, marks: PromptMarks) -> None:
        self._marks = marks

    def _ended(self, call: Ended) -> None:
        self._call = call  # told once per attempt; the last one counts
        if self._on_call is not None:
            for row in call.rows:
                self._on_call(row)

    def _broke_off(self, error: Exception) -> bool:
        """Whether this is the end of a body in the middle: for most of those the SDK has no word of its own."""
        import httpx2
        from anthropic import APIStatusError

        if isinstance(error, APIStatusError):  # an error event; before any content it is the call's error
            return self._pieces.has_content
        garbled = isinstance(error, ValueError) and not isinstance(error, LlmnbError)  # no JSON, or no UTF-8
        return garbled or isinstance(error, (httpx2.RequestError, OutOfOrder))

    def _finish_stream(self, broke: Exception | None) -> None:
        if self.reply is not None:
            return
        if self._pieces.complete:
            self._finish(self._pieces.message())
        elif broke is not None:
            raise self._incomplete(_why(broke)) from broke
        else:
            raise self._incomplete("the stream ended before the answer did")

    def _finish(self, message: Any) -> Reply:
        if not isinstance(message, Unread) and not hasattr(message, "usage"):  # the SDK passes on what it cannot read
            raise IncompleteReply(f"the server answered with something that is no message: {str(message)[:200]!r}")
        self.reply = self._reply(message)
        return self.reply

    def _reply(self, message: Message | Unread, usage: Usage | None = None) -> Reply:
        worked_out = partial(figures, message, self.plan.model, self._call, self._marks, usage)
        return Reply.of(message, worked_out, self.shown_in)

    def replied(self) -> Reply:
        """The reply of an exchange that came to its end."""
        assert self.reply is not None
        return self.reply

    def partial(self) -> Reply | None:
        """The reply, as far as it came if it was cut off; None before its first token. Call it when nothing comes."""
        if self.reply is not None:
            return self.reply
        message = self._pieces.message()
        if message is None or not message.content:
            return None
        usage = self._usage_so_far(self._pieces.text) or Usage()
        return self._reply(message, usage)

    @property
    def rows(self) -> tuple[Call, ...]:
        """The rows of the ledger that its call has by now."""
        return rows_of(self._call)

    def _incomplete(self, what: str) -> IncompleteReply:
        text = self._pieces.text
        return IncompleteReply(
            f"{what}, after {len(text):,} characters. They are in `.partial`, and what is known of the tokens in "
            "`.usage`; `.resume()` has it finished.",
            partial=text,
            usage=self._usage_so_far(text),
        )

    def _usage_so_far(self, text: str) -> Usage | None:
        if rows := rows_of(self._call):
            return rows[0].usage
        message = self._pieces.message()
        if message is None:
            return None
        output = wire.estimated_tokens(len(text.encode()))
        return replace(wire.read_usage(message.usage.to_dict(warnings=False)), output_tokens=output, estimated=True)


def _parsed(response: Any) -> Any:
    """What the SDK makes of a response; a part of the user's own may have given something else."""
    return response.parse() if hasattr(response, "parse") else response


async def _aparsed(response: Any) -> Any:
    return await response.parse() if hasattr(response, "parse") else response


def _why(broke: Exception) -> str:
    import httpx2
    from anthropic import APIStatusError

    if isinstance(broke, httpx2.ReadTimeout):
        return "nothing more came of the stream for as long as `timeout` allows"
    if isinstance(broke, APIStatusError):
        return f"the API broke the stream off ({wire.error_of(broke.body) or broke})"
    return f"the stream broke off ({type(broke).__name__}: {broke})"


def _let_go(error: Exception) -> None:
    """Drops what the SDK's finished frames hold, so that its generators close in the loop that runs them, and now.

    The SDK closes the response of a stream that fails, but not the generators that read it. Whoever keeps the error
    would keep them, and Python would close them when it finds them as garbage, in whichever thread that is, while the
    loop thread does: "async generator already executing" on stderr.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith("anthropic."):
            with suppress(RuntimeError):  # it still runs
                frame.clear()


def _is_json(body: Any) -> bool:
    return str(body.response.headers.get("content-type", "")).startswith("application/json")


class _Advice:
    """Adds a note to a 404 for a model nobody knows, and to what ollama cannot say; every error passes as it is."""

    __slots__ = ("_plan",)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (hint := self._hint(error)):
            error.add_note(hint)

    def _hint(self, error: BaseException) -> str | None:
        provider, model = self._plan.provider, self._plan.model
        is_unknown = getattr(error, "status_code", None) == 404
        if provider is None:
            return models.hint(model) if is_unknown else None
        if provider.prefix != "ollama":
            return None
        if is_unknown:
            return f"llmnb: `ollama pull {model}` fetches a model, `ollama list` says which there are"
        if type(error).__name__ == "APIConnectionError":
            return "llmnb: is ollama running? `ollama serve` starts it; the variable OLLAMA_HOST says where it is"
        return None
