"""What the parts of a request count, held against counts that the API gave where there are recordings."""

from __future__ import annotations

import json
import os
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import TextBlock

from llmnb.tokens import Counter, count_block, count_text, count_tool

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "description": "Today's weather.", "input_schema": {"type": "object", "properties": {}}}


def ask(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "What is the weather in Oslo?"}], **more}


def count(body: dict[str, Any], model: str = MODEL) -> float:
    return Counter(model).request(body).tokens


def test_a_text_block_counts_its_text() -> None:
    """A breakpoint on a block is no part of the prompt."""
    text = "Twenty pages of guidance. " * 100
    block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    assert count_block(block, MODEL) == count_text(text, MODEL)


def test_a_string_and_a_block_are_the_same() -> None:
    """However the content is written, also as an object of the SDK."""
    written = [{"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]}]
    objects = [{"role": "user", "content": [TextBlock(type="text", text="What is the weather in Oslo?")]}]
    assert count(ask()) == count(ask(messages=written)) == count(ask(messages=objects))


def test_tools_cost_their_definitions_and_a_prompt() -> None:
    """Tools add the prompt that makes a model use them; a forced choice has a longer one."""
    tools = count(ask(tools=[TOOL])) - count(ask())
    assert tools == pytest.approx(496 + count_tool(TOOL, MODEL), abs=1)
    assert count(ask(tools=[TOOL], tool_choice={"type": "any"})) > count(ask(tools=[TOOL]))
    assert count(ask(tools=[])) == count(ask())


@pytest.mark.parametrize(
    "more",
    [
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be brief."}]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": [*ask()["messages"], {"role": "assistant", "content": "Rain."}, *ask()["messages"]]},
    ],
)
def test_everything_that_the_model_reads_counts(more: dict[str, Any]) -> None:
    """System prompts, schemas, server tools and earlier turns all add tokens."""
    assert count(ask(**more)) > count(ask())


def test_tool_calls_and_results_count() -> None:
    """Both sides of a tool call, whatever the result is made of."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
    words = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain, 4 degrees"}
    blocks = {**words, "content": [{"type": "text", "text": "Rain, 4 degrees"}]}
    assert count_block(call, MODEL) > 28
    assert count_block(words, MODEL) == count_block(blocks, MODEL) > 24


def test_an_image_of_unknown_size_counts_as_the_largest() -> None:
    """An address or a file may be any picture: the most that one can cost is counted."""
    block = {"type": "image", "source": {"type": "url", "url": "https://example.org/plot.png"}}
    assert count_block(block, MODEL) == 4789
    assert count_block(block, "claude-sonnet-4-5") == 1573


@pytest.mark.parametrize(
    "more",
    [
        {"thread": {"previous_message_id": "msg_1"}},
        {"container": "container_1"},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
    ],
)
def test_what_a_request_only_refers_to_makes_its_count_a_lower_bound(more: dict[str, Any]) -> None:
    """A thread, a container, a file: the body does not hold what will be read."""
    assert Counter(MODEL).request(ask()).complete
    assert not Counter(MODEL).request(ask(**more)).complete


@pytest.mark.parametrize("odd", [None, 3, "text", [], {}, [None], [{"content": None}], [{"content": [3, None]}]])
def test_bodies_nobody_expects_are_counted_as_far_as_they_go(odd: object) -> None:
    """The API refuses such a body; counting it raises nothing."""
    assert count({"messages": odd, "tools": odd, "system": odd, "thinking": odd, "output_config": odd}) >= 0


# Against the API's own counts -----------------------------------------------------------------------------------------

RECORDINGS = os.environ.get("LLMNB_TEST_RECORDINGS")
OTHER_PROMPTS = ("006", "007", "023", "036", "038")
"""Recorded with another prompt for tools (006, 007), compacted, or full of encrypted search results."""


@pytest.mark.skipif(RECORDINGS is None, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")
def test_counts_are_near_those_of_the_api() -> None:
    """On the recorded requests the mean error is under 10 %, where bytes / 4 is off by more than half."""
    errors, plain = list[float](), list[float]()
    for path in sorted(Path(str(RECORDINGS)).glob("*.meta.json")):
        body, counted = _counted(path)
        if counted is not None and not path.name.startswith(OTHER_PROMPTS):
            errors.append(abs(count(body, body["model"]) / counted - 1))
            words = json.dumps([body.get("system"), body.get("tools"), body["messages"]])
            plain.append(abs(len(words.encode()) / 4 / counted - 1))
    assert len(errors) >= 30
    assert statistics.mean(errors) < 0.10
    assert statistics.mean(plain) > 0.50


def _counted(path: Path) -> tuple[dict[str, Any], int | None]:
    meta = json.loads(path.read_text())
    body = meta["request"].get("body") or {}
    if "messages" not in body or meta["response"]["status"] != 200:
        return body, None
    answer = (path.parent / meta["response"]["file"]).read_text()
    # before tools of the server added their results: the first counts, where a stream gives them twice
    found = [re.search(rf'"{name}":\s*(\d+)', answer) for name in _INPUTS]
    return body, sum(int(match[1]) for match in found if match)


_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
