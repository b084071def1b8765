"""One answer as it grows: its parts in the order they came, what it cost, and how it ended.

Every display draws from an `Answer`, so that live, saved and printed forms say the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeGuard

from llmnb.events import (
    Approval,
    Citation,
    Done,
    Partial,
    Retry,
    StreamEvent,
    Text,
    Thinking,
    Throttled,
    ToolCall,
    ToolResult,
)

# C0 and C1 controls but \t and \n: terminals obey them, browsers drop some of them silently
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """`text` without control characters (a terminal would obey them) and without lone surrogates."""
    if text.isprintable():  # most pieces of an answer: neither has a place in them
        return text
    text = _CONTROLS.sub("", text.replace("\r\n", "\n"))
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


class Prose:
    """A run of text, or of thinking."""

    __slots__ = ("_more", "_text", "ended", "thinking")

    def __init__(self, text: str = "", thinking: bool = False, ended: bool = False) -> None:
        self._text = text
        self._more: list[str] = []  # joined when it is looked at: a long answer is not copied with every word
        self.thinking = thinking
        self.ended = ended

    @property
    def text(self) -> str:
        """All of it so far."""
        if self._more:
            self._text += "".join(self._more)
            self._more.clear()
        return self._text

    def add(self, text: str) -> None:
        """More has come."""
        self._more.append(text)


@dataclass(slots=True)
class Tool:
    """A tool call, and its result once it is there; `asking` while a person is to say whether it may run."""

    call: ToolCall
    result: ToolResult | None = None
    abandoned: bool = False
    asking: bool = False


@dataclass(slots=True)
class Waiting:
    """A wait before another attempt, or for a rate limit; `over` once something came after it."""

    wait: Retry | Throttled
    over: bool = False


Part = Prose | Tool | Waiting


def is_stop(error: BaseException | None) -> bool:
    """Whether `error` is the person's own Stop and not a failure."""
    return error is not None and not isinstance(error, Exception)


def _is_tool(part: Part, call_id: str) -> TypeGuard[Tool]:
    return isinstance(part, Tool) and part.call.id == call_id and part.result is None


@dataclass(slots=True)
class Answer:
    """What is known of one answer; `apply` adds an event, `end` says that nothing comes any more."""

    model: str = ""
    parts: list[Part] = field(default_factory=list[Part])
    done: Done | None = None
    error: BaseException | None = None
    ended: bool = False
    citations: list[Citation] = field(default_factory=list[Citation])

    @property
    def text(self) -> str:
        """The answer's text, without thinking and tools; what stood on two sides of a tool is two paragraphs."""
        text, apart = "", False
        for part in self.parts:
            apart = apart or isinstance(part, Tool)
            if isinstance(part, Prose) and not part.thinking and part.text:
                text += "\n\n" if apart and text and not text.endswith("\n\n") else ""
                text, apart = text + part.text, False
        return text

    @property
    def thinking(self) -> str:
        """The reasoning the model showed."""
        return "".join(part.text for part in self.parts if isinstance(part, Prose) and part.thinking)

    def apply(self, event: StreamEvent) -> None:
        """Add the next event of the stream."""
        match event:
            case Text(text):
                self._prose(clean(text), thinking=False)
            case Thinking(text):
                self._prose(clean(text), thinking=True)
            case Citation():
                self.cite(event)
            case ToolCall():
                self._append(Tool(event))
            case ToolResult():
                self._result(event)
            case Approval(call):
                self.ask(call, True)
            case Retry():
                self._append(Waiting(event))
            case Throttled():
                self._throttled(event)
            case Partial():
                pass  # the JSON it is read from is shown
            case Done():
                self.done = event
                self._end_last()

    def cite(self, citation: Citation) -> None:
        """Add a source, unless it is there already."""
        known = ((other.title, other.url, other.place) for other in self.citations)
        if (citation.title, citation.url, citation.place) not in known:
            self.citations.append(citation)

    def ask(self, call: ToolCall, asking: bool) -> None:
        """A person is to say whether the tool may run, or has said so."""
        for part in self.parts:
            if _is_tool(part, call.id):
                part.asking = asking
                return
        if asking:
            self._append(Tool(call, asking=True))

    def end(self, error: BaseException | None = None) -> None:
        """Nothing comes any more; tools without a result are marked as abandoned."""
        self.ended, self.error = True, error
        self._end_last()
        for part in self.parts:
            if isinstance(part, Tool) and part.result is None:
                part.abandoned, part.asking = True, False

    def _prose(self, text: str, *, thinking: bool) -> None:
        last = self.parts[-1] if self.parts else None
        if isinstance(last, Prose) and last.thinking is thinking:
            last.add(text)
        elif text or thinking:
            self._append(Prose(text, thinking))

    def _result(self, result: ToolResult) -> None:
        for part in self.parts:
            if _is_tool(part, result.id):
                part.result, part.asking = result, False
                return
        self._append(Tool(ToolCall(result.id, result.name, {}), result))

    def _throttled(self, event: Throttled) -> None:
        last = self.parts[-1] if self.parts else None
        if isinstance(last, Waiting) and isinstance(last.wait, Throttled) and not last.over:
            last.wait, last.over = event, event.wait_s <= 0
        elif event.wait_s > 0:
            self._append(Waiting(event))

    def _append(self, part: Part) -> None:
        self._end_last()
        self.parts.append(part)

    def _end_last(self) -> None:
        last = self.parts[-1] if self.parts else None
        if isinstance(last, Prose):
            last.ended = True
        elif isinstance(last, Waiting):
            last.over = True
