"""The widget of a comparison over many prompts: that of a run, with the tables' style.

Import this module only when it is shown in Jupyter: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

from llmnb.display import live_table
from llmnb.display.run_widget import RunWidget


class CompareWidget(RunWidget):
    """The front end of one comparison. `stop` may be called from any thread."""

    _css = live_table.css()
