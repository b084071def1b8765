"""Requests the tests have in common."""

from __future__ import annotations

from typing import Any

MODEL = "claude-sonnet-5-5"


def ask(prompt: str = "Explain WAL in SQLite, please, in detail", **more: Any) -> dict[str, Any]:
    """The arguments of a `messages.create` call with one user message."""
    return {"model": MODEL, "max_tokens": 2000, "messages": [{"role": "user", "content": prompt}]} | more


def text_of(message: Any) -> str:
    """The text of a message."""
    return "".join(block.text for block in message.content if block.type == "text")
