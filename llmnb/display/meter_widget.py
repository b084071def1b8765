"""The widget of a meter: HTML made in Python, shown by the front end as it comes.

Import this module only when a meter is shown: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import anywidget
import traitlets

from llmnb.display.meter import meter_css

_SCRIPT = Path(__file__).with_name("meter.js")


class MeterWidget(anywidget.AnyWidget):
    """The front end of one meter; it writes no state of its own."""

    # as text: a file path would make anywidget keep every widget alive through its change signal
    _esm = _SCRIPT.read_text("utf-8")
    _css = meter_css()
    html = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, html: str) -> None:
        self.set_trait("html", html)
        super().__init__()

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
