"""A conversation that stays: what was said as HTML, Markdown and plain text, safe in any viewer, without a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from llmnb.display import markdown, markdown_writer, static, style
from llmnb.display.answer import Answer, Prose, Tool, clean
from llmnb.display.footer import shortened
from llmnb.records import ToolCall

SHOWN_TURNS = 20
"""Of a longer conversation the last turns are shown; `chat.messages` has them all."""
_SUMMARY_CHARS = 120

Content = str | Sequence[Mapping[str, Any]]


class Turn(Protocol):
    """A question and its answer, as content of the Messages API."""

    @property
    def user(self) -> Content: ...

    @property
    def assistant(self) -> Sequence[Mapping[str, Any]]: ...


def bundle(turns: Sequence[Turn], headline: str) -> dict[str, str]:
    """A conversation as {"text/html", "text/markdown", "text/plain"}; in HTML all turns but the last are folded."""
    shown = turns[-SHOWN_TURNS:]
    earlier = earlier_text(len(turns) - len(shown))
    return {
        "text/html": _page(shown, headline, earlier),
        "text/markdown": _markdown(shown, headline, earlier),
        "text/plain": _plain(shown, headline, earlier),
    }


def earlier_text(count: int) -> str:
    """What stands in the place of turns that are not shown; '' when all are."""
    return f"… {count:,} earlier turn{'' if count == 1 else 's'}: chat.messages has them all" if count > 0 else ""


# HTML -----------------------------------------------------------------------------------------------------------------


def question_html(content: Content) -> str:
    """What was asked, as it was typed, and the names of what was attached."""
    attached = "".join(f'<div class="llmnb-attached">{markdown.text_html(label)}</div>' for label in _attached(content))
    return f'<div class="llmnb-question">{markdown.text_html(clean(spoken(content)))}{attached}</div>'


def answer_html(blocks: Sequence[Mapping[str, Any]]) -> str:
    """What was answered, without the style sheet."""
    return static.part_of_page(_answer(blocks))


def _page(turns: Sequence[Turn], headline: str, earlier: str) -> str:
    last = len(turns) - 1
    folds = "".join(_fold(turn, is_open=number == last) for number, turn in enumerate(turns))
    note = f'<p class="llmnb-earlier">{escape(earlier)}</p>' if earlier else ""
    head = f'<div class="llmnb-headline">{markdown.text_html(clean(headline))}</div>'
    page = f'<div class="llmnb llmnb-transcript">{head}{note}{folds}</div>'
    return style.tag(style.transcript_css(), page) + page


def _fold(turn: Turn, *, is_open: bool) -> str:
    summary = markdown.text_html(_first_line(turn.user))
    whole = question_html(turn.user) if _is_longer(turn.user) else ""
    state = " open" if is_open else ""
    return (
        f'<details class="llmnb-turn"{state}><summary>{summary}</summary>{whole}{answer_html(turn.assistant)}</details>'
    )


# Text -----------------------------------------------------------------------------------------------------------------


def _markdown(turns: Sequence[Turn], headline: str, earlier: str) -> str:
    pieces = [f"*{markdown_writer.escaped(clean(line))}*" for line in (headline, earlier) if line]
    for turn in turns:
        asked = "\n\n".join([clean(spoken(turn.user)), *_attached(turn.user)])
        quoted = "\n".join(f"> {line}" for line in markdown_writer.rewrite(asked).splitlines())
        pieces += [quoted, markdown_writer.rewrite(clean(spoken(turn.assistant)))]
    return "\n\n".join(piece for piece in pieces if piece)


def _plain(turns: Sequence[Turn], headline: str, earlier: str) -> str:
    lines = [clean(line) for line in (headline, earlier) if line]
    for turn in turns:
        lines += [f"> {_first_line(turn.user)}", f"  {_first_line(turn.assistant)}"]
    return "\n".join(lines)


def spoken(content: Content) -> str:
    """The text of a message, without what is attached."""
    if isinstance(content, str):
        return content
    return "\n\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def _attached(content: Content) -> list[str]:
    if isinstance(content, str):
        return []
    return [_label(block) for block in content if block.get("type") != "text"]


def _label(block: Mapping[str, Any]) -> str:
    title = block.get("title")
    named = f": {shortened(title)}" if isinstance(title, str) and title else ""
    return f"[{shortened(str(block.get('type')))}{named}]"


def _first_line(content: Content) -> str:
    text = next((line for line in clean(spoken(content)).splitlines() if line.strip()), "")
    return shortened(" ".join([*_attached(content), text]).strip(), _SUMMARY_CHARS)


def _is_longer(content: Content) -> bool:
    return clean(spoken(content)).strip() != _first_line(content)


def _answer(blocks: Sequence[Mapping[str, Any]]) -> Answer:
    answer = Answer(ended=True)
    for block in blocks:
        if block.get("type") in ("text", "thinking"):
            kind = str(block["type"])
            answer.parts.append(Prose(clean(str(block.get(kind, ""))), thinking=kind == "thinking", ended=True))
        elif block.get("type") == "tool_use":
            call = ToolCall(str(block.get("id", "")), str(block.get("name", "")), dict(block.get("input") or {}))
            answer.parts.append(Tool(call, abandoned=True))
    return answer
