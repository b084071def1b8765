"""Prewarming: what is sent, what it costs, until when it holds, and that the first question reads it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.asking.prewarming import PLACEHOLDER
from llmnb.errors import InvalidRequest, MissingKey
from llmnb.middleware import placement
from llmnb.middleware.sightings import Sightings
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

GUIDE = "Write plainly, and say what you measured. " * 200
MARK = {"type": "ephemeral"}
TOOL: dict[str, Any] = {"name": "look", "description": GUIDE, "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated API in the environment, and an empty memory."""
    monkeypatch.setattr(placement, "sightings", Sightings())
    with serve_simulator(environ=True) as simulator:
        yield simulator
        assert simulator.crashes == []


def sent(sim: Simulator) -> dict[str, Any]:
    """The body of the last request."""
    body = sim.requests[-1].body
    assert body is not None
    return body


def test_a_system_prompt(sim: Simulator) -> None:
    """It is written once, booked as a row that tells its tag, and the first question reads it."""
    llm = llmnb.LLM(system=GUIDE, project="thesis")
    before = datetime.now().astimezone()
    warm = llm.prewarm()
    body = sent(sim)
    assert (body["max_tokens"], body["messages"]) == (0, [{"role": "user", "content": PLACEHOLDER}])
    assert body["system"] == [{"type": "text", "text": GUIDE, "cache_control": MARK}]
    tokens = warm.prompt_cache.written_5m_tokens
    assert tokens > 1000
    assert warm.usage.output_tokens == 0
    assert warm.cost_usd == Decimal(tokens * 2_500 + warm.usage.input_tokens * 2_000) / 10**9
    assert warm.holds_until is not None
    assert timedelta(0) <= warm.holds_until - before - timedelta(minutes=5) < timedelta(seconds=30)
    assert repr(warm).startswith(f"<Prewarmed claude-sonnet-5-5: {tokens:,} tokens written, $")
    [row] = llmnb.calls().to_dict("records")
    assert (row["tag"], row["project"], row["stop_reason"]) == ("prewarm", "thesis", "max_tokens")
    reply = llm("Hi")
    assert reply.prompt_cache.read_tokens == tokens
    assert reply.prompt_cache.written_tokens == 0


def test_again_it_only_reads(sim: Simulator) -> None:
    """A prompt that is cached is renewed at the price of reading it."""
    llm = llmnb.LLM(system=GUIDE)
    first, second = llm.prewarm(), llm.prewarm()
    assert second.prompt_cache.read_tokens == first.prompt_cache.written_tokens
    assert second.cost_usd is not None
    assert first.cost_usd is not None
    assert second.cost_usd < first.cost_usd / 10
    assert "there already" in repr(second)


def test_for_an_hour(sim: Simulator) -> None:
    """Where the LLM or the call says so."""
    for llm, options in (
        (llmnb.LLM(system=GUIDE, prompt_cache="1h"), {}),
        (llmnb.LLM(system=GUIDE), {"prompt_cache": "1h"}),
    ):
        sim.clear_prompt_cache()
        warm = llm.prewarm(**options)  # type: ignore[arg-type]
        assert warm.prompt_cache.written_1h_tokens > 1000
        assert warm.holds_until is not None
        assert warm.holds_until - datetime.now().astimezone() > timedelta(minutes=59)
        assert llm(f"Hi {options}").prompt_cache.read_tokens == warm.prompt_cache.written_1h_tokens


def test_documents(sim: Simulator, tmp_path: Path) -> None:
    """Questions that begin with the same document read it."""
    (tmp_path / "paper.txt").write_text(GUIDE)
    llm = llmnb.LLM(system="Be brief.")
    warm = llm.prewarm(tmp_path / "paper.txt")
    content = sent(sim)["messages"][0]["content"]
    assert content[0]["cache_control"] == MARK
    assert content[1] == {"type": "text", "text": PLACEHOLDER}
    reply = llm([tmp_path / "paper.txt", "What is it about?"])
    assert reply.prompt_cache.read_tokens == warm.prompt_cache.written_tokens > 1000


def test_a_long_text(sim: Simulator) -> None:
    """A text is as good as a document."""
    llm = llmnb.LLM()
    warm = llm.prewarm(GUIDE)
    assert llm([GUIDE, "What is it about?"]).prompt_cache.read_tokens == warm.prompt_cache.written_tokens > 1000


def test_tools(sim: Simulator) -> None:
    """Tools are cached in front of the system prompt."""
    warm = llmnb.LLM(system=GUIDE).prewarm(tools=[TOOL])
    assert [point.place for point in warm.prompt_cache.breakpoints] == ["tools", "system"]
    assert sent(sim)["tools"][0]["cache_control"] == MARK


async def test_async(sim: Simulator) -> None:
    """The async twin does the same."""
    llm = llmnb.LLM(system=GUIDE)
    warm = await llm.aprewarm()
    assert (await llm.aask("Hi")).prompt_cache.read_tokens == warm.prompt_cache.written_tokens > 1000


def test_tag_of_ones_own(sim: Simulator) -> None:
    """A tag that was given stays."""
    llmnb.LLM(system=GUIDE, tag="mine").prewarm()
    assert llmnb.calls()["tag"].tolist() == ["mine"]


def test_settings_that_ask_for_output(sim: Simulator) -> None:
    """A thinking budget is left out where it does not matter; where it does, and with a schema, nothing is sent."""
    budget = {"type": "enabled", "budget_tokens": 2_000}
    llm = llmnb.LLM("claude-sonnet-4-6", system=GUIDE, thinking=budget, max_tokens=4_000)  # type: ignore[arg-type]
    warm = llm.prewarm()
    assert "thinking" not in sent(sim)
    assert llm("Hi").prompt_cache.read_tokens == warm.prompt_cache.written_tokens > 1000
    asked = len(sim.requests)
    with pytest.raises(InvalidRequest, match="thinking budget"):
        llm.prewarm(GUIDE)
    schema = {"format": {"type": "json_schema", "schema": {}}}
    with pytest.raises(InvalidRequest, match="structured output"):
        llmnb.LLM(system=GUIDE, output_config=schema).prewarm()  # type: ignore[arg-type]
    assert len(sim.requests) == asked


def test_nothing_to_prewarm(sim: Simulator) -> None:
    """Nothing, too little, or no use for it: said before anything is spent."""
    with pytest.raises(InvalidRequest, match="nothing to prewarm: give"):
        llmnb.LLM().prewarm()
    with pytest.raises(InvalidRequest, match=r"caches prompts from 512 tokens on, and this is about \d+"):
        llmnb.LLM(system="Be brief.").prewarm()
    with pytest.raises(InvalidRequest, match="from 4,096 tokens on"):
        llmnb.LLM("claude-haiku-4-5", system=GUIDE).prewarm()
    with pytest.raises(InvalidRequest, match="prompt_cache is off"):
        llmnb.LLM(system=GUIDE, prompt_cache=None).prewarm()
    with pytest.raises(TypeError, match="has no argument 'documnets'"):
        llmnb.LLM(system=GUIDE).prewarm(documnets="x")  # type: ignore[call-arg]
    assert sim.requests == []


def test_without_a_key() -> None:
    """As any question."""
    with pytest.raises(MissingKey):
        llmnb.LLM(system=GUIDE).prewarm()
