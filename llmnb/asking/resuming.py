"""Goes on with an answer that broke off: what came is given back to the model, and the two parts become one reply."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from llmnb.errors import IncompleteReply
from llmnb.events import StreamEvent, Text
from llmnb.messages import models
from llmnb.records import Call, Cost, Usage
from llmnb.reply import Figures, Reply
from llmnb.views import View

if TYPE_CHECKING:
    from anthropic.types import Message

    from llmnb.asking.question import Question

Entered: TypeAlias = Callable[[], AbstractContextManager[None]]
"""What an answer that is resumed is asked inside of, such as the turn of a chat."""

GO_ON = (
    "Your answer was cut off by a lost connection. Go on from exactly where it stops: begin with the very next "
    "character, repeat nothing of it, and say nothing about the interruption."
)
"""What a model without prefill (4.6 and later) is told."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What is there to go on with: the question as it was asked first, its text so far, what it used, and its rows."""

    question: Question
    text: str
    usage: Usage
    rows: tuple[Call, ...] = ()

    def ask(self) -> Reply:
        """The whole answer."""
        with self.question.entered():
            return self._next().ask()

    async def aask(self) -> Reply:
        """The async twin of `ask`."""
        with self.question.entered():
            return await self._next().aask()

    @property
    def before(self) -> str:
        """What stands before the text that is asked for now: all that came, or nothing."""
        if self._is_of_no_use:
            return ""
        return self.text.rstrip() if self._takes_prefill else self.text  # the API refuses space at the end of a prefill

    def merged(self, rest: Reply) -> Reply:
        """One reply of both parts: its text is whole, its tokens and dollars are those of both calls."""
        if not self.rows and not self.before:
            return rest
        message: Message = copy.deepcopy(rest.message)
        written = next((block for block in message.content if block.type == "text"), None)
        if written is not None:
            written.text = self.before + written.text

        def figures() -> Figures:
            own = rest.figures
            prices = [*(row.cost_nanousd for row in self.rows), own.cost.nanousd]
            known = [price for price in prices if price is not None]
            cost = Cost(sum(known) if len(known) == len(prices) else None, own.cost.price_id)
            return Figures(self.usage + own.usage, cost, own.call, own.prompt_cache)

        return Reply.of(message, figures, rest.shown_in)

    def _next(self) -> Question:
        question, plan = self.question, self.question.plan
        if self.rows:
            plan = replace(plan, ledger={**plan.ledger, "parent_uid": self.rows[0].parent_uid or self.rows[0].uid})
        messages = [*question.messages, *self._continued()]
        return replace(question, plan=plan, messages=messages, resumes=self)

    def _continued(self) -> Sequence[dict[str, Any]]:
        """The messages to add."""
        if self._is_of_no_use:
            return []
        if self._takes_prefill:
            return [{"role": "assistant", "content": self.before}]
        return [{"role": "assistant", "content": self.text}, {"role": "user", "content": GO_ON}]

    @property
    def _is_of_no_use(self) -> bool:
        """Whether the answer has to be written anew: half of a JSON document or of a tool's input is nothing."""
        arguments = self.question.plan.arguments
        is_json = "format" in arguments.get("output_config", {})
        has_tools = bool(arguments.get("tools")) or self.question.plan.tools is not None
        return not self.text.strip() or is_json or has_tools

    @property
    def _takes_prefill(self) -> bool:
        arguments = self.question.plan.arguments
        thinks = arguments.get("thinking", {}).get("type") in ("enabled", "adaptive")
        # chat completions take what was begun for a whole turn, and begin another
        speaks_messages = self.question.access.endpoint is None
        return speaks_messages and models.facts(arguments["model"]).takes_prefill and not thinks


def resume_by(error: IncompleteReply, question: Question, rows: tuple[Call, ...]) -> None:
    """Lets an answer that broke off be resumed; one that had been resumed before has all of its text again."""
    earlier = question.resumes
    usage = error.usage or Usage()
    if earlier is not None:
        question = earlier.question
        error.partial = earlier.before + error.partial
        usage = earlier.usage + usage
        error.usage, rows = usage, (*earlier.rows, *rows)
    error.resumption = Resumption(question, error.partial, usage, rows)


class Continued:
    """Shows what came before in front of what comes now."""

    def __init__(self, view: View, before: str) -> None:
        self._view, self._before = view, before

    def open(self, model: str, stop: Any) -> None:
        self._view.open(model, stop)
        if self._before:
            self._view.show(Text(self._before))

    def show(self, event: StreamEvent) -> None:
        self._view.show(event)

    def close(self, error: BaseException | None = None) -> None:
        self._view.close(error)
