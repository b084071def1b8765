"""A widget that shows HTML made in Python, and whose front end writes nothing back.

Import this module only when a widget is shown: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

from typing import Any, cast

import anywidget
import traitlets


class HtmlWidget(anywidget.AnyWidget):
    """What has its `html` shown as it comes. A kind of it brings script and style of its own, both as text: a file's
    path would make anywidget keep every widget alive through its change signal.
    """

    html = traitlets.Unicode(read_only=True).tag(sync=True)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Refuse what a front end would write."""

    def show(self, html: str) -> None:
        """Show this from now on."""
        self.set_trait("html", html)

    def view(self, plain: str) -> dict[str, object]:
        """What a notebook shows it by."""
        view = {"version_major": 2, "version_minor": 0, "model_id": cast(Any, self).model_id}
        return {"text/plain": plain, "application/vnd.jupyter.widget-view+json": view}

    def dispose(self) -> None:
        """Free it and its layout."""
        layout = cast(Any, self).layout
        cast(Any, self).close()
        layout.close()
