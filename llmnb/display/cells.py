"""Texts of others in the cells of tables: names of projects, models and tags, as HTML and as Markdown."""

from __future__ import annotations

from html import escape


def escaped(text: str) -> str:
    """As HTML."""
    # an element of its own for a dollar sign: a page-wide typesetter takes text between two of them for math
    return escape(text).replace("$", "<span>$</span>")


def marked(text: str) -> str:
    """As one line of Markdown."""
    shown = text.replace("\\", "\\\\").replace("\n", " ")
    for sign in "$|*_`<[":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
