"""Columns of live answers in Jupyter: one widget while they come, a static bundle in its place afterwards.

Each column is a `WidgetView`, whose messages go through the one widget; so it is drawn, coalesced and, where a page
comes late, drawn again just as an answer that stands alone.

Import this module only when a view is needed: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import traitlets

from llmnb.display import control, latecomers, pace, style
from llmnb.display.answer import is_stop
from llmnb.display.footer import shortened
from llmnb.display.read_only_widget import ReadOnlyWidget
from llmnb.display.side_by_side import Columns
from llmnb.display.where import STOP_HINT, Place
from llmnb.display.widget import JupyterOutput, Output, WidgetView
from llmnb.events import StreamEvent

if TYPE_CHECKING:
    from llmnb.jobs.comparing.comparison import Comparison
    from llmnb.jobs.comparing.sofar import SoFar
    from llmnb.jobs.run import Status


@cache
def script() -> str:
    """The script of a comparison; the one of a live answer goes before it, as the function `makeAnswer`."""
    answer = style.script().replace("export default () =>", "const makeAnswer = () =>", 1)
    return f"{answer}\n{style.scripts('side_by_side.js')}"


class ComparisonView(ReadOnlyWidget):
    """The front end of a live comparison; it writes no state of its own. `answer_id` is its model id, too."""

    _esm = script()
    _css = style.live_css() + style.squeezed("side_by_side.css")
    answer_id = traitlets.Unicode(read_only=True).tag(sync=True)
    columns = cast(Any, traitlets.List(read_only=True)).tag(sync=True)
    can_stop = traitlets.Bool(read_only=True).tag(sync=True)
    stop_hint = traitlets.Unicode(read_only=True).tag(sync=True)
    doing = traitlets.Unicode(read_only=True).tag(sync=True)
    over = traitlets.Bool(read_only=True).tag(sync=True)

    def __init__(self, answer_id: str, columns: list[dict[str, str]], *, can_stop: bool, stop_hint: str) -> None:
        given = {"answer_id": answer_id, "columns": columns, "can_stop": can_stop, "stop_hint": stop_hint}
        for name, value in given.items():
            self.set_trait(name, value)
        super().__init__(model_id=answer_id)


class WidgetColumns(Columns):
    """Columns in a front end with widgets."""

    def __init__(self, place: Place, *, can_hear: bool) -> None:
        super().__init__(lambda bundle: None)
        self._output: Output = _output(place)
        self._can_hear = can_hear
        self._id = uuid.uuid4().hex
        self._views: list[WidgetView] = []
        self._widget: ComparisonView | None = None
        self._bundle: dict[str, str] = {}

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Callable[[], None] | None) -> None:
        """Shows the empty columns with one Stop button for all."""
        super().open(labels, models, stop)
        self._views = [WidgetView(make=self._column, output=_Nowhere) for _ in models]
        told = [
            {"answer_id": view.answer_id, "label": shortened(label), "model_label": shortened(model)}
            for view, label, model in zip(self._views, labels, models, strict=True)
        ]
        can_stop = stop is not None and self._can_hear
        hint = STOP_HINT if stop is not None and not self._can_hear else ""
        widget = ComparisonView(self._id, told, can_stop=can_stop, stop_hint=hint)
        self._widget = widget  # now: a Stop may strike on any of these lines
        control.unpin_replies(cast(Any, widget).comm)
        cast(Any, widget).on_msg(self._asked)
        control.register(self._id, control.Controls(stop or control.nothing, control.nothing, self._keep))
        self._output.show(cast(Any, widget), f"{len(labels)} contestants")
        for view, model in zip(self._views, models, strict=True):
            view.open(model, None)

    def show(self, column: int, event: StreamEvent) -> None:
        """Adds the event; it is drawn now, or with the next frame."""
        super().show(column, event)
        self._views[column].show(event)

    def end(self, column: int, error: BaseException | None) -> None:
        """Ends the answer, which stays as it is until all are over."""
        super().end(column, error)
        self._views[column].close(error)

    def far(self, status: Status, judging: bool, so_far: SoFar | None = None) -> None:
        """Says how far the judging is."""
        if self._widget is not None and judging:
            self._widget.set_trait("doing", f"judging · {status.kept + status.done:,} of {status.rows:,}")

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """Puts the static bundle in the widget's place."""
        for view, answer in zip(self._views, self.answers, strict=True):
            if not answer.ended:
                view.close(error)
        self._bundle = self.kept(comparison, error)
        if self._widget is not None:
            self._widget.set_trait("over", True)
        self._output.keep(self._bundle, stopped=is_stop(error))
        if self._output.reloads:
            latecomers.linger(self._free)
        else:
            self._free()

    def _column(self, answer_id: str, model: str, **_: Any) -> Any:
        return _Column(answer_id, self)

    def send(self, answer_id: str, message: dict[str, object]) -> None:
        """A message of one column."""
        if (widget := self._widget) is not None:
            cast(Any, widget).send({"column": answer_id, "message": message})

    def _asked(self, widget: Any, content: object, buffers: object) -> None:
        if control.obey(content):
            widget.send({"ack": True})

    def _keep(self) -> None:
        pace.alarm().at(0.0, self._send_bundle)

    def _send_bundle(self) -> None:
        """The alarm's thread: hand the static form to a page that missed how it took the widget's place."""
        with contextlib.suppress(Exception):
            if self._widget is not None and self._bundle:
                cast(Any, self._widget).send({"bundle": self._bundle})

    def _free(self) -> None:
        widget, self._widget = self._widget, None
        control.forget(self._id)
        if widget is not None:
            widget.dispose()


class _Column:
    """What a `WidgetView` takes for its widget: a part of the one that holds all columns."""

    comm = None

    def __init__(self, answer_id: str, host: WidgetColumns) -> None:
        self._id, self._host = answer_id, host

    def send(self, message: dict[str, object]) -> None:
        self._host.send(self._id, message)

    def on_msg(self, heard: object) -> None:
        """The widget that holds all columns hears for them."""

    def dispose(self) -> None:
        """It goes with the widget that holds it."""


class _Nowhere:
    """The output of a column: it stands in that of the comparison."""

    reloads = True

    def show(self, widget: object, label: str) -> None:
        """See `Output.show`."""

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None:
        """See `Output.keep`."""


def _output(place: Place) -> Output:
    if place != "marimo":
        return JupyterOutput()
    from llmnb.display.marimo_output import MarimoOutput

    return MarimoOutput()
