"""The live view where there are no widgets: outputs, a new one every few kilobytes so that little is resent."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

from llmnb.display import pace, static, style
from llmnb.display.answer import Answer
from llmnb.display.footer import shortened
from llmnb.display.scene import Scene
from llmnb.events import StreamEvent

FRAME_S = 0.1
OUTPUT_CHARS = 4_000

Bundle = dict[str, str]
Publish = Callable[[Bundle], Callable[[Bundle], Any]]


class HtmlView:
    """A `View` made of HTML outputs; `publish(bundle)` shows a new output and gives the function that updates it."""

    def __init__(self, publish: Publish, clock: Callable[[], float] = time.monotonic) -> None:
        self._publish = publish
        self._clock = clock
        self._answer = Answer()
        self._scene = Scene(self._answer)
        self._updates: list[Callable[[Bundle], Any]] = []
        self._shown = ""
        self._first_section = 0  # of the last output
        self._frame_due = 0.0

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """Show that the question is on its way."""
        self._answer.model = model
        hint = " To stop it, interrupt the kernel." if stop else ""
        self._next_output(f"<p>{escape(shortened(model))} is answering…{hint}</p>")

    def show(self, event: StreamEvent) -> None:
        """Add the event; draw it now, or with a later one."""
        self._answer.apply(event)
        now = self._clock()
        if now >= self._frame_due:
            self._draw()
            self._frame_due = now + max(FRAME_S, pace.LOAD * (self._clock() - now))

    def close(self, error: BaseException | None = None) -> None:
        """Put the whole answer into the first output, and empty those that went on from it."""
        self._answer.end(error)
        first, *others = self._updates or [self._publish({"text/plain": ""})]
        first(static.of(self._answer))
        for update in others:
            update({"text/html": "", "text/plain": ""})

    def _draw(self) -> None:
        sections = self._scene.sections()[self._first_section :]
        fixed = 0
        while fixed < len(sections) and sections[fixed].fixed:
            fixed += 1
        finished = "".join(section.html for section in sections[:fixed])
        if len(finished) > OUTPUT_CHARS:
            self._update(finished)
            self._first_section += fixed
            self._next_output("".join(section.html for section in sections[fixed:]))
        else:
            self._update("".join(section.html for section in sections))

    def _update(self, html: str) -> None:
        if html and html != self._shown:
            self._shown = html
            self._updates[-1](_bundle(html))

    def _next_output(self, html: str) -> None:
        self._shown = html
        self._updates.append(self._publish(_bundle(html)))


def _bundle(html: str) -> Bundle:
    body = f'<div class="llmnb llmnb-answer">{html}</div>'
    return {"text/html": style.tag(style.answer_css(), body) + body, "text/plain": "(an answer on its way)"}
