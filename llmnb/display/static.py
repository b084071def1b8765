"""The form of an answer that stays: HTML, Markdown and plain text that show without a kernel and run nothing.

`bundle` makes it of plain values (for the reprs of replies), `of` of an `Answer`; `StaticView` shows it at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from markdown_it.token import Token

from llmnb.display import cards, footer, markdown, markdown_writer, sources, style
from llmnb.display.answer import Answer, Part, Prose, Tool, clean
from llmnb.display.blocks import Drawn
from llmnb.events import Citation, Done, StreamEvent, ToolCall, ToolResult

COPY = (
    "var c=this.parentNode.querySelector('code');navigator.clipboard.writeText(c.innerText);"
    "this.classList.add('llmnb-copied');this.ariaLabel='Copied'"
)
"""All the script there is: what the copy button of a code block does. It is constant and takes no part of an answer."""
Texts = Mapping[int, Drawn | list[Token]]
"""Texts by the id of their part, drawn already, or parsed: HTML and Markdown are made of the same tokens."""
HANDOVER = "<llmnb-kept hidden></llmnb-kept>"
"""Ends a bundle: where it takes a live view's place, what the view has drawn goes on (see handover.js)."""
_LIVE_BUTTON = f'{markdown.COPY_BUTTON.removesuffix("></button>")} onclick="{escape(COPY)}"></button>'


def bundle(
    text: str,
    *,
    thinking: str = "",
    done: Done | None = None,
    tools: Sequence[tuple[ToolCall, ToolResult | None]] = (),
    citations: Sequence[Citation] = (),
    error: BaseException | None = None,
    html: bool = True,
) -> dict[str, str]:
    """An answer as {"text/html", "text/markdown", "text/plain"}; without text/html when `html` is False.

    Thinking comes first, then the tools, then the text; the footer is drawn from `done`, or from `error`.
    """
    parts: list[Part] = [Prose(clean(thinking), thinking=True, ended=True)] if thinking else []
    parts += [Tool(call, result, abandoned=result is None) for call, result in tools]
    parts.append(Prose(clean(text), ended=True))
    answer = Answer(done.model if done else "", parts, done, error, ended=True)
    for citation in citations:
        answer.cite(citation)
    return of(answer, html=html)


def of(answer: Answer, drawn: Mapping[int, Drawn] | None = None, *, html: bool = True) -> dict[str, str]:
    """The bundle of an answer that has ended; of `drawn`, by the id of its part, nothing is drawn again."""
    known, texts = drawn or {}, [part for part in answer.parts if isinstance(part, Prose)]
    ready: Texts = {id(part): known.get(id(part)) or markdown.parse(part.text) for part in texts}
    made = {"text/markdown": kept_markdown(answer, ready), "text/plain": plain(answer)}
    return {"text/html": page(answer, ready), **made} if html else made


def page(answer: Answer, texts: Texts | None = None) -> str:
    """The answer as one HTML element that brings its own style."""
    content = _content(answer, texts or {})
    return _framed(f"{style.tag(style.answer_css(), _framed(content))}{content}{HANDOVER}")


def part_of_page(answer: Answer) -> str:
    """The same for a page that has the style sheet already."""
    return _framed(_content(answer, {}))


def kept_markdown(answer: Answer, texts: Texts | None = None) -> str:
    """The answer as Markdown that any viewer can be given: no HTML, no images, allowed links only."""
    said = [part for part in answer.parts if isinstance(part, Prose) and not part.thinking]
    pieces = [_markdown(part, texts or {}) for part in said]
    pieces += [f"**{markdown_writer.escaped(line)}**" for line in [cards.error_text(answer.error)] if line]
    pieces.append(sources.kept_markdown(answer.citations))
    if line := footer.plain(answer):
        pieces.append(f"*{markdown_writer.escaped(line)}*")
    return "\n\n".join(piece for piece in pieces if piece)


def plain(answer: Answer) -> str:
    """The answer as the model wrote it, and the footer on a line below."""
    lines = [
        answer.text.strip("\n"),
        cards.error_text(answer.error),
        clean(sources.plain(answer.citations)),
        footer.plain(answer),
    ]
    return "\n\n".join(line for line in lines if line)


def _framed(html: str) -> str:
    return f'<div class="llmnb llmnb-answer">{html}</div>'


def _html(part: Prose, texts: Texts) -> str:
    text = texts.get(id(part)) or markdown.parse(part.text)
    return text.html if isinstance(text, Drawn) else markdown.html_of(text)


def _markdown(part: Prose, texts: Texts) -> str:
    text = texts.get(id(part)) or markdown.parse(part.text)
    return text.markdown if isinstance(text, Drawn) else markdown_writer.rewritten(text)


def _content(answer: Answer, texts: Texts) -> str:
    body = "".join(_part_html(part, texts) for part in answer.parts).replace(markdown.COPY_BUTTON, _LIVE_BUTTON)
    foot = cards.error(answer.error) + sources.html(answer.citations) + footer.html(answer)
    return f'<div class="llmnb-body">{body}</div>{foot}'


def _part_html(part: Part, texts: Texts) -> str:
    if isinstance(part, Tool):
        return cards.tool(part)
    if not isinstance(part, Prose):
        return cards.waiting(part)
    html = _html(part, texts)
    if not part.thinking:
        return html
    summary = f"<summary>{escape(cards.thinking_label(part))}</summary>"
    return f'<details class="llmnb-thinking">{summary}<div class="llmnb-fold">{html}</div></details>'


class StaticView:
    """Shows nothing while the answer comes, and the bundle at its end; what headless runs use."""

    def __init__(self, publish: Callable[[dict[str, str]], Any], *, html: bool) -> None:
        self._publish = publish
        self._html = html
        self._answer = Answer()

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """Remember the model's name for the footer."""
        self._answer.model = model

    def show(self, event: StreamEvent) -> None:
        """Keep the event for the end."""
        self._answer.apply(event)

    def close(self, error: BaseException | None = None) -> None:
        """Show all there is."""
        self._answer.end(error)
        self._publish(of(self._answer, html=self._html))
