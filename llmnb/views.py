"""How an answer is shown: what a display must be able to do, and the one registry that the display room fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

from llmnb.errors import InvalidRequest
from llmnb.events import Citation, Done, StreamEvent, ToolCall, ToolResult


class View(Protocol):
    """Shows one answer while it comes. Every method is called from the thread that asked, and must not raise."""

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """The question is on its way to `model`; `stop` ends it, and may be called from any thread."""
        ...

    def show(self, event: StreamEvent) -> None:
        """The next event of the stream; the last one is `Done`, unless the call fails."""
        ...

    def close(self, error: BaseException | None = None) -> None:
        """Nothing comes any more; `error` is why, when there was no `Done` to say it."""
        ...


@runtime_checkable
class GatheringView(View, Protocol):
    """One that is drawn only so often: what has come meanwhile is handed to it together."""

    def show_all(self, events: Sequence[StreamEvent]) -> None:
        """The next events of the stream, or none."""
        ...

    def rest_s(self) -> float:
        """In how many seconds `show_all` wants to be called again; 0 or less: when there is something to show."""
        ...


class ViewRegistry:
    """Which displays exist. The display room fills it when `load` runs, on the first question asked of it."""

    def __init__(self) -> None:
        self._choose: Callable[[str | None], View | None] | None = None
        self._bundle: Callable[..., dict[str, str]] | None = None
        self._prompt: Callable[[ToolCall], bool] | None = None
        self._can_prompt: Callable[[], bool] = lambda: False
        self.load: Callable[[], object] | None = lambda: import_module("llmnb.display")

    def fill(
        self,
        choose: Callable[[str | None], View | None],
        bundle: Callable[..., dict[str, str]] | None = None,
        prompt: Callable[[ToolCall], bool] | None = None,
        can_prompt: Callable[[], bool] = lambda: False,
    ) -> None:
        """`choose(name)` gives a new view; None as the name means what fits here, None as the answer means quiet.

        `bundle` draws an answer that is there already, see `bundle`. `prompt` asks a person whether a tool may run,
        where `can_prompt`.
        """
        self._choose = choose
        self._bundle = bundle
        self._prompt = prompt
        self._can_prompt = can_prompt

    def view(self, name: str | None = None) -> View | None:
        """A new view by name, or the one that fits here; None when nothing is to be shown."""
        if self._choose is None and self.load is not None:
            self.load()
        return None if self._choose is None else self._choose(name)

    def bundle(
        self,
        text: str,
        *,
        thinking: str = "",
        done: Done | None = None,
        tools: Sequence[tuple[ToolCall, ToolResult | None]] = (),
        citations: Sequence[Citation] = (),
        error: BaseException | None = None,
        html: bool = True,
    ) -> dict[str, str]:
        """An answer as safe text/html, text/markdown and text/plain, for reprs; only text/plain without a display."""
        if self._bundle is None and self.load is not None:
            self.load()
        if self._bundle is None:
            return {"text/plain": text}
        return self._bundle(
            text, thinking=thinking, done=done, tools=tools, citations=citations, error=error, html=html
        )

    def decide(self, call: ToolCall) -> bool:
        """Whether a person lets a tool run, asked in words and answered at the keyboard."""
        return self._prompt is not None and self._prompt(call)

    def is_somebody_there(self) -> bool:
        """Whether a person can be asked: in a notebook or a terminal."""
        if self._choose is None and self.load is not None:
            self.load()
        return self._can_prompt()

    def check_somebody_there(self) -> None:
        """Refuses `approve=True` where nobody can be asked.

        Raises:
            InvalidRequest: this is no notebook and no terminal.
        """
        if not self.is_somebody_there():
            raise InvalidRequest(
                "approve=True asks a person, and there is none: this is neither a notebook nor a terminal. Give a "
                "function that decides, approve=lambda call: call.name in {…}. Nothing was sent."
            )


views = ViewRegistry()
