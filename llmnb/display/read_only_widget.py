"""The base of all widgets here: what a front end writes back is refused, and what it holds is freed at its end.

Import this module only when a widget is shown: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

from typing import Any, cast

import anywidget

VIEW = "application/vnd.jupyter.widget-view+json"


class ReadOnlyWidget(anywidget.AnyWidget):
    """A kind of it brings script and style of its own, both as text: a file's path would make anywidget keep every
    widget alive through its change signal.
    """

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Refuse what a front end would write."""

    def view(self, plain: str) -> dict[str, object]:
        """What a notebook shows it by; `plain` is for those that show no widgets."""
        found = {"version_major": 2, "version_minor": 0, "model_id": cast(Any, self).model_id}
        return {"text/plain": plain, VIEW: found}

    def dispose(self) -> None:
        """Free it and its layout."""
        layout = cast(Any, self).layout
        cast(Any, self).close()
        layout.close()
