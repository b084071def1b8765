"""Answers in a marimo notebook: the live view inside `mo.ui.anywidget`, the static form in its place at the end.

marimo is no dependency: this is imported only where it runs, and must be called by the thread that runs the cell.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from llmnb.display.widget import ResponseView


class MarimoOutput:
    """One output of the running cell."""

    reloads = False  # marimo shows what a cell has put out to every page that comes

    def __init__(self) -> None:
        self._marimo: Any = sys.modules["marimo"]
        self._index: int | None = None

    def show(self, widget: ResponseView, label: str) -> None:
        """See `Output.show`."""
        self._index = _outputs_so_far()
        self._marimo.output.append(self._marimo.ui.anywidget(widget))

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None:
        """See `Output.keep`; where the cell is interrupted marimo takes all its outputs away, but what it printed."""
        if stopped:
            sys.stdout.write(bundle["text/plain"] + "\n")
        kept = self._marimo.Html(bundle["text/html"])
        if self._index is None:
            self._marimo.output.append(kept)
        else:
            self._marimo.output.replace_at_index(kept, self._index)


def publish(bundle: dict[str, str]) -> None:
    """A static answer as a further output of the running cell."""
    marimo: Any = sys.modules["marimo"]
    marimo.output.append(marimo.Html(bundle["text/html"]))


def _outputs_so_far() -> int | None:
    """How many outputs the running cell has; marimo's public functions replace by index, but do not tell it."""
    try:
        context: Any = import_module("marimo._runtime.context")
        return len(context.get_context().execution_context.output)
    except Exception:
        return None
