"""`llm.extract()`: asks for a value of a type, checks what comes, and has it put right when it does not fit.

Models from 4.5 on are held to the schema by the API's structured output. Older ones, and types that it cannot express,
get a tool whose input is the value. Either way every attempt is a call like any other: cached, budgeted, on the books.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmnb.asking.content import taken_back
from llmnb.asking.params import Plan
from llmnb.asking.question import Question
from llmnb.asking.shape import Misfit, Shape
from llmnb.errors import ExtractionFailed, InvalidRequest
from llmnb.events import Done, Partial, StreamEvent, Text, ToolCall
from llmnb.messages import models
from llmnb.messages.accumulate import ToolInput
from llmnb.plain_numbers import count
from llmnb.views import View

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.reply import Reply

_GROWTH = 32
"""A partial answer is read again when it has grown by a 32nd: a long one some hundred times, and not once a piece."""

T = TypeVar("T")


class Rows(list[T]):
    """The items of an extracted list: a list, with `to_frame()`."""

    def __init__(self, items: Iterable[T], columns: Sequence[str] = ()) -> None:
        super().__init__(items)
        self._columns = list(columns)

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with one row an item and one column a field, in the order of the type's fields.

        Nested values stay as dicts and lists, and enums are told by their values, so that the frame can be saved. Items
        that are no objects stand in the column "value".
        """
        import pandas as pd

        records = [fields_of(item) for item in self]
        extra = dict.fromkeys(name for record in records for name in record if name not in self._columns)
        return pd.DataFrame.from_records(records, columns=[*self._columns, *extra])  # pyright: ignore[reportUnknownMemberType]


def _takes_schema(question: Question) -> bool:
    """Whether the model can be held to a schema by whoever serves it."""
    model, endpoint = question.plan.model, question.access.endpoint
    return models.facts(model).takes_output_format if endpoint is None else endpoint.takes_schema(model)


def fields_of(item: object) -> dict[str, Any]:
    """The fields of a value, by name, as they stand in a frame."""
    return {name: _plain(value) for name, value in _record(item).items()}


def _record(item: object) -> dict[str, Any]:
    if isinstance(item, dict):
        return cast("dict[str, Any]", item)
    if hasattr(item, "model_dump"):
        return cast("Any", item).model_dump()
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return dataclasses.asdict(item)
    return {"value": item}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


class Extraction:
    """One value on its way: `question` is what to ask next, until `heard` says that the value is there."""

    def __init__(
        self,
        question: Question,
        shape: Shape,
        retries: int,
        attempts: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`attempts` were made before, elsewhere, and are none of the `retries`."""
        self.value: Any = None
        self.by_tool = shape.strict is None or not _takes_schema(question)
        self._shape = shape
        self._left = count(retries, "retries", 0)
        self._attempts = attempts
        time_limit_s = None if question.plan.tools is None else question.plan.tools.time_limit_s
        self._clock = clock
        self._ends_at = None if time_limit_s is None else clock() + time_limit_s
        plan = _by_tool(question.plan, shape) if self.by_tool else _by_format(question.plan, shape)
        self.question = dataclasses.replace(question, plan=plan, shown_as=None if self.by_tool else Fenced)

    def heard(self, reply: Reply) -> bool:
        """Whether the answer holds the value; if not, `question` asks for a better one.

        Raises:
            ExtractionFailed: it does not, and asking again is of no use, or has been done `retries` times.
        """
        self._attempts += 1
        if reply.refused:
            raise self._failed(reply, (), "the model refused to answer")
        try:
            self.value = self.read(reply)
        except Misfit as misfit:
            if reply.truncated:
                why = f"the answer was cut off ({reply.stop_reason}): give it more max_tokens, or ask for less"
                raise self._failed(reply, misfit.errors, why) from None
            if not self._left:
                raise self._failed(reply, misfit.errors, "the answer does not fit") from None
            self._left -= 1
            self.question = dataclasses.replace(
                self.question,
                plan=_less(self.question.plan, reply, None if self._ends_at is None else self._ends_at - self._clock()),
                messages=[*self.question.messages, *self._objection(reply, misfit)],
            )
            return False
        return True

    def read(self, reply: Reply) -> Any:
        """The value in the answer.

        Raises:
            Misfit: there is none.
        """
        calls = [block for block in reply.message.content if block.type == "tool_use"]
        said = next((block.input for block in calls if block.name == self._shape.name), None)
        value = self._shape.read(reply.text) if said is None else self._shape.take(said)
        return Rows(cast("list[Any]", value), self._shape.item_fields) if isinstance(value, list) else value

    def so_far(self, text: str) -> Any:
        """What the beginning of the answer says, as plain JSON values."""
        return self._shape.so_far(text)

    def failed(self, reply: Reply) -> ExtractionFailed | None:
        """Why the answer holds no value, where nobody asks again."""
        self._left = 0
        try:
            self.heard(reply)
        except ExtractionFailed as error:
            return error
        return None

    def _failed(self, reply: Reply, errors: tuple[str, ...], why: str) -> ExtractionFailed:
        asked = f"after {self._attempts} attempts" if self._attempts > 1 else "at the first attempt"
        told = "".join(f"\n  {error}" for error in errors)
        return ExtractionFailed(
            f"no {self._shape.name} could be extracted, {asked}: {why}.{told}\n"
            "The last answer is in `.text`, what was wrong with it in `.errors`.",
            text=reply.text or _tool_input(reply),
            errors=errors,
            attempts=self._attempts,
        )

    def _objection(self, reply: Reply, misfit: Misfit) -> list[dict[str, Any]]:
        """The answer and what is wrong with it, as the next two messages."""
        wrong = "This does not fit what was asked for:\n" + "\n".join(misfit.errors) + "\nGive the whole answer again."
        answer = taken_back(reply)
        calls = [block["id"] for block in answer if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": uid, "content": wrong, "is_error": True} for uid in calls]
        objection = {"role": "user", "content": results or wrong}
        said = [{"role": "assistant", "content": answer}] if answer else []
        return [*reply.between, *said, objection]


def _less(plan: Plan, reply: Reply, left_s: float | None) -> Plan:
    """The plan with what an attempt took taken off the ceilings of dollars and time: all attempts share them."""
    spent, box, left = reply.cost.nanousd or 0, plan.tools, plan.ledger.get("ceiling_nanousd")
    if box is None:
        ledger = plan.ledger if left is None else {**plan.ledger, "ceiling_nanousd": left - spent}
        return dataclasses.replace(plan, ledger=ledger)
    limit = None if box.limit_nanousd is None else max(0, box.limit_nanousd - spent)
    time_s = None if left_s is None else max(0.0, left_s)
    return dataclasses.replace(plan, tools=dataclasses.replace(box, limit_nanousd=limit, time_limit_s=time_s))


def _by_format(plan: Plan, shape: Shape) -> Plan:
    config = {**plan.arguments.get("output_config", {}), "format": {"type": "json_schema", "schema": shape.strict}}
    return dataclasses.replace(plan, arguments={**plan.arguments, "output_config": config})


def _by_tool(plan: Plan, shape: Shape) -> Plan:
    tool = {
        "name": shape.name,
        "description": "Takes the answer. Answer by calling this tool, once, with the whole answer, and nothing else.",
        "input_schema": shape.schema,
    }
    if plan.tools is not None:  # the model calls the others first, as it likes
        if shape.name in plan.tools.tools:
            raise InvalidRequest(f"the type and a tool are both called {shape.name!r}: rename one. Nothing was sent.")
        listed = [*plan.arguments["tools"], tool]
        others = dataclasses.replace(plan.tools, final=shape.name)
        return dataclasses.replace(plan, arguments={**plan.arguments, "tools": listed}, tools=others)
    # a model that was asked to think cannot be made to call a tool
    thinks = plan.arguments.get("thinking", {}).get("type") in ("enabled", "adaptive")
    choice = {"type": "auto"} if thinks else {"type": "tool", "name": shape.name, "disable_parallel_tool_use": True}
    return dataclasses.replace(plan, arguments={**plan.arguments, "tools": [tool], "tool_choice": choice})


def _tool_input(reply: Reply) -> str:
    import json

    found = next((block.input for block in reply.message.content if block.type == "tool_use"), None)
    return "" if found is None else json.dumps(found, ensure_ascii=False)


# Asking ---------------------------------------------------------------------------------------------------------------


def extract(question: Question, into: Any, retries: int) -> Any:
    """A value of the type `into`."""
    extraction = Extraction(question, Shape.of(into), retries)
    while not extraction.heard(extraction.question.ask()):
        pass
    return extraction.value


async def aextract(question: Question, into: Any, retries: int) -> Any:
    """The async twin of `extract`."""
    extraction = Extraction(question, Shape.of(into), retries)
    while not extraction.heard(await extraction.question.aask()):
        pass
    return extraction.value


def stream(question: Question, into: Any) -> Generator[StreamEvent, None, Reply]:
    """The events of an answer with `Partial` in the place of its text; its value is the reply."""
    growing = Growing(Extraction(question, Shape.of(into), 0))
    reply = yield from growing.through(growing.question.stream())
    return reply


async def astream(question: Question, into: Any) -> AsyncGenerator[StreamEvent]:
    """The async twin of `stream`."""
    growing = Growing(Extraction(question, Shape.of(into), 0))
    async with aclosing(growing.question.astream()) as events:
        async for event in events:
            for told in growing.told(event):
                yield told


class Growing:
    """Turns the pieces of a streamed answer into the value so far."""

    def __init__(self, extraction: Extraction) -> None:
        self._reply: Reply | None = None
        self._extraction = extraction
        self._text = ""
        self._read_chars = 0
        self._last: Any = None
        question = extraction.question
        # among other tools nobody knows whose input is coming: then the value comes whole
        tells_input = extraction.by_tool and question.plan.tools is None
        self.question = dataclasses.replace(question, on_reply=self._keep, tells_input=tells_input)

    def through(self, events: Generator[StreamEvent, None, Reply]) -> Generator[StreamEvent, None, Reply]:
        """The events to tell, for those that came."""
        for event in events:
            yield from self.told(event)
        assert self._reply is not None
        return self._reply

    def told(self, event: StreamEvent) -> Generator[StreamEvent]:
        """What to tell for an event of the answer.

        Raises:
            ExtractionFailed: that was the end, and the answer holds no value.
        """
        if isinstance(event, Text):
            if isinstance(event, ToolInput) == self._extraction.by_tool:
                self._text += event.text
                yield from self._grown()
            return
        if isinstance(event, ToolCall):
            self._text, self._read_chars = "", 0  # what was said before a tool is asked is not the value
        if isinstance(event, Done):
            assert self._reply is not None
            error = self._extraction.failed(self._reply)
            if error is not None:
                raise error
            yield Partial(self._extraction.value, is_complete=True)
        yield event

    def _grown(self) -> Generator[StreamEvent]:
        if len(self._text) - self._read_chars <= self._read_chars // _GROWTH:
            return
        self._read_chars = len(self._text)
        value = self._extraction.so_far(self._text)
        if value is not None and value != self._last:
            self._last = value
            yield Partial(value)

    def _keep(self, reply: Reply) -> None:
        self._reply = reply


# Showing --------------------------------------------------------------------------------------------------------------


class Fenced:
    """Shows an answer that is JSON as what it is: code. What is said before a tool is asked is text."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._is_open = self._is_said = False

    def open(self, model: str, stop: Any) -> None:
        self._view.open(model, stop)

    def show(self, event: StreamEvent) -> None:
        if isinstance(event, Text) and not self._is_said and event.text.strip():
            self._is_said = True
            self._is_open = event.text.lstrip().startswith("{")
            if self._is_open:
                self._view.show(Text("```json\n"))
        elif isinstance(event, (Done, ToolCall)):
            self._end()
        self._view.show(event)

    def close(self, error: BaseException | None = None) -> None:
        self._end()
        self._view.close(error)

    def _end(self) -> None:
        self._is_said = False
        if self._is_open:
            self._is_open = False
            self._view.show(Text("\n```\n"))
