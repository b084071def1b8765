"""The form that stays, and the footer's words."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from llmnb.display import cards, footer, static, style
from llmnb.display.answer import Answer, Tool
from llmnb.events import NOT_APPROVED, Citation, Done, Retry, Text, Thinking, ToolCall, ToolResult
from llmnb.records import PromptCacheUse, Usage
from llmnb.views import views

DONE = Done(
    "claude-sonnet-5-5",
    Usage(input_tokens=1234, cache_read_tokens=5000, output_tokens=345),
    Decimal("0.004217"),
    "end_turn",
    latency_ms=4200,
    ttft_ms=600,
)


def test_a_bundle_says_the_same_three_times() -> None:
    """HTML, Markdown and plain text each hold the answer and its cost."""
    made = static.bundle("**Yes**, 5 < 6.", done=DONE)
    assert "<strong>Yes</strong>, 5 &lt; 6." in made["text/html"]
    assert made["text/markdown"].startswith("**Yes**, 5 &lt; 6.\n\n*claude-sonnet-5-5")
    assert made["text/plain"].startswith("**Yes**, 5 < 6.\n\nclaude-sonnet-5-5 · 6,234 in (5,000 cached) · 345 out")
    assert all("$0.0042" in text.replace("\\$", "$") for text in made.values())


def test_without_html() -> None:
    """Headless runs keep Markdown and plain text only."""
    assert set(static.bundle("x", html=False)) == {"text/markdown", "text/plain"}


def test_parts_keep_their_order() -> None:
    """Thinking, waits, tools and text stand in the HTML as they came; the Markdown holds the text alone."""
    answer = Answer("claude")
    for event in (
        Thinking("hm"),
        Retry(2, 2, "overloaded", 3),
        ToolCall("1", "weather", {"city": "Oslo"}),
        ToolResult("1", "weather", "rain", duration_ms=830),
        Text("It rains."),
    ):
        answer.apply(event)
    answer.end()
    html = static.page(answer)
    places = [html.index(word) for word in ("Thought", "waited 2.0 s", "weather", "rain", "It rains")]
    assert places == sorted(places)
    assert static.kept_markdown(answer) == "It rains.\n\n*claude*"


def test_a_tool_without_result_is_said() -> None:
    """A call that ended before its tool did shows the tool as without result, not as running."""
    made = static.bundle("", tools=[(ToolCall("1", "slow", {}), None)])
    assert "no result" in made["text/html"]
    assert "running" not in made["text/html"]


def test_a_call_that_nobody_let_run_did_not_fail() -> None:
    """The card says that it was not approved, live, in what is saved, and in the terminal's one line."""
    call = ToolCall("1", "email", {"to": "ann"})
    refused = ToolResult("1", "email", f"{NOT_APPROVED}: not now", is_error=True)
    html = static.bundle("", tools=[(call, refused)])["text/html"]
    assert "not approved" in html
    assert "failed" not in html.partition("</style>")[2]
    assert cards.tool_text(Tool(call, refused)) == 'email(to="ann"): not approved'
    assert "failed" in cards.tool_text(Tool(call, ToolResult("1", "email", "no network", is_error=True)))


def test_the_registry_draws_bundles() -> None:
    """Rooms below the display draw an answer through the registry in records."""
    assert views.bundle("hello", done=DONE) == static.bundle("hello", done=DONE)


def test_the_style_sheet_cannot_be_left() -> None:
    """The style sheet has no tag in it."""
    assert "<" not in style.transcript_css()


def test_an_answer_keeps_the_rules_it_needs() -> None:
    """A short answer is short; one with code keeps what colours its code, and what a press of its button shows."""
    assert len(static.bundle("Hi **you**")["text/html"]) < 500
    code = static.bundle("```python\nx = 'text'\n```")["text/html"]
    css = code[code.index("<style>") : code.index("</style>")]
    assert ".llmnb .highlight .s1" in css
    assert ".llmnb .llmnb-copied::before" in css
    assert "{.llmnb .llmnb-copy{opacity:1;}.llmnb .llmnb-lang{display:none;}}" in css  # where nothing hovers
    for other in (".highlight .k", "llmnb-tool", "llmnb-sources", "llmnb-block"):
        assert other not in css


def test_no_rule_is_lost() -> None:
    """Where every class is used the whole style sheet is kept."""
    names = set(re.findall(r"\.([A-Za-z][\w-]*)", style.transcript_css()))
    tag = style.tag(style.transcript_css(), f'<p class="{" ".join(names)}">')
    assert tag == f"<style>{style.transcript_css()}</style>"


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "$0"),
        ("12.346", "$12.35"),
        ("1234.5", "$1,234.50"),
        ("0.0421", "$0.0421"),
        ("0.004217", "$0.0042"),
        ("0.00007512", "$0.000075"),
        ("0.000000001", "$0.000000001"),
        ("0.5", "$0.5000"),
    ],
)
def test_dollars(usd: str, text: str) -> None:
    """Small amounts keep two digits of worth; only nothing is $0."""
    assert footer.dollars(Decimal(usd)) == text


@pytest.mark.parametrize(("ms", "text"), [(3.2, "3 ms"), (420, "0.42 s"), (12_340, "12.3 s"), (125_000, "2 min 5 s")])
def test_seconds(ms: float, text: str) -> None:
    """Durations have as many digits as one reads."""
    assert footer.seconds(ms) == text


def line(done: Done | None, error: BaseException | None = None) -> str:
    """The footer of an answer that ended so."""
    return footer.plain(Answer("asked-model", [], done, error, ended=True))


def test_footer_of_a_cached_answer() -> None:
    """An answer from disk says so and what it saved, and has no speed."""
    text = line(Done("m", Usage(output_tokens=9), Decimal(0), "end_turn", "cache", 3, saved_usd=Decimal("0.0042")))
    assert "cached, saved $0.0042" in text
    assert "tokens/s" not in text


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Done("m", Usage(), None), "unpriced"),
        (Done("m", Usage(output_tokens=7, estimated=True), Decimal("0.01")), "≈ 7 out · ≈ $0.0100"),
        (Done("m", Usage(5, output_tokens=7, estimated=True), None, input_estimated=True), "≈ 5 in · ≈ 7 out"),
        (Done("m", Usage(), None, "max_tokens"), "cut off at max_tokens"),
        (Done("m", Usage(), None, "refusal"), "refused"),
        (Done("m", Usage(), None, status="cancelled"), "stopped"),
        (Done("m", Usage(), None, status="truncated"), "broken off"),
        (Done("m", Usage(), None, source="replay"), "replayed"),
    ],
)
def test_footer_says_what_matters(done: Done, words: str) -> None:
    """Missing prices, estimates and endings that are not the usual one are said plainly."""
    assert words in line(done)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (PromptCacheUse(read_tokens=900, saved_nanousd=4_200_000), "$0.0042 saved by caching"),
        (PromptCacheUse(written_5m_tokens=900, saved_nanousd=-450_000), "$0.00045 to cache"),
        (PromptCacheUse(saved_nanousd=-450_000, estimated=True), "≈ $0.00045 to cache"),
        (PromptCacheUse(miss_reason="system_changed", miss="the system prompt …"), "cache missed: system changed"),
        (PromptCacheUse(miss_reason="below_minimum", miss="about 300 tokens …"), "too short to cache"),
    ],
)
def test_footer_of_the_prompt_cache(use: PromptCacheUse, words: str) -> None:
    """What caching saved, or costs to begin with, and why it was missed."""
    assert words in line(Done("m", Usage(), Decimal("0.01"), prompt_cache=use))


def test_footer_is_quiet_about_a_cache_that_did_nothing() -> None:
    """Nothing cached and nothing missed, no price, or an answer from disk: no word."""
    nothing = [PromptCacheUse(saved_nanousd=0), PromptCacheUse(), PromptCacheUse(read_tokens=9), None]
    for use in nothing:
        assert "cach" not in line(Done("m", Usage(), Decimal("0.01"), prompt_cache=use))
    hit = Done("m", Usage(), Decimal(0), source="replay", prompt_cache=PromptCacheUse(saved_nanousd=5_000_000))
    assert "cach" not in line(hit)


def test_footer_without_done() -> None:
    """A call that failed or was stopped says which, with the model that was asked."""
    assert line(None, RuntimeError("x")) == "failed · asked-model"
    assert line(None, KeyboardInterrupt()) == "stopped · asked-model"
    assert "end_turn" not in line(DONE)


def test_sources_are_listed_once() -> None:
    """What an answer cites is listed under it, each source once, with its place; only allowed addresses are links."""
    page = Citation("WAL", "https://www.sqlite.org/wal.html", "readers do not block writers")
    paper = Citation("paper.pdf", cited_text="checkpoints", place="pages 3–4")
    bad = Citation("trap", "javascript:alert(1)")
    made = static.bundle("text", citations=[page, paper, page, bad])
    assert made["text/html"].count("<li>") == 3
    assert '<a href="https://www.sqlite.org/wal.html"' in made["text/html"]
    assert "javascript:" not in made["text/html"]
    assert "1. [WAL](https://www.sqlite.org/wal.html)\n2. paper.pdf (pages 3–4)\n3. trap" in made["text/markdown"]
    assert "  2. paper.pdf · pages 3–4" in made["text/plain"]
