"""A conversation as HTML, Markdown and text: readable, short, and safe whatever was said."""

from __future__ import annotations

import importlib.util
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from llmnb.asking.turns import Turn
from llmnb.display import transcript

HEADLINE = "review · claude-sonnet-5-5 · 1 turn"


def turn(user: Any, *blocks: dict[str, Any]) -> Turn:
    """A turn with this question and answer."""
    return Turn(user, list(blocks), "claude-sonnet-5-5")


def text(value: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value}


def test_a_conversation() -> None:
    """Each form has the headline, the question and the answer; in HTML only the last turn is open."""
    turns = [turn("What is *WAL*?", text("A **log**.")), turn("Why?\nReally?", text("Speed."))]
    made = transcript.bundle(turns, HEADLINE)
    assert made["text/plain"].splitlines() == [HEADLINE, "> What is *WAL*?", "  A **log**.", "> Why?", "  Speed."]
    assert "> What is *WAL*?\n\nA **log**." in made["text/markdown"]
    html = made["text/html"]
    assert html.count('<details class="llmnb-turn"') == 2
    assert html.index('<details class="llmnb-turn" open>') > html.index("<strong>log</strong>")
    assert '<div class="llmnb-question">Why?\nReally?</div>' in html  # what did not fit on one line
    assert "What is *WAL*?</div>" not in html  # what did


def test_attachments_thinking_and_tools() -> None:
    """Files are named, thinking is folded, tools are cards."""
    asked = [{"type": "image", "source": {}}, {"type": "document", "title": "a.pdf", "source": {}}, text("Compare")]
    answer = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Oslo"}},
        text("Done."),
        {"type": "redacted_thinking", "data": "…"},
    ]
    made = transcript.bundle([turn(asked, *answer)], HEADLINE)
    assert "[image] [document: a.pdf] Compare" in made["text/plain"]
    for expected in ("[document: a.pdf]", "llmnb-thinking", "weather", "Done."):
        assert expected in made["text/html"]


def test_a_long_conversation_shows_its_end() -> None:
    """Of many turns the last ones are shown, and how many came before."""
    made = transcript.bundle([turn(f"q{n}", text(f"a{n}")) for n in range(25)], HEADLINE)
    for form in made.values():
        assert "5 earlier turns" in form
        assert "q24" in form
        assert "q4" not in form


def test_nothing_was_said() -> None:
    """An empty conversation is its headline."""
    assert transcript.bundle([], HEADLINE)["text/plain"] == HEADLINE


# Safety ---------------------------------------------------------------------------------------------------------------


def _hostile() -> Any:
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("test_hostile.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORPUS: list[str] = _hostile().CORPUS


class _Found(HTMLParser):
    """Elements and attributes that could do something."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED:
            self.wrong.append(tag)
        for name, value in attrs:
            ours = name == "onclick" and tag == "button"
            link = name == "href" and str(value).lower().startswith(("http://", "https://", "mailto:", "#"))
            if name not in ATTRIBUTES and not ours and not link:
                self.wrong.append(f"{tag} {name}={value}")


ALLOWED = frozenset(
    {
        "div",
        "details",
        "summary",
        "p",
        "span",
        "a",
        "strong",
        "em",
        "s",
        "code",
        "pre",
        "button",
        "br",
        "hr",
        "ul",
        "ol",
    }
    | {"li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6"}
)
ATTRIBUTES = frozenset(
    {"class", "open", "title", "target", "rel", "role", "aria-hidden", "aria-label", "type", "hidden", "start"}
)


@pytest.mark.parametrize("evil", CORPUS)
def test_nothing_runs_or_loads(evil: str) -> None:
    """Hostile questions, answers, file names, tools and chat names: only our own elements, no image, no handler."""
    block = {"type": evil, "title": evil}
    tool = {"type": "tool_use", "id": evil, "name": evil, "input": {evil: evil}}
    result = {"type": "tool_result", "tool_use_id": evil, "content": [text(evil), {"type": evil}], "is_error": True}
    turns = [
        turn(evil, text(evil), {"type": "thinking", "thinking": evil}, tool, result),
        turn([block, text(evil)], text(evil)),
    ]
    made = transcript.bundle(turns, evil)
    found = _Found()
    found.feed(made["text/html"].partition("</style>")[2])
    assert found.wrong == []
    exported = _Found()
    exported.feed(
        transcript.document(turns, evil).partition("<body>")[2].partition("</style>")[2].partition("</body>")[0]
    )
    assert exported.wrong == []
    # a viewer that lets HTML through, and a strict one, must find nothing in the Markdown either
    for markdown in (made["text/markdown"], transcript.whole_markdown(turns, evil)):
        strict = _Found()
        strict.feed(MarkdownIt("commonmark", {"html": True}).render(markdown))
        assert strict.wrong == []
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in made["text/plain"])
