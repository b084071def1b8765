"""A display must never break a call: what goes wrong in a view is said once, and the view goes quiet."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence

from llmnb.events import Approval, StreamEvent
from llmnb.views import GatheringView, View


class GuardedView:
    """`view`, but no method raises an `Exception` (a KeyboardInterrupt goes through: it is the person's Stop)."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._gathering = view if isinstance(view, GatheringView) else None
        self._broken = False

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """See `View.open`."""
        self._try(lambda: self.view.open(model, stop))

    def show(self, event: StreamEvent) -> None:
        """See `View.show`."""
        if isinstance(event, Approval):
            self._ask(event)
        elif not self._broken:
            try:  # not by a function: this is done for every word of an answer
                self.view.show(event)
            except Exception as failure:
                self._fail(failure)

    def show_all(self, events: Sequence[StreamEvent]) -> None:
        """See `GatheringView.show_all`."""
        gathering = self._gathering
        if gathering is None or any(isinstance(event, Approval) for event in events):
            for event in events:
                self.show(event)
        elif not self._broken:
            try:
                gathering.show_all(events)
            except Exception as failure:
                self._fail(failure)

    def rest_s(self) -> float:
        """See `GatheringView.rest_s`."""
        return 0.0 if self._gathering is None or self._broken else self._gathering.rest_s()

    def close(self, error: BaseException | None = None) -> None:
        """See `View.close`; tried even when the view failed before, so that nothing stays open."""
        self._try(lambda: self.view.close(error))

    def _ask(self, event: Approval) -> None:
        """Somebody has to answer: the tool waits for it."""
        if getattr(self.view, "asks", False) and not self._broken:
            self._try(lambda: self.view.show(event))
            if not self._broken:
                return
        from llmnb.display import prompt  # brings the Markdown parser along

        try:
            yes = prompt.ask(event.call)
        except Exception as failure:
            yes = False
            warn(failure)
        event.answer(yes)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as failure:
            self._fail(failure)

    def _fail(self, failure: Exception) -> None:
        if not self._broken:
            self._broken = True
            warn(failure)


def warn(failure: Exception) -> None:
    """Says what went wrong; the answer is not lost."""
    """Says what went wrong; the answer is not lost."""
    message = (
        f"the answer cannot be shown ({type(failure).__name__}: {failure}); the call goes on, and its reply is whole"
    )
    with contextlib.suppress(Exception):  # warnings may be errors
        warnings.warn(message, RuntimeWarning, stacklevel=5)
