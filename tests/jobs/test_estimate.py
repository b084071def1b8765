"""`llm.map(…, dry_run=True)`: what a run would cost and take, held against what it does cost."""

from __future__ import annotations

import builtins
from decimal import Decimal
from typing import Any

import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.interrupts import Stopped
from llmnb.jobs import estimating
from llmnb.jobs.estimate import duration
from llmnb.pacing.pacer import Pacer
from llmnb.settings import load
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.views import views

ROWS = [f"this is row {number} of a table with some words in it" for number in range(40)]
PROMPT = "Summarise: {{ value }}"


def test_before_anything_is_known(sim: Simulator) -> None:
    """Nothing is sent; the most that it can cost, and the rows, are known all the same."""
    found = llmnb.LLM(max_tokens=100).map([*ROWS, ROWS[0], None], PROMPT, dry_run=True)
    assert (found.rows, found.to_ask, found.equal, found.refused, found.finished) == (42, 40, 1, 1, 0)
    assert "no value in this row" in found.refused_because
    assert (found.output_tokens, found.cost_usd, found.minutes) == (None, None, None)
    assert found.cost_most_usd is not None
    assert found.cost_most_usd > 40 * Decimal("0.001")  # 100 tokens at $10 a million
    assert sim.requests == []
    assert llmnb.runs().empty


@pytest.mark.parametrize(
    ("system", "before"),
    [(None, None), ("You are an editor. " * 600, None), ("You are an editor. " * 600, "You are an editor. " * 600)],
    ids=["short", "cold", "warm"],
)
def test_it_is_what_the_run_costs(sim: Simulator, system: str | None, before: str | None) -> None:
    """With answers like those on the books, near the bill and within its bounds, the prompt cache's saving in it."""
    sim.rule(Answer(text="word " * 50))
    llm = llmnb.LLM(system=system, cache=False)
    llm.map(ROWS[:12], "Earlier: {{ value }}", concurrency=4, system=before)
    found = llm.map(ROWS, PROMPT, dry_run=True)
    assert (found.outputs_of, found.outputs) == ("all projects", 12)
    billed = sim.billed().price_nanousd
    got = llm.map(ROWS, PROMPT, concurrency=4)
    cost = (sim.billed().price_nanousd - billed) / 1e9
    assert found.cost_usd is not None
    assert found.cost_low_usd is not None
    assert found.cost_high_usd is not None
    # calls with an offline count to learn from may be on the books or not: one in some is counted
    assert float(found.cost_usd) == pytest.approx(cost, rel=found.error + 0.1)
    assert float(found.cost_low_usd) * 0.9 <= cost <= float(found.cost_high_usd) * 1.1
    assert found.output_tokens == pytest.approx(got["output_tokens"].sum(), rel=0.05)
    assert float(found.saved_usd) == pytest.approx(got.status.saved_nanousd / 1e9, rel=found.error + 0.15, abs=1e-9)
    again = llm.map([*ROWS, "one more"], PROMPT, dry_run=True, budget_usd=1)
    assert (again.finished, again.to_ask, again.outputs_of) == (40, 1, "this run")
    assert "is enough" in repr(again)


def test_what_is_in_the_response_cache_costs_nothing(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted one by one where rows are few, and by some of them where they are many."""
    sim.rule(Answer(text="word " * 50))
    llm = llmnb.LLM()
    for row in ROWS[:20]:
        llm(PROMPT.replace("{{ value }}", row), display="none")
    found = llm.map(ROWS, PROMPT, dry_run=True)
    assert (found.to_ask, found.cached, found.sampled) == (40, 20, 40)
    none = llm.map(ROWS[:20], PROMPT, dry_run=True)
    assert (none.cached, none.cost_usd, none.input_tokens) == (20, 0, 0)
    assert "nothing would be sent" in repr(none)
    monkeypatch.setattr(estimating, "SAMPLE", 10)
    some = llm.map(ROWS, PROMPT, dry_run=True)
    assert (some.to_ask, some.sampled) == (40, 10)
    assert some.cached in range(4, 37, 4)
    assert "by 10 of them" in repr(some)
    assert some.cost_usd is not None
    assert found.cost_usd is not None
    per_row = found.cost_usd / 20, some.cost_usd / (40 - some.cached)
    assert float(per_row[0]) == pytest.approx(float(per_row[1]), rel=0.05)


def test_minutes_by_limits_or_by_answers(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call was told of the account's limits another kernel knows; without them, answers take their time."""
    sim.rule(Answer(text="word " * 50))
    llm = llmnb.LLM(cache=False)
    llm("Hi", display="none")
    monkeypatch.setattr(estimating, "latencies_ms", lambda *_: [100.0])  # however busy this machine is
    found = llm.map(ROWS, PROMPT, dry_run=True)
    limits = Pacer(load())  # as of another kernel
    (known,) = [limits.account(scope, model).limits() for scope, model in _accounts()]
    assert set(known) == {"requests", "input-tokens", "output-tokens"}
    assert found.minutes == pytest.approx(40 / known["requests"], rel=0.01)
    assert "requests a minute" in found.minutes_by
    monkeypatch.setenv("LLMNB_OUTPUT_TOKENS_PER_MINUTE", "100")
    slower = llmnb.LLM(cache=False).map(ROWS, PROMPT, dry_run=True)
    assert slower.minutes == pytest.approx((slower.output_tokens or 0) / 100)
    monkeypatch.setenv("LLMNB_PACING", "off")
    free = llmnb.LLM(cache=False).map(ROWS, PROMPT, dry_run=True, concurrency=4)
    assert free.minutes == pytest.approx(40 * 0.1 / 4 / 60)
    assert "4 at once, 0.1 s an answer" in free.minutes_by


def _accounts() -> list[tuple[str, str]]:
    from llmnb.pacing import pacer

    return list(pacer(load()).known)


def test_how_it_is_shown(sim: Simulator) -> None:
    """As lines and as a table; a budget that is too little says for how many rows it is."""
    sim.rule(Answer(text="word " * 50))
    llm = llmnb.LLM(cache=False)
    llm("Hi", display="none")
    found = llm.map(ROWS, "<b>{{ value }}</b>", dry_run=True, budget_usd="0.004")
    assert "too little" in repr(found)
    bundle = found._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "text/markdown"}
    assert bundle["text/html"].count("<tr>") == len(found.lines()) == bundle["text/markdown"].count("\n") - 1
    with_tools = llm.map(ROWS, PROMPT, dry_run=True, tools=[_weather])
    assert "turns with tools come on top" in repr(with_tools)
    assert "without repairs" in repr(llm.map(ROWS, PROMPT, dry_run=True, schema=list[str]))
    assert "unpriced" in repr(llm.map(ROWS, PROMPT, dry_run=True, model="claude-nova-9"))
    assert [duration(seconds) for seconds in (0, 80, 100, 9000)] == ["1 s", "80 s", "2 min", "2.5 h"]


def _weather(city: str) -> str:
    """The weather."""
    return city


async def test_a_person_is_asked(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """confirm=True shows the estimate and goes on with a yes; where nobody is there it refuses."""
    llm = llmnb.LLM(cache=False)
    with pytest.raises(InvalidRequest, match="budget_usd"):
        llm.map(ROWS, PROMPT, confirm=True)
    monkeypatch.setattr(views, "_can_prompt", lambda: True)
    said: list[str] = []

    def answer(text: str) -> Any:
        def asked(question: str) -> str:
            said.append(question)
            return text

        return asked

    monkeypatch.setattr(builtins, "input", answer(""))
    with pytest.raises(Stopped, match="nothing was sent"):
        llm.map(ROWS, PROMPT, confirm=True)
    assert sim.requests == []
    assert "to ask" in capsys.readouterr().out
    monkeypatch.setattr(builtins, "input", answer("y"))
    got = await llm.amap(ROWS[:2], PROMPT, confirm=True)
    assert len(said) == len(sim.requests) == 2
    got.retry_failed()  # which was confirmed already
    assert len(said) == 2
    assert (await llm.amap(ROWS[:2], PROMPT, dry_run=True)).finished == 2
