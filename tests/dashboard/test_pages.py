"""The pages beside the overview, on one small ledger whose sums are worked out by hand."""

from __future__ import annotations

import pytest
from conftest import Fill, Show
from shown import call, exact_of, figures_of, noon, texts

SONNET = {"input_tokens": 100, "output_tokens": 50, "ttft_ms": 200.0, "latency_ms": 1_200.0, "stream": True}


@pytest.fixture
def filled(fill: Fill) -> None:
    """Seven calls of two projects, two users and three models; one failed, one was cut off, two came from disk."""
    fill(
        call(
            "a", noon(1), **SONNET, project="thesis", user="ann", notebook="n/one.ipynb", cell="c1", session="s1",
            cost_nanousd=1_000_000, price_id="p 1", stop_reason="end_turn", cache_read_tokens=900,
            saved_nanousd=1_620_000,
        ),
        call(
            "b", noon(2), **SONNET, project="thesis", user="ann", notebook="n/one.ipynb", cell="c2", session="s1",
            cost_nanousd=3_000_000, price_id="p 1", stop_reason="max_tokens", cache_write_1h_tokens=1_000,
            saved_nanousd=-2_000_000, attempts=3, wait_ms=2_500.0, cache_miss_reason="system_changed",
        ),
        call(
            "c", noon(3), model="claude-haiku-5-5", project="triage", user="bob", notebook="n/two.ipynb", session="s2",
            input_tokens=10, output_tokens=5, cost_nanousd=17_500, price_id="p 2", stop_reason="end_turn",
        ),
        call(
            "d", noon(3), project="thesis", status="error", error_type="rate_limit_error", attempts=3,
            wait_ms=1_500.0, cost_nanousd=0,
        ),
        call("e", noon(4), project="thesis", status="truncated", output_tokens=7, estimated=True, cost_nanousd=70_000),
        call("f", noon(4), project="thesis", source="cache", cost_nanousd=0, saved_nanousd=5_000_000),
        call("g", noon(5), model="llama", provider="localhost", project=None, input_tokens=3, output_tokens=4),
    )  # fmt: skip


pytestmark = pytest.mark.usefixtures("filled")
PAGES = ("overview", "models", "caching", "projects", "calls", "errors", "budgets", "prices")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_obeys_the_filter_bar(show: Show, page: str) -> None:
    """Each page runs under every filter, names its zone, and says so when nothing matches."""
    shown = show(page, period="All", project="thesis", model="claude-sonnet-5-5", user="ann")
    assert not shown.exception
    assert not shown.error
    assert "All time · UTC" in texts(shown)
    if page not in ("budgets", "prices"):
        nothing = show(page, period="7d", project="gone")
        assert not nothing.exception
        assert "No calls match" in texts(nothing)


def test_models(show: Show) -> None:
    """What a call and a thousand tokens of output cost; free, failed and unpriced calls where they belong."""
    page = show("models")
    rows = page.dataframe[0].value.set_index("model")
    sonnet = rows.loc["claude-sonnet-5-5"]
    # 1,000,000 + 3,000,000 + 0 + 70,000 nano-dollars; four of its five calls went to the API; 50 + 50 + 7 tokens
    assert (sonnet["calls"], sonnet["cost"]) == (5, 4_070_000)
    assert (sonnet["per_call"], sonnet["per_output"]) == (4_070_000 // 4, round(4_070_000 * 1_000 / 107))
    assert (sonnet["speed"], sonnet["ttft"], sonnet["p50"]) == (50.0, 200.0, 1_200.0)
    assert rows.loc["llama (unpriced)", ["cost", "per_call", "per_output"]].isna().all()
    assert "1 answer hit `max_tokens`" in texts(page)
    assert len(page.get("vega_lite_chart")) == 3


def test_the_same_tokens_elsewhere(show: Show) -> None:
    """The tokens of the period at another model's prices, worked out by hand."""
    page = show("models", model="claude-haiku-5-5")
    page.multiselect(key="on-models").set_value(["claude-sonnet-5-5", "claude-opus-5-5"]).run()
    rows = page.dataframe[-1].value
    # 10 tokens in and 5 out: $2 and $10, $4 and $20 a million
    assert rows["cost"].tolist() == [10 * 2_000 + 5 * 10_000, 10 * 4_000 + 5 * 20_000]
    assert rows["change"].tolist() == ["+300%", "+700%"]


def test_caching(show: Show) -> None:
    """Each cache's savings are exact sums, and add up; the rest is told from the tokens."""
    page = show("caching")
    assert figures_of(page)["Prompt cache"] == "-$0.00038"
    exact = exact_of(page)
    assert exact["Prompt cache"].startswith("Exactly -$0.000380000")
    assert exact["Response cache"].startswith("Exactly $0.005000000: what 1 answer from disk")
    assert exact["Saved"].startswith("Exactly $0.004620000")
    assert exact["Input cached"] == "900 of 2,113 input tokens."
    assert exact["From disk"].startswith("1 of 7 calls")
    by_model, unread, reasons = (table.value for table in page.dataframe)
    # 900 tokens read, 1,000 written for an hour, of a model at $2 a million: its writes cost twice that
    assert (by_model["read"].item(), by_model["written_1h"].item(), by_model["cost_1h"].item()) == (
        900, 1_000, 2_000_000,
    )  # fmt: skip
    assert unread[["life", "writes", "unread", "tokens", "premium"]].values.tolist() == [["1h", 1, 1, 1_000, 2_000_000]]
    assert reasons[["reason", "calls"]].values.tolist() == [["system changed", 1]]


def test_caching_without_any_says_how(show: Show) -> None:
    """Where nothing was cached there is a sentence with what to type."""
    page = show("caching", model="claude-haiku-5-5")
    assert not page.metric
    assert "llmnb.wrap(client, cache=True" in page.info[0].value


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("project", [["thesis", 4_070_000, 5], ["triage", 17_500, 1], ["(no project)", None, 1]]),
        ("user", [["ann", 4_000_000, 2], ["(no user)", 70_000, 4], ["bob", 17_500, 1]]),
        ("notebook", [["n/one.ipynb", 4_000_000, 2], ["(no notebook)", 70_000, 4], ["n/two.ipynb", 17_500, 1]]),
        ("tag", [["(no tag)", 4_087_500, 7]]),
    ],
)
def test_projects(show: Show, by: str, rows: list[list[object]]) -> None:
    """Spend and calls by each name, the dearest first."""
    page = show("projects", by=by)
    found = page.dataframe[0].value[["name", "cost", "calls"]].astype(object)
    assert found.where(found.notna(), None).values.tolist() == rows
    sessions, cells = (table.value for table in page.dataframe[1:3])
    assert sessions[["session", "cost"]].values.tolist() == [["s1", 4_000_000], ["s2", 17_500]]
    assert cells[["cell", "cost"]].values.tolist() == [["c2", 3_000_000], ["c1", 1_000_000]]


def test_errors(show: Show) -> None:
    """Failures by kind, retries and what they waited, and the money on answers that were never finished."""
    page = show("errors")
    assert figures_of(page) == {
        "Error rate": "28.6%",
        "Retries": "4",
        "Retry waits": "4.00 s",
        "Unfinished": "$0.000070",
    }
    assert exact_of(page)["Unfinished"].startswith("Exactly $0.000070000: 2 calls")
    rows = page.dataframe[0].value
    assert rows[["kind", "type", "calls", "cost"]].values.tolist() == [
        ["error", "rate_limit_error", 1, 0],
        ["max_tokens", "", 1, 3_000_000],
        ["truncated", "", 1, 70_000],
    ]


def test_no_errors(show: Show) -> None:
    """Where all went well the page says so."""
    said = texts(show("errors", model="claude-haiku-5-5"))
    assert "No call failed" in said
    assert "No call had to be tried again" in said
    assert "Every call ended well" in said


def test_large_ledgers_say_what_is_left_out(show: Show, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no roll-up holds is of the newest calls, and the page names since when."""
    import books

    monkeypatch.setattr(books, "ROWS", 3)
    page = show("projects", by="notebook")
    assert page.dataframe[0].value["calls"].sum() == 4  # two began at the same moment
    assert f"since {noon(3):%d %b %Y, %H:%M}" in texts(page)
    assert show("projects", by="project").dataframe[0].value["calls"].sum() == 7


def test_filters_stay_across_pages(show: Show) -> None:
    """Whoever goes to another page keeps the filters, in the bar and in the URL."""
    page = show("models", project="triage", period="7d")
    page.switch_page("views/projects.py").run()
    assert page.dataframe[0].value["name"].tolist() == ["triage"]
    assert page.query_params["project"] == "triage"
