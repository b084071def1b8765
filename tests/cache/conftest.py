"""Answers and entries to keep."""

from __future__ import annotations

from typing import Any


def answer_body(text: str = "Hello", **changes: Any) -> dict[str, Any]:
    """A message as the API sends it."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 2}, **changes,
    }  # fmt: skip
