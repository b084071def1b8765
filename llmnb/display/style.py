"""The style sheets of answers (one for what is live and what is kept, one more for what is live), and their script."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_CLASSES = re.compile(r'\bclass="([^"]*)"')
_RULE = re.compile(r"([^{}]+)\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMA = re.compile(r",(?![^(]*\))")
_CLASS = re.compile(r"\.([A-Za-z][\w-]*)")


@cache
def answer_css() -> str:
    """The style sheet of answers, without comments and spare white space."""
    return squeezed("answer.css")


@cache
def live_css() -> str:
    """The style sheet of a live view."""
    return answer_css() + squeezed("live.css")


@cache
def transcript_css() -> str:
    """The style sheet of conversations, answers included."""
    return answer_css() + squeezed("transcript.css")


def tag(css: str, html: str) -> str:
    """A `<style>` with the rules of `css` that `html` has a use for: each answer that is kept brings its own along."""
    used = {name for names in _CLASSES.findall(html) for name in names.split()}
    if "llmnb-copy" in used:
        used.add("llmnb-copied")  # once it is pressed
    return f"<style>{_rules(css, frozenset(used))}</style>"


@cache
def _rules(css: str, used: frozenset[str]) -> str:
    return "".join(_rule(selectors, body, used) for selectors, body in _RULE.findall(css))


def _rule(selectors: str, body: str, used: frozenset[str]) -> str:
    if selectors.startswith("@"):
        body = _rules(body, used)
    else:
        wanted = [one for one in _COMMA.split(selectors) if used.issuperset(_CLASS.findall(one))]
        selectors = ",".join(wanted)
    return f"{selectors}{{{body}}}" if selectors and body else ""


@cache
def script() -> str:
    """The script of a live view."""
    return scripts("outputs.js", "control.js", "math.js", "handover.js", "lost_kernel.js", "response.js")


@cache
def code_classes() -> frozenset[str]:
    """Pygments' class names that the style sheet colours; other tokens need no element."""
    return frozenset(re.findall(r"\.highlight \.(\w+)", answer_css()))


def scripts(*names: str) -> str:
    """Scripts of this folder as one."""
    return "\n".join((_HERE / name).read_text("utf-8") for name in names)


def squeezed(name: str) -> str:
    """A style sheet of this folder without comments and spare white space."""
    css = re.sub(r"/\*.*?\*/", "", (_HERE / name).read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"\s*([{};,>])\s*|(?<=:)\s+", r"\1", re.sub(r"\s+", " ", css)).strip()
