"""The overview page: its numbers are the ledger's, to the nano-dollar."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import figures
import pandas as pd
import pytest
from conftest import Fill, Show
from shown import UTC, call, exact_of, figures_of, noon, spend_chart, texts

import llmnb
from llmnb import ledger
from llmnb.records import Call


def five_calls() -> list[Call]:
    """Two priced models, one without a price, an error without a model, and a call that was cut short."""
    return [
        call(
            "a",
            noon(1),
            project="thesis",
            notebook="notes/chapter3.ipynb",
            stream=True,
            input_tokens=100,
            cache_read_tokens=1_000,
            cache_write_5m_tokens=10,
            cache_write_1h_tokens=20,
            cache_write_unsplit_tokens=5,
            output_tokens=50,
            thinking_tokens=20,
            cost_nanousd=4_200_000,
            latency_ms=1_000.0,
            ttft_ms=200.0,
        ),
        call(
            "b", noon(2), model="claude-haiku-5-5", project="triage", input_tokens=7, output_tokens=3, cost_nanousd=31
        ),
        call("c", noon(2), model="llama", provider="localhost", input_tokens=11, output_tokens=13),
        call("d", noon(3), model=None, project="thesis", status="error", error_type="overloaded_error", cost_nanousd=0),
        call(
            "e",
            noon(3),
            project="thesis",
            status="cancelled",
            estimated=True,
            input_tokens=500,
            output_tokens=40,
            cost_nanousd=1_000_000_000,
            latency_ms=3_000.0,
        ),
    ]


def test_big_numbers_are_the_sums(fill: Fill, show: Show) -> None:
    """Spend, calls, tokens and error rate are what one adds up by hand, and the tooltips hold them exactly."""
    fill(*five_calls())
    page = show()
    assert not page.exception
    # 4,200,000 + 31 + 0 + 1,000,000,000 nano-dollars; 1,185 + 10 + 24 + 0 + 540 tokens; 1 error in 5
    assert figures_of(page) == {"Spend": "$1.00", "Calls": "5", "Tokens": "1.76k", "Error rate": "20.0%"}
    assert exact_of(page)["Spend"] == "Exactly $1.004200031."
    assert exact_of(page)["Tokens"].startswith("Exactly 1,759:")
    assert exact_of(page)["Error rate"] == "1 of 5 calls failed."


def test_the_page_agrees_with_usage(fill: Fill, show: Show) -> None:
    """What the page adds up is what usage() says about the same days, in integers."""
    fill(*five_calls())
    page = show()
    total = ledger.usage(by=[]).iloc[0]
    assert exact_of(page)["Spend"] == f"Exactly ${total['cost_nanousd'] / 10**9:.9f}."
    models = page.dataframe[0].value
    assert int(models["cost"].sum()) == total["cost_nanousd"]
    assert int(models["calls"].sum()) == total["calls"]
    assert int(models["output"].sum()) == total["output_tokens"]


@pytest.mark.parametrize(
    "query",
    [
        {"period": "24h"},
        {"period": "7d", "project": ["thesis", "(no project)"], "model": ["(no model answered)", "claude-sonnet-5-5"]},
        {"period": "All"},
        {"period": "Custom", "dates": [f"{noon(2):%Y-%m-%d}", f"{noon(1):%Y-%m-%d}"]},
    ],
    ids=lambda query: query["period"],
)
def test_the_page_says_how_to_ask_for_the_same_in_python(query: dict[str, Any], fill: Fill, show: Show) -> None:
    """The tooltip of the scope holds a call of usage() that sums up the very calls the page is about."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
    fill(
        *five_calls(),
        call("first of 24h", start, cost_nanousd=7),
        call("just before", start - timedelta(minutes=1), cost_nanousd=11),
    )
    page = show(**query)
    (code,) = re.findall(r"`llmnb\.(usage\(.*\))`", "".join(caption.proto.help for caption in page.caption))
    total = eval(code, {"usage": ledger.usage}).iloc[0]
    assert figures_of(page)["Calls"] == str(int(total["calls"]))
    assert exact_of(page)["Spend"] == f"Exactly ${total['cost_nanousd'] / 10**9:.9f}."


def test_sparklines_end_where_the_big_numbers_are(fill: Fill, show: Show) -> None:
    """The course of a metric has a point for every day of the period and adds up to its number."""
    fill(*five_calls())
    page = show(period="7d")
    spend, calls, tokens, errors = (list(metric.proto.chart_data) for metric in page.metric)
    assert len(spend) == len(calls) == len(tokens) == len(errors) == 7
    assert round(sum(spend) * 10**9) == 1_004_200_031
    assert calls == [0, 0, 0, 2, 2, 1, 0]
    assert tokens == [0, 0, 0, 540, 34, 1_185, 0]
    assert errors == [0, 0, 0, 50, 0, 0, 0]


def test_changes_compare_with_the_same_hours_before(fill: Fill, show: Show) -> None:
    """Seven days are held against the seven before them; what is older counts for nothing."""
    fill(
        call("now", noon(1), cost_nanousd=3_000_000, input_tokens=10),
        call("now2", noon(2), cost_nanousd=0, input_tokens=0, status="error"),
        call("before", noon(9), cost_nanousd=2_000_000, input_tokens=10),
        call("older", noon(20), cost_nanousd=9_000_000_000, input_tokens=10_000),
    )
    assert [metric.delta for metric in show(period="7d").metric[:4]] == ["+50%", "+100%", "no change", "+50.0 pp"]


def test_nothing_to_compare_with_is_said(fill: Fill, show: Show) -> None:
    """Without calls in the period before there is no percentage, and all time is held against nothing."""
    fill(*five_calls())
    assert {metric.delta for metric in show(period="7d").metric} == {"nothing before"}
    assert {metric.delta for metric in show(period="All").metric} == {"all time"}


def test_spend_is_stacked_by_model_and_day(fill: Fill, show: Show) -> None:
    """A bar holds what a model cost on a day; what is free or unpriced has none; days without calls have a place."""
    fill(*five_calls())
    spec, rows = spend_chart(show(period="7d"))
    found = {(row["at"][:10], row["model"]): (row["spend"], row["calls"]) for row in rows}
    day = {n: noon(n).strftime("%Y-%m-%d") for n in (1, 2, 3)}
    assert found == {
        (day[1], "claude-sonnet-5-5"): ("$0.0042", 1),
        (day[2], "claude-haiku-5-5"): ("$0.000000031", 1),
        (day[3], "claude-sonnet-5-5"): ("$1.00", 1),
    }
    assert len(spec["encoding"]["x"]["scale"]["domain"]) == 7


def test_one_day_is_drawn_by_the_hour(fill: Fill, show: Show) -> None:
    """The last 24 hours have 24 bars, and leave out what is older."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    fill(call("new", hour_ago, cost_nanousd=5_000_000), call("old", hour_ago - timedelta(hours=30), cost_nanousd=7))
    page = show(period="24h")
    spec, rows = spend_chart(page)
    assert exact_of(page)["Spend"] == "Exactly $0.005000000."
    assert [row["at"] for row in rows] == [hour_ago.strftime("%Y-%m-%dT%H:00")]
    assert len(spec["encoding"]["x"]["scale"]["domain"]) == 24


def test_days_are_cut_in_the_reporting_timezone(fill: Fill, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late evening in UTC is the next day in Kathmandu, on the chart and in the table; the page names the zone."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "Asia/Kathmandu")
    late = noon(4) + timedelta(hours=11)
    fill(call("late", late, cost_nanousd=1_000_000))
    page = show()
    _, rows = spend_chart(page)
    assert [row["at"][:10] for row in rows] == [(late + timedelta(days=1)).strftime("%Y-%m-%d")]
    assert page.dataframe[1].value["time"].tolist() == [
        pd.Timestamp(late.replace(tzinfo=None)) + timedelta(hours=5, minutes=45)
    ]
    assert "Asia/Kathmandu (UTC+05:45)" in texts(page)


def test_models_table(fill: Fill, show: Show) -> None:
    """One row a model, the dearest first, a missing price said beside the name, percentiles of what ended well."""
    fill(*five_calls())
    models = show().dataframe[0].value
    assert models["model"].tolist() == [
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
        "(no model answered)",
        "llama (unpriced)",
    ]
    sonnet = models.iloc[0]
    assert (sonnet["calls"], sonnet["input"], sonnet["output"]) == (2, 1_635, 90)
    assert (sonnet["cost"], sonnet["p50"], sonnet["p95"], sonnet["ttft"]) == (1_004_200_000, 1_000.0, 1_000.0, 200.0)
    assert round(sonnet["share"], 6) == round(100 * 1_004_200_000 / 1_004_200_031, 6)
    assert pd.isna(models.iloc[3]["cost"])


def test_a_model_with_some_unpriced_calls_says_how_many(fill: Fill, show: Show) -> None:
    """Spend that leaves out a part of a model's calls says so in its row."""
    fill(call("a", noon(1), cost_nanousd=5), call("b", noon(1)), call("c", noon(1)))
    assert show().dataframe[0].value["model"].tolist() == ["claude-sonnet-5-5 (2 unpriced)"]


def test_recent_calls(fill: Fill, show: Show) -> None:
    """The newest call comes first; a failure shows its error, and what has no price shows that word."""
    fill(*five_calls())
    page = show()
    recent = page.dataframe[1]
    assert recent.value["status"].tolist()[0] == "ok"
    assert sorted(recent.value["status"]) == ["cancelled", "ok", "ok", "ok", "overloaded_error"]
    assert recent.value["notebook"].tolist()[0] == "chapter3.ipynb"
    assert recent.value["latency"].tolist()[0] == "1.00 s"
    assert recent.value["input"].tolist()[0] == 1_135
    assert recent.proto.placeholder == "unpriced"


def test_a_cut_answer_is_told_from_a_good_one(fill: Fill, show: Show) -> None:
    """An answer that hit max_tokens, a refusal and a cached answer do not read like a plain ok."""
    fill(
        call("a", noon(1), stop_reason="max_tokens"),
        call("b", noon(2), stop_reason="refusal"),
        call("c", noon(3), source="cache"),
        call("d", noon(4), stop_reason="end_turn"),
    )
    assert show().dataframe[1].value["status"].tolist() == ["max_tokens", "refusal", "cache", "ok"]


def test_child_rows_are_tokens_but_no_calls(fill: Fill, show: Show, llmnb_home: object) -> None:
    """An iteration billed on another model adds its tokens and cost to that model, and is no call of its own."""
    parent = call("parent", noon(1), input_tokens=10, cost_nanousd=100)
    child = call(
        "child", noon(1), model="claude-haiku-5-5", parent_uid="parent", is_call=False, input_tokens=5, cost_nanousd=7
    )
    fill(parent)
    ledger.open_ledger().write(parent, [child])
    page = show()
    assert figures_of(page)["Calls"] == "1"
    assert exact_of(page)["Spend"] == "Exactly $0.000000107."
    assert len(page.dataframe[1].value) == 1


def test_badges_count_what_is_not_whole(fill: Fill, show: Show) -> None:
    """Unpriced and estimated calls are counted beside the title, and not mentioned when there are none."""
    fill(*five_calls())
    said = texts(show())
    assert "1 call unpriced" in said
    assert "1 call estimated" in said
    said = texts(show(model=["claude-haiku-5-5"]))
    assert "unpriced" not in said
    assert "estimated" not in said


@pytest.mark.parametrize(("cost_nanousd", "said"), [(None, "None of these calls has a price"), (0, "cost nothing")])
def test_no_spend_to_draw(fill: Fill, show: Show, cost_nanousd: int | None, said: str) -> None:
    """Without a price there is no bar of zero dollars but a sentence."""
    fill(call("a", noon(1), input_tokens=5, cost_nanousd=cost_nanousd))
    page = show()
    assert figures_of(page)["Spend"] == ("unpriced" if cost_nanousd is None else "$0.00")
    assert said in texts(page)


def test_new_calls_are_there_on_the_next_look(fill: Fill, show: Show) -> None:
    """The page reads the ledger anew each time, also models and projects that were not there before."""
    fill(call("a", noon(1), cost_nanousd=1_000))
    page = show()
    fill(call("b", noon(1), cost_nanousd=2_000))
    assert exact_of(page.run())["Spend"] == "Exactly $0.000003000."


def test_outlook(fill: Fill, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """Month-end forecast, net savings and budget bars are the ledger's own figures."""
    llmnb.set_budget(usd="0.000010", per="total", project="thesis")
    llmnb.set_budget(usd="0.000010", per="total", project="triage")
    fill(*(call(f"{n}", noon(n), project="thesis", cost_nanousd=1_000, saved_nanousd=200 + n) for n in range(1, 9)))
    page = show(project="thesis")
    assert not page.exception
    ahead = ledger.month_end(where={"project": ["thesis"]})
    assert ahead is not None
    assert figures_of(page)["Month-end forecast"] == figures.money(ahead.expected_nanousd)
    assert exact_of(page)["Net savings"].startswith("Exactly $0.000001636,")
    said = texts(page)
    assert "**project thesis** · $0.0000080 of $0.000010 in total" in said
    assert "project triage" not in said
