"""The protocol of the live view, with a front end written down in Python."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from llmnb.display import static
from llmnb.display.answer import Answer, Prose
from llmnb.display.scene import Message, Scene, shared_prefix
from llmnb.events import Done, Retry, StreamEvent, Text, Thinking, Throttled, ToolCall, ToolResult
from llmnb.records import Usage


class FrontEnd:
    """What response.js does with messages: keeps nodes, and waits for a keyframe after a gap."""

    def __init__(self) -> None:
        self.nodes: dict[int, list[Any]] = {}
        self.next = 0
        self.lost = False

    def receive(self, message: Message) -> None:
        message = json.loads(json.dumps(message))
        if "key" in message:
            self.nodes = {node[0]: node[1:] for node in message["key"]}
            self.next, self.lost = message["n"] + 1, False
        elif self.lost or message["n"] != self.next:
            self.lost = True
        else:
            self._apply(message["ops"])
            self.next += 1

    def _apply(self, ops: list[list[Any]]) -> None:
        for op, node, *rest in ops:
            if op == "new":
                self.nodes[node] = [*rest, "", False]
            elif op == "set":
                keep, html, end = rest
                units = self.nodes[node][2].encode("utf-16-le")
                last = units[len(units) - end * 2 :].decode("utf-16-le", "surrogatepass")
                self.nodes[node][2] = units[: keep * 2].decode("utf-16-le", "surrogatepass") + html + last
            else:
                self.nodes[node][3] = True


TEXTS = st.text(alphabet="ab *`#\n-|$🎉é", min_size=1, max_size=12)
EVENTS: st.SearchStrategy[StreamEvent] = st.one_of(
    TEXTS.map(Text),
    TEXTS.map(Thinking),
    st.sampled_from(["1", "2"]).map(lambda i: ToolCall(i, "tool", {"a": i})),
    st.sampled_from(["1", "2"]).map(lambda i: ToolResult(i, "tool", "result 🎉", duration_ms=3)),
    st.just(Retry(1.5, 2, "busy")),
    st.sampled_from([0.0, 2.0, 12.0]).map(lambda wait_s: Throttled(wait_s, "requests", 50)),
)
DONE = Done("claude", Usage(input_tokens=3, output_tokens=4), None)


@given(st.lists(st.tuples(EVENTS, st.sampled_from(["wait", "frame", "key", "lose"])), max_size=25))
def test_a_front_end_ends_in_the_state_of_a_keyframe(steps: list[tuple[StreamEvent, str]]) -> None:
    """Frames, keyframes and lost messages in any order: after a keyframe the front end has everything again."""
    answer, front = Answer("claude"), FrontEnd()
    scene = Scene(answer)
    for event, action in steps:
        answer.apply(event)
        message = {"frame": scene.frame, "key": scene.keyframe, "lose": scene.frame}.get(action, lambda: None)()
        if message is not None and action != "lose":
            front.receive(message)
    answer.apply(DONE)
    answer.end()
    if front.lost or scene_lost(steps):
        front.receive(scene.keyframe())
    elif message := scene.frame():
        front.receive(message)
    whole = FrontEnd()
    whole.receive(scene.keyframe())
    assert front.nodes == whole.nodes
    assert all(node[3] for number, node in whole.nodes.items() if number != 1)
    drawn = scene.drawn()
    assert len(drawn) == sum(isinstance(part, Prose) for part in answer.parts)
    assert static.of(answer, drawn) == static.of(answer)  # what stays is as if nothing had been drawn before


def scene_lost(steps: list[tuple[StreamEvent, str]]) -> bool:
    """Whether a message was lost."""
    return any(action == "lose" for _, action in steps)


def test_a_frame_sends_only_what_changed() -> None:
    """A long block of which a word is new costs a few bytes on the wire."""
    answer = Answer("claude")
    scene = Scene(answer)
    answer.apply(Text("word " * 400))
    scene.frame()
    answer.apply(Text("more"))
    message = scene.frame()
    assert message is not None
    assert len(json.dumps(message)) < 80
    assert scene.frame() is None


def test_thinking_nests_its_blocks() -> None:
    """Blocks of thinking are children of a fold whose label changes when the thinking ends."""
    answer, front = Answer("claude"), FrontEnd()
    scene = Scene(answer)
    answer.apply(Thinking("first\n\nsecond\n"))
    front.receive(scene.frame() or {})
    fold = next(number for number, node in front.nodes.items() if node[1] == "thinking")
    assert front.nodes[fold][2] == "Thinking…"
    assert [node[2] for node in front.nodes.values() if node[0] == fold] == ["<p>first</p>\n", "<p>second</p>\n"]
    answer.apply(Text("answer"))
    front.receive(scene.frame() or {})
    assert front.nodes[fold][2] == "Thought (2 words)"
    assert front.nodes[fold][3] is True


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_shared_prefix(start: str, one: str, other: str) -> None:
    """The prefix found is common to both, and the longest."""
    a, b = start + one, start + other
    length = shared_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_links_defined_later_are_mended_at_the_end() -> None:
    """A block that was final while its link was not defined is sent again; the front end then has what stays."""
    scene = Scene(Answer("claude"))
    scene.answer.apply(Text("See [the docs][d].\n\nMore\n\n"))
    scene.frame()
    scene.answer.apply(Text("[d]: https://a.example"))
    scene.frame()
    scene.answer.end()
    message = scene.frame()
    assert message is not None
    assert any(op[0] == "set" and "https://a.example" in str(op) for op in cast(Any, message["ops"]))
    assert "https://a.example" in scene.sections()[0].html
