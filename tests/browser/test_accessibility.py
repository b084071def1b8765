"""A live answer without a mouse, without sight, without motion, and on a phone: its front end in a bare page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmnb.events import Done, Retry, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from llmnb.display.scene import Scene

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

LONG = "a_very_long_name_" * 12
TEXT = f"""Some text and {LONG}.

```python
{LONG} = 1
```

| {" | ".join("column" + str(n) for n in range(12))} |
|{"---|" * 12}
| {" | ".join("value" + str(n) for n in range(12))} |

$$x = {"x + " * 60} 1$$
"""


@pytest.fixture
def answering(bare: Page, scene: Scene) -> Page:
    """A page with an answer that is still coming: a thought, a tool, a wait, text with code and a table."""
    for event in (
        Thinking("so far"),
        ToolCall("1", "weather", {"city": "Oslo"}),
        ToolResult("1", "weather", "rain", duration_ms=830),
        Retry(2.0, 2, "overloaded", 3),
        Text(TEXT),
    ):
        scene.answer.apply(event)
    draw(bare, scene)
    return bare


def draw(page: Page, scene: Scene) -> None:
    """Hand the front end all there is."""
    page.evaluate("(message) => window.receive(message)", json.loads(json.dumps(scene.keyframe())))
    page.evaluate("() => window.frames_drawn()")


def tree(page: Page) -> list[tuple[str, str, dict[str, Any]]]:
    """What a screen reader is told: role, name and properties of each node."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (
            node.get("role", {}).get("value", ""),
            node.get("name", {}).get("value", ""),
            {prop["name"]: prop["value"].get("value") for prop in node.get("properties", [])},
        )
        for node in nodes
        if not node.get("ignored")
    ]


def test_by_keyboard(answering: Page) -> None:
    """Tab reaches the thought, the card, the copy button and Stop, each visibly; Enter and Space work there."""
    page = answering
    page.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { value: { writeText: (t) => (window.copied = t) } })"
    )
    reached = {}
    for _ in range(12):
        page.keyboard.press("Tab")
        name = page.evaluate("() => document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()")
        reached[name] = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        if name.startswith("Thought"):
            page.keyboard.press("Enter")
        elif "weather" in name:
            page.keyboard.press("Space")
        elif name == "Copy code":
            assert page.evaluate("() => getComputedStyle(document.activeElement).opacity") == "1"
            page.keyboard.press("Space")
        elif name == "Stop this answer":
            page.keyboard.press("Enter")
            break
    assert len(reached) >= 4
    assert all(reached.values()), reached
    assert page.evaluate("() => document.querySelector('.llmnb-thinking').open")
    assert page.evaluate("() => document.querySelector('.llmnb-tool').open")
    assert page.evaluate("() => window.copied").startswith("a_very_long_name_")
    assert page.get_attribute(".llmnb-copied", "aria-label") == "Copied"
    assert ["send", {"stop": "answer-1"}] in page.evaluate("() => window.log")


def test_for_a_screen_reader(answering: Page, scene: Scene) -> None:
    """The answer is a region with a name, busy while it comes; controls have names; beginning and end are told
    politely, not each word.
    """
    page = answering
    told = tree(page)
    (region,) = [props for role, name, props in told if (role, name) == ("region", "Answer of claude")]
    assert region["busy"]
    names = {(role, name) for role, name, _ in told}
    assert {("button", "Stop this answer"), ("button", "Copy code"), ("table", "")} <= names
    assert any(role == "DisclosureTriangle" and "weather done 0.83 s" in name for role, name, _ in told)
    assert any(role == "DisclosureTriangle" and name == "Thought (2 words)" for role, name, _ in told)
    assert any(role == "note" for role, _, _ in told)
    (status,) = [props for role, _, props in told if props.get("live")]
    assert status["live"] == "polite"
    assert page.inner_text("[role=status]") == "An answer is being written."
    scene.answer.apply(Done("claude", Usage(output_tokens=3), None))
    draw(page, scene)
    assert page.inner_text("[role=status]") == "The answer is complete."
    told = tree(page)
    (region,) = [props for role, name, props in told if (role, name) == ("region", "Answer of claude")]
    assert not region.get("busy")
    assert ("button", "Stop this answer") not in {(role, name) for role, name, _ in told}


def test_without_motion(answering: Page) -> None:
    """Who asks for less motion sees no pulse; all else sees one."""
    moving = "() => getComputedStyle(document.querySelector('.llmnb-pulse')).animationName !== 'none'"
    assert answering.evaluate(moving)
    answering.emulate_media(reduced_motion="reduce")
    assert not answering.evaluate(moving)
    quiet = "() => document.getAnimations().length === 0"
    assert answering.evaluate(quiet)


def test_on_a_phone(answering: Page) -> None:
    """Nothing is wider than a phone: long names break, code, tables and math scroll in their boxes; Stop can be hit."""
    page = answering
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("() => window.frames_drawn()")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    boxes = "[...document.querySelectorAll('.llmnb-code pre, .llmnb-table')]"
    assert page.evaluate(f"() => {boxes}.map((box) => box.scrollWidth > box.clientWidth)") == [True, True]
    button = page.locator(".llmnb-stop").bounding_box()
    assert button is not None
    assert button["height"] >= 24
    assert button["x"] + button["width"] <= 360
