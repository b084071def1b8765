"""A comparison as it is drawn: in a terminal, without widgets, and as it stays."""

from __future__ import annotations

import io
import re
from decimal import Decimal

import pytest
from rich.console import Console

from llmnb.display import compared
from llmnb.display.answer import Answer
from llmnb.display.columns_terminal import TerminalColumns
from llmnb.display.pareto import named_above, on_front
from llmnb.display.side_by_side import HtmlColumns
from llmnb.events import Done, Text
from llmnb.interrupts import Stopped
from llmnb.records import Usage

HOSTILE = "<img src=x onerror=alert(1)> $a$ </section> [x](javascript:alert(1)) \x1b[2J"
DONE = Done("claude", Usage(input_tokens=3, output_tokens=4), Decimal("0.01"))


def test_the_terminal_prints_each_answer_once() -> None:
    """Panels stand next to each other while the answers come, and are gone in the end."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=70, height=20, color_system=None)
    view = TerminalColumns(console)
    view.open(["one", "two"], ["claude", "gpt"], None)
    view.show(0, Text("first **words**\n\nsecond paragraph\x1b[2J"))
    view.show(1, Text("other words"))
    view.show(0, DONE)
    view.end(0, None)
    assert re.search(r"╭─+ one ─+╮ +╭─+ two ─+╮", out.getvalue())
    view.close(None, Stopped("Stopped."))
    end = out.getvalue().rpartition("\x1b[2K")[2]  # after the panels are wiped away
    assert end.count("second paragraph[2J") == 1
    assert "\x1b[2J" not in out.getvalue()
    assert end.count("stopped") == 1
    assert "3 in · 4 out · $0.01" in end


def test_without_widgets_one_output_is_drawn_again() -> None:
    """It holds all columns, and in the end what stays."""
    drawn: list[dict[str, str]] = []

    def publish(bundle: dict[str, str]) -> object:
        drawn.append(bundle)
        return drawn.append

    view = HtmlColumns(publish)
    view.open(["one", "two"], ["claude", "gpt"], None)
    view.show(0, Text("first words"))
    view.close(None, ValueError("no more"))
    assert "Answer of two" in drawn[0]["text/html"]
    assert "first words" in drawn[-1]["text/html"]
    assert drawn[-1]["text/plain"].count("ValueError: no more") == 2


@pytest.mark.parametrize("kind", ["text/html", "text/markdown"])
def test_what_stays_runs_nothing(kind: str) -> None:
    """Answers and labels are text in every form, and the style sheet is there once."""
    answer = Answer("claude")
    answer.apply(Text(HOSTILE))
    answer.end()
    made = compared.columns([HOSTILE, "two"], [answer, answer])[kind]
    assert "<img" not in made
    assert 'href="javascript' not in made
    assert not re.search(r"(?<!\\)\]\(javascript", made) or kind == "text/html"
    assert "\x1b" not in made
    assert made.count("<style>") == (kind == "text/html")
    assert made.count("</section>") == (2 if kind == "text/html" else 0)


def test_the_front() -> None:
    """On it is whom nobody beats: as good for less, or better for no more. Equals are both on it."""
    assert on_front([1, 2, 2, 3, 1], [0.5, 0.9, 0.9, 0.8, 0.4]) == [True, True, True, False, False]


def test_where_names_stand_in_the_chart() -> None:
    """A name goes to the right, below where the next dearer one is better, and above where it is worse; of two that are
    as good one stands above and one below."""
    assert named_above([3, 1, 2], [0.9, 0.7, 0.8]) == [True, False, False]
    assert named_above([1, 2, 3], [0.9, 0.5, 0.5]) == [True, False, True]
