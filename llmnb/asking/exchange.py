"""One question and its answer: sends the request, reads what comes back, and builds the reply. Shows nothing.

Streams are read as raw events (`create(stream=True)`). The ledger hands over its row of the call, so that a reply and
the books agree by construction.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from llmnb import slots
from llmnb.asking.params import Plan
from llmnb.errors import IncompleteReply
from llmnb.messages import models, wire
from llmnb.messages.accumulate import Accumulator, OutOfOrder, Piece
from llmnb.pricing import cost_of, saved_by_caching
from llmnb.records import Call, Cost, PromptCacheUse, PromptMarks, Text, Thinking, Usage, calling
from llmnb.reply import Reply

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.types import Message

SyncClient = Callable[[], "Anthropic"]
AsyncClient = Callable[[], "AsyncAnthropic"]


class Exchange:
    """Asks once. `call` is the ledger row once the call has ended, `reply` the answer once it is whole.

    `ask`, `aask`, `stream` and `astream` are four ways to do the same; use one of them, once. `limit` is how many
    requests the process may have under way, `shown_in` is passed to the reply, `on_call` is told each row (a retried
    call tells several, with one uid).
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
    ) -> None:
        self.plan = plan
        self.call: Call | None = None
        self._beside: list[Call] = []  # child rows
        self._marks: PromptMarks | None = None
        self.reply: Reply | None = None
        self.shown_in = shown_in
        self._on_call = on_call
        self._limit = limit
        self._owner = slots.this_owner()  # a live answer is read by another thread than the one that waits for it
        self._arguments: dict[str, Any] = {**plan.arguments, "messages": list(messages)}
        self._ledger = plan.ledger if chat is None else {**plan.ledger, "chat": chat}
        self._pieces = Accumulator()

    # In one piece -----------------------------------------------------------------------------------------------------

    def ask(self, client: SyncClient) -> Reply:
        """The whole answer, streamed underneath where the SDK demands it."""
        if self.plan.must_stream:
            for _ in self.stream(client):
                pass
            return self.replied()
        with self._slot(), self._calling(), _advice(self.plan.model):
            message = cast("Any", client()).messages.create(**self._arguments)
        return self._finish(message)

    async def aask(self, client: AsyncClient) -> Reply:
        """The async twin of `ask`."""
        if self.plan.must_stream:
            async for _ in self.astream(client):
                pass
            return self.replied()
        async with self._aslot():
            with self._calling(), _advice(self.plan.model):
                message = await cast("Any", client()).messages.create(**self._arguments)
        return self._finish(message)

    # Piece by piece ---------------------------------------------------------------------------------------------------

    def stream(self, client: SyncClient) -> Generator[Piece]:
        """The pieces of the answer as they come. Closing the generator closes the HTTP stream at once."""
        broke: Exception | None = None
        with self._slot(), _advice(self.plan.model):
            with self._calling():
                body = client().messages.create(**self._arguments, stream=True)
            try:
                if _is_json(body):
                    yield from self._answer_in_json(body.response.read())
                else:
                    add = self._pieces.add
                    for event in body:
                        if (piece := add(event)) is not None:
                            yield piece
            except _broken() as error:
                broke = error
            finally:
                body.close()
        self._finish_stream(broke)

    async def astream(self, client: AsyncClient) -> AsyncGenerator[Piece]:
        """The async twin of `stream`."""
        broke: Exception | None = None
        async with self._aslot():
            with _advice(self.plan.model):
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
                except _broken() as error:
                    broke = error
                finally:
                    await body.close()
        self._finish_stream(broke)

    def _answer_in_json(self, body: bytes) -> list[Piece]:
        """Some servers answer stream=true with one JSON message: the answer is there, if in one piece."""
        from anthropic.types import Message

        data: Any = json.loads(body)
        if not isinstance(data, dict) or "content" not in data:
            raise self._incomplete(f"the server answered a stream with JSON that is no message: {body[:200]!r}")
        message = Message.construct(**cast("dict[str, Any]", data))
        self._finish(message)
        thinking = [Thinking(block.thinking) for block in message.content if block.type == "thinking"]
        return [*thinking, *(Text(block.text) for block in message.content if block.type == "text")]

    # The end ----------------------------------------------------------------------------------------------------------

    def _slot(self) -> AbstractContextManager[None]:
        return slots.slots.hold(self._limit, self._owner)

    def _aslot(self) -> AbstractAsyncContextManager[None]:
        return slots.slots.ahold(self._limit, self._owner)

    def _calling(self) -> AbstractContextManager[None]:
        return calling(**self._ledger, owner=self._owner, on_end=self._ended, on_marked=self._marked)

    def _marked(self, marks: PromptMarks) -> None:
        self._marks = marks

    def _ended(self, call: Call) -> None:
        if call.is_call:
            self.call, self._beside = call, []  # told once per attempt; the last one counts
        else:
            self._beside.append(call)
        if self._on_call is not None:
            self._on_call(call)

    def _finish_stream(self, broke: Exception | None) -> None:
        if self.reply is not None:
            return
        if self._pieces.complete:
            self._finish(self._pieces.message())
        elif broke is not None:
            raise self._incomplete(f"the stream broke off ({type(broke).__name__}: {broke})") from broke
        else:
            raise self._incomplete("the stream ended before the answer did")

    def _finish(self, message: Any) -> Reply:
        if not hasattr(message, "usage"):  # the SDK passes on what it cannot read
            raise IncompleteReply(f"the server answered with something that is no message: {str(message)[:200]!r}")
        self.reply = self._reply(message, self._usage(message))
        return self.reply

    def _reply(self, message: Message, usage: Usage) -> Reply:
        cost = self._cost(message, usage)
        return Reply(message, usage, cost, self.call, self.shown_in, self._prompt_cache(message, usage, cost))

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

    def _usage(self, message: Message) -> Usage:
        if self.call is not None and self.call.source == "live":
            return self.call.usage
        # of an answer that was kept: what it took when it was asked; its row has what it took now, which is nothing
        known = wire.read_message({"usage": message.usage.to_dict(), "model": message.model}, self.plan.model)
        return known.usage or Usage()

    def _cost(self, message: Message, usage: Usage) -> Cost:
        if self.call is None:
            return cost_of(usage, message.model)
        # what a compaction, an advisor or a model that declined cost is part of what this answer cost
        costs = [self.call.cost_nanousd, *(call.cost_nanousd for call in self._beside)]
        known = [nanousd for nanousd in costs if nanousd is not None]
        return Cost(sum(known) if len(known) == len(costs) else None, self.call.price_id)

    def _prompt_cache(self, message: Message, usage: Usage, cost: Cost) -> PromptCacheUse:
        call, marks = self.call, self._marks
        if call is not None and call.source != "live":  # answered from disk: the API's cache did nothing
            return PromptCacheUse(saved_nanousd=0)
        return PromptCacheUse(
            breakpoints=() if marks is None else marks.breakpoints,
            read_tokens=usage.cache_read_tokens,
            written_5m_tokens=usage.cache_write_5m_tokens,
            written_1h_tokens=usage.cache_write_1h_tokens,
            written_unsplit_tokens=usage.cache_write_unsplit_tokens,
            saved_nanousd=self._saved(message, usage, cost),
            miss_reason=None if call is None else call.cache_miss_reason,
            miss="" if marks is None else marks.miss,
            estimated=usage.estimated,
            bound_nanousd=self._bound(message),
        )

    def _bound(self, message: Message) -> int | None:
        tokens = None if self._marks is None else self._marks.bound_tokens
        return None if tokens is None else cost_of(Usage(tokens), message.model).nanousd

    def _saved(self, message: Message, usage: Usage, cost: Cost) -> int | None:
        """Nano-dollars that the prompt cache saved, those of other models that worked on the answer among them."""
        if cost.nanousd is None:
            return None
        if self.call is None:
            return saved_by_caching([usage], cost, message.model) or 0
        return sum(row.saved_nanousd or 0 for row in (self.call, *self._beside))

    def _incomplete(self, what: str) -> IncompleteReply:
        text = self._pieces.text
        return IncompleteReply(
            f"{what}, after {len(text):,} characters. They are in `.partial`, and what is known of the tokens in "
            "`.usage`; ask again to get a whole answer.",
            partial=text,
            usage=self._usage_so_far(text),
        )

    def _usage_so_far(self, text: str) -> Usage | None:
        if self.call is not None:
            return self.call.usage
        message = self._pieces.message()
        if message is None:
            return None
        output = wire.estimated_tokens(len(text.encode()))
        return replace(wire.read_usage(message.usage.to_dict()), output_tokens=output, estimated=True)


def _is_json(body: Any) -> bool:
    return str(body.response.headers.get("content-type", "")).startswith("application/json")


def _broken() -> tuple[type[Exception], ...]:
    """What ends a body in the middle without the SDK having a word for it."""
    import httpx2

    return (httpx2.TransportError, OutOfOrder)


@contextmanager
def _advice(model: str) -> Generator[None]:
    """Adds a note to a 404 for a model nobody knows; every error passes as it is."""
    try:
        yield
    except Exception as error:
        if getattr(error, "status_code", None) == 404 and (hint := models.hint(model)):
            error.add_note(hint)
        raise
