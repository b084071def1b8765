"""How far a run over many rows is: what is said of it, where it is drawn, and how Stop reaches the cell."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from dataclasses import replace
from typing import Any

import pytest

import llmnb
from llmnb.display import control, run_progress
from llmnb.display.run_progress import Pace, progress, said
from llmnb.display.terminal_bar import _Above
from llmnb.interrupts import Cancelled, Stopped
from llmnb.jobs.run import Status
from llmnb.simulator import Simulator


def test_what_is_said() -> None:
    """Rows, dollars so far and in the end, what waits for which limit, how long; in the end, the run's id."""
    status = Status(100, kept=20, done=30, cached=5, failed=2, cost_nanousd=600_000_000, seconds=15, unpriced=1)
    assert said(status).split(" · ") == [
        "50 of 100 rows",
        "20 kept from before",
        "5 from the cache",
        "2 failed",
        "$0.6000, about $1.60 in all and 1 unpriced",
        "2.0 rows/s",
        "25 s left",
    ]
    waits = Status(10, done=1, seconds=1, held=3, held_for="the account's limit of 50 requests a minute")
    assert said(waits).endswith("3 wait for the account's limit of 50 requests a minute")
    assert said(Status(7, done=7, is_counted=False)).startswith("7 rows so far")
    over = said(Status(10, done=4, seconds=7200, is_over=True, held=3), run_id="a3")
    assert over.split(" · ")[-3:] == ["2.0 h", "stopped", "run a3"]


def test_what_is_left_by_the_rate_of_late() -> None:
    """The time that is left goes by the last half minute: before it much was cached, and now a limit holds rows up."""
    pace = Pace()
    for second in range(40):
        rate = pace.at(Status(200, done=100 if second < 5 else 100 + second, seconds=second))
    assert rate == pytest.approx(1.0)
    status = Status(200, done=139, seconds=39)
    assert said(status, rate=rate).split(" · ")[-2:] == ["1.0 rows/s", "61 s left"]
    assert pace.at(replace(status, is_over=True)) == pytest.approx(139 / 39)


def test_what_is_left_once_a_limit_is_met() -> None:
    """The burst before it is over in five seconds, and not in thirty."""
    pace = Pace()
    for second in range(1, 9):
        rate = pace.at(Status(200, done=100 + second, seconds=second, held=9 if second > 1 else 0))
    assert rate == pytest.approx(1.0)


class Tty(io.StringIO):
    """A terminal, as far as can be asked."""

    def isatty(self) -> bool:
        return True


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """tqdm's, with money and limits below; what is printed and logged meanwhile stands above it in whole lines, and in
    the end one sentence is left. A script that writes to a file is quiet."""
    with progress() as told:
        told(Status(3, done=1))
    assert capsys.readouterr().err == ""
    terminal = Tty()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler := logging.StreamHandler(terminal)])
    begun = Status(1000, kept=100, done=20, failed=3, cost_nanousd=10**9, seconds=4, first_error="no way\x1b[2J")
    with progress(run_id="abc") as told, progress() as other:
        other(Status(5, done=1, seconds=1, is_counted=False))
        told(replace(begun, held=8, held_for="the account's limit of 60 requests a minute"))
        handler.stream.write("logged\n")
        print("half a ", end="")
        assert not terminal.getvalue().endswith("half a ")
        print("line")
        shown = terminal.getvalue()
        other(Status(1, done=1, seconds=1, is_counted=False, is_over=True))
        told(Status(1000, kept=100, done=900, failed=3, first_error="no way", seconds=9, is_over=True))
    assert sys.stdout is sys.stderr is handler.stream is terminal
    assert re.search(r"12%\|[█#]\S* +\| 120/1000 \[00:0\d<02:56,  5.00 rows/s\]", shown)
    assert "$1.00, about $45.00 in all · 3 failed · 8 wait for the account's limit" in shown
    assert "1 rows [00:0" in shown
    assert shown.index("first error: no way[2J\n") < shown.index("logged\n") < shown.index("half a line\n")
    end = terminal.getvalue()[len(shown) :]
    assert "1,000 of 1,000 rows · 100 kept from before · 3 failed · $0 · 100.0 rows/s · 9 s · run abc\n" in end
    assert "1 rows so far · $0 · 1.0 rows/s · 1 s\n" in end
    assert "first error" not in end


class Shown:
    """Stands for the output of a cell."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []

    def display(self, bundle: dict[str, Any], **_: Any) -> Shown:
        self.bundles.append(bundle)
        return self

    update = display


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """A notebook's cell, as far as a run's progress is concerned."""
    import IPython.display

    output = Shown()
    monkeypatch.setattr(run_progress, "where", lambda: "jupyter")
    monkeypatch.setattr(IPython.display, "display", output.display)
    return output


@pytest.mark.parametrize("stops", [Stopped, Cancelled])
def test_stop_in_a_notebook(shown: Shown, stops: type[BaseException]) -> None:
    """A click is heard from any thread, and ends the cell at the next word of the run; what is kept has no widget."""
    before = control.known()
    with progress(stops=stops) as told:
        told(Status(3, done=1))
        assert "application/vnd.jupyter.widget-view+json" in shown.bundles[0]
        assert control.known() == before + 1
        control.obey({"stop": list(control._answers)[-1]})
        with pytest.raises(stops) as caught:
            told(Status(3, done=2))
        told(Status(3, done=2, is_over=True))
    assert getattr(caught.value, "by_view", stops is Stopped) == (stops is Stopped)
    assert control.known() == before
    assert set(shown.bundles[-1]) == {"text/plain", "text/html"}
    assert "stopped" in shown.bundles[-1]["text/plain"]


async def test_a_run_that_is_stopped_keeps_its_rows(
    sim: Simulator, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`map` says how many in one line, and that it was this run's own button; so does `amap`."""

    def pressed(self: Any, status: Status, is_last: bool) -> None:
        if status.done and not is_last:
            self._stop()

    monkeypatch.setattr(run_progress._Page, "draw", pressed)
    from llmnb.simulator.answer import Answer

    sim.rule(lambda request: Answer(text="Hi", first_token_s=60 if "slow" in request.prompt else None))
    llm = llmnb.LLM(cache=False)
    with pytest.raises(Cancelled, match=r"1 of 2 rows are answered and kept"):
        await llm.amap(["a", "slow"], "{{ value }}")
    with pytest.raises(Stopped, match=r"2 of 3 rows are answered and kept") as caught:
        await asyncio.to_thread(llm.map, ["a", "b", "slow"], "{{ value }}")
    assert caught.value.by_view
    assert llmnb.runs()["state"].tolist() == ["stopped"]
    assert llmnb.get_run(llmnb.runs()["run_id"][0]).done == 2


def test_lines_that_are_begun_above_a_bar() -> None:
    """A counter that writes over itself is shown when it is flushed, in one place; only its last state is kept; what
    others write stands below it, and what is left has a line of its own in the end."""
    out = io.StringIO()
    one, other = _Above(out, out), _Above(out, out)
    for number in range(3):
        one.write(f"\rrow {number}")
        one.flush()
        one.flush()
    assert out.getvalue() == "row 0\n\x1b[A\r\x1b[Krow 1\n\x1b[A\r\x1b[Krow 2\n"
    out.truncate(out.seek(0))
    one.write(", the last\nnew")
    other.write("between\n")
    one.write("er")
    one.end()
    assert out.getvalue() == "\x1b[A\r\x1b[Krow 2, the last\nbetween\nnewer\n"
    for number in range(1_000):
        one.write(f"row {number}\r")
    assert sum(map(len, one._begun)) < 10


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_terminal_that_is_not_there(sim: Simulator, monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    """As under pythonw, or in a service: rows are asked all the same."""
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else gone)
    assert len(llmnb.LLM().map(["a"], "Say {{ row }}")) == 1
