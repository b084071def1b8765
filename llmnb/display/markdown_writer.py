"""Markdown → the same Markdown in a form on which all viewers agree, with nothing in it to run or to fetch.

What a notebook file keeps is rendered by programs with parsers of their own, some of which let HTML through. So the
parsed answer is written anew: HTML characters of text escaped, images as links, only allowed links, code fenced with
more backticks than it holds, code spans on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from markdown_it.token import Token

from llmnb.display import markdown, tex

_SPECIAL = re.compile(r"[\\`*\[\]|$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|~(?=~)")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LINE_START = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+=>]|~|\d{1,9}(?=[.)]))", re.MULTILINE)
_TAG_START = re.compile(r"<[A-Za-z/!?]")


def rewrite(text: str) -> str:
    """The Markdown `text` written anew."""
    return rewritten(markdown.parse(text))


def rewritten(tokens: Sequence[Token]) -> str:
    """The same of a text that is parsed already, as the very tokens its HTML is made of."""
    return joined(_blocks(tokens))


def joined(blocks: Iterable[str]) -> str:
    """Blocks, or texts, as one text; those with nothing in them are left out."""
    return "\n\n".join(block for block in blocks if block).strip("\n")


def escaped(text: str) -> str:
    """Text as Markdown that shows it as it is, on any place of a line."""
    text = _SPECIAL.sub(r"\\\g<0>", _ENTITY.sub("&amp;", text).replace("<", "&lt;"))
    return _LINE_START.sub(_escape_start, text)


def _escape_start(found: re.Match[str]) -> str:
    space, mark = found.groups()
    return f"{space}{mark}\\" if mark.isdigit() else f"{space}\\{mark}"


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """The blocks of one level, each as its lines."""
    index = 0
    while index < len(tokens):
        end = _end(tokens, index)
        block = _block(tokens[index], tokens[index + 1 : end])
        if block.strip():
            yield block
        index = end + 1


def _end(tokens: Sequence[Token], start: int) -> int:
    """The index of the token that closes the one at `start`."""
    depth = 0
    for index in range(start, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index
    return len(tokens) - 1


def _block(token: Token, inner: Sequence[Token]) -> str:
    match token.type:
        case "fence" | "code_block":
            return _fenced(token.content, markdown.language_of(token.info))
        case "math_block":
            return _math(token.content.strip(), display=True)
        case "hr":
            return "* * *"
        case "heading_open":
            return f"{'#' * int(token.tag[1])} {_inline(inner).replace(chr(10), ' ')}"
        case "blockquote_open":
            return _prefixed("\n\n".join(_blocks(inner)), "> ", "> ")
        case "bullet_list_open" | "ordered_list_open":
            return _list(token, inner)
        case "table_open":
            return _table(inner)
        case _:
            return _inline(inner or [token])


def _fenced(code: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code.rstrip(chr(10))}\n{fence}"


def _prefixed(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join(((first if number == 0 else rest) + line).rstrip() for number, line in enumerate(lines))


def _list(token: Token, inner: Sequence[Token]) -> str:
    items: list[str] = []
    number = int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else None
    index = 0
    tight = all(item.hidden for item in inner if item.type == "paragraph_open" and item.level == token.level + 2)
    while index < len(inner):
        end = _end(inner, index)
        marker = "- " if number is None else f"{number + len(items)}. "
        body = ("\n" if tight else "\n\n").join(_blocks(inner[index + 1 : end]))
        items.append(_prefixed(body, marker, " " * len(marker)))
        index = end + 1
    return ("\n" if tight else "\n\n").join(items)


def _table(inner: Sequence[Token]) -> str:
    rows: list[list[str]] = []
    rules: list[str] = []
    for index, token in enumerate(inner):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(re.sub(r"(?<!\\)\|", r"\\|", _inline([inner[index + 1]]).replace("\n", " ")))
            if token.type == "th_open":
                rules.append(_rule(str(token.attrs.get("style", ""))))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join(rules)} |", *lines[1:]])


def _rule(style: str) -> str:
    return {"text-align:right": "--:", "text-align:center": ":-:", "text-align:left": ":--"}.get(style, "---")


def _inline(tokens: Sequence[Token]) -> str:
    children = [child for token in tokens for child in (token.children or [])]
    targets: list[str] = []
    written: list[str] = []
    for child in children:
        if child.type == "link_open":
            targets.append(str(child.attrs.get("href", "")))
        written.append(f"]({destination(targets.pop())})" if child.type == "link_close" else _span(child))
    return "".join(written)


_MARKS = {"strong": "**", "em": "*", "s": "~~"}


def _span(token: Token) -> str:
    match token.type:
        case "code_inline":
            return _code_span(token.content)
        case "softbreak":
            return "\n"
        case "hardbreak":
            return "\\\n"
        case "image":
            return _image(token)
        case "link_open":
            return "["
        case "math_inline" | "math_inline_double":
            return _math(token.content, display=token.type == "math_inline_double")
        case "strong_open" | "strong_close" | "em_open" | "em_close" | "s_open" | "s_close":
            return _MARKS[token.type.split("_")[0]]
        case _:
            return escaped(token.content)


def _image(token: Token) -> str:
    source = str(token.attrs.get("src", ""))
    label = escaped(token.content.strip() or source).replace("\n", " ")
    return f"[{label}]({destination(source)})" if markdown.link_allowed(source) else label


def destination(url: str) -> str:
    """A URL as it may stand in a link's parentheses."""
    return re.sub(r"[\s()<>\\`*\[\]$|]", lambda found: f"%{ord(found[0]):02X}", url).replace("&", "&amp;")


def _code_span(code: str) -> str:
    code = code.replace("\n", " ")
    # beside a $ or a backtick some viewers see no code span here, and would see the tag
    if _TAG_START.search(code) and re.search(r"[$`]", code):
        return escaped(code)
    ticks = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    space = " " if code.startswith(("`", " ")) or code.endswith(("`", " ")) else ""
    return f"{ticks}{space}{code}{space}{ticks}"


def _math(source: str, *, display: bool) -> str:
    allowed = tex.harmless(source)
    if allowed is None:
        return _code_span(source)
    # a viewer's typesetter takes the TeX before Markdown does; what it does not take must be no tag
    mark = "$$" if display else "$"
    return f"{mark}{_no_tags(' '.join(allowed.split()))}{mark}"


def _no_tags(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", "< ", text)
