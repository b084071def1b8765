"""The explorer of calls: its pages, what narrows them, and one call opened."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import Fill, Show
from shown import call, noon, texts
from streamlit.testing.v1 import AppTest

from llmnb import ledger
from llmnb.pricing import cost_of_call
from llmnb.records import Call


def uids_of(page: AppTest) -> list[str]:
    """The calls that the table shows, by their notebooks, which these tests name like their uids."""
    return page.dataframe[0].value["notebook"].tolist()


def numbered(count: int) -> list[Call]:
    """Calls a second apart, every two of them at the same moment."""
    return [
        call(f"{n:03}", noon(1) + timedelta(seconds=n // 2), notebook=f"{n:03}", cost_nanousd=n) for n in range(count)
    ]


def button(page: AppTest, label: str) -> AppTest:
    """Click a button and give the page that follows."""
    (found,) = [one for one in page.button if one.label == label]
    return found.click().run()


def test_pages_follow_each_other_without_a_gap(fill: Fill, show: Show) -> None:
    """Older and newer pages hold every call once, also those of one moment, and new calls move nothing."""
    fill(*numbered(120))
    page = show("calls")
    newest = [f"{n:03}" for n in range(119, -1, -1)]
    assert uids_of(page) == newest[:50]
    page = button(page, "Older")
    fill(call("new", noon(1) + timedelta(hours=1), notebook="new"))
    assert uids_of(page) == newest[50:100]
    page = button(page, "Older")
    assert uids_of(page) == newest[100:]
    assert [one.disabled for one in page.button if one.label == "Older"] == [True]
    page = button(page, "Newer")
    assert uids_of(page) == newest[50:100]
    page = button(page, "Newest")
    assert uids_of(page) == ["new", *newest[:49]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "error"}, ["b"]),
        ({"status": ["error", "ok"], "source": "live"}, ["b", "a"]),
        ({"source": "cache"}, ["c"]),
        ({"find": "req_7"}, ["a"]),
        ({"find": "b"}, ["b"]),
        ({"find": "c.ipynb"}, ["c.ipynb"]),
        ({"project": "thesis"}, ["a"]),
    ],
)
def test_what_narrows_the_calls(fill: Fill, show: Show, query: dict[str, str], found: list[str]) -> None:
    """A URL shows exactly the calls of its status, source, request id, notebook and project."""
    fill(
        call("a", noon(4), notebook="a", request_id="req_7", project="thesis"),
        call("b", noon(3), notebook="b", status="error"),
        call("c", noon(2), notebook="c", source="cache"),
        call("d", noon(1), notebook="c.ipynb", status="cancelled", source="replay"),
    )
    assert uids_of(show("calls", **query)) == found


def test_a_link_to_a_page_whose_call_is_gone_shows_the_newest(fill: Fill, show: Show) -> None:
    """A cursor that is no longer on the books is dropped."""
    fill(*numbered(3))
    page = show("calls", before="pruned")
    assert not page.exception
    assert uids_of(page) == ["002", "001", "000"]


def test_nothing_found_says_what_was_asked(fill: Fill, show: Show) -> None:
    """An empty table is a sentence with what narrowed it, and a way back."""
    fill(*numbered(3))
    page = show("calls", find="req_none", project="gone")
    assert "with project gone and request id req_none" in texts(page)
    assert uids_of(button(page, "Reset filters")) == ["002", "001", "000"]


def test_one_call_opened(fill: Fill, show: Show) -> None:
    """The lines of an opened call add up to its cost on the books, to the nano-dollar, with the price's version."""
    facts = {
        "input_tokens": 100,
        "cache_read_tokens": 1_000,
        "cache_write_5m_tokens": 10,
        "output_tokens": 50,
        "ttft_ms": 200.0,
        "attempts": 2,
        "wait_ms": 1_500.0,
        "request_id": "req_1",
        "stream": True,
    }
    cost = cost_of_call(call("a", noon(1), **facts))
    fill(call("a", noon(1), **facts, cost_nanousd=cost.nanousd, price_id=cost.price_id))
    page = show("calls", call="a")
    assert not page.exception
    lines, time, who = (table.value for table in page.dataframe[1:4])
    # claude-sonnet-5-5: $2 and $10 a million, cache writes at 1.25 times the input price
    dollars = dict(zip(lines["What"], lines["Dollars"], strict=True))
    assert dollars["input"] == "$0.000200000"
    assert dollars["cache write, 5 min"] == "$0.000025000"
    assert dollars["output"] == "$0.000500000"
    shown = [round(float(text[1:]) * 10**9) for name, text in dollars.items() if name != "on the books"]
    assert dollars["on the books"] == f"${cost.nanousd / 10**9:.9f}"
    assert sum(shown) == cost.nanousd == ledger.calls().iloc[0]["cost_nanousd"]
    assert str(cost.price_id) in texts(page)
    assert dict(zip(time[""], time["Value"], strict=True)) == {
        "To the end": "1.00 s",
        "First token": "200 ms",
        "Writing": "800 ms",
        "Speed": "62 tokens/s",
        "Attempts": "2",
        "Waited between": "1.50 s",
    }
    assert dict(zip(who[""], who["Value"], strict=True))["request id"] == "req_1"
    assert "the ledger holds text only where" in texts(page)


def test_a_call_priced_by_another_version_says_so(fill: Fill, show: Show) -> None:
    """Where the books were written at another price, both sums are there."""
    fill(call("a", noon(1), input_tokens=100, cost_nanousd=1, price_id="old 1"))
    said = texts(show("calls", call="a"))
    assert "`old 1`" in said
    assert "$0.000200000: reprice" in said


def test_children_are_opened_with_their_call(fill: Fill, show: Show) -> None:
    """What another model did inside of a call has its own lines."""
    parent = call("p", noon(1), input_tokens=10, cost_nanousd=20_000)
    fill(parent)
    child = call("p.1", noon(1), model="claude-haiku-5-5", parent_uid="p", is_call=False, input_tokens=6)
    ledger.open_ledger().write(parent, [child])
    assert (
        show("calls", call="p").dataframe[1].value["Model"].tolist()
        == ["claude-sonnet-5-5"] * 2 + ["claude-haiku-5-5"] * 2
    )


def test_text_is_shown_as_text(fill: Fill, show: Show) -> None:
    """A logged prompt is shown as it is, and never as Markdown."""
    fill(call("a", noon(1), content='{"prompt": "**bold** <img src=x>"}'), call("b", noon(2), source="cache"))
    page = show("calls", call="a")
    assert page.code[0].value == '{\n  "prompt": "**bold** <img src=x>"\n}'
    assert "it was answered from the cache" in texts(show("calls", call="b"))


def test_a_call_that_is_not_there(fill: Fill, show: Show) -> None:
    """A link to a call that was pruned says so."""
    fill(*numbered(1))
    assert "No call has the uid gone" in texts(show("calls", call="gone"))
