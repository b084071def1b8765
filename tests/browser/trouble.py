"""What must not happen on a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

_CLOSED = "reading 'processLuminoMessage'"
"""JupyterLab lays out a notebook that was closed just now; no code of ours has messages of Lumino's."""


@contextmanager
def watch(page: Page) -> Iterator[list[str]]:
    """Notes dialogs, other pages, frames, errors, and lines of the console that tell of one."""
    seen: list[str] = []
    handlers: dict[Any, Any] = {
        "dialog": lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()),
        "popup": lambda popup: seen.append(f"popup {popup.url}"),
        "framenavigated": lambda frame: seen.append(f"frame {frame.url}") if frame.parent_frame else None,
        "pageerror": lambda error: seen.append(f"error {error}"),
        "console": lambda line: (
            seen.append(f"console {line.text}") if line.type == "error" and _CLOSED not in line.text else None
        ),
    }
    for event, handler in handlers.items():
        page.on(event, handler)
    yield seen
    for event, handler in handlers.items():
        page.remove_listener(event, handler)
