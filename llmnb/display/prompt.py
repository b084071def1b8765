"""Asks a person at the keyboard whether a tool may run, where there are no buttons that a busy kernel hears."""

from __future__ import annotations

import sys

from llmnb.display import cards
from llmnb.display.answer import Tool, clean
from llmnb.display.footer import shortened
from llmnb.display.where import running_shell, where
from llmnb.events import ToolCall
from llmnb.terminals import is_terminal

_SHOWN_CHARS = 4_000


def can_ask() -> bool:
    """Whether somebody sits there who can be asked."""
    place = where()
    if place in ("script", "terminal"):
        return is_terminal(sys.stdin)
    if place in ("headless", "marimo"):
        return False
    return bool(getattr(getattr(running_shell(), "kernel", None), "_allow_stdin", True))


def ask(call: ToolCall) -> bool:
    """What the person says: y or yes lets it run, all else does not."""
    arguments = cards.arguments_text(Tool(call))
    if len(arguments) > _SHOWN_CHARS:
        arguments = f"{arguments[:_SHOWN_CHARS]}\n… {len(arguments) - _SHOWN_CHARS:,} characters more"
    sys.stdout.write(f"\nThe model wants to run {shortened(call.name)} with\n{arguments}\n")
    sys.stdout.flush()
    try:
        said = input("Run it? [y/N] ")
    except EOFError:
        return False
    return clean(said).strip().lower() in ("y", "yes")
