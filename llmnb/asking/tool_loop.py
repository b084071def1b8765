"""A question whose answer may take several turns: the model asks for tools, they are run, and it is asked again.

`ToolLoop` stands in for an `Exchange`: it is asked in the same four ways, gives the same pieces, and one reply in the
end. What happens next is decided in one place, `_steps`; the four ways only drive it. Every turn is an exchange of its
own, with a ledger row, under the budgets, and cached by its whole conversation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from llmnb.asking.content import taken_back
from llmnb.asking.figures import summed
from llmnb.asking.params import Plan
from llmnb.asking.runner import from_loop_thread
from llmnb.budgeting import ceiling
from llmnb.budgeting.bound import bound_of
from llmnb.budgeting.budget import dollars
from llmnb.errors import BudgetExceeded, InvalidRequest, ToolLoopLimit
from llmnb.events import Approval, ToolCall, Wait
from llmnb.messages.accumulate import Piece
from llmnb.pricing import cost_of
from llmnb.records import NANO, Caching, Usage
from llmnb.reply import Reply
from llmnb.settings import Settings, load
from llmnb.tools.batch import Batch
from llmnb.tools.journal import journal_of
from llmnb.tools.toolbox import Toolbox
from llmnb.views import views

Message: TypeAlias = dict[str, Any]
News: TypeAlias = Piece | Wait | Approval

_PAUSED = "pause_turn"
_FORCED = ("any", "tool")
_ADVICE = (
    "What was said is in `.messages`. Run it again with a higher limit and it goes on from there: the turns so far "
    "come from the cache, and tools that finished do not run twice."
)


class Asked(Protocol):
    """What is asked of the exchange of one turn; the names are those of `Exchange`."""

    on_wait: Callable[[Wait], None] | None

    def ask(self, client: Any) -> Reply: ...
    async def aask(self, client: Any) -> Reply: ...
    def stream(self, client: Any) -> Generator[Piece | Wait]: ...
    def astream(self, client: Any) -> AsyncGenerator[Piece | Wait]: ...
    def replied(self) -> Reply: ...
    def partial(self) -> Reply | None: ...


class ToolLoop:
    """Asks until there is an answer. `make` gives the exchange of a turn, for a plan and messages.

    `provider` is who serves, by whose prices the dollars of the loop are counted before it begins.
    """

    def __init__(
        self,
        plan: Plan,
        messages: Sequence[Any],
        make: Callable[[Plan, list[Any]], Asked],
        *,
        provider: str = "anthropic",
        shown_in: str | None = None,
        blocking: bool = False,
        settings: Settings | None = None,
    ) -> None:
        assert plan.tools is not None
        self._plan = plan
        self._box: Toolbox = plan.tools
        self._provider = provider
        self._settings = settings or load()
        self._box.check_ready(blocking=blocking)
        self._check_price()
        self._messages = list(messages)
        self._make = make
        self._shown_in = shown_in
        self._said: list[Message] = []
        self._turns: list[Reply] = []
        self._exchange: Asked | None = None
        self._began = time.monotonic()
        self.on_wait: Callable[[Wait], None] | None = None
        self.reply: Reply | None = None

    # Four ways --------------------------------------------------------------------------------------------------------

    def ask(self, client: Any) -> Reply:
        """The whole answer."""
        if self._box.time_limit_s is not None:  # a request that comes in one piece cannot be left in the middle
            for piece in self.stream(client):
                _decide(piece)
            return self.replied()
        for step in self._steps():
            if isinstance(step, Batch):
                with closing(from_loop_thread(step.run)) as news:
                    for piece in news:
                        _decide(piece)
            else:
                with self._ceiling():
                    step.ask(client)
        return self.replied()

    async def aask(self, client: Any) -> Reply:
        """The async twin of `ask`."""
        if self._box.time_limit_s is not None:
            async for piece in self.astream(client):
                await _adecide(piece)
            return self.replied()
        for step in self._steps():
            if isinstance(step, Batch):
                async with aclosing(step.run()) as news:
                    async for piece in news:
                        await _adecide(piece)
            else:
                with self._ceiling():
                    await step.aask(client)
        return self.replied()

    def stream(self, client: Any) -> Generator[News]:
        """The pieces of all turns, and the results of tools, as they come."""
        for step in self._steps():
            source = from_loop_thread(step.run) if isinstance(step, Batch) else step.stream(client)
            with self._ceiling(), closing(source) as pieces:
                for piece in pieces:
                    yield piece
                    self._check_time()

    async def astream(self, client: Any) -> AsyncGenerator[News]:
        """The async twin of `stream`."""
        for step in self._steps():
            # a batch ends in time by itself
            source: AsyncGenerator[News] = (
                step.run() if isinstance(step, Batch) else self._in_time(step.astream(client))
            )
            with self._ceiling():
                async with aclosing(source) as pieces:
                    async for piece in pieces:
                        yield piece
                        self._check_time()

    async def _in_time(self, pieces: AsyncGenerator[News]) -> AsyncGenerator[News]:
        """The pieces, for as long as the loop has time: a server that has gone silent does not keep it."""
        deadline = self._deadline()
        async with aclosing(pieces):
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    piece = await (anext(pieces) if left is None else asyncio.wait_for(anext(pieces), left))
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if deadline is None or time.monotonic() < deadline:
                        raise  # one of the SDK's
                    raise self._limit("time_limit", self._time_told(), ()) from None
                yield piece

    # What comes next --------------------------------------------------------------------------------------------------

    def _steps(self) -> Generator[Asked | Batch]:
        """What has to be asked or run next; each is over when the next one is wanted."""
        while True:
            self._check_time()
            self._exchange = self._turn()
            yield self._exchange
            reply = self._exchange.replied()
            self._turns.append(reply)
            calls = self._calls(reply)
            if not calls and reply.stop_reason != _PAUSED:
                break
            self._check_turns(calls)
            self._said.append({"role": "assistant", "content": taken_back(reply)})
            if calls:
                batch = Batch(calls, self._box, self._journal(), self._deadline())
                yield batch
                self._heard(batch, calls)
        self.reply = self._whole(self._turns)

    def _turn(self) -> Asked:
        arguments = self._plan.arguments
        if self._turns and (self._box.choice or {}).get("type") in _FORCED:
            # who must call a tool at every turn never comes to an answer
            arguments = {name: value for name, value in arguments.items() if name != "tool_choice"}
        ledger = self._plan.ledger
        if (limit := self._box.limit_nanousd) is not None:
            ledger = {**ledger, "ceiling_nanousd": limit - (self._spent() or 0)}
        plan = replace(self._plan, arguments=arguments, ledger=ledger)
        exchange = self._make(plan, [*self._messages, *self._said])
        if self.on_wait is not None:
            exchange.on_wait = self.on_wait
        return exchange

    def _calls(self, reply: Reply) -> list[ToolCall]:
        """What is to be run; a call that was cut off is none, and neither is the one that is the answer."""
        if reply.truncated or reply.refused:
            return []
        asked = [block for block in reply.message.content if block.type == "tool_use"]
        if any(block.name == self._box.final for block in asked):
            return []
        return [ToolCall(block.id, block.name, _input(block.input)) for block in asked]

    def _journal(self) -> Any:
        caching: Caching = self._plan.ledger["caching"]
        return journal_of(caching, self._settings, rerun=self._box.rerun or caching.fresh)

    def _heard(self, batch: Batch, calls: Sequence[ToolCall]) -> None:
        ran = batch.ran
        if batch.out_of_time:
            known = {one.call.id for one in ran}
            self._said.pop()  # the calls and their results go together
            raise self._limit("time_limit", self._time_told(), [call for call in calls if call.id not in known])
        self._said.append({"role": "user", "content": [one.block() for one in ran]})

    # The end ----------------------------------------------------------------------------------------------------------

    def replied(self) -> Reply:
        """The reply of a loop that came to its end."""
        assert self.reply is not None
        return self.reply

    def partial(self) -> Reply | None:
        """The reply, as far as it came if it was cut off; None before its first token."""
        if self.reply is not None:
            return self.reply
        current = None if self._exchange is None else self._exchange.partial()
        turns = self._turns if current is None or current in self._turns else [*self._turns, current]
        return self._whole(turns) if turns else None

    def _whole(self, turns: Sequence[Reply]) -> Reply:
        if len(turns) == 1 and not self._said:
            return turns[0]
        return Reply.of(turns[-1].message, lambda: summed(turns), self._shown_in, tuple(turns), tuple(self._said))

    # Limits -----------------------------------------------------------------------------------------------------------

    def _check_price(self) -> None:
        model = self._plan.model
        if self._box.limit_nanousd is None:
            return
        if cost_of(Usage(1), model, provider=self._provider, overrides=self._settings.prices).nanousd is None:
            raise InvalidRequest(
                f"budget_usd cannot be kept: no price is known for {model!r}. Set one (`llmnb prices {model} --input … "
                "--output …`), or use max_turns and time_limit. Nothing was sent."
            )

    def _check_turns(self, calls: Sequence[ToolCall]) -> None:
        """Whether there may be another turn: looked at before its tools run, whose results nobody would read."""
        if len(self._turns) >= self._box.max_turns:
            raise self._limit("max_turns", f"{self._box.max_turns} turns", calls)
        limit, spent = self._box.limit_nanousd, self._spent()
        if limit is None:
            return
        if spent is None:
            raise self._limit("budget_usd", "a price that is not known", calls)
        if self._turns[-1].source == "live":  # after one from the cache the next may come from there, too
            with self._ceiling(calls):
                self._check_next(limit - spent)

    def _spent(self) -> int | None:
        return summed(self._turns).cost.nanousd if self._turns else 0

    def _check_next(self, left_nanousd: int) -> None:
        """Whether the next turn can be paid. What its tools give is not known yet: the pipeline looks again."""
        answer = {"role": "assistant", "content": taken_back(self._turns[-1])}
        body = {**self._plan.arguments, "messages": [*self._messages, *self._said, answer]}
        bound = bound_of(body, None, provider=self._provider, prices=self._settings.prices)
        if bound.rates is not None:  # else the pipeline knows better: another model may be the one that is asked
            ceiling.check(bound, left_nanousd)

    @contextmanager
    def _ceiling(self, pending: Sequence[ToolCall] = ()) -> Generator[None]:
        """Says that the ceiling ended the loop where it ends the call of a turn."""
        try:
            yield
        except BudgetExceeded as error:
            if error.budget != ceiling.CEILING:
                raise
            raise self._limit("budget_usd", _unaffordable(error), pending) from None

    def _check_time(self) -> None:
        deadline = self._deadline()
        if self.reply is None and deadline is not None and time.monotonic() >= deadline:
            raise self._limit("time_limit", self._time_told(), ())

    def _deadline(self) -> float | None:
        return None if self._box.time_limit_s is None else self._began + self._box.time_limit_s

    def _time_told(self) -> str:
        return f"{self._box.time_limit_s:g} s"

    def _limit(self, name: str, told: str, pending: Sequence[ToolCall]) -> ToolLoopLimit:
        known = summed(self._turns) if self._turns else None
        waiting = f" ({', '.join(call.name for call in pending)} asked for and not run)" if pending else ""
        count = len(self._turns)
        return ToolLoopLimit(
            f"the loop with tools came to its limit {name}: {told}, after {count} turn{'' if count == 1 else 's'}"
            f"{waiting}. {_ADVICE if count else 'Nothing was sent.'}",
            limit=name,
            messages=[*self._messages, *self._said],
            replies=tuple(self._turns),
            pending=tuple(pending),
            usage=Usage() if known is None else known.usage,
            cost_usd=None if known is None else known.cost.usd,
        )


def _unaffordable(error: BudgetExceeded) -> str:
    if error.needed is None or error.left is None:
        return "no price is known for the model of the next turn"
    needed, left = dollars(int(error.needed * NANO)), dollars(int(error.left * NANO))
    return f"the next turn can cost up to {needed} (less with a lower max_tokens), and {left} is left"


def _input(given: Any) -> dict[str, object]:
    return given if isinstance(given, dict) else {"input": given}  # pyright: ignore[reportUnknownVariableType]


def _decide(piece: News) -> None:
    if isinstance(piece, Approval):
        piece.answer(views.decide(piece.call))


async def _adecide(piece: News) -> None:
    if isinstance(piece, Approval):
        piece.answer(await asyncio.to_thread(views.decide, piece.call))
