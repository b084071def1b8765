"""A conversation that stays: what was said as HTML, Markdown and plain text, safe in any viewer, without a kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from llmnb.display import cards, markdown, markdown_writer, static, style
from llmnb.display.answer import Answer, Prose, Tool, clean
from llmnb.display.footer import shortened
from llmnb.events import ToolCall, ToolResult

SHOWN_TURNS = 20
"""Of a longer conversation the last turns are shown; `chat.messages` has them all."""
_SUMMARY_CHARS = 120

Content = str | Sequence[Mapping[str, Any]]


class Turn(Protocol):
    """A question and its answer, as content of the Messages API."""

    @property
    def user(self) -> Content: ...

    @property
    def answered(self) -> Sequence[Mapping[str, Any]]: ...


def bundle(turns: Sequence[Turn], headline: str) -> dict[str, str]:
    """A conversation as {"text/html", "text/markdown", "text/plain"}; in HTML all turns but the last are folded."""
    shown = turns[-SHOWN_TURNS:]
    earlier = earlier_text(len(turns) - len(shown))
    return {
        "text/html": _page(shown, headline, earlier),
        "text/markdown": _markdown(shown, headline, earlier),
        "text/plain": _plain(shown, headline, earlier),
    }


def document(turns: Sequence[Turn], headline: str) -> str:
    """The whole conversation as an HTML document that needs nothing else; every turn is open."""
    title = escape(shortened(headline, _SUMMARY_CHARS))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    frame = "<style>body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font-family: sans-serif; }</style>"
    page = _page(turns, headline, "", all_open=True)
    return f'<!doctype html>\n<html lang="en"><head>{head}{frame}</head><body>{page}</body></html>\n'


def whole_markdown(turns: Sequence[Turn], headline: str) -> str:
    """The whole conversation as Markdown; tools are a line each, with what they gave."""
    pieces = [f"*{markdown_writer.escaped(clean(headline))}*"]
    for turn in turns:
        pieces.append(_quoted(turn))
        for part in _answer(turn.answered).parts:
            if isinstance(part, Tool):
                pieces.append(_tool_markdown(part))
            elif isinstance(part, Prose) and not part.thinking:
                pieces.append(markdown_writer.rewrite(part.text))
    return "\n\n".join(piece for piece in pieces if piece.strip()) + "\n"


def _tool_markdown(part: Tool) -> str:
    line = f"**⚙ {markdown_writer.escaped(cards.tool_text(part))}**"
    given = clean(part.result.content) if part.result else ""
    return f"{line}\n\n{_fenced(given)}" if given else line


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


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


def _page(turns: Sequence[Turn], headline: str, earlier: str, *, all_open: bool = False) -> str:
    last = len(turns) - 1
    folds = "".join(_fold(turn, is_open=all_open or number == last) for number, turn in enumerate(turns))
    note = f'<p class="llmnb-earlier">{escape(earlier)}</p>' if earlier else ""
    head = f'<div class="llmnb-headline">{markdown.text_html(clean(headline))}</div>'
    page = f'<div class="llmnb llmnb-transcript">{head}{note}{folds}</div>'
    return style.tag(style.transcript_css(), page) + page


def _fold(turn: Turn, *, is_open: bool) -> str:
    summary = markdown.text_html(_first_line(turn.user))
    whole = question_html(turn.user) if _is_longer(turn.user) else ""
    state = " open" if is_open else ""
    return (
        f'<details class="llmnb-turn"{state}><summary>{summary}</summary>{whole}{answer_html(turn.answered)}</details>'
    )


# Text -----------------------------------------------------------------------------------------------------------------


def _markdown(turns: Sequence[Turn], headline: str, earlier: str) -> str:
    pieces = [f"*{markdown_writer.escaped(clean(line))}*" for line in (headline, earlier) if line]
    for turn in turns:
        pieces += [_quoted(turn), markdown_writer.rewrite(clean(spoken(turn.answered)))]
    return "\n\n".join(piece for piece in pieces if piece)


def _quoted(turn: Turn) -> str:
    asked = "\n\n".join([clean(spoken(turn.user)), *_attached(turn.user)])
    return "\n".join(f"> {line}" for line in markdown_writer.rewrite(asked).splitlines())


def _plain(turns: Sequence[Turn], headline: str, earlier: str) -> str:
    lines = [clean(line) for line in (headline, earlier) if line]
    for turn in turns:
        lines += [f"> {_first_line(turn.user)}", f"  {_first_line(_texts(turn.answered))}"]
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
            answer.parts.append(_tool(call, blocks))
    return answer


def _tool(call: ToolCall, blocks: Sequence[Mapping[str, Any]]) -> Tool:
    given = next((block for block in blocks if block.get("tool_use_id") == call.id), None)
    if given is None:
        return Tool(call, abandoned=True)
    content = given.get("content", "")
    text = content if isinstance(content, str) else "\n".join(map(_result_text, content))
    return Tool(call, ToolResult(call.id, call.name, text, bool(given.get("is_error"))))


def _result_text(block: Mapping[str, Any]) -> str:
    return str(block.get("text", f"[{block.get('type')}]"))


def _texts(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was said last, without what tools were asked and gave."""
    last = max((at for at, block in enumerate(blocks) if block.get("type") == "tool_result"), default=-1)
    return list(blocks[last + 1 :])
