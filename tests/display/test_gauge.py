"""What the meter says: exact sums of the ledger, safe to show, in three forms."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from llmnb import origin
from llmnb.budgeting import set_budget
from llmnb.display import gauge
from llmnb.ledger import open_ledger
from llmnb.records import Call
from llmnb.settings import load


def write(**changes: Any) -> None:
    """Puts a call on the books that read 1,000 tokens, wrote 200, and cost $0.004."""
    usual: dict[str, Any] = {
        "uid": f"call-{time.monotonic_ns()}", "ts": time.time_ns() // 1000, "model_requested": "claude-sonnet-5-5",
        "session": origin.session(), "project": "thesis", "status": "ok", "input_tokens": 600,
        "cache_read_tokens": 400, "output_tokens": 200, "cost_nanousd": 4_000_000,
    }  # fmt: skip
    open_ledger().write(Call(**{**usual, **changes}))


def read(project: str | None = "thesis") -> gauge.Gauge:
    return gauge.read(load(), project)


def test_nothing_yet() -> None:
    """A new home has no ledger, and gets none by being looked at."""
    assert [line.cells for line in read().lines] == [
        ("this kernel", "0", "0", "0", "$0"),
        ("project thesis", "0", "0", "0", "$0"),
        ("today, everywhere", "0", "0", "0", "$0"),
    ]
    assert not load().ledger_path.exists()


def test_kernel_project_and_day_are_summed_each_on_its_own() -> None:
    """Calls of other kernels, other projects and other days count where they belong."""
    write()
    write(project="other")
    write(session="elsewhere:1:2:abcd")
    write(session="elsewhere:1:2:abcd", ts=time.time_ns() // 1000 - 90 * 24 * 3_600_000_000)
    assert [line.cells for line in read().lines] == [
        ("this kernel", "2", "2,000", "400", "$0.0080"),
        ("project thesis", "3", "3,000", "600", "$0.0120"),
        ("today, everywhere", "3", "3,000", "600", "$0.0120"),
    ]
    assert [line.what for line in read(None).lines] == ["this kernel", "today, everywhere"]


def test_what_is_not_known_is_said() -> None:
    """Unpriced is not $0, and an estimate is marked."""
    write(cost_nanousd=None)
    assert read().lines[0].cost == "unpriced"
    write(estimated=True)
    assert read().lines[0].cost == "≈ $0.0040 + 1 unpriced"


def test_budgets_that_calls_of_this_kernel_count_for_are_shown() -> None:
    """Those of other projects and people are not; of one model it is not known."""
    write()
    for scope in ({}, {"project": "thesis"}, {"project": "other"}, {"user": "somebody"}, {"model": "claude-opus-*"}):
        set_budget(usd="0.01", per="day", **scope)
    assert [str(status.budget) for status in read().budgets] == [
        "$0.01 a day",
        "$0.01 a day for project 'thesis'",
        "$0.01 a day for model 'claude-opus-*'",
    ]
    page = gauge.html(read())
    assert page.count('aria-label="40 % spent"') == 2
    assert "width:40.00%" in page
    assert "llmnb-low" in page
    write()
    assert "llmnb-high" in gauge.html(read())
    assert "$0.008 of $0.01 a day, begins anew in" in gauge.plain(read())


def test_a_bar_is_never_longer_than_its_frame() -> None:
    """More than everything is everything; a budget of nothing is used up."""
    write()
    set_budget(usd="0.001", per="total")
    set_budget(tokens=0, per="total")
    page = gauge.html(read())
    assert page.count("width:100.00%") == 2
    assert page.count("llmnb-full") == 2


HOSTILE = "<img src=x onerror=alert(1)>|`$x$`\n# *a*"


@pytest.mark.parametrize("make", [gauge.html, gauge.markdown, gauge.plain])
def test_names_are_text_and_nothing_else(make: Any) -> None:
    """A project may be called anything; nothing of it is run, typeset or taken for a table."""
    write(project=HOSTILE)
    set_budget(usd=5, per="day", project=HOSTILE)
    shown = make(read(HOSTILE))
    if make is gauge.html:
        assert "<img" not in shown
        assert "$" not in shown.replace("<span>$</span>", "")
    if make is gauge.markdown:
        assert "<img" not in shown.replace("\\<img", "")
        assert "$" not in shown.replace("\\$", "")
        assert all(line.count("|") - line.count("\\|") == 6 for line in shown.split("\n\n")[0].splitlines())


def test_a_ledger_in_trouble_is_said(llmnb_home: Path) -> None:
    """And raises nothing: the meter is read in the background."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").mkdir()
    found = read()
    assert "cannot be used" in found.trouble
    assert "cannot be used" in gauge.html(found)
    assert "cannot be used" in gauge.markdown(found)
    assert "cannot be used" in gauge.plain(found)
