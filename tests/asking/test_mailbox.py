"""How events get to the view: together where it is drawn only so often, at once where they cannot wait."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import pytest

from llmnb import interrupts
from llmnb.asking import mailbox
from llmnb.asking.mailbox import Mailbox
from llmnb.display.guard import GuardedView
from llmnb.events import Approval, StreamEvent, Text, ToolCall

LONG_S = 60.0
CALL = ToolCall("1", "search", {})


class Resting:
    """A view that notes what it is shown together, and wants to be left alone for so long after each."""

    def __init__(self, *rests_s: float) -> None:
        self.shown: list[list[StreamEvent]] = []
        self.resting = threading.Event()
        self._rests_s = list(rests_s)

    def open(self, model: str, stop: object) -> None: ...

    def show(self, event: StreamEvent) -> None:
        self.shown.append([event])

    def show_all(self, events: Sequence[StreamEvent]) -> None:
        self.shown.append(list(events))

    def rest_s(self) -> float:
        self.resting.set()
        return self._rests_s.pop(0) if self._rests_s else 0.0

    def close(self, error: BaseException | None = None) -> None: ...


class Plain:
    """A view that knows nothing of resting."""

    def __init__(self) -> None:
        self.shown: list[StreamEvent] = []

    def open(self, model: str, stop: object) -> None: ...

    def show(self, event: StreamEvent) -> None:
        self.shown.append(event)

    def close(self, error: BaseException | None = None) -> None: ...


def of(*events: StreamEvent) -> Mailbox:
    """A mailbox with these, and the end."""
    box = Mailbox()
    for event in events:
        box.put(event)
    box.end()
    return box


@pytest.mark.parametrize("guarded", [False, True])
def test_a_plain_view_is_shown_one_after_another(guarded: bool) -> None:
    """A view that does not gather sees the same events, in their order, until the end."""
    view = Plain()
    of(Text("a"), CALL, Text("b")).show_in(GuardedView(view) if guarded else view)
    assert view.shown == [Text("a"), CALL, Text("b")]


def test_what_is_there_is_shown_together() -> None:
    """All that waits is one list, and nothing is waited for after the end."""
    view = Resting(LONG_S)
    of(Text("a"), Text("b")).show_in(view)
    assert view.shown == [[Text("a"), Text("b")]]


def test_after_a_rest_the_view_is_called_again() -> None:
    """Also when nothing has come: it may have something to draw yet."""
    view = Resting(0.01)
    box = Mailbox()
    box.put(Text("a"))
    showing = threading.Thread(target=box.show_in, args=(view,))
    showing.start()
    while len(view.shown) < 2:
        assert view.resting.wait(20)
    box.end()
    showing.join(20)
    assert view.shown[:2] == [[Text("a")], []]


@pytest.mark.parametrize("last", [CALL, None])
def test_a_tool_and_the_end_cut_a_rest_short(last: ToolCall | None) -> None:
    """Words are left to gather while a view rests; what cannot wait brings them along at once."""
    view = Resting(LONG_S)
    box = Mailbox()
    box.put(Text("a"))
    showing = threading.Thread(target=box.show_in, args=(view,))
    showing.start()
    assert view.resting.wait(20)
    box.put(Text("b"))
    if last:
        box.put(last)
    box.end()
    showing.join(20)
    assert not showing.is_alive()
    assert [event for events in view.shown for event in events] == [Text("a"), Text("b"), *([last] if last else [])]


def test_a_view_that_breaks_is_left_alone() -> None:
    """It is warned of once; the mailbox is emptied all the same."""

    class Broken(Resting):
        def show_all(self, events: Sequence[StreamEvent]) -> None:
            raise ValueError("no page")

    with pytest.warns(RuntimeWarning, match="no page"):
        of(Text("a"), Text("b")).show_in(GuardedView(Broken()))


def test_an_interrupt_is_heard_while_words_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread whose view always rests looks up all the same: its cell may have been interrupted."""
    heard = iter([False, False, True])
    monkeypatch.setattr(interrupts, "of_this_cell", lambda: lambda: next(heard))
    view = Resting(*[0.001] * 9)
    box = Mailbox()
    box.put(Text("a"))
    with pytest.raises(KeyboardInterrupt):
        box.show_in(view)
    assert view.shown == [[Text("a")]]


class Strike:
    """Ctrl-C in the so-manieth line of the mailbox that is reached."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, what: str, arg: object) -> Strike | None:
        if frame.f_code.co_filename != mailbox.__file__:
            return None
        is_handing_over = (
            "show_all(" in (line := linecache.getline(mailbox.__file__, frame.f_lineno)) or "yield" in line
        )
        if what == "line" and not is_handing_over:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_on_any_line_loses_nothing() -> None:
    """What was not shown before it is shown afterwards, in its order; a person is asked nothing any more."""
    before, line, struck = sys.gettrace(), 0, True
    while struck:
        line += 1
        struck = False
        box, view = of(Text("a"), CALL, Text("b")), Resting(0.001, 0.001)
        sys.settrace(Strike(line))
        try:
            box.show_in(view)
        except KeyboardInterrupt:
            struck = True
        finally:
            sys.settrace(before)
        box.put(Text("late"))
        box.put(Approval(CALL, lambda yes: None))
        box.show_rest(view)
        assert [event for events in view.shown for event in events] == [Text("a"), CALL, Text("b"), Text("late")]
    assert line > 10


def test_who_iterates_leaves_nothing_behind() -> None:
    """Only a view that rests is hurried: elsewhere nobody would empty what says so."""
    box = of(*[CALL] * 100)
    assert len(list(box)) == 100
    assert box._hurry.empty()


def test_a_thread_hears_while_its_view_rests_long() -> None:
    """However long the view wants to be left alone, the cell's interrupt ends it."""
    heard = threading.Event()
    interrupted = threading.Event()
    view = Resting(LONG_S)
    box = Mailbox()
    box._interrupted = interrupted.is_set
    box.put(Text("a"))

    def show() -> None:
        with pytest.raises(KeyboardInterrupt):
            box.show_in(view)
        heard.set()

    threading.Thread(target=show, daemon=True).start()
    assert view.resting.wait(20)
    interrupted.set()
    assert heard.wait(20)
