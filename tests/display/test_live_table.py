"""A comparison over many prompts while it goes on: what is drawn of it, what stays, and how it is stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.display import control, live_table, run_widget, side_by_side
from llmnb.display.live_table import LiveTable, in_a_line
from llmnb.interrupts import Stopped
from llmnb.jobs.comparing.sofar import SoFar
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

SONNET, OPUS, HAIKU = "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"
MODELS = [SONNET, OPUS, HAIKU]


class Cell:
    """Stands for a cell of a notebook: the bundles of its output, and the HTML that its widgets were given."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.drawn: list[str] = []
        self.drawn_then: Callable[[str], None] = lambda html: None

    def display(self, bundle: dict[str, Any], **_: Any) -> Cell:
        self.bundles.append(bundle)
        return self

    update = display


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A cell in which every status is drawn."""
    import IPython.display

    made = Cell()
    monkeypatch.setattr(side_by_side, "where", lambda: "jupyter")
    monkeypatch.setattr(live_table, "_EVERY_S", 0.0)
    monkeypatch.setattr(live_table.pace, "LOAD", 0.0)
    monkeypatch.setattr(IPython.display, "display", made.display)
    plain = run_widget.RunWidget.show

    def show(widget: Any, html: str) -> None:
        made.drawn.append(html)
        plain(widget, html)
        made.drawn_then(html)

    monkeypatch.setattr(run_widget.RunWidget, "show", show)
    return made


def says(request: Any) -> Any:
    """The judge likes opus best, and else what it reads first; haiku fails at the row "c"."""
    if "You judge" in request.prompt:
        one = request.prompt.split("<answer_a>")[1].split("</answer_a>")[0]
        two = request.prompt.split("<answer_b>")[1]
        return json.dumps({"reasoning": "why", "winner": "B" if OPUS in two and OPUS not in one else "A"})
    if request.body["model"] == HAIKU and request.prompt.endswith("c"):
        return Fault("status", status=400, message="<b>no</b> $1")
    return f"{request.body['model']} on {request.prompt}"


def test_answers_and_verdicts_come_in(sim: Simulator, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contestant's count, price and tokens, then its wins, and the last rows; in the end the whole comparison
    stands in the widget's place, without it."""
    sim.rule(says)
    seen: list[SoFar] = []
    plain = LiveTable.far

    def far(view: LiveTable, status: Any, judging: bool, so_far: SoFar) -> None:
        seen.append(so_far)
        plain(view, status, judging, so_far)

    monkeypatch.setattr(LiveTable, "far", far)
    known = control.known()
    got = llmnb.compare(list("abcdefgh"), MODELS, judge=SONNET, criteria="good")
    assert "application/vnd.jupyter.widget-view+json" in cell.bundles[0]
    assert control.known() == known
    assert cell.bundles[-1] == got._repr_mimebundle_()
    answered = next(so_far for so_far in reversed(seen) if so_far.judging is None)
    assert [line.status.done for line in answered.lines] == [8, 8, 8]
    assert [line.status.failed for line in answered.lines] == [0, 0, 1]
    assert all(line.output_tokens and line.seconds for line in answered.lines)
    assert len(answered.rows) == 6
    assert {facts["text"] for _, said, _ in answered.rows for facts in said if "text" in facts} <= {
        f"{model} on {letter}" for model in MODELS for letter in "abcdefgh"
    }
    summary = got.summary().loc[MODELS]
    lines = seen[-1].lines
    assert [line.games for line in lines] == list(
        summary[["wins", "ties", "losses"]].itertuples(index=False, name=None)
    )
    assert lines[1].score == summary.loc[OPUS, "score"] == 1
    html = "".join(cell.drawn)
    assert "7 of 8 (1 failed)" in html
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "<b>no" not in html
    assert "judging: " in html
    assert in_a_line(seen[-1]).startswith(f"{SONNET}: 8, score 0.")


def test_a_function_scores_each_answer_once(sim: Simulator, cell: Cell) -> None:
    """While it is shown and in the end together; where it raises, that row has the error."""
    sim.rule(says)
    asked: list[str] = []

    def score(answer: str, row: pd.Series[Any]) -> float:
        asked.append(answer)
        return 1 / (int(row["n"]) - 2)

    frame = pd.DataFrame({"n": [1, 2, 3]})
    got = llmnb.compare(frame, [SONNET, OPUS], template="row {{ n }}", score=score)
    assert sorted(asked) == sorted(f"{model} on row {n}" for model in (SONNET, OPUS) for n in (1, 2, 3))
    assert got.frame()["error"].dropna().tolist() == ["score: ZeroDivisionError: division by zero"] * 2
    assert got.frame()["score"].dropna().tolist() == [-1, -1, 1, 1]
    assert "score so far" in cell.drawn[-1]


async def test_its_stop_button(sim: Simulator, cell: Cell) -> None:
    """It ends the cell in one line, leaves how far it came, and the same call asks what is left."""
    sim.rule(lambda request: Answer(text="Hi", first_token_s=60) if request.prompt == "slow" else says(request))

    def press(html: str) -> None:
        if html.count("2 of 3") == 2:
            control.obey({"stop": list(control._answers)[-1]})

    cell.drawn_then = press
    with pytest.raises(Stopped, match="What was answered by then is kept") as caught:
        await asyncio.to_thread(llmnb.compare, ["a", "b", "slow"], [SONNET, OPUS])
    assert caught.value.by_view
    assert set(cell.bundles[-1]) == {"text/plain", "text/html"}
    assert cell.bundles[-1]["text/plain"].endswith("stopped")
    assert f"{OPUS} on b" in cell.bundles[-1]["text/html"]
    sim.reset()
    sim.rule(says)
    got = await llmnb.acompare(["a", "b", "slow"], [SONNET, OPUS])
    assert got.frame()["answer"].notna().all()
    assert len(sim.requests) == 2
