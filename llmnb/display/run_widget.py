"""The widget of a run over many rows: HTML made in Python, and a Stop button that is heard while the cell blocks.

Import this module only when a run is shown in Jupyter: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import traitlets

from llmnb.display import control
from llmnb.display.html_widget import HtmlWidget
from llmnb.display.style import scripts, squeezed


@cache
def script() -> str:
    """The script of a run."""
    return scripts("outputs.js", "control.js", "lost_kernel.js", "run_widget.js")


class RunWidget(HtmlWidget):
    """The front end of one run; `run_key` is its model id, too. `stop` may be called from any thread."""

    _esm = script()
    _css = squeezed("run_widget.css")
    run_key = traitlets.Unicode(read_only=True).tag(sync=True)
    if_lost = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, stop: Callable[[], None]) -> None:
        self.set_trait("run_key", uuid.uuid4().hex)
        super().__init__(model_id=self.run_key)
        comm: Any = cast(Any, self).comm
        control.unpin_replies(comm)
        cast(Any, self).on_msg(self._asked)
        control.register(self.run_key, control.Controls(stop, control.nothing, control.nothing))

    def show_run(self, html: str, if_lost: str) -> None:
        """Show this from now on; `if_lost` is for its first element when the kernel ends."""
        with cast(Any, self).hold_sync():
            self.set_trait("if_lost", if_lost)
            self.show(html)

    def dispose(self) -> None:
        """Free it and its layout."""
        control.forget(self.run_key)
        super().dispose()

    def _asked(self, widget: object, content: object, buffers: object) -> None:
        del widget, buffers
        control.obey(content)
