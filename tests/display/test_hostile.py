"""Hostile text through every path that renders in Python: nothing may run, load, or leave its box."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from llmnb.display import markdown, static
from llmnb.display.answer import Answer
from llmnb.display.html import HtmlView
from llmnb.display.scene import Scene
from llmnb.display.terminal import PrintView, TerminalView
from llmnb.events import Approval, Citation, Done, Retry, StreamEvent, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage
from llmnb.views import View

CORPUS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href=javascript:alert(1)>x</a>",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=http://canary.example/x.css>",
    "<meta http-equiv=refresh content='0;url=http://canary.example'>",
    "<base href=http://canary.example/>",
    "<form action=http://canary.example><input name=q><button>go</button></form>",
    "<video poster=http://canary.example/p.png autoplay></video>",
    "<object data=http://canary.example></object><embed src=http://canary.example>",
    "</div></div></body><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</pre></code><script>alert(1)</script>",
    "</details></summary><img src=x onerror=alert(1)>",
    "<!-- --><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><x onclick=alert(1)>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "![x](http://canary.example/i.png)",
    "![x](javascript:alert(1))",
    "![x][r]\n\n[r]: http://canary.example/ref.png",
    '![a"onerror="alert(1)](http://canary.example/"onerror="x)',
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](//canary.example/x)",
    '[x](https://a.example/"onmouseover="alert(1))',
    "[x](<https://a.example/><script>alert(1)</script>)",
    "[x][r]\n\n[r]: javascript:alert(1)",
    "<javascript:alert(1)>",
    '<https://a.example/"onclick=alert(1)>',
    "[<img src=x onerror=alert(1)>](https://a.example)",
    "`<img src=x onerror=alert(1)>`",
    "`$` <img src=x onerror=alert(1)> `$`",
    "`$<img src=x onerror=alert(1)>$`",
    "``` <img/src=x/onerror=alert(1)>\ncode\n```",
    '```html"onload=alert(1)\n</code></pre><script>alert(1)</script>\n```',
    "~~~\n```\n<script>alert(1)</script>\n~~~",
    "- ```\n  <script>alert(1)</script>\n<script>alert(2)</script>",
    ">     <script>alert(1)</script>\n<script>alert(2)</script>",
    "    <script>alert(1)</script>",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "| a |\n|---|\n| `<b>|</b>` <script>alert(1)</script> |",
    "# <script>alert(1)</script>\n<script>\n===",
    "$<img src=x onerror=alert(1)>$",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\bbox[background:url(http://canary.example)]{x}$",
    "$\\style{position:fixed;inset:0}{x}$",
    "$\\require{html}\\cssId{x}{y}$",
    "\\(\\unicode{x}\\) \\[\\def\\alpha{evil}\\]",
    "$$\n\\text{</span><script>alert(1)</script>}\n$$",
    "\\begin{equation}\\href{javascript:alert(1)}{x}\\end{equation}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\<script>alert(1)\\</script>",
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://canary.example\x1b\\x\x1b]8;;\x1b\\",
    "\x9b31mred\x9d0;title\x9c",
    "a\x00<scr\x00ipt>alert(1)</script>",
    "\u202e gnp.exe \u2066",
    "{{ constructor.constructor('alert(1)')() }} ${alert(1)} <%= 1 %>",
    "[red]rich markup[/red] [link=http://canary.example]x[/link]",
    "\ud800 lone surrogate <script>",
]


# the same few wishes in the many notations by which they have reached pages before
_TAGS = [
    "<{0} src=http://canary.example/{0}>",
    "<{0} src=x onerror=alert('{0}')>",
    "<{0}\nonload\n=\nalert('{0}')\n>",
]
CORPUS += [
    form.format(tag) for tag in ("img", "audio", "source", "input type=image", "frame", "track") for form in _TAGS
]
CORPUS += [
    f"<{tag} {handler}=alert(1) tabindex=1 autofocus>x</{tag}>"
    for tag, handler in (
        ("div", "onmouseover"),
        ("input", "onfocus"),
        ("details open", "ontoggle"),
        ("marquee", "onstart"),
        ("body", "onpageshow"),
        ("p style='animation:x 1s'", "onanimationstart"),
        ("select", "onfocus"),
        ("button popovertarget=x", "onclick"),
        ("x contenteditable", "onblur"),
        ("svg><animate", "onbegin"),
        ("video><source", "onerror"),
        ("a href=#", "onpointerenter"),
    )
]
CORPUS += [
    form.format(url)
    for url in (
        "javascript:alert(1)",
        "JAVASCRIPT&colon;alert(1)",
        "java&#x09;script:alert(1)",
        "\x01javascript:alert(1)",
        "javascript&#58;alert(1)",
        "%6aavascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "blob:http://canary.example/1",
        "ftp://canary.example/x",
        "ws://canary.example/x",
        "\\\\canary.example\\x",
        "view-source:http://canary.example",
    )
    for form in ("[x]({0})", "![x]({0})", "<{0}>", "[x][k]\n\n[k]: <{0}> 'title'")
]
CORPUS += [
    '<div style="background:url(http://canary.example/bg)">x</div>',
    "<style>@import 'http://canary.example/i.css';</style>",
    "<style>@font-face{font-family:x;src:url(http://canary.example/f)}*{font-family:x}</style>",
    "<link rel=prefetch href=http://canary.example/p><link rel=preconnect href=http://canary.example>",
    "<link rel=modulepreload href=http://canary.example/m.js>",
    "<script type=module>import 'http://canary.example/m.js'</script>",
    '<script type=importmap>{"imports":{}}</script>',
    "<template><script>alert(1)</script></template>",
    "<template shadowrootmode=open><img src=http://canary.example/s></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<svg><foreignObject><iframe srcdoc='<script>alert(1)</script>'></foreignObject></svg>",
    "<svg><use href='http://canary.example/u#x'/></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<xmp><script>alert(1)</script></xmp><plaintext><script>alert(2)",
    "<textarea><script>alert(1)</script></textarea><title></title><script>alert(2)</script>",
    "<select><option></select><img src=x onerror=alert(1)>",
    "<table><td><form><input formaction=javascript:alert(1) type=submit></table>",
    "<dialog open>I cover the page</dialog>",
    "<div popover=manual id=x>I cover the page</div>",
    "<object type=text/x-scriptlet data=http://canary.example/o></object>",
    "<applet code=x codebase=http://canary.example></applet>",
    "<portal src=http://canary.example></portal>",
    "<fencedframe src=http://canary.example></fencedframe>",
    "<img srcset='http://canary.example/1 1x, http://canary.example/2 2x'>",
    "<picture><source srcset=http://canary.example/p><img></picture>",
    "<input type=image src=http://canary.example/i formaction=javascript:alert(1)>",
    "<a ping=http://canary.example/ping href=https://a.example>x</a>",
    "<blockquote cite=http://canary.example/c>x</blockquote>",
    "<html manifest=http://canary.example/m><head profile=http://canary.example/h>",
    "<body background=http://canary.example/b>",
    "<button commandfor=x command=show-modal>x</button>",
    "$\\class{x}{y}$ $\\data{onclick=alert(1)}{x}$",
    "$\\includegraphics{http://canary.example/g.png}$",
    "$\\mmlToken{mi}[href=javascript:alert(1)]{x}$",
    "$\\gdef\\x{\\href{javascript:alert(1)}{x}}\\x$",
    "$\\url{javascript:alert(1)}$ $\\toggle{x}{y}\\endtoggle$",
    "$\\rule{9999em}{9999em}$ $\\kern-9999em x$",
    "$\\texttip{x}{<img src=x onerror=alert(1)>}$",
    "\\[\\begin{array}{c}<script>alert(1)</script>\\end{array}\\]",
    '```mermaid\ngraph TD; A-->B; click A href "javascript:alert(1)"\n```',
    "```svg\n<svg onload=alert(1)>\n```",
    "```{=html}\n<script>alert(1)</script>\n```",
    "::: {.cell}\n<script>alert(1)</script>\n:::",
    "---\ntitle: <script>alert(1)</script>\n---\n",
    "[^1]: <script>alert(1)</script>\n\n[^1]",
    "a[x]{onclick=alert(1)} [x]{.class style='position:fixed'}",
    "<https://a.example/?q=<script>alert(1)</script>>",
    '!["><img src=x onerror=alert(1)>](https://a.example/i.png "t" onerror=alert(1))',
    '["onmouseover=alert(1) x="](https://a.example \'"onmouseover=alert(1)\')',
    '| a | b |\n|:-:"onclick=alert(1)|---|\n| x | y |',
    "1. <script>\n2. alert(1)\n3. </script>",
    "> <script\n> >alert(1)</script\n> >",
    "<scr\u200bipt>alert(1)</scr\u200bipt> \uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "\u202e<script>alert(1)</script>\u202c\u2067\u200f",
    "a" * 3000 + "<script>alert(1)</script>",
    "\x1b[8m hidden \x1b[0m \x1b[5n \x1b[c \x1bP+q544e\x1b\\ \x1b]52;c;YWxlcnQ=\x07",
    "\x08\x08\x08overwritten\rrewritten\x0c\x0b",
]

ALLOWED_TAGS = {
    *(
        "a",
        "b",
        "blockquote",
        "br",
        "button",
        "code",
        "del",
        "details",
        "div",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
    ),
    *("hr", "li", "ol", "p", "pre", "s", "span", "strong", "style", "summary"),
    "llmnb-kept",  # ends a bundle, and only marks where it is
    *("table", "tbody", "td", "th", "thead", "tr", "ul"),
}
ALLOWED_ATTRIBUTES = {"data-call", "data-lm-suppress-shortcuts", "open"} | {
    "class",
    "href",
    "title",
    "target",
    "rel",
    "style",
    "start",
    "hidden",
    "type",
    "role",
    "onclick",
}
ALLOWED_STYLES = {"text-align:left", "text-align:right", "text-align:center"}


class Audit(HTMLParser):
    """Reads HTML as a browser would and notes what must not be there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._styles = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._styles += tag == "style"
        if tag not in ALLOWED_TAGS or self._styles > 1:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if not self._good(name, value or ""):
                self.found.append(f"<{tag} {name}={value}>")

    def _good(self, name: str, value: str) -> bool:
        if name == "href":
            return value.lower().startswith(("http://", "https://", "mailto:", "#"))
        if name == "onclick":
            return value == static.COPY
        if name == "style":
            return value in ALLOWED_STYLES
        return name in ALLOWED_ATTRIBUTES or name.startswith("aria-")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.found.append("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


def audit(html: str) -> Audit:
    """What a browser would find in `html`."""
    parser = Audit()
    parser.feed(html)
    parser.close()
    return parser


def events(hostile: str) -> Iterator[StreamEvent]:
    """A stream with the hostile text in every place a stranger can write to."""
    yield Thinking(hostile)
    yield Retry(1, 2, hostile)
    yield ToolCall("1", hostile, {hostile: hostile})
    yield ToolResult("1", hostile, hostile, is_error=True)
    yield ToolCall("2", "quiet", {"a": [hostile]})
    for start in range(0, len(hostile), 3):
        yield Text(hostile[start : start + 3])
    yield Text("\n\nend")
    yield Citation(hostile, hostile, hostile, hostile)
    yield Done(hostile, Usage(output_tokens=1), None, stop_reason=hostile)


def drive(view: View, hostile: str) -> None:
    """Show the whole hostile stream."""
    view.open(hostile, None)
    for event in events(hostile):
        view.show(event)
    view.close(RuntimeError(hostile))


def wire_html(hostile: str) -> Iterator[str]:
    """Every state of every node a live widget is sent."""
    answer = Answer(hostile)
    scene = Scene(answer)
    waiting = Approval(ToolCall(hostile, hostile, {hostile: hostile}), lambda yes: None)  # with buttons to press
    for event in (waiting, *events(hostile)):
        answer.apply(event)
        scene.frame()
        yield from htmls(scene)
    answer.end(RuntimeError(hostile))
    yield from htmls(scene)


def htmls(scene: Scene) -> list[str]:
    """The HTML of every node."""
    nodes: Any = scene.keyframe()["key"]
    return [node[3] for node in nodes]


@pytest.mark.parametrize("hostile", CORPUS)
def test_live_html(hostile: str) -> None:
    """No state of a live view, half-written constructs included, holds a tag or attribute of the model's."""
    for html in wire_html(hostile):
        assert audit(html).found == []


@pytest.mark.parametrize("hostile", CORPUS)
def test_static_html(hostile: str) -> None:
    """The page that stays holds no tag or attribute of the model's, and at most one style sheet, ours."""
    shown: list[dict[str, str]] = []
    drive(static.StaticView(shown.append, html=True), hostile)
    assert audit(shown[0]["text/html"]).found == []
    assert audit(markdown.render(hostile)).found == []


@pytest.mark.parametrize("hostile", CORPUS)
def test_html_fallback(hostile: str) -> None:
    """The outputs of the fallback without widgets hold none either."""
    shown: list[dict[str, str]] = []

    def publish(bundle: dict[str, str]):
        shown.append(bundle)
        return shown.append

    drive(HtmlView(publish, clock=iter(range(10_000)).__next__), hostile)
    assert len(shown) > 3
    for bundle in shown:
        assert audit(bundle.get("text/html", "")).found == []


@pytest.mark.parametrize("hostile", CORPUS)
def test_kept_markdown_in_a_careless_viewer(hostile: str) -> None:
    """The saved text/markdown gives no tag but Markdown's own even where a viewer lets HTML and any link through."""
    shown: list[dict[str, str]] = []
    drive(static.StaticView(shown.append, html=False), hostile)
    careless = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    careless.validateLink = lambda url: True
    html = careless.render(shown[0]["text/markdown"])
    assert audit(html).found == []


@pytest.mark.parametrize("hostile", CORPUS)
def test_terminals_obey_nothing(hostile: str) -> None:
    """What reaches a terminal has no control sequences of the model's: only rich's colours and cursor moves."""
    plain = io.StringIO()
    drive(PrintView(plain), hostile)
    assert all(char in "\n\t" or char.isprintable() or ord(char) > 0xA0 for char in plain.getvalue())
    out = io.StringIO()
    drive(TerminalView(Console(file=out, force_terminal=True, width=80, height=30)), hostile)
    assert "\x1b]" not in out.getvalue()
    assert "\x9b" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


def test_the_corpus_is_large_enough() -> None:
    """At least a hundred and fifty different strings are tried."""
    assert len(set(CORPUS)) >= 150


@pytest.mark.parametrize(
    "bad", ["<img src=x>", "<p onclick=x>", "<a href='javascript:x'>", "<p style='color:red'>", "<!-- -->"]
)
def test_the_audit_sees_what_is_bad(bad: str) -> None:
    """The audit these tests rest on finds a foreign tag, handler, link, style and comment."""
    assert audit(bad).found
