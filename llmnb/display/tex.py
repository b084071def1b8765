"""Math in Markdown: `$…$`, `$$…$$`, `\\(…\\)`, `\\[…\\]`, and which TeX a typesetter may be given.

Typesetting is the front end's; here math is found, and TeX that could reach out of its box (links, styles, files,
macros that change the rest of the page) is shown as code instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

_DENIED = frozenset(
    [
        # links, styles, files
        "href", "url", "style", "class", "cssId", "data", "bbox", "enclose", "mmlToken", "texttip", "mathtip",
        "toggle", "includegraphics", "input", "include", "require",
        # the macros, characters and names of the rest of the page
        "def", "gdef", "edef", "xdef", "let", "futurelet", "newcommand", "renewcommand", "providecommand",
        "newenvironment", "renewenvironment", "DeclareMathOperator", "DeclarePairedDelimiter",
        "DeclarePairedDelimiters", "DeclarePairedDelimitersX", "DeclarePairedDelimitersXPP", "Newextarrow",
        "definecolor", "csname", "endcsname", "char", "unicode", "ref", "eqref", "label",
        # boxes out of their place
        "rule", "Rule", "Space", "raise", "lower", "moveleft", "moveright", "kern", "mkern", "hskip", "mskip",
        "llap", "rlap", "mathllap", "mathrlap", "mathclap",
    ]
)  # fmt: skip
_CONTROL = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_LABEL = re.compile(r"\\label\s*\{[^{}]*\}")
_DOLLARS = re.compile(
    r"\$\$((?:\\.|[^\\$])+)\$\$"
    r"|(?<!\d)\$(?!\s)((?:\\.|[^\\$])+)(?<!\s)\$(?!\d)",  # not the dollars of "$5 and $10"
    re.DOTALL,
)
_BRACKETS = {"\\(": "\\)", "\\[": "\\]"}
MAX_CHARS = 5_000
"""Math longer than this is shown as code: a typesetter would block the page."""


def harmless(tex: str) -> str | None:
    """`tex` as it may be typeset (without labels, whose names would be the whole page's), or None when it may not."""
    tex = _LABEL.sub("", tex)
    if len(tex) > MAX_CHARS or any(name in _DENIED or name in "()[]" for name in _CONTROL.findall(tex)):
        return None
    return tex


def plugin(md: MarkdownIt) -> None:
    """Find math: tokens `math_inline`, `math_inline_double` and `math_block`, whose content is the bare TeX."""
    dollarmath_plugin(md, allow_labels=False, allow_blank_lines=False)
    # its rule for inline math takes the text's last character for the one before its first
    md.inline.ruler.at("math_inline", _inline)


def _inline(state: StateInline, silent: bool) -> bool:
    found = _found(state.src, state.pos, state.posMax)
    if found is None or not (content := state.src[found.content].strip()):
        return False
    if not silent:
        token = state.push("math_inline_double" if found.display else "math_inline", "math", 0)
        token.content = content
    state.pos = found.end
    return True


class _Found(NamedTuple):
    """Where math stands in a text."""

    content: slice
    end: int
    display: bool


def _found(text: str, start: int, stop: int) -> _Found | None:
    """The math that begins at `start`."""
    if text[start] == "\\":
        opening = text[start : start + 2]
        # not by a pattern: many opening brackets that none closes made it look through the rest of the text for each
        end = text.find(_BRACKETS[opening], start + 3, stop) if opening in _BRACKETS else -1
        return None if end < 0 else _Found(slice(start + 2, end), end + 2, opening == "\\[")
    found = _DOLLARS.match(text, start, stop) if text[start] == "$" else None
    if found is None or found.lastindex is None:
        return None
    return _Found(slice(*found.span(found.lastindex)), found.end(), found.lastindex == 1)
