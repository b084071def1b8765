"""The meter's life: shown, kept up to date, one at a time, and nothing left of it in the end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipywidgets.widgets import widget as widget_module
from nbclient import NotebookClient

import llmnb
from llmnb.display import meter as meter_room
from llmnb.display.meter import Meter

from .test_gauge import write

WAIT_S = 20


class Shown:
    """Stands for the notebook: what was displayed, and what it was replaced by."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []

    def __call__(self, bundle: dict[str, Any], **_: object) -> Shown:
        self.bundles.append(bundle)
        return self

    update = __call__


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """A notebook with widgets, that is looked at often."""
    shown = Shown()
    monkeypatch.setattr(meter_room, "where", lambda: "jupyter")
    monkeypatch.setattr(meter_room, "_display", lambda: shown)
    monkeypatch.setattr(meter_room, "LOOK_S", 0.01)
    yield shown
    if meter_room._live is not None:
        meter_room._live.close()


def wait(meter: Meter, text: str) -> None:
    """Until the front end shows a text."""
    there = threading.Event()
    widget = meter._widget
    assert widget is not None
    widget.observe(lambda change: there.set() if text in change["new"] else None, "html")
    if text not in widget.html:
        assert there.wait(WAIT_S)


def widgets() -> int:
    return len(widget_module._instances)


def test_it_follows_the_ledger(notebook: Shown) -> None:
    """Every call on the books shows within a moment, whoever made it; the first look is shown at once."""
    write()
    meter = llmnb.meter(project="thesis")
    meter._ipython_display_()
    (first,) = notebook.bundles
    assert set(first) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert "0.0040" in first["text/plain"]
    write()
    wait(meter, "0.0080")
    write(session="elsewhere:1:2:abcd")
    wait(meter, "0.0120")
    llmnb.set_budget(usd=5, per="day")
    wait(meter, "5.00 a day")


def test_it_is_read_anew_now_and_then(notebook: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days end without anything being written."""
    monkeypatch.setattr(meter_room, "FRESH_S", 0.05)
    meter = llmnb.meter()
    meter._ipython_display_()
    before = meter.gauge
    while meter.gauge is before:
        pass
    assert meter.gauge == before


def test_closing_leaves_what_it_says_and_frees_the_rest(notebook: Shown) -> None:
    """The output holds HTML that needs no kernel; no widget, no thread's work and no reference is left."""
    before = widgets()
    meter = llmnb.meter()
    meter._ipython_display_()
    assert widgets() > before
    write()
    meter.close()
    assert not meter.is_live
    kept = notebook.bundles[-1]
    assert set(kept) == {"text/html", "text/markdown", "text/plain"}
    assert all("0.0040" in text for text in kept.values())
    assert kept["text/html"].count("<style>") == 1
    assert widgets() == before
    meter.close()  # again: nothing happens
    assert len(notebook.bundles) == 2
    gone = weakref.ref(meter)
    del meter
    for _ in range(200):
        gc.collect()
        if gone() is None:
            break
        threading.Event().wait(0.02)  # the alarm may be about to look once more
    assert gone() is None


def test_one_is_live_at_a_time(notebook: Shown) -> None:
    """Showing another leaves the first as it is."""
    first, second = llmnb.meter(), llmnb.meter()
    first._ipython_display_()
    second._ipython_display_()
    assert (first.is_live, second.is_live) == (False, True)
    assert "text/html" in notebook.bundles[1]
    second._ipython_display_()
    assert second.is_live


def test_a_front_end_writes_nothing(notebook: Shown) -> None:
    """What it shows is the kernel's to say."""
    meter = llmnb.meter()
    meter._ipython_display_()
    assert meter._widget is not None
    before = meter._widget.html
    meter._widget.set_state({"html": "<script>alert(1)</script>"})
    assert meter._widget.html == before


def test_what_it_does_not_know_is_refused() -> None:
    """A misspelled argument is an error."""
    with pytest.raises(TypeError, match="cots"):
        llmnb.meter(cots=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="cots"):
        Meter(cots=3)  # pyright: ignore[reportCallIssue]


def test_a_meter_that_cannot_be_drawn_goes_quiet(notebook: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end is gone, say: nothing is raised where nobody could catch it."""
    meter = llmnb.meter()
    meter._ipython_display_()
    assert meter._widget is not None
    monkeypatch.setattr(meter._widget, "show", lambda html: 1 / 0)
    write()
    while meter.is_live:
        pass


def test_in_a_script_it_is_text() -> None:
    """And made without any widget."""
    write()
    meter = llmnb.meter(project="thesis")
    assert repr(meter).splitlines()[0].split() == ["calls", "tokens", "in", "tokens", "out", "cost"]
    with pytest.raises(NotImplementedError):
        meter._ipython_display_()
    write()
    meter.refresh()
    assert "0.0080" in repr(meter)


def test_the_setting_says_that_nothing_shall_be_live(notebook: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMNB_DISPLAY=static shows what is so now, once."""
    monkeypatch.setenv("LLMNB_DISPLAY", "static")
    meter = llmnb.meter()
    meter._ipython_display_()
    assert not meter.is_live
    assert set(notebook.bundles[0]) == {"text/html", "text/markdown", "text/plain"}


CELL = """
import sys
import llmnb
from llmnb.budgeting import set_budget
set_budget(usd=5, per="total")
llmnb.meter(project="thesis")
"""


def test_a_headless_run_keeps_markdown_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nbclient leaves in the file; no widget was made for it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = [nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("print('anywidget' in sys.modules)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60).execute()
    (shown,) = notebook.cells[0].outputs
    assert set(shown.data) == {"text/markdown", "text/plain"}
    assert "\\$0.00 of \\$5.00 in total" in shown.data["text/markdown"]
    assert notebook.cells[1].outputs[0].text == "False\n"
