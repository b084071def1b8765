"""What a call can say of the response cache: ask again, another sample, how old, at what pace."""

from __future__ import annotations

import time
from typing import Any

import pytest

import llmnb
from llmnb.cache.responses import responses
from llmnb.errors import InvalidRequest
from llmnb.simulator import Simulator

DAY_S = 86_400


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets days go by."""

    def days(count: float) -> None:
        responses().settle()
        monkeypatch.setattr(responses(), "_clock", lambda: time.time() + count * DAY_S)

    return days


def test_fresh_asks_again_and_the_new_answer_stays(sim: Simulator) -> None:
    """For one call, or for an LLM that always asks."""
    sim.script("one", "two", "three")
    llm = llmnb.LLM(display="none")
    assert [llm("Hi").text, llm("Hi").text, llm("Hi", fresh=True).text, llm("Hi").text] == ["one", "one", "two", "two"]
    assert llmnb.LLM(display="none", fresh=True)("Hi").text == "three"
    assert llm("Hi").source == "cache"


async def test_samples_are_independent_and_kept(sim: Simulator) -> None:
    """By their number, sync, async and streamed."""
    sim.script("zero", "one", "two")
    llm = llmnb.LLM(display="none")
    assert [llm("Hi", sample=number).text for number in (0, 1, 2)] == ["zero", "one", "two"]
    assert (await llm.aask("Hi", sample=1)).text == "one"
    assert "".join(event.text for event in llm.stream("Hi", sample=2) if isinstance(event, llmnb.Text)) == "two"
    assert llm("Hi").text == "zero"
    assert len(sim.requests) == 3


def test_ttl_is_how_old_an_answer_may_be(sim: Simulator, later: Any) -> None:
    """Without one any age will do; with one an older answer is asked again, and what comes is kept as long."""
    sim.script("old", "new", "newest")
    llm = llmnb.LLM(display="none")
    assert llm("Hi").text == "old"
    later(8)
    assert llm("Hi").text == "old"
    assert llm("Hi", ttl="30d").text == "old"
    assert llm("Hi", ttl="7d").text == "new"
    later(8 + 6)
    assert llm("Hi").text == "new"
    later(8 + 8)
    assert llm("Hi").text == "newest"  # it was asked to be kept for a week
    assert len(sim.requests) == 3


@pytest.mark.parametrize("pace", ["reading", 100])
def test_a_kept_stream_comes_at_a_pace(sim: Simulator, pace: Any) -> None:
    """Word by word, as fast as people read or as told; at once where nothing is said. The first time as it came."""
    sim.script("one two three")
    llm = llmnb.LLM(display="none")
    llm("Hi")

    def words(**options: Any) -> tuple[list[str], float]:
        begin = time.monotonic()
        pieces = [event.text for event in llm.stream("Hi", **options) if isinstance(event, llmnb.Text)]
        return pieces, time.monotonic() - begin

    assert words()[0] == ["one two three"]
    pieces, took_s = words(cache_pace=pace)
    assert pieces == ["one", " two", " three"]
    assert took_s >= 2 / (4 if pace == "reading" else pace)
    assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl": "soon"}, "ttl must be seconds, or a text such as '30m'"),
        ({"ttl": 0}, "ttl must be seconds"),
        ({"sample": -1}, "sample is the number of an independent answer"),
        ({"sample": True}, "sample is the number of an independent answer"),
        ({"cache_pace": "fast"}, "cache_pace must be 'reading' or words a second"),
        ({"cache_pace": 0}, "cache_pace must be 'reading' or words a second"),
        ({"cache": "some"}, "cache must be True, False or 'all'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(options: dict[str, Any], says: str) -> None:
    """With what there is."""
    with pytest.raises(InvalidRequest, match=says):
        llmnb.LLM(display="none")("Hi", **options)


def test_server_tools_are_kept_when_asked_for(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one call, an LLM, or everywhere by the setting; off by the setting holds against all of them."""
    search: Any = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    llm = llmnb.LLM(display="none", extra_body=search)
    for _ in range(2):
        llm("Hi")
    assert len(sim.requests) == 2
    for _ in range(2):
        llm("Hi", cache="all")
    assert len(sim.requests) == 3
    monkeypatch.setenv("LLMNB_CACHE", "all")
    assert llmnb.LLM(display="none", extra_body=search)("Hi").source == "cache"
    monkeypatch.setenv("LLMNB_CACHE", "off")
    assert llmnb.LLM(display="none", extra_body=search)("Hi").source == "live"
