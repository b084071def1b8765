"""How far a run over many rows is: what is said of it, where it is drawn, and how Stop reaches the cell."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import llmnb
from llmnb.display import control, run_progress
from llmnb.display.run_progress import progress, said
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


def test_a_line_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is written over, and so never wraps but in the end; a script that writes to a file is quiet."""
    with progress() as told:
        told(Status(3, done=1))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    with progress(run_id="abc") as told:
        told(Status(1000, kept=100, done=20, failed=3, cost_nanousd=10**9, seconds=4))
        told(Status(1000, kept=100, done=900, failed=3, first_error="no\nway", seconds=9, is_over=True))
    first, *_, last = capsys.readouterr().err.split("\r\x1b[K")[1:]
    assert len(first) == 39
    assert first.endswith("…")
    assert "run abc\nfirst error: no" in last


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
