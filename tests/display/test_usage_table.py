"""`show_usage()`: the figures of `usage()`, with their course, safe to show, in three forms."""

from __future__ import annotations

import io
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

import llmnb
from llmnb.display import usage_table
from llmnb.display.usage_table import blocks, html, markdown, plain, table
from llmnb.errors import InvalidRequest

from .test_gauge import write
from .test_hostile import CORPUS

DAY_US = 86_400_000_000
NOW_US = 1_795_608_000_000_000
"""2026-11-25 12:00 UTC."""


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days are cut in UTC, and it is noon."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    monkeypatch.setattr(time, "time_ns", lambda: NOW_US * 1000)


def shown(since: Any = "2026-11-19", until: Any = None, by: Any = ("model",), **where: Any) -> usage_table.Table:
    return table(since, until, by, where=where or None)


def days(*costs: int | None, **changes: Any) -> None:
    """A call a day with these costs in nano-dollars, the last one today."""
    for ago, cost in enumerate(reversed(costs)):
        write(ts=NOW_US - ago * DAY_US, cost_nanousd=cost, model="claude-sonnet-5-5", **changes)


def test_each_group_with_its_course() -> None:
    """A row a group, the most expensive first, its cost day by day, and the total below."""
    days(1_000_000, 0, 4_000_000)
    days(9_000_000, project="other")
    found = shown(by=["project"])
    assert [line.names for line in found.lines] == [("other",), ("thesis",)]
    assert found.lines[1].course == [0, 0, 0, 0, 1_000_000, 0, 4_000_000]
    assert found.total.course == [0, 0, 0, 0, 1_000_000, 0, 13_000_000]
    assert plain(found).splitlines() == [
        "19 Nov 2026 – 25 Nov 2026 · UTC",
        "project  calls  tokens in  of it cached  tokens out     cost  per day",
        "other        1      1,000           400         200  $0.0090        █",
        "thesis       3      3,000         1,200         600  $0.0050      ▃ █",
        "total        4      4,000         1,600         800  $0.0140      ▁ █",
    ]


@pytest.mark.parametrize(
    ("since", "step", "bars"), [("24h", "hour", 24), ("7d", "day", 8), ("2026-06-01", "week", 26), (None, "month", 26)]
)
def test_the_course_is_cut_by_how_long_it_is(since: Any, step: str, bars: int) -> None:
    """Hours of a day, days of a month, weeks of a year, months beyond; with an open begin from the first call on."""
    write(ts=NOW_US - 760 * DAY_US)
    write(ts=NOW_US - 1)
    found = shown(since)
    assert (found.step, len(found.total.course)) == (step, bars)
    assert found.total.sums["calls"] == (2 if since is None else 1)
    assert sum(found.total.course) == found.total.sums["cost_nanousd"]


def test_totals_are_those_of_usage() -> None:
    """Whatever is left out of the rows is in the last of them, and the total is exact."""
    for number in range(40):
        write(ts=NOW_US - number * 10**9, project=f"p{number}", cost_nanousd=10**9 + number, attempts=1)
    found = shown(by="project")
    assert len(found.lines) == usage_table.MOST_ROWS
    assert found.lines[-1].names == ("29 more",)
    exact = llmnb.usage("2026-11-19", by=[]).iloc[0]
    for total in (found.total.sums, {name: sum(line.sums[name] for line in found.lines) for name in found.total.sums}):
        assert total["cost_nanousd"] == exact["cost_nanousd"]
        assert total["calls"] == exact["calls"] == 40


def test_what_is_not_known_is_said() -> None:
    """Unpriced is not $0, an estimate is marked, and a missing name is called that."""
    days(None, project=None)
    days(2_000_000, None, estimated=True)
    (unpriced, *_), total = (found := shown(by=["project"])).lines[::-1], found.total
    assert (unpriced.names, unpriced.cost, blocks(unpriced)) == (("(no project)",), "unpriced", "–")
    assert total.cost == "≈ $0.0020 + 2 unpriced"


def test_nothing_yet() -> None:
    """Without a ledger there is a table of nothing, and nothing is created."""
    assert plain(shown()).splitlines()[-1].split() == ["total", "0", "0", "0", "0", "$0", "–"]
    assert plain(shown(None, by=[])).splitlines()[-1].split() == ["total", "0", "0", "0", "0", "$0", "–"]


def test_a_unit_of_time_is_refused() -> None:
    """With the way to get it."""
    with pytest.raises(InvalidRequest, match="ask usage"):
        llmnb.show_usage(by=["day", "model"])


class Elements(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set[str](), set[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


OURS = {"caption", "div", "rect", "span", "style", "svg", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr"}


def test_hostile_names_stay_text() -> None:
    """Projects may be called anything: no element, attribute, link or control character comes of it."""
    no_surrogates = [name.encode("utf-8", "replace").decode() for name in CORPUS]  # no row could hold one
    for name in (*no_surrogates, "a|b\n---\n# c", "\x1b[2J", "$x$ and $y$", "‮txt"):
        write(project=name, ts=NOW_US - 1, cost_nanousd=1)
    found = shown(by=["project", "model"])
    page = Elements(html(found))
    assert page.tags <= OURS
    assert not any(name.startswith(("on", "href", "src")) for name in page.attributes)
    assert "\x1b" not in html(found) + markdown(found) + plain(found)
    assert "$x$" not in html(found)
    rendered = MarkdownIt("default", {"html": True}).render(markdown(found))
    assert Elements(rendered).tags <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert rendered.count("<tr>") == len(found.lines) + 2


def test_a_script_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of notebooks it is text, also where the console lacks the characters."""
    days(1_000_000)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    llmnb.show_usage("2026-11-19")
    out.seek(0)
    assert "claude-sonnet-5-5      1      1,000           400         200  $0.0010        ?" in out.read()


def test_a_notebook_shows_three_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel sends HTML, Markdown and text at once, so that every viewer has one; a figure is in all of them."""
    days(1_234_000)
    sent: list[tuple[Any, Any]] = []
    monkeypatch.setattr(usage_table, "front_end", lambda: "jupyter")
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: sent.append((bundle, raw)))
    llmnb.show_usage("2026-11-19", by=[])
    ((bundle, raw),) = sent
    assert raw
    assert set(bundle) == {"text/html", "text/markdown", "text/plain"}
    assert all("0.0012" in text for text in bundle.values())
