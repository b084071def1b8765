"""A widget that shows HTML made in Python.

Import this module only when a widget is shown: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import traitlets

from llmnb.display.read_only_widget import ReadOnlyWidget


class HtmlWidget(ReadOnlyWidget):
    """What has its `html` shown as it comes."""

    html = traitlets.Unicode(read_only=True).tag(sync=True)

    def show(self, html: str) -> None:
        """Show this from now on."""
        self.set_trait("html", html)
