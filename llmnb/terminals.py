"""Whether a stream is a terminal, asked so that no stream is a trouble: pythonw and services have none at all."""

from __future__ import annotations

from typing import Any


def is_terminal(stream: Any) -> bool:
    """False, too, for a stream that is None or closed, or that cannot tell."""
    try:
        return bool(stream.isatty())
    except Exception:
        return False
