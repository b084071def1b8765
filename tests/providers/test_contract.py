"""What llmnb promises of every model, whoever serves it: the same questions over both wires."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.errors import BudgetExceeded, IncompleteReply
from llmnb.events import Done, Retry, Text, Thinking, ToolCall
from llmnb.simulator import Answer, Fault, Simulator

pytest.importorskip("openai")


class Person(BaseModel):
    name: str
    age: int
    nickname: str | None = None


def rows() -> list[dict[str, Any]]:
    """The ledger, oldest call first."""
    return list(reversed(llmnb.calls().to_dict("records")))


@pytest.mark.parametrize("name", ["claude-sonnet-5-5", "openai:gpt-5.2", "gemini:gemini-2.5-flash", "ollama:qwen3:8b"])
class TestContract:
    """One model, asked in every way there is."""

    def test_a_stream_says_it_piece_by_piece(self, sim: Simulator, name: str) -> None:
        """Text comes in pieces, Done last, with the usage that was billed and the time of the first token."""
        sim.script(Answer(text="one two three four five six seven", deltas=5))
        events = list(llmnb.LLM(name).stream("Count"))
        pieces = [event.text for event in events if isinstance(event, Text)]
        assert ("".join(pieces), len(pieces)) == ("one two three four five six seven", 5)
        done = events[-1]
        assert isinstance(done, Done)
        assert done.usage.output_tokens == sim.billed().output_tokens
        assert done.ttft_ms is not None

    def test_async_says_the_same(self, sim: Simulator, name: str) -> None:
        """The async twins answer, too, from a loop of the user's."""
        sim.script("here", "there")

        async def both() -> tuple[str, str]:
            llm = llmnb.LLM(name)
            text = [event.text async for event in llm.astream("a") if isinstance(event, Text)]
            return "".join(text), (await llm.aask("b")).text

        assert asyncio.run(both()) == ("here", "there")
        assert [row["status"] for row in rows()] == ["ok", "ok"]

    def test_a_chat_remembers_and_goes_on(self, sim: Simulator, name: str) -> None:
        """The second question carries the first turn; thinking is not given to those who do not take it back."""
        chat = llmnb.LLM(name).chat()
        sim.script(Answer(text="Hello Ann.", thinking="Ann."), "Your name is Ann.")
        chat("I am Ann")
        assert chat("Who am I?").text == "Your name is Ann."
        sent = sim.requests[-1].body["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "user"]
        assert "Hello Ann." in str(sent[1])

    def test_the_second_time_costs_nothing(self, sim: Simulator, name: str) -> None:
        """An answer comes from disk, asked as a stream or not, and its row says what it saved."""
        llm = llmnb.LLM(name)
        first = llm("Explain WAL")
        again = llm("Explain WAL")
        streamed = [event for event in llm.stream("Explain WAL") if isinstance(event, Text)]
        assert (again.source, again.cost_usd, again.text) == ("cache", 0, first.text)
        assert "".join(event.text for event in streamed) == first.text
        assert len(sim.requests) == 1

    def test_a_value_is_extracted(self, sim: Simulator, name: str) -> None:
        """A typed value comes, held to its schema on the wire, and one that does not fit is put right."""
        sim.script('{"name": "Ann"}', '{"name": "Ann", "age": 30, "nickname": null}')
        assert llmnb.LLM(name).extract("Ann is 30", Person) == Person(name="Ann", age=30)
        assert len(rows()) == 2
        asked = sim.requests[0].body
        assert "json_schema" in str(asked.get("output_config") or asked["response_format"])

    def test_tools_are_run_and_their_results_go_back(self, sim: Simulator, name: str) -> None:
        """Two calls of one turn are run, their results answered for, and every turn is a row."""
        sim.script(Answer(tool_calls=[("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})]), "Take both.")

        def weather(city: str) -> str:
            """Today's weather in a city."""
            return f"rain in {city}"

        events = list(llmnb.LLM(name, tools=[weather]).stream("Umbrella?"))
        assert [event.input["city"] for event in events if isinstance(event, ToolCall)] == ["Oslo", "Rome"]
        assert "".join(event.text for event in events if isinstance(event, Text)).endswith("Take both.")
        assert isinstance(events[-1], Done)
        assert "rain in Rome" in str(sim.requests[-1].body["messages"])
        assert [row["status"] for row in rows()][-2:] == ["ok", "ok"]

    def test_a_budget_stops_it_or_lets_it_pass(self, sim: Simulator, name: str) -> None:
        """What does not fit is not sent, and what nobody bills always fits."""
        llmnb.set_budget(usd=0.000001, per="day")
        if name.startswith("ollama:"):
            assert llmnb.LLM(name)("Hi").cost_usd == 0
        else:
            with pytest.raises(BudgetExceeded):
                llmnb.LLM(name)("Hi")
            assert sim.requests == []

    def test_a_cassette_needs_neither_key_nor_server(
        self, sim: Simulator, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was recorded is said again, whole and streamed, and the file holds no key."""
        path = tmp_path / "tape.jsonl"
        with llmnb.record(path):
            first = llmnb.LLM(name, cache=False)("Hi")
            pieces = [
                event.text for event in llmnb.LLM(name, cache=False).stream("Hi there") if isinstance(event, Text)
            ]
        assert sim.api_key not in path.read_text()
        for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"):
            monkeypatch.delenv(variable)
        sim.stop()
        with llmnb.replay(path):
            assert llmnb.LLM(name, cache=False)("Hi").text == first.text
            again = [event.text for event in llmnb.LLM(name, cache=False).stream("Hi there") if isinstance(event, Text)]
        assert "".join(again) == "".join(pieces)

    def test_a_failure_is_retried_and_told(self, sim: Simulator, name: str) -> None:
        """A 429 is waited for and repeated by the SDK; it is one row with two attempts."""
        sim.fail("rate_limited", retry_after_ms=1)
        events = list(llmnb.LLM(name).stream("Hi"))
        assert [type(event) for event in events if isinstance(event, Retry)] == [Retry]
        (row,) = rows()
        assert (row["attempts"], row["status"]) == (2, "ok")

    def test_an_error_comes_out_as_the_sdks_own(self, sim: Simulator, name: str) -> None:
        """An unknown model is a 404 of the SDK's, and a row that cost nothing."""
        prefix = name.rpartition(":")[0].split(":")[0]
        with pytest.raises(anthropic.NotFoundError):
            llmnb.LLM(f"{prefix}:nope" if prefix else "claude-nope")("Hi")
        (row,) = rows()
        assert (row["status"], row["error_type"], row["output_tokens"]) == ("error", "not_found_error", 0)

    @pytest.mark.parametrize("kind", ["truncate", "drop"])
    def test_a_stream_that_breaks_off_is_no_answer(self, sim: Simulator, name: str, kind: str) -> None:
        """What came is in the error, and the row is an estimate of what it cost, input included."""
        text = "one two three four five six seven eight nine"
        sim.script(Answer(text=text, fault=Fault(kind, after_events=2)), " and the rest")
        with pytest.raises(IncompleteReply) as caught:
            list(llmnb.LLM(name).stream("Count"))
        assert caught.value.partial
        assert text.startswith(caught.value.partial)
        (row,) = rows()
        assert (row["status"], row["estimated"]) == ("truncated", True)
        assert row["output_tokens"] > 0
        assert row["input_tokens"] > 0
        assert caught.value.resume().text == f"{caught.value.partial} and the rest"
        assert sim.requests[-1].body["messages"][-1]["role"] == "user"

    def test_stopping_early_closes_the_connection_and_is_booked(self, sim: Simulator, name: str) -> None:
        """Whoever leaves a stream hangs up on the server, and the row says so."""
        sim.script(Answer(text="one two three " * 400, delta_delay_s=0.002))
        stream = llmnb.LLM(name).stream("Count")
        assert isinstance(next(event for event in stream if not isinstance(event, Thinking)), Text)
        stream.close()
        sim.settle()
        (row,) = rows()
        assert (row["status"], row["estimated"]) == ("cancelled", True)
        assert sim.requests[0].disconnected_at is not None


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("claude-sonnet-5-5", "anthropic"),
        ("openai:gpt-5.2", "openai"),
        ("openai:gpt-6-sol", "openai"),
        ("gemini:gemini-2.5-flash", "gcp.gemini"),
        ("ollama:qwen3:8b", "ollama"),
    ],
)
def test_a_call_is_a_row_that_agrees_with_the_bill(sim: Simulator, name: str, provider: str) -> None:
    """The replies, the ledger's rows and the server's books say the same tokens and money, cached ones included."""
    long = "word " * 1_500
    sim.script(Answer(text="Good morning.", thinking="They greet me."), times=2)
    llm = llmnb.LLM(name, system=long, project="thesis", prompt_cache="5m", cache=False)
    replies = [llm("Hi"), list(llm.stream("Hi"))[-1]]
    for reply, row, billed in zip(replies, rows(), sim.billing, strict=True):
        assert (row["provider"], row["status"], row["project"]) == (provider, "ok", "thesis")
        assert row["model"] in name
        for field in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "output_tokens"):
            assert getattr(reply.usage, field) == row[field] == getattr(billed, field), field
        assert reply.usage.estimated is False
        # nobody bills what ollama runs here, for which the simulator has no price
        assert reply.cost_usd == Decimal(billed.price_nanousd or 0) / 10**9
        if provider in ("openai", "gcp.gemini"):
            assert reply.usage.thinking_tokens == billed.thinking_tokens > 0
    assert (sim.billing[1].cache_read_tokens > 0) is (rows()[1]["cache_read_tokens"] > 0)
