"""What a reply cost, line by line: the lines are exact, and make up what the ledger has."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

import llmnb
from llmnb.pricing import cost_of_call
from llmnb.pricing.breakdown import cost_lines
from llmnb.records import Call, Cost, Usage
from llmnb.reply import Reply
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer

TS = 1_795_000_000_000_000


def row(model: str = "claude-sonnet-5-5", **known: Any) -> Call:
    """A ledger row."""
    return Call(uid="u", ts=TS, model_requested=model, model=model, **known)


def reply_of(call: Call, cost: Cost | None = None) -> Reply:
    """A reply with this row."""
    message = Message.construct(id="m", type="message", role="assistant", model=call.model, content=[])
    return Reply(message, call.usage, cost_of_call(call) if cost is None else cost, call)


COUNTS = st.integers(0, 3_000_000)


@given(
    st.sampled_from(["claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-4-1", "claude-sonnet-4-5", "gpt-nobody"]),
    st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    st.integers(0, 20),
)
def test_lines_make_up_the_cost(model: str, counts: tuple[int, ...], searches: int) -> None:
    """For any usage, tier and model the sum of the lines, rounded once, is the cost on the books."""
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_unsplit", "output")
    usage = {f"{name}_tokens": count for name, count in zip(names, counts, strict=True)}
    call = row(model, **usage, web_search_requests=searches)
    lines, cost = cost_lines(call), cost_of_call(call)
    assert sum(line.count for line in lines) == sum(counts) + searches
    priced = [line.usd for line in lines if line.usd is not None]
    if cost.nanousd is None:
        assert len(priced) < len(lines) or not lines
    else:
        assert len(priced) == len(lines)
        assert abs(sum(priced, Decimal(0)) * 10**9 - cost.nanousd) <= Decimal("0.5")
        assert [line.name for line in reply_of(call).costs().lines] == [line.name for line in lines]


EXPECTED = """\
claude-sonnet-5-5
            count         rate    dollars
input          31   $2.00 / 1M  $0.000062
cache read  1,000   $0.10 / 1M    $0.0001
output         20  $10.00 / 1M    $0.0002
total                           $0.000362""".splitlines()


def test_a_table_for_reading() -> None:
    """Tokens × rate = dollars, to the last digit, as text, Markdown and HTML, and as a frame of Decimals."""
    call = row(input_tokens=31, cache_read_tokens=1_000, output_tokens=20)
    table = reply_of(call).costs()
    assert repr(table).splitlines() == EXPECTED
    assert table.total_usd == sum(line.usd for line in table.lines if line.usd is not None)
    frame = table.frame()
    assert list(frame["usd"]) == [line.usd for line in table.lines]
    bundle = table._repr_mimebundle_()
    assert "| input | 31 | \\$2.00 / 1M | \\$0.000062 |" in bundle["text/markdown"]
    assert "<td>31</td>" in bundle["text/html"]


def test_other_models_have_a_line_of_their_own() -> None:
    """What other models cost beside is the last line; so is what a reply from disk did not cost."""
    call = row(input_tokens=1_000_000)
    more = reply_of(call, Cost(2_500_000_000)).costs()
    assert (more.lines[-1].name, more.lines[-1].usd) == ("other models and prompts of this call", Decimal("0.5"))
    cached = reply_of(row(input_tokens=1_000_000, source="cache", cost_nanousd=0), Cost(0)).costs()
    assert (cached.lines[-1].name, cached.lines[-1].usd, cached.total_usd) == ("answered from disk", -2, 0)
    assert "-$2.00" in repr(cached)


def test_without_a_price() -> None:
    """An unknown model is unpriced, and its name is no HTML."""
    table = reply_of(row("<b>x", input_tokens=5)).costs()
    assert table.total_usd is None
    assert repr(table).splitlines()[-1].split() == ["total", "unpriced"]
    assert "<b>" not in table._repr_mimebundle_()["text/html"]


def test_prices_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price in the settings is the rate of the lines."""
    monkeypatch.setenv("LLMNB_PRICES", '{"mine": {"input": 7, "output": 8}}')
    (line,) = reply_of(row("mine", input_tokens=1_000_000), Cost(7_000_000_000)).costs().lines
    assert (line.usd_per_unit, line.usd) == (7, 7)


def test_of_a_real_answer(llmnb_simulator: Simulator) -> None:
    """The total of an answer is the simulator's own bill; without its row it is the same."""
    llmnb_simulator.script(Answer(text="Hi there"))
    reply = llmnb.LLM(display="none")("Hello")
    assert reply.costs().total_usd == Decimal(llmnb_simulator.billed().price_nanousd) / 10**9
    bare = Reply(reply.message, Usage(input_tokens=3, output_tokens=2), Cost(26_000)).costs()
    assert [line.count for line in bare.lines] == [3, 2]
