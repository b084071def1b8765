"""Events on their way from the thread where they come to the one that shows them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from itertools import repeat
from queue import Empty, SimpleQueue
from typing import Any, cast

from llmnb import interrupts
from llmnb.events import Approval, Text, Thinking
from llmnb.views import GatheringView, View

_POLL_S = 0.1
"""How often a waiting thread looks up. A Ctrl-C that comes in the instant before the thread begins to wait does not
wake it, and on Windows none does."""
_PATIENT = (Text, Thinking)
"""What can wait until a view is drawn the next time."""
_END = object()
_get: Callable[[SimpleQueue[Any]], Any] = partial(cast(Any, SimpleQueue).get, timeout=_POLL_S)


class Mailbox:
    """Filled from any thread, emptied by the one that asked; that is interrupted by Ctrl-C while it waits.

    An interrupt may strike on any line: so there are no locks here but those of the queues, which it cannot leave shut.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._found: list[Any] = []  # taken out, and not yet shown
        self._hurry: SimpleQueue[None] = SimpleQueue()  # something has come that cannot wait
        self._gathers = False  # somebody looks into `_hurry`
        self._interrupted = interrupts.of_this_cell()

    def put(self, event: object) -> None:
        """The next event."""
        self._queue.put(event)
        if self._gathers and not isinstance(event, _PATIENT):
            self._hurry.put(None)

    def end(self) -> None:
        """Nothing comes any more."""
        self.put(_END)

    def show_in(self, view: View) -> None:
        """Show all that comes, until the end."""
        if isinstance(view, GatheringView):
            self._gathers = True
            for events in self._gathered(view.rest_s):
                view.show_all(events)
        else:
            for event in self:
                view.show(event)

    def show_rest(self, view: View) -> None:
        """Show what came before an interrupt and was not shown yet; a person is not asked any more."""
        self._take()
        rest = [event for event in self._found if event is not _END and not isinstance(event, Approval)]
        self._found = []
        if isinstance(view, GatheringView):
            view.show_all(rest)
        else:
            for event in rest:
                view.show(event)

    def __iter__(self) -> Generator[Any]:
        while (event := self._next()) is not _END:
            yield event

    def _gathered(self, rest_s: Callable[[], float]) -> Iterator[list[Any]]:
        """All there is, in lists; after each, what can wait is left to gather for as long as `rest_s` says.

        To wake a thread for every word costs more than the words. A list is empty when nothing has come meanwhile.
        """
        wait_s = 0.0
        is_over = False
        while not is_over:
            self._hear()
            _empty(self._hurry)
            if wait_s <= 0:
                self._await()
            self._take()
            events = [event for event in self._found if event is not _END]
            is_over = len(events) < len(self._found)
            self._found = []
            yield events
            if not is_over and (wait_s := rest_s()) > 0:
                self._rest(wait_s)

    def _await(self) -> None:
        """Until something has come."""
        while not self._found:
            self._hear()
            with suppress(Empty):
                self._found.extend(map(_get, (self._queue,)))

    def _take(self) -> None:
        # in one step: what an interrupt finds between the queue and here would be lost
        self._found.extend(map(_get, repeat(self._queue, self._queue.qsize())))

    def _rest(self, wait_s: float) -> None:
        """So long, or until something has come that cannot wait."""
        while wait_s > 0:
            self._hear()
            with suppress(Empty):
                self._hurry.get(timeout=min(wait_s, _POLL_S))
                return
            wait_s -= _POLL_S

    def _hear(self) -> None:
        if self._interrupted():
            raise KeyboardInterrupt

    def _next(self) -> Any:
        while True:
            self._hear()
            with suppress(Empty):
                return _get(self._queue)


def _empty(queue: SimpleQueue[None]) -> None:
    with suppress(Empty):
        while True:
            queue.get_nowait()
