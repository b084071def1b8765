"""The widget of a run over many rows: HTML made in Python, and a Stop button that is heard while the cell blocks.

Import this module only when a run is shown in Jupyter: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import traitlets

from llmnb.display import control
from llmnb.display.html_widget import HtmlWidget
from llmnb.display.style import squeezed

_HERE = Path(__file__).parent


class RunWidget(HtmlWidget):
    """The front end of one run. `stop` may be called from any thread."""

    _esm = "\n".join((_HERE / name).read_text("utf-8") for name in ("control.js", "run_widget.js"))
    _css = squeezed("run_widget.css")
    run_key = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, stop: Callable[[], None]) -> None:
        self.set_trait("run_key", uuid.uuid4().hex)
        super().__init__()
        comm: Any = cast(Any, self).comm
        control.unpin_replies(comm)
        cast(Any, self).on_msg(self._asked)
        control.register(self.run_key, control.Controls(stop, control.nothing, control.nothing))

    def dispose(self) -> None:
        """Free it and its layout."""
        control.forget(self.run_key)
        super().dispose()

    def _asked(self, widget: object, content: object, buffers: object) -> None:
        del widget, buffers
        control.obey(content)
