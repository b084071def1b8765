"""Recorded answers of the real API through `LLM`: what comes of them, and of the same content over the other wire.

The recordings are in the folder named by LLMNB_TEST_RECORDINGS and are no part of the project; without them these tests
skip. What an answer holds is read off its body here, by other code than llmnb's; what it cost stands in
tests/test_recordings.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool

import llmnb
from llmnb.events import Citation, Done, Text, Thinking, ToolCall
from llmnb.simulator import Answer, Simulator

from ..test_recordings import BILLED, REFUSED

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

FOLDER = os.environ.get("LLMNB_TEST_RECORDINGS")
KNOWN = ("system", "thinking", "tool_choice", "output_config", "cache_control")
"""Fields of a recorded request that `LLM` takes by their names."""


@dataclass
class Recording:
    """One exchange with the real API."""

    model: str
    asked: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: bytes
    kind: str

    @classmethod
    def read(cls, number: str) -> Recording:
        if not FOLDER:
            pytest.skip("set LLMNB_TEST_RECORDINGS to a folder of recorded responses to run this")
        [meta] = Path(FOLDER).glob(f"{number}_*.meta.json")
        told = json.loads(meta.read_text())
        asked, response = told["request"]["body"], told["response"]
        body = (meta.parent / response["file"]).read_bytes()
        return cls(asked["model"], asked, response["status"], response["headers"], body, response["kind"])

    def message(self) -> dict[str, Any]:
        """The message that the body holds, its blocks put together from their pieces."""
        if self.kind == "json":
            return json.loads(self.body)
        message: dict[str, Any] = {}
        for line in self.body.splitlines():
            if line.startswith(b"data:"):
                _apply(message, json.loads(line[5:]))
        return message

    def options(self) -> dict[str, Any]:
        """The recorded request as options of a question."""
        rest = {
            name for name in self.asked if name not in (*KNOWN, "model", "messages", "stream", "max_tokens", "tools")
        }
        options: dict[str, Any] = {name: self.asked[name] for name in KNOWN if name in self.asked}
        if not self.asked.get("tools"):
            options.pop("tool_choice", None)
        else:
            options["tools"] = [_runnable(tool) for tool in self.asked["tools"]]
        if rest:
            options["extra_body"] = {name: self.asked[name] for name in rest}
        return {**options, "max_tokens": self.asked["max_tokens"], "prompt_cache": None}

    def prompt(self) -> Any:
        """What was asked last."""
        content = self.asked["messages"][-1]["content"]
        is_question = isinstance(content, str) or all(
            block["type"] in ("text", "image", "document") for block in content
        )
        return content if is_question and self.asked["messages"][-1]["role"] == "user" else "Go on."


def _apply(message: dict[str, Any], event: dict[str, Any]) -> None:
    if event["type"] == "message_start":
        message.update(event["message"])
    elif event["type"] == "content_block_start":
        message["content"].append(event["content_block"])
    elif event["type"] == "content_block_delta":
        block, delta = message["content"][event["index"]], event["delta"]
        for field in ("text", "thinking", "partial_json"):
            if isinstance(delta.get(field), str):
                block[field] = (block.get(field) or "") + delta[field]
        if "citation" in delta:
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
    elif event["type"] == "message_delta":
        message.update(event["delta"])


def _runnable(tool: dict[str, Any]) -> Any:
    """A tool of the caller's as one that can be run; one of the API's as it is."""
    if tool.get("type") not in (None, "custom"):
        return {name: value for name, value in tool.items() if value is not None}

    def run(**given: Any) -> str:
        """Nothing much."""
        return "fine"

    return beta_tool(
        run, name=tool["name"], description=tool.get("description") or "-", input_schema=tool["input_schema"]
    )


def _input(block: dict[str, Any]) -> Any:
    return json.loads(block["partial_json"]) if block.get("partial_json") else block["input"]


def _text(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def _thinking(message: dict[str, Any]) -> str:
    return "".join(block["thinking"] for block in message["content"] if block["type"] == "thinking")


def _calls(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(block["name"], _input(block)) for block in message["content"] if block["type"] == "tool_use"]


def _told(events: list[Any], kind: type[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


@pytest.mark.parametrize("number", sorted(BILLED))
def test_a_recorded_answer_comes_whole(sim: Simulator, number: str) -> None:
    """As events, as a reply, and from the cache: text, thinking, calls and sources are the body's, and the row has the
    tokens and dollars that were billed."""
    recording = Recording.read(number)
    message, billed = recording.message(), BILLED[number]
    calls = _calls(message)
    sim.replay(recording.status, recording.headers, recording.body, recording.kind)
    sim.script("Done.")  # where the model is asked to go on
    # with cache="all" answers of tools that run on the API's side are kept, too
    llm = llmnb.LLM(recording.model, cache="all", **recording.options())
    events = list(llm.stream(recording.prompt()))
    done = events[-1]
    assert isinstance(done, Done)
    said = _told(events, Text)
    assert said.startswith(_text(message))
    goes_on = bool(calls) or message["stop_reason"] == "pause_turn"
    assert goes_on or said == _text(message)
    assert _told(events, Thinking) == _thinking(message)
    own = [(event.name, event.input) for event in events if isinstance(event, ToolCall)]
    assert [call for call in own if call in calls] == calls
    cited = [one for block in message["content"] for one in block.get("citations") or []]
    assert {one["cited_text"] for one in cited} == {event.cited_text for event in events if isinstance(event, Citation)}
    rows = llmnb.calls().to_dict("records")[::-1]
    assert (rows[0]["model"], rows[0]["status"], rows[0]["cost_nanousd"]) == (billed.model, "ok", billed.nanousd)
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"]) == (billed.input, billed.output)
    assert len(rows) == (2 if goes_on else 1)
    assert done.usage.output_tokens == sum(row["output_tokens"] for row in rows)
    again = llm(recording.prompt())
    assert (again.source, again.cost_usd) == ("cache", 0)
    assert said.endswith(again.text)
    assert len(sim.requests) == len(rows)


@pytest.mark.parametrize("number", sorted(REFUSED))
def test_a_recorded_refusal_is_the_sdks_error(sim: Simulator, number: str) -> None:
    """It comes out of `LLM` as it is, and cost nothing."""
    recording = Recording.read(number)
    sim.replay(recording.status, recording.headers, recording.body)
    with pytest.raises(anthropic.BadRequestError):
        llmnb.LLM(recording.model, **recording.options())(recording.prompt())
    [row] = llmnb.calls().to_dict("records")
    assert (row["status"], row["error_type"], row["cost_nanousd"]) == ("error", REFUSED[number], 0)


# The same over the other wire -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(BILLED))
def test_its_twin_over_the_chat_wire_says_the_same(sim: Simulator, number: str) -> None:
    """Served as a chat completion with the tokens it was billed, the same words and calls make the same reply."""
    recording = Recording.read(number)
    message, billed = recording.message(), BILLED[number]
    if any(block["type"] not in ("text", "thinking", "tool_use") for block in message["content"]):
        pytest.skip("what tools of the API's side gave has no place in a chat completion")
    pytest.importorskip("openai")
    shows_thoughts = bool(_thinking(message))  # OpenAI counts thoughts, and shows none
    model = "ollama:qwen3:8b" if shows_thoughts else "openai:gpt-4o"
    text, calls = _text(message), _calls(message)
    usage = {"input_tokens": billed.input, "output_tokens": billed.output}
    usage["cache_read_input_tokens"] = billed.more.get("cache_read_tokens", 0)
    thinking = _thinking(message) if shows_thoughts else None
    sim.script(Answer(text=text, thinking=thinking, tool_calls=calls, usage=usage, stop_reason=message["stop_reason"]))
    sim.script("Done.")  # where tools were asked
    tools = [_runnable(tool) for tool in recording.asked.get("tools") or () if "input_schema" in tool]
    options = {"tools": tools} if calls else {}
    events = list(llmnb.LLM(model, max_tokens=4_000, **options).stream("Hi"))
    assert _told(events, Text).startswith(text)
    assert _told(events, Thinking) == (thinking or "")
    assert [(event.name, event.input) for event in events if isinstance(event, ToolCall)] == calls
    row = llmnb.calls().to_dict("records")[-1]
    bill = sim.billing[0]
    counted = ("input_tokens", "cache_read_tokens", "output_tokens")
    read = 0 if shows_thoughts else usage["cache_read_input_tokens"]  # ollama counts none apart
    assert row["output_tokens"] == billed.output
    assert row["cache_read_tokens"] == read
    assert row["input_tokens"] + row["cache_read_tokens"] == billed.input + usage["cache_read_input_tokens"]
    assert shows_thoughts or [row[name] for name in counted] == [getattr(bill, name) for name in counted]
