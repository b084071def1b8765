"""Prompt caching through the real SDK: what is written, read, refreshed and forgotten, and why."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from llmnb.simulator import Clock, Simulator

from .asking import MODEL, ask

GUIDE = "Write plainly, and say what you measured. " * 150  # some 1,400 tokens
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def system(text: str = GUIDE, mark: dict[str, str] = MARK) -> list[dict[str, Any]]:
    """A system prompt with a breakpoint on it."""
    return [{"type": "text", "text": text, "cache_control": mark}]


def counts(message: Any) -> tuple[int, int, int]:
    """Tokens read, written for five minutes and written for an hour."""
    usage = message.usage
    split = usage.cache_creation
    return usage.cache_read_input_tokens, split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens


def total(message: Any) -> int:
    """All input tokens."""
    usage = message.usage
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_a_prefix_is_written_once_and_read_after(client: anthropic.Anthropic) -> None:
    """The first call writes the marked prefix, the second reads it; the input adds up to the same."""
    first = client.messages.create(**ask("One?", system=system()))
    second = client.messages.create(**ask("Two?", system=system()))
    read, five, hour = counts(first)
    assert (read, hour) == (0, 0)
    assert five > 1000
    assert counts(second) == (five, 0, 0)
    assert total(first) == total(second)
    assert first.usage.input_tokens < 20


def test_nothing_is_cached_without_a_breakpoint(client: anthropic.Anthropic) -> None:
    """No mark, no cache."""
    for _ in range(2):
        assert counts(client.messages.create(**ask(system=GUIDE))) == (0, 0, 0)


def test_a_prefix_below_the_models_minimum_is_silently_not_cached(client: anthropic.Anthropic) -> None:
    """1,400 tokens are enough for one model and too few for another, and no error says so."""
    small = client.messages.create(**ask(system=system(), model="claude-haiku-4-5"))
    assert counts(small) == (0, 0, 0)
    assert counts(client.messages.create(**ask(system=system())))[1] > 0


def test_entries_expire_by_their_ttl_and_a_read_refreshes_them(client: anthropic.Anthropic, clock: Clock) -> None:
    """Five minutes after the last use a 5m entry is gone; reads in between keep it."""
    _, written, _ = counts(client.messages.create(**ask(system=system())))
    for _ in range(3):
        clock.advance(299)
        assert counts(client.messages.create(**ask(system=system())))[0] == written
    clock.advance(301)
    assert counts(client.messages.create(**ask(system=system()))) == (0, written, 0)


def test_one_hour_entries_last_an_hour(client: anthropic.Anthropic, clock: Clock) -> None:
    """A 1h breakpoint is accounted apart and lives for an hour."""
    _, _, written = counts(client.messages.create(**ask(system=system(mark=HOUR))))
    clock.advance(3599)
    assert counts(client.messages.create(**ask(system=system(mark=HOUR)))) == (written, 0, 0)
    clock.advance(3601)
    assert counts(client.messages.create(**ask(system=system(mark=HOUR)))) == (0, 0, written)


def test_mixed_lifetimes_are_split(client: anthropic.Anthropic) -> None:
    """An hour for the system prompt and five minutes for the conversation behind it."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "Notes. " * 300, "cache_control": MARK}]}]
    read, five, hour = counts(client.messages.create(**ask(system=system(mark=HOUR), messages=messages)))
    assert read == 0
    assert five > 300
    assert hour > 1000


def test_one_changed_character_misses_everything_behind_it(client: anthropic.Anthropic) -> None:
    """A change before the mark is a miss, a change behind it a hit."""
    _, written, _ = counts(client.messages.create(**ask(system=system())))
    assert counts(client.messages.create(**ask("Other?", system=system())))[0] == written
    assert counts(client.messages.create(**ask(system=system("X" + GUIDE[1:]))))[0] == 0


def test_the_order_is_tools_system_messages(client: anthropic.Anthropic) -> None:
    """A changed tool invalidates a system prompt behind it; a changed question does not."""
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    client.messages.create(**ask(system=system(), tools=[tool]))
    assert counts(client.messages.create(**ask("Another?", system=system(), tools=[tool])))[0] > 0
    changed = tool | {"description": "Looks again."}
    assert counts(client.messages.create(**ask(system=system(), tools=[changed])))[0] == 0


def test_a_changed_tool_choice_keeps_the_system_prompt_cached(client: anthropic.Anthropic) -> None:
    """tool_choice and thinking enter where the messages begin."""
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Notes. " * 900, "cache_control": MARK}]}]
    request = ask(system=system(), tools=[tool], messages=blocks)
    _, both, _ = counts(client.messages.create(**request))
    read, written, _ = counts(client.messages.create(**(request | {"tool_choice": {"type": "none"}})))
    assert 1000 < read < both
    assert read + written == both


def test_a_growing_conversation_reads_up_to_its_last_breakpoint(client: anthropic.Anthropic) -> None:
    """With automatic caching each turn reads what the turn before wrote, and writes only what is new."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": GUIDE}]
    _, cached, _ = counts(client.messages.create(**ask(messages=messages, cache_control=MARK)))
    for turn in range(3):
        messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": f"And turn {turn}?"}]
        read, written, _ = counts(client.messages.create(**ask(messages=messages, cache_control=MARK)))
        assert read == cached
        assert 0 < written < 40
        cached += written


def test_the_lookback_is_twenty_blocks(client: anthropic.Anthropic) -> None:
    """A breakpoint more than twenty blocks behind the last entry does not find it."""
    many = [{"type": "text", "text": f"Line {at}. "} for at in range(25)]
    base = {"role": "user", "content": [{"type": "text", "text": GUIDE, "cache_control": MARK}]}
    client.messages.create(**ask(messages=[base]))
    near, far = many[:18], many[:24]
    for blocks, expected in ((far, False), (near, True)):
        marked = [*blocks[:-1], blocks[-1] | {"cache_control": MARK}]
        plain = [{"type": "text", "text": GUIDE}, *marked]
        message = client.messages.create(**ask(messages=[{"role": "user", "content": plain}]))
        assert (counts(message)[0] > 0) == expected


def test_keys_workspaces_and_models_do_not_share(sim: Simulator) -> None:
    """Another key or another model starts with nothing; the same workspace shares."""
    with sim.client(api_key="sk-one") as one, sim.client(api_key="sk-two") as two:
        assert counts(one.messages.create(**ask(system=system())))[1] > 0
        assert counts(two.messages.create(**ask(system=system())))[0] == 0
        assert counts(one.messages.create(**ask(system=system(), model="claude-opus-5-5")))[0] == 0
        shared = {"anthropic-workspace-id": "wrkspc_1"}
        one.messages.create(**ask(system=system()), extra_headers=shared)
        assert counts(two.messages.create(**ask(system=system()), extra_headers=shared))[0] > 0


def test_prewarming_fills_the_cache(client: anthropic.Anthropic) -> None:
    """max_tokens=0 writes, the real call reads."""
    _, written, _ = counts(client.messages.create(**ask(system=system(), max_tokens=0)))
    assert counts(client.messages.create(**ask(system=system())))[0] == written > 0


def test_prewarming_takes_nothing_that_asks_for_output(client: anthropic.Anthropic) -> None:
    """A stream, a thinking budget, a schema or a forced tool cannot go with max_tokens=0."""
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wrong: list[dict[str, Any]] = [
        {"stream": True},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "model": "claude-sonnet-4-6"},
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"tools": [tool], "tool_choice": {"type": "any"}},
    ]
    for change in wrong:
        with pytest.raises(anthropic.BadRequestError, match="cannot be combined"):
            client.messages.create(**(ask(system=system(), max_tokens=0) | change))
    assert client.messages.create(**ask(system=system(), max_tokens=0, thinking={"type": "adaptive"})).content == []


def test_streams_report_the_cache_in_both_usages(client: anthropic.Anthropic) -> None:
    """The split is in message_start, the totals are in message_delta."""
    events = list(client.messages.create(**ask(system=system()), stream=True))
    start, delta = events[0].message.usage, events[-2].usage
    assert start.cache_creation.ephemeral_5m_input_tokens == delta.cache_creation_input_tokens > 0


def test_a_refused_request_writes_nothing(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A request that got a 529 has warmed nothing."""
    sim.fail("overloaded")
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(**ask(system=system()))
    assert counts(client.messages.create(**ask(system=system())))[0] == 0


def diagnosed(client: anthropic.Anthropic, previous: str | None, **more: Any) -> Any:
    """A call that asks for a diagnosis."""
    return client.messages.create(**(ask("Q", system=system()) | more), diagnostics={"previous_message_id": previous})


def test_diagnostics_name_what_changed(client: anthropic.Anthropic) -> None:
    """The reason is model, tools, system or messages, whichever diverges first; none when nothing did."""
    first = diagnosed(client, None)
    assert first.diagnostics is None
    longer = [*ask("Q")["messages"], {"role": "assistant", "content": "A"}, {"role": "user", "content": "R"}]
    assert diagnosed(client, first.id, messages=longer).diagnostics is None
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    changes: dict[str, dict[str, Any]] = {
        "model_changed": {"model": "claude-opus-5-5"},
        "tools_changed": {"tools": [tool]},
        "system_changed": {"system": system("Another. " * 900)},
        "messages_changed": {"messages": [{"role": "user", "content": "Other"}]},
    }
    for reason, change in changes.items():
        found = diagnosed(client, first.id, **change).diagnostics.cache_miss_reason
        assert found.type == reason
        assert (found.cache_missed_input_tokens > 1000) == (reason != "messages_changed")
    assert diagnosed(client, "msg_gone").diagnostics.cache_miss_reason.type == "previous_message_not_found"
    other = diagnosed(client, first.id, thinking={"type": "adaptive"})
    assert other.diagnostics.cache_miss_reason.type == "unavailable"


def test_breakpoints_that_the_api_refuses(client: anthropic.Anthropic) -> None:
    """More than four, a one-hour one behind a five-minute one, and unknown lifetimes are errors."""
    part = {"type": "text", "text": "x", "cache_control": MARK}
    with pytest.raises(anthropic.BadRequestError, match="maximum of 4 blocks"):
        client.messages.create(**ask(messages=[{"role": "user", "content": [part] * 5}]))
    with pytest.raises(anthropic.BadRequestError, match="must not come after"):
        client.messages.create(**ask(messages=[{"role": "user", "content": [part, part | {"cache_control": HOUR}]}]))
    with pytest.raises(anthropic.BadRequestError, match="'5m' or '1h'"):
        client.messages.create(**ask(system=system(mark={"type": "ephemeral", "ttl": "2h"})))
    with pytest.raises(anthropic.BadRequestError, match="Found 5"):
        client.messages.create(**ask(messages=[{"role": "user", "content": [part] * 4}], cache_control=MARK))


def test_the_model_constant_is_the_one_whose_minimum_is_512() -> None:
    """The tests above rely on a small minimum."""
    from llmnb.simulator.catalog import BY_NAME

    assert BY_NAME[MODEL].cache_minimum_tokens == 512
