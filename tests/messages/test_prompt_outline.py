"""A request's prompt as a line of pieces: in whose order, how large, and equal when the cache would find it equal."""

from __future__ import annotations

from typing import Any, get_type_hints

import anthropic.types as sdk
import anthropic.types.beta as sdk_beta
import pytest

from llmnb.messages.prompt_outline import _MARKABLE_BLOCKS, Outline, outline, prompt_bytes

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


def body(**more: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "claude-sonnet-5-5", "messages": [{"role": "user", "content": "Hi"}]} | more


def prefixes(made: Outline) -> list[bytes]:
    """What the cache tells the pieces apart by."""
    return [piece.prefix for piece in made.pieces]


def test_the_order_is_tools_system_messages() -> None:
    """Every tool and block is a piece, found again by its path."""
    made = outline(
        body(
            tools=[TOOL],
            system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            messages=[
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
            ],
        )
    )
    assert [(piece.section, piece.path, piece.message) for piece in made.pieces] == [
        ("tools", ("tools", 0), None),
        ("system", ("system", 0), None),
        ("system", ("system", 1), None),
        ("messages", ("messages", 0, "content"), 1),
        ("messages", ("messages", 1, "content", 0), 2),
    ]
    totals = [piece.total for piece in made.pieces]
    assert totals == sorted(totals)
    assert totals[-1] == sum(piece.tokens for piece in made.pieces)


def test_a_text_and_a_block_with_it_are_the_same_prompt() -> None:
    """The API reads a text as one block; so does the outline, in system and messages."""
    block = [{"type": "text", "text": "Hi"}]
    texts = outline(body(system="Hi"))
    assert prefixes(outline(body(system=block, messages=[{"role": "user", "content": block}]))) == prefixes(texts)


def test_breakpoints_are_no_part_of_the_prompt() -> None:
    """Setting and moving them changes no hash."""
    plain = body(tools=[TOOL], system=[{"type": "text", "text": "a"}])
    marked = body(
        tools=[TOOL | {"cache_control": MARK}], system=[{"type": "text", "text": "a", "cache_control": HOUR}],
        cache_control=MARK,
    )  # fmt: skip
    assert prefixes(outline(plain)) == prefixes(outline(marked))
    assert [piece.ttls for piece in outline(marked).pieces] == [("5m",), ("1h",), ()]
    assert (outline(marked).automatic_ttl, outline(marked).automatic_at) == ("5m", 2)


def test_a_change_changes_everything_behind_it_and_nothing_before() -> None:
    """Model, speed and scope change all; thinking and tool choice only the messages."""
    base = body(tools=[TOOL], system="s", messages=[{"role": "user", "content": "a"}])
    same = prefixes(outline(base))

    def kept(changed: dict[str, Any], scope: bytes = b"") -> int:
        return sum(a == b for a, b in zip(same, prefixes(outline(changed, scope)), strict=True))

    assert kept(base) == 3
    assert kept(base | {"model": "claude-opus-5-5"}) == 0
    assert kept(base | {"speed": "fast"}) == 0
    assert kept(base, b"another key") == 0
    assert kept(base | {"tools": [TOOL | {"description": "Else."}]}) == 0
    assert kept(base | {"system": "t"}) == 1
    assert kept(base | {"thinking": {"type": "adaptive"}}) == 2
    assert kept(base | {"tool_choice": {"type": "auto"}}) == 2
    assert kept(base | {"messages": [{"role": "assistant", "content": "a"}]}) == 2


def test_breakpoints_inside_a_block_are_found_and_data_is_left_alone() -> None:
    """A block in a tool result may bear one; an argument, or a property of a schema, may have that name."""
    inner = {"type": "text", "text": "x", "cache_control": MARK}
    messages = [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {"cache_control": MARK}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [inner]}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": [inner]}}]},
    ]
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    made = outline(body(tools=[TOOL | {"input_schema": schema}], messages=messages))
    assert [piece.ttls for piece in made.pieces] == [(), (), ("5m",), ("5m",)]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "text", "text": "x"}, True),
        ({"type": "text", "text": " \n"}, False),
        ({"type": "text", "text": "x", "cache_control": None}, False),
        ({"type": "thinking", "thinking": "x", "signature": "s"}, False),
        ({"type": "redacted_thinking", "data": "x"}, False),
        ({"type": "tool_result", "tool_use_id": "t"}, True),
        ({"type": "something_new"}, False),
        ({}, False),
    ],
)
def test_what_can_bear_a_breakpoint(block: dict[str, Any], expected: bool) -> None:
    """What the API would refuse to mark is not markable, nor what the caller has decided about, nor the unknown."""
    [piece] = outline(body(messages=[{"role": "user", "content": [block]}])).pieces
    assert piece.is_markable == expected
    [piece] = outline(body(messages=[{"role": "system", "content": [block]}])).pieces
    assert not piece.is_markable


def test_deferred_and_nameless_tools_bear_none() -> None:
    """A tool that is loaded later is no part of the prefix, and a toolset has no name of its own."""
    tools = [TOOL, TOOL | {"name": "later", "defer_loading": True}, {"type": "mcp_toolset", "mcp_server_name": "m"}]
    assert [piece.is_markable for piece in outline(body(tools=tools)).pieces[:3]] == [True, False, False]


def test_markable_blocks_are_those_of_the_sdk() -> None:
    """Every block type that is marked takes cache_control by its parameter type in the installed SDK."""
    takes: set[str] = set()
    for room in (sdk, sdk_beta):
        for name in dir(room):
            kind = getattr(room, name)
            if name.endswith("Param") and hasattr(kind, "__annotations__") and hasattr(kind, "__total__"):
                hints = get_type_hints(kind)
                if "cache_control" in hints and "type" in hints:
                    takes |= set(getattr(hints["type"], "__args__", ()))
    assert takes >= _MARKABLE_BLOCKS
    assert not {"thinking", "redacted_thinking"} & takes


def test_a_thread_goes_on_from_what_the_api_holds() -> None:
    """The tokens before are counted in, and two threads are two prompts."""
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    made = outline(body(thread=thread), held_tokens=5000)
    assert (made.in_thread, made.continues) == (True, "msg_1")
    assert made.pieces[0].total > 5000
    other = outline(body(thread=thread | {"previous_message_id": "msg_2"}))
    assert prefixes(made) != prefixes(other)
    assert outline(body(thread={"type": "create"})).continues is None


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"messages": None},
        {"messages": [None, "x", {}], "system": 7, "tools": "no"},
        {"messages": [{"role": "user", "content": [1, None, "x"]}], "thread": "x"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}], "system": [{"text": 3}]},
    ],
)
def test_odd_requests_are_read_as_far_as_they_go(odd: dict[str, Any]) -> None:
    """What the API will refuse is not refused here."""
    assert isinstance(outline(odd), Outline)
    assert prompt_bytes(odd) >= 0


def test_bytes_of_a_prompt() -> None:
    """Text counts in UTF-8, a picture as the most it may cost, keys not at all."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}
    assert prompt_bytes(body(system="æ", messages=[{"role": "user", "content": "abc"}])) == 5
    assert prompt_bytes(body(messages=[{"role": "user", "content": [image]}])) < 10_000
