"""Where breakpoints go and for how long: what must hold for every request, and what is meant for some."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.messages.prompt_outline import Outline, outline
from llmnb.pricing import CachePrices, cache_prices
from llmnb.prompt_cache import (
    LOOKBACK_BLOCKS,
    MAX_BREAKPOINTS,
    MAX_IN_THREAD,
    PRIOR,
    Gaps,
    Kind,
    Mark,
    Ttl,
    breakpoints,
    candidates,
    cheapest,
    first_change,
    kind_of,
    marked,
    place,
)
from llmnb.simulator.message_rules import breakpoints as found_by_the_simulator
from llmnb.simulator.message_rules import check_breakpoints

LONG = "Write plainly, and say what you measured. " * 120
MINIMUM = 512
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
TOOL: dict[str, Any] = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
LONG_TOOL = TOOL | {"description": LONG}


def body(*contents: Any, **more: Any) -> dict[str, Any]:
    """A request whose messages have these contents, from the user and the assistant in turn."""
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(contents)
    ]
    return {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": messages} | more


def text(value: str, **more: Any) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value} | more


def placed(
    request: dict[str, Any], ttl: Ttl = "5m", *, in_chat: bool = False, minimum: int = MINIMUM
) -> tuple[Outline, list[Mark]]:
    """The breakpoints that are set where everything is wished for."""
    made = outline(request)
    wanted = candidates(made, kind_of(request, made, in_chat=in_chat), minimum)
    return made, place(made, wanted, lambda candidate, piece: ttl, minimum)


def places(request: dict[str, Any], ttl: Ttl = "5m", **more: Any) -> list[tuple[str, str, Any]]:
    """The same as (place, TTL, path)."""
    made, marks = placed(request, ttl, **more)
    return [(mark.candidate.place, mark.ttl, made.pieces[mark.candidate.at].path) for mark in marks]


# What must hold for every request -------------------------------------------------------------------------------------

controls = st.sampled_from([None, None, None, MARK, HOUR])
words = st.sampled_from(["Hi", "x", " ", "Notes. " * 40, LONG])


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    """A content block, with or without a breakpoint of the caller's."""
    made: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"type": "text"},
                {"type": "text"},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}},
                {"type": "thinking", "thinking": "Hm", "signature": "s"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"cache_control": "mine"}},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}]},
            ]
        )
    )
    made = copy.deepcopy(made)
    if made["type"] == "text":
        made["text"] = draw(words)
    if (control := draw(controls)) is not None and made["type"] != "thinking":
        made["cache_control"] = control
    if made["type"] == "tool_result" and draw(st.booleans()):
        made["content"][0]["cache_control"] = draw(st.sampled_from([MARK, HOUR]))
    return made


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request as a caller may make one, breakpoints and all; not always one that the API would take."""
    contents = st.one_of(words, st.lists(blocks(), min_size=1, max_size=26))
    made = body(*draw(st.lists(contents, min_size=1, max_size=5)))
    if draw(st.booleans()):
        made["system"] = draw(words)
    elif draw(st.booleans()):
        made["system"] = [
            text(draw(words)) | ({} if (control := draw(controls)) is None else {"cache_control": control})
            for _ in range(draw(st.integers(1, 3)))
        ]
    made["tools"] = [
        draw(st.sampled_from([TOOL, LONG_TOOL])) | ({"cache_control": MARK} if draw(st.booleans()) else {})
        for _ in range(draw(st.integers(0, 2)))
    ]
    if draw(st.booleans()):
        made["cache_control"] = draw(st.sampled_from([MARK, HOUR, None]))
    if draw(st.booleans()):
        made["thread"] = {"type": "create"}
    return made


def stripped(request: dict[str, Any], original: dict[str, Any], made: Outline, marks: list[Mark]) -> dict[str, Any]:
    """The request without the breakpoints of ours: blocks that were made of a text are texts again."""
    result = copy.deepcopy(request)
    for mark in marks:
        *way, last = made.pieces[mark.candidate.at].path
        holder: Any = result
        given: Any = original
        for step in way:
            holder, given = holder[step], given[step]
        if isinstance(given[last], str):
            [block] = holder[last]
            assert set(block) == {"type", "text", "cache_control"}
            holder[last] = block["text"]
        else:
            del holder[last]["cache_control"]
    return result


def is_in_order(controls_: list[dict[str, Any]]) -> bool:
    """Whether no longer TTL stands behind a shorter one."""
    ttls = [control.get("ttl", "5m") for control in controls_]
    return "1h" not in ttls[ttls.index("5m") :] if "5m" in ttls else True


def explicit(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every breakpoint in the order of the prompt as another program finds them, and those inside tool results."""
    flat = copy.deepcopy(request)
    for message in flat["messages"]:
        if isinstance(message["content"], list):
            message["content"] = [
                part for block in message["content"] for part in [*_inside(block), block]
            ]  # fmt: skip
    return found_by_the_simulator({name: value for name, value in flat.items() if name != "cache_control"})


def _inside(block: dict[str, Any]) -> list[dict[str, Any]]:
    return block["content"] if block["type"] == "tool_result" else []


@given(requests(), st.sampled_from(["5m", "1h"]), st.booleans(), st.sampled_from([512, 1024, 4096]))
def test_what_holds_for_every_request(request: dict[str, Any], ttl: Ttl, in_chat: bool, minimum: int) -> None:
    """Never more than four with the caller's, none below the minimum, TTLs in order, all else the very request."""
    before = copy.deepcopy(request)
    made, marks = placed(request, ttl, in_chat=in_chat, minimum=minimum)
    sent = marked(request, made, marks)
    assert request == before
    assert stripped(sent, request, made, marks) == request
    theirs, all_ = explicit(request), explicit(sent)
    automatic = int(isinstance(request.get("cache_control"), dict))
    most = MAX_IN_THREAD if "thread" in request else MAX_BREAKPOINTS
    assert len(all_) == len(theirs) + len(marks)
    assert not marks or len(all_) + automatic <= most
    assert all(made.pieces[mark.candidate.at].total >= minimum for mark in marks)
    if is_in_order(theirs):
        assert is_in_order(all_)
    assert [point.yours for point in breakpoints(made, marks)].count(True) == len(theirs) + automatic


@given(requests(), st.data())
def test_mixed_wishes_stay_in_order(request: dict[str, Any], data: st.DataObject) -> None:
    """Whatever TTL is wished for each place, what is set is taken by the API, if the caller's own is."""
    made = outline(request)
    wanted = candidates(made, "chat", MINIMUM)
    marks = place(made, wanted, lambda *_: data.draw(st.sampled_from(["5m", "1h", None])), MINIMUM)
    sent = marked(request, made, marks)
    if is_in_order(explicit(request)):
        assert is_in_order(explicit(sent))
    assert [mark.candidate.at for mark in marks] == sorted({mark.candidate.at for mark in marks})


@given(requests(), st.sampled_from(["5m", "1h"]))
def test_the_simulator_takes_what_it_took_before(request: dict[str, Any], ttl: Ttl) -> None:
    """A request whose breakpoints another program finds right is still right with ours."""
    try:
        check_breakpoints(request)
    except Exception:
        return
    if isinstance(request.get("cache_control"), dict) and not is_in_order(
        [*explicit(request), request["cache_control"]]
    ):
        return
    made, marks = placed(request, ttl, in_chat=True)
    check_breakpoints(marked(request, made, marks))


# Where they go --------------------------------------------------------------------------------------------------------


def test_nothing_to_cache() -> None:
    """A short question, and a long one alone, whose end nothing shares."""
    assert places(body("Hi")) == []
    assert places(body(LONG)) == []
    assert places(body("Hi", system="Be brief.", tools=[TOOL])) == []


def test_tools_and_system() -> None:
    """Both ends are marked where both are long; a short one in front of a long one is cached with it."""
    assert places(body("Hi", system=LONG)) == [("system", "5m", ("system",))]
    both = places(body("Hi", system=LONG, tools=[TOOL, LONG_TOOL | {"name": "b"}], tool_choice={"type": "none"}), "1h")
    assert both == [("tools", "1h", ("tools", 1)), ("system", "1h", ("system",))]
    assert places(body("Hi", system=[text("a"), text(LONG)])) == [("system", "5m", ("system", 1))]
    short_tools = places(body("Hi", system=LONG, tools=[TOOL], tool_choice={"type": "tool", "name": "look"}))
    assert short_tools == [("system", "5m", ("system",))]


def test_system_text_stays_equal() -> None:
    """A text becomes one block with that very text; a list keeps its blocks."""
    request = body("Hi", system=LONG)
    made, marks = placed(request)
    assert marked(request, made, marks)["system"] == [{"type": "text", "text": LONG, "cache_control": MARK}]
    request = body("Hi", system=[text("a", citations=None), text(LONG)])
    made, marks = placed(request, "1h")
    sent = marked(request, made, marks)
    assert sent["system"] == [text("a", citations=None), text(LONG, cache_control=HOUR)]
    assert sent["system"][0] is request["system"][0]
    assert sent["messages"] is request["messages"]


def test_a_document_before_the_question() -> None:
    """What other questions may be asked about is marked; not a question in front of it, nor a short document."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}}
    here = ("messages", 0, "content", 0)
    assert places(body([document, text("What is it?")])) == [("document", "5m", here)]
    assert places(body([text(LONG), text("What is it?")])) == [("document", "5m", here)]
    assert places(body([text("What is it?"), document])) == []
    assert places(body([text("A note."), text("What is it?")], system=LONG)) == [("system", "5m", ("system",))]
    two = body([document, document, text("note"), text("What?")], system=LONG)
    assert places(two)[-1] == ("document", "5m", ("messages", 0, "content", 1))


def test_the_growing_end() -> None:
    """In a chat the end is marked from the first turn, elsewhere from the second; thinking bears none."""
    before, end = ("messages", 1, "content"), ("messages", 2, "content")
    assert places(body(LONG, "Yes", "And?")) == [("messages", "5m", before), ("messages", "5m", end)]
    assert places(body(LONG), in_chat=True) == [("messages", "5m", ("messages", 0, "content"))]
    assert places(body("Hi"), in_chat=True) == []
    assert places(body(LONG, tools=[TOOL])) == [("messages", "5m", ("messages", 0, "content"))]
    paused = body(LONG, [text("Wait"), {"type": "thinking", "thinking": "Hm", "signature": "s"}])
    assert places(paused)[-1] == ("messages", "5m", ("messages", 1, "content", 0))


def test_all_four_places() -> None:
    """Tools, system, a document and the end of the chat, in the order of the prompt."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}}
    request = body([document, text("What?")], "That.", "And?", system=LONG, tools=[LONG_TOOL])
    assert [name for name, _, _ in places(request)] == ["tools", "system", "document", "messages"]


def test_a_turn_of_many_blocks_marks_the_end_of_the_turn_before() -> None:
    """The API looks back 20 blocks; where a turn adds more, the earlier end is marked once more to be found."""
    many = [text(f"Part {number}") for number in range(LOOKBACK_BLOCKS + 5)]
    before = ("messages", 0, "content")
    assert places(body(LONG, "Yes", many))[0] == ("messages", "5m", before)
    assert before not in [path for _, _, path in places(body(LONG, "Yes", many[: LOOKBACK_BLOCKS - 3]))]


def test_a_thread_marks_three_and_what_is_new() -> None:
    """Its first request marks at most three; a later one the end of what it adds to what the API holds."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}}
    first = body([document, text("What?")], system=LONG, tools=[LONG_TOOL], thread={"type": "create"})
    assert [name for name, _, _ in places(first)] == ["system", "document", "messages"]
    later = body("And?", thread={"type": "continue", "previous_message_id": "m"})
    assert places(later) == []  # nothing is known of what the API holds
    held = outline(later, held_tokens=900)
    assert [c.place for c in candidates(held, "loop", MINIMUM)] == ["messages"]
    assert len(place(held, candidates(held, "loop", MINIMUM), lambda *_: "5m", MINIMUM)) == 1


# Beside the caller's own ----------------------------------------------------------------------------------------------


def test_their_breakpoints_take_their_places() -> None:
    """Four of theirs leave none; a place that has one is left as it is."""
    four = [text(LONG, cache_control=MARK)] * 4
    assert places(body(four, "Yes", "And?", system=LONG)) == []
    mine = body("Hi", system=[text(LONG, cache_control=HOUR)], tools=[LONG_TOOL], tool_choice={"type": "none"})
    assert places(mine, "1h") == [("tools", "1h", ("tools", 0))]


def test_their_ttl_decides_ours() -> None:
    """Behind a five-minute one ours is no longer, and in front of an hour no shorter one is set."""
    behind = body(LONG, "Yes", "And?", system=[text(LONG, cache_control=MARK)])
    assert places(behind, "1h")[-1] == ("messages", "5m", ("messages", 2, "content"))
    assert {ttl for _, ttl, _ in places(behind, "1h")} == {"5m"}
    before = body([text(LONG, cache_control=HOUR)], "Yes", "And?", system=LONG)
    assert [name for name, _, _ in places(before, "5m")] == ["messages", "messages"]
    assert [ttl for _, ttl, _ in places(before, "1h")] == ["1h", "1h", "1h"]


def test_a_request_that_marks_its_own_end() -> None:
    """The API places that breakpoint on the last block; ours are set elsewhere, and it counts."""
    request = body(LONG, "Yes", "And?", system=LONG, tools=[LONG_TOOL], cache_control=MARK)
    assert places(request)[-1] == ("messages", "5m", ("messages", 1, "content"))  # what stands before its end
    made, marks = placed(request)
    found = breakpoints(made, marks)
    assert [(point.place, point.ttl, point.yours) for point in found] == [
        ("tools", "5m", False),
        ("system", "5m", False),
        ("messages", "5m", False),
        ("messages", "5m", True),
    ]
    assert [point.tokens for point in found] == sorted({point.tokens for point in found})


# For how long ---------------------------------------------------------------------------------------------------------

TENTH = CachePrices(read=0.1, write_5m=1.25, write_1h=2.0)


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        (Gaps(1, 0, 0), "5m"),  # 0.1
        (Gaps(0, 1, 0), "1h"),  # 0.1 against 1.25
        (Gaps(0, 0, 1), None),
        (Gaps(22, 0, 78), "5m"),  # 0.22 x 0.1 + 0.78 x 1.25 = 0.997
        (Gaps(21, 0, 79), None),  # 1.0085
        (Gaps(0, 53, 47), "1h"),  # 0.53 x 0.1 + 0.47 x 2 = 0.993
        (Gaps(0, 52, 48), None),  # 1.012
        (Gaps(50, 50, 0), "1h"),  # 0.1 against 0.675
        (Gaps(90, 5, 5), "1h"),  # 0.195 against 0.215
        (Gaps(92, 2, 6), "5m"),  # 0.192 against 0.214
        (Gaps(), None),
    ],
)
def test_the_cheapest_ttl(gaps: Gaps, expected: str | None) -> None:
    """By hand: p x read + (1 - p) x write, against 1 without caching."""
    assert cheapest(gaps, TENTH) == expected


def test_a_cache_that_saves_nothing_is_not_used() -> None:
    """Where reading costs what input does (a provider without a discount), or no price is known for an hour."""
    assert cheapest(Gaps(1, 0, 0), CachePrices(1.0, 1.0, 1.0)) is None
    assert cheapest(Gaps(0, 1, 0), CachePrices(0.1, 1.25, None)) is None


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-opus-4-6"])
def test_before_anything_was_seen(model: str) -> None:
    """At the prices of every model: chats and loops are cached from the first turn, a single question is not."""
    prices = cache_prices(model)
    assert prices is not None
    first: dict[Kind, str | None] = {kind: cheapest(gaps, prices) for kind, gaps in PRIOR.items()}
    assert first == {"chat": "5m", "loop": "5m", "single": None}
    assert cheapest(PRIOR["single"].with_one(20), prices) == "5m"
    assert cheapest(PRIOR["single"].with_one(1200), prices) == "1h"
    assert cheapest(PRIOR["single"].with_one(7200), prices) is None
    assert cheapest(PRIOR["chat"].with_one(900).with_one(900), prices) == "1h"
    never = PRIOR["chat"]
    for _ in range(4):
        never += Gaps(later=1)
    assert cheapest(never, prices) is None


# What changed ---------------------------------------------------------------------------------------------------------


def test_the_first_change_counts() -> None:
    """Model, speed, tools, system, settings, a message: in that order, in the API's words where it has one."""
    base = body("One", "Two", "Three", system="s", tools=[TOOL])
    changes: dict[str, dict[str, Any]] = {
        "model_changed": {"model": "claude-opus-5-5"},
        "tools_changed": {"tools": [TOOL, TOOL | {"name": "b"}]},
        "system_changed": {"system": "t"},
        "settings_changed": {"thinking": {"type": "adaptive"}},
        "messages_changed": body("One", "Else", "Three"),
    }
    before = outline(base)
    end = len(before.pieces) - 1
    for reason, change in changes.items():
        found = first_change(before, outline(base | change), end)
        assert found is not None
        assert found.reason == reason
    assert "message 2" in str(
        first_change(before, outline(body("One", "Else", "Three") | {"system": "s", "tools": [TOOL]}), end)
    )
    fast = first_change(before, outline(base | {"speed": "fast"}), end)
    assert fast is not None
    assert (fast.reason, "speed" in fast.text) == ("model_changed", True)
    gone = {name: value for name, value in base.items() if name != "tools"}
    assert str(first_change(before, outline(gone), end)).count("tools_changed") == 1
    assert str(first_change(outline(gone), before, 0)).count("tools_changed") == 1


def test_a_longer_conversation_is_no_change() -> None:
    """Only what was cached before has to be there; what comes behind may be anything."""
    before = outline(body("One", system="s"))
    assert first_change(before, outline(body("One", "Two", "Three", system="s")), 1) is None
    assert first_change(before, outline(body("Else", system="s")), 0) is None
    shorter = first_change(outline(body("One", "Two", "Three")), outline(body("One")), 2)
    assert shorter is not None
    assert shorter.reason == "messages_changed"
