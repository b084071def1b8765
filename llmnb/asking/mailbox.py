"""Events on their way from the thread where they come to the one that shows them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from llmnb import interrupts
from llmnb.events import Text, Thinking
from llmnb.views import GatheringView, View

_POLL_S = 0.1
"""How often a waiting thread looks up. A Ctrl-C that comes in the instant before the thread begins to wait does not
wake it, and on Windows none does."""
_PATIENT = (Text, Thinking)
"""What can wait until a view is drawn the next time."""
_END = object()


class Mailbox:
    """Filled from any thread, emptied by the one that asked; that is interrupted by Ctrl-C while it waits.

    An interrupt may strike on any line: so there are no locks here but those of the queues, which it cannot leave shut.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._hurry: SimpleQueue[None] = SimpleQueue()  # something has come that cannot wait
        self._interrupted = interrupts.of_this_cell()

    def put(self, event: object) -> None:
        """The next event."""
        self._queue.put(event)
        if not isinstance(event, _PATIENT):
            self._hurry.put(None)

    def end(self) -> None:
        """Nothing comes any more."""
        self.put(_END)

    def show_in(self, view: View) -> None:
        """Show all that comes, until the end."""
        if isinstance(view, GatheringView):
            for events in self._gathered(view.rest_s):
                view.show_all(events)
        else:
            for event in self:
                view.show(event)

    def __iter__(self) -> Generator[Any]:
        while (event := self._next()) is not _END:
            yield event

    def _gathered(self, rest_s: Callable[[], float]) -> Iterator[list[Any]]:
        """All there is, in lists; after each, what can wait is left to gather for as long as `rest_s` says.

        To wake a thread for every word costs more than the words. A list is empty when nothing has come meanwhile.
        """
        found: list[Any] = []
        wait_s = 0.0
        while _END not in found[-1:]:
            self._hear()
            _empty(self._hurry)
            found = [] if wait_s > 0 else [self._next()]
            while _END not in found[-1:] and not self._queue.empty():
                found.append(self._queue.get_nowait())
            yield [event for event in found if event is not _END]
            if (wait_s := rest_s()) > 0 and _END not in found[-1:]:
                with suppress(Empty):
                    self._hurry.get(timeout=wait_s)

    def _hear(self) -> None:
        if self._interrupted():
            raise KeyboardInterrupt

    def _next(self) -> Any:
        while True:
            self._hear()
            try:
                return self._queue.get(timeout=_POLL_S)
            except Empty:
                continue


def _empty(queue: SimpleQueue[None]) -> None:
    with suppress(Empty):
        while True:
            queue.get_nowait()
