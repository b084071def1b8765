"""What a row can cost at most, told without counting its tokens."""

from __future__ import annotations

from typing import Any

import pytest

import llmnb
from llmnb import settings
from llmnb.asking.estimating import estimated
from llmnb.jobs.quick_bound import quick_bound
from llmnb.simulator import Simulator

TEXTS = {
    "latin": "Summarise write-ahead logging. " * 40,
    "umlauts": "Größe über Maß " * 9,
    "cjk": "日志先行" * 60,
    "emoji": "🧪🔬" * 9,
}
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


def weather(city: str) -> str:
    """Today's weather in a city."""
    return city


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_is_never_less_than_a_closer_look_finds(sim: Simulator, text: str) -> None:
    """Whatever the script: no token is shorter than a byte."""
    question = llmnb.LLM(system=text)._asked(text, {"display": "none"})
    bound = quick_bound(settings.load())(question)
    closer = estimated(question, settings.load(), exact=False)
    assert bound is not None
    assert closer.cost_most_usd is not None
    assert bound >= closer.cost_most_usd
    assert bound < closer.cost_most_usd * 4


@pytest.mark.parametrize(
    ("prompt", "options"),
    [([PNG, "What?"], {}), ("Hi", {"tools": [weather]}), ("Hi", {"model": "claude-nova-9", "max_tokens": 9})],
    ids=["image", "tools", "no price"],
)
def test_some_questions_take_a_closer_look(sim: Simulator, prompt: Any, options: dict[str, Any]) -> None:
    """Their tokens are not in their bytes, or nobody knows what those cost."""
    question = llmnb.LLM()._asked(prompt, {"display": "none", **options})
    assert quick_bound(settings.load())(question) is None


def test_where_it_does_not_fit_a_closer_look_may(sim: Simulator) -> None:
    """A prompt of many bytes and few tokens is asked all the same."""
    row = "word " * 4_000
    bound = quick_bound(settings.load())(llmnb.LLM(max_tokens=50)._asked(row, {"display": "none"}))
    assert bound is not None
    got = llmnb.LLM(max_tokens=50).map([row], "{{ value }}", budget_usd=bound / 2, progress=False)
    assert got.error.isna().all()
