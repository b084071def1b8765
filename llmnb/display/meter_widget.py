"""The widget of a meter: HTML made in Python, shown by the front end as it comes.

Import this module only when a meter is shown: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

from pathlib import Path

from llmnb.display.html_widget import HtmlWidget
from llmnb.display.meter import meter_css

_SCRIPT = Path(__file__).with_name("meter.js")


class MeterWidget(HtmlWidget):
    """The front end of one meter."""

    _esm = _SCRIPT.read_text("utf-8")
    _css = meter_css()

    def __init__(self, html: str) -> None:
        self.set_trait("html", html)
        super().__init__()
