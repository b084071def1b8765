"""Markdown of a model → HTML that is safe to show: none of its HTML, no images, links to http(s), mailto and # only.

Code is coloured by pygments (class names only), math is left as delimited TeX in `.llmnb-math` for the front end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from html import escape
from itertools import groupby
from typing import Any, cast

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from llmnb.display import style, tex

Env = MutableMapping[str, Any]

COPY_BUTTON = '<button type="button" class="llmnb-copy" aria-label="Copy code" hidden></button>'
"""Stands in every code block; hidden where no style sheet of ours says otherwise."""
PIECE_CLASS = ' class="llmnb-piece">'
"""Marks a piece of a block that is still growing; the front end draws again only those after the change."""
MAX_COLOURED_CHARS = 30_000
"""Longer code is shown without colours: thousands of elements would block the page."""
MAX_REMEMBERED_CHARS = 4_000
"""A block of code up to here is coloured once, for the live view and for what is kept of it."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_ALLOWED = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)
_BLANK_RUN = re.compile(r"\s{500}")  # lexers look from each of these for the end of them all
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,30}")
# characters a page-wide TeX typesetter looks for: a text node must never hold one beside other text
_TEX_TRIGGERS = re.compile(r"[$\\]")


def render(text: str, env: Env | None = None) -> str:
    """The HTML of a whole Markdown text; `env` carries link definitions of what came before."""
    env = {} if env is None else env
    return html_of(parse(text, env), env)


def parse(text: str, env: Env | None = None) -> list[Token]:
    """The tokens of a Markdown text."""
    return _parser_of(text).parse(text, {} if env is None else env)


def html_of(tokens: Sequence[Token], env: Env | None = None) -> str:
    """The HTML of a text that is parsed already."""
    return cast(str, parser().renderer.render(tokens, parser().options, {} if env is None else env))


@dataclass(frozen=True, slots=True)
class Outline:
    """A top-level block: its first line (from 0), those of its items or rows, whether it is a loose list."""

    line: int
    items: tuple[int, ...] = ()
    loose: bool = False


def outline(text: str, env: Env) -> list[Outline]:
    """The top-level blocks of a Markdown text."""
    tokens: list[Token] = []
    md = _parser_of(text)
    md.block.parse(text, md, env, tokens)
    return [_outline(block) for block in top_level(tokens) if block[0].map]


def render_pieces(text: str, env: Env, *, loose: bool = False) -> str:
    """The HTML of a text that begins with a list or a table, whose items or rows are marked as pieces.

    `loose` has the list's paragraphs shown as of a list with blank lines between its items.
    """
    return html_of(parse_pieces(text, env, loose=loose), env)


def parse_pieces(text: str, env: Env, *, loose: bool = False) -> list[Token]:
    """The tokens of the same."""
    tokens = parse(text, env)
    block = next(top_level(tokens))
    for token in _pieces(block):
        token.attrSet("class", "llmnb-piece")
    if loose:
        for token in filter(_is_paragraph_of_item, block):
            token.hidden = False
    return tokens


def _outline(block: Sequence[Token]) -> Outline:
    items = tuple(map(_line, _pieces(block)))
    return Outline(_line(block[0]), items, any(_is_paragraph_of_item(token) and not token.hidden for token in block))


def top_level(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each top-level block."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _pieces(block: Sequence[Token]) -> list[Token]:
    """The tokens that begin the items of a top-level list, or the rows of a table but the first."""
    if block[0].type in ("bullet_list_open", "ordered_list_open"):
        return [token for token in block if token.type == "list_item_open" and token.level == 1]
    return [token for token in block if token.type == "tr_open" and token.level == 2 and _line(token) > _line(block[0])]


def _line(token: Token) -> int:
    return token.map[0] if token.map else 0


def _is_paragraph_of_item(token: Token) -> bool:
    return token.level == 2 and token.type in ("paragraph_open", "paragraph_close")


_SIGNS = {
    "autolink": "<",
    "backticks": "`",
    "blockquote": ">",
    "entity": "&",
    "heading": "#",
    "image": "![",
    "link": "]",
    "math_block": "$$",
    "reference": "]:",
    "strikethrough": "~~",
    "table": "|",
}
"""What a text must have in it for a rule to find anything; each rule left out is tried on no line, and at no sign."""
_NO_HTML = ("html_block", "html_inline")
_PARSERS = 64
"""So many are kept, each with other rules left out."""


def _parser_of(text: str) -> MarkdownIt:
    return parser(frozenset(rule for rule, sign in _SIGNS.items() if sign not in text))


@lru_cache(_PARSERS)
def parser(without: frozenset[str] = frozenset()) -> MarkdownIt:
    """A configured parser, without these rules (thread-safe: parsing keeps its state in the call)."""
    md = _Parser("commonmark", {"html": False, "xhtmlOut": False}, renderer_cls=SafeRenderer)
    md.enable(["table", "strikethrough"]).use(tex.plugin)
    for rule in (SafeRenderer.math_inline, SafeRenderer.math_inline_double, SafeRenderer.math_block):
        md.add_render_rule(rule.__name__, rule)  # the plugin brought rules of its own
    return md.disable([*without, *_NO_HTML])


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802  (markdown-it's name)
        return link_allowed(url)


def link_allowed(url: str) -> bool:
    """Whether `url` may stand in a link: http, https, mailto or a place on the page."""
    return _ALLOWED.match(url.strip()) is not None


def link_html(url: str, label: str) -> str:
    """A link around HTML that is safe already; the label alone where `url` may not stand in a link."""
    return f'<a href="{escape(url)}" {_LINK_ATTRIBUTES}>{label}</a>' if link_allowed(url) else label


def text_html(text: str) -> str:
    """Text escaped, and with `$` and `\\` set apart so that no typesetter takes it for math."""
    return _TEX_TRIGGERS.sub(lambda found: f"<span>{found[0]}</span>", escape(text))


def math_html(source: str, *, display: bool) -> str:
    """An element with delimited TeX for the front end's typesetter, or code when the TeX could do harm."""
    allowed = tex.harmless(source)
    if allowed is None:
        return f"<code>{escape(source)}</code>"
    left, right = ("\\[", "\\]") if display else ("\\(", "\\)")
    name = "llmnb-math llmnb-display" if display else "llmnb-math"
    return f'<span class="{name}">{left}{escape(allowed)}{right}</span>'


def language_of(info: str) -> str:
    """The language named by a fence's info string, or ''."""
    found = _LANGUAGE.match(info.strip())
    return found[0] if found else ""


def code_html(code: str, language: str = "") -> str:
    """A code block, coloured when the language is known, with its name and a copy button."""
    return code_frame((_remembered if len(code) <= MAX_REMEMBERED_CHARS else coloured)(code, language), language)


@lru_cache(maxsize=128)
def _remembered(code: str, language: str) -> str:
    return coloured(code, language)


def code_frame(code: str, language: str) -> str:
    """The box of a code block around HTML that is coloured already."""
    label = f'<span class="llmnb-lang" aria-hidden="true">{escape(language)}</span>' if language else ""
    return f'<div class="llmnb-code highlight">{label}{COPY_BUTTON}<pre><code>{code}</code></pre></div>\n'


def coloured(code: str, language: str) -> str:
    """The code as escaped HTML in pygments' classes; just escaped when the language is unknown or the code long."""
    if not code.strip():
        return escape(code)  # the language may be half of a word still
    lexer = _lexer(language.lower()) if language and len(code) <= MAX_COLOURED_CHARS else None
    if lexer is None or _BLANK_RUN.search(code):
        return escape(code)
    runs = groupby(lexer.get_tokens(code), key=lambda token: _class_of(token[0]))
    return "".join(_run(name, "".join(value for _, value in tokens)) for name, tokens in runs)


def _run(name: str, text: str) -> str:
    return f'<span class="{name}">{escape(text)}</span>' if name else escape(text)


@cache
def _class_of(kind: Any) -> str:
    """The class of a kind of token or of the nearest kind above it; '' when the style sheet gives it no colour."""
    from pygments.token import STANDARD_TYPES

    names: dict[Any, str] = cast(Any, STANDARD_TYPES)
    while kind not in names:
        kind = kind.parent  # ends at Token, which has the name ""
    return names[kind] if names[kind] in style.code_classes() else ""


@cache
def _lexer(language: str) -> Any:
    from pygments import lexers

    known: Any = cast(Any, lexers).get_all_lexers(plugins=False)
    if any(language in aliases for _, aliases, _, _ in known):
        return cast(Any, lexers).get_lexer_by_name(language, **_AS_IT_IS)
    return next((plugin(**_AS_IT_IS) for plugin in _plugins() if language in plugin.aliases), None)


_AS_IT_IS = {"stripnl": False, "ensurenl": False}


@cache
def _plugins() -> tuple[Any, ...]:
    """The lexers of other packages; to look for them is to read what every installed package says of itself."""
    from pygments.plugin import find_plugin_lexers

    try:
        return tuple(cast(Any, find_plugin_lexers()))
    except Exception:  # one of them is broken
        return ()


class SafeRenderer(RendererHTML):
    """markdown-it's HTML renderer with our rules for text, code, links, images and math."""

    def text(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return text_html(tokens[idx].content)

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return code_html(tokens[idx].content, language_of(tokens[idx].info))

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return code_html(tokens[idx].content)

    def heading_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """A heading that JupyterLab keeps out of its table of contents: that is the notebook's."""
        return f'<{tokens[idx].tag} class="jp-toc-ignore">'

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """An image becomes a link: fetching it would tell its host that, and when, the answer was read."""
        token = tokens[idx]
        source = str(token.attrs.get("src", ""))
        label = text_html(token.content.strip() or source)
        return link_html(source, label)

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        target = str(tokens[idx].attrs.get("href", ""))
        return f'<a href="{escape(target)}" title="{escape(target)}" {_LINK_ATTRIBUTES}>'

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return '<div class="llmnb-table"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return "</table></div>\n"

    def math_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return math_html(tokens[idx].content, display=False)

    def math_inline_double(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return math_html(tokens[idx].content, display=True)

    def math_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        return f"<p>{math_html(tokens[idx].content.strip(), display=True)}</p>\n"


_LINK_ATTRIBUTES = 'target="_blank" rel="noopener noreferrer nofollow"'
