"""Answers that come at once to one terminal."""

from __future__ import annotations

import io
import threading
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from llmnb.display.terminal import PrintView
from llmnb.display.turns import InTurn
from llmnb.events import Done, Text
from llmnb.records import Usage

DONE = Done("claude", Usage(), Decimal(0))


@given(st.lists(st.integers(0, 3), max_size=40))
def test_answers_do_not_mix(order: list[int]) -> None:
    """In whatever order the pieces of four answers come, each answer is printed whole, in the order they began."""
    out = io.StringIO()
    views = [InTurn(PrintView(out)) for _ in range(4)]
    for view in views:
        view.open("claude", None)
    for number in order:
        views[number].show(Text(f"{number}."))
    assert out.getvalue() == "0." * order.count(0)  # the first one comes live
    for number in reversed(range(4)):
        views[number].close()
    wanted = [f"{number}." * order.count(number) for number in range(4)]
    assert [line for line in out.getvalue().splitlines() if line != "claude"] == [line for line in wanted if line]
    assert out.getvalue().count("claude") == 4


def test_the_next_one_goes_on_live() -> None:
    """When an answer ends, what the next one has so far is drawn at once, and then what comes."""
    out = io.StringIO()
    first, second = InTurn(PrintView(out)), InTurn(PrintView(out))
    first.open("claude", None)
    second.open("claude", None)
    second.show(Text("held "))
    assert out.getvalue() == ""
    first.close()
    assert out.getvalue() == "claude\nheld "
    second.show(Text("live"))
    assert out.getvalue() == "claude\nheld live"
    second.close()


def test_from_many_threads() -> None:
    """Threads that all draw at once neither mix nor wait for each other for ever."""
    out = io.StringIO()

    def ask(number: int) -> None:
        view = InTurn(PrintView(out))
        view.open("claude", None)
        for _ in range(50):
            view.show(Text(f"{number}."))
        view.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    lines = [line for line in out.getvalue().splitlines() if line != "claude"]
    assert sorted(lines) == [f"{number}." * 50 for number in range(8)]


class Interrupted(PrintView):
    """A view in whose end Ctrl-C is pressed."""

    def close(self, error: BaseException | None = None) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_at_the_end_lets_the_next_one_on() -> None:
    """A turn ends with its answer, also when drawing the end was interrupted or failed."""
    out = io.StringIO()
    first, second = InTurn(Interrupted(out)), InTurn(PrintView(out))
    first.open("claude", None)
    second.open("claude", None)
    second.show(Text("on"))
    try:
        first.close()
    except KeyboardInterrupt:
        out.write("interrupted\n")
    second.close()
    assert out.getvalue() == "oninterrupted\n\nclaude\n"
