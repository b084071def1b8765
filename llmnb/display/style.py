"""The style sheets of answers (one for what is live and what is kept, one more for what is live), and their script."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def answer_css() -> str:
    """The style sheet every kept answer brings along, without comments and spare white space."""
    return _squeezed("answer.css")


@cache
def live_css() -> str:
    """The style sheet of a live view."""
    return answer_css() + _squeezed("live.css")


@cache
def script() -> str:
    """The script of a live view."""
    return "\n".join((_HERE / name).read_text("utf-8") for name in ("handover.js", "response.js"))


@cache
def code_classes() -> frozenset[str]:
    """Pygments' class names that the style sheet colours; other tokens need no element."""
    return frozenset(re.findall(r"\.highlight \.(\w+)", answer_css()))


def _squeezed(name: str) -> str:
    css = re.sub(r"/\*.*?\*/", "", (_HERE / name).read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"\s*([{};,>])\s*|(?<=:)\s+", r"\1", re.sub(r"\s+", " ", css)).strip()
