"""`Told`: a question that is streamed while somebody listens, so that the time to the first token is known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from llmnb.asking.question import Question
from llmnb.events import StreamEvent
from llmnb.reply import Reply


def nobody(event: StreamEvent) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Told(Question):
    """A question of a comparison: `tell` hears every event of its answer, `ends` has the reply.

    A value of a type is asked for several times where it does not fit, and each is heard.
    """

    tell: Callable[[StreamEvent], None] = nobody
    ends: Callable[[Reply], None] | None = None

    async def aask(self) -> Reply:
        """The reply."""
        replies: list[Reply] = []
        async with aclosing(replace(self, on_reply=replies.append).astream()) as events:
            async for event in events:
                self.tell(event)
        if self.ends is not None:
            self.ends(replies[0])
        return replies[0]

    def _failed(self, exchange: Any, error: BaseException) -> None:
        """One that was stopped tells what it had used, as far as the books know."""
        Question._failed(self, exchange, error)
        partial = exchange.partial() if not isinstance(error, Exception) else None
        if partial is not None:
            self.tell(partial.done())
