"""The live view in Jupyter: a widget while the answer comes, a static bundle in its place afterwards.

Import this module only when a view is needed: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import traitlets

from llmnb import interrupts
from llmnb.display import control, latecomers, pace, static, style
from llmnb.display.answer import Answer, is_stop
from llmnb.display.envelope import Envelope
from llmnb.display.footer import shortened
from llmnb.display.read_only_widget import ReadOnlyWidget
from llmnb.display.scene import Scene
from llmnb.display.where import UNHEARD, where
from llmnb.events import Approval, StreamEvent

_ASKABLE_GROWTH = 8
"""How keyframes thin out where a front end can ask for one, and does when it has missed a message: each costs the whole
answer again, as much as a hundred frames."""
_SOON_S = 0.001
"""Until it wants to draw what is overdue."""


class ResponseView(ReadOnlyWidget):
    """The front end of one live answer; it is sent the messages of a `Scene`, and writes no state of its own.

    `answer_id` is the widget's model id, too: so its place can be found in a notebook.
    """

    _esm = style.script()
    _css = style.live_css()
    answer_id = traitlets.Unicode(read_only=True).tag(sync=True)
    model_label = traitlets.Unicode(read_only=True).tag(sync=True)
    can_stop = traitlets.Bool(read_only=True).tag(sync=True)
    stop_hint = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, answer_id: str, model: str, *, can_stop: bool, stop_hint: str = "") -> None:
        for name, value in (("answer_id", answer_id), ("model_label", model), ("can_stop", can_stop)):
            self.set_trait(name, value)
        self.set_trait("stop_hint", stop_hint)
        self._goes_by_comm = where() not in UNHEARD
        self._comm_of_envelope: Any = None
        self._envelope: Envelope | None = None
        super().__init__(model_id=answer_id)

    def send(self, content: object, buffers: Any = None) -> None:
        """Send it without the request it belongs to: Jupyter goes by the comm.

        Colab, which has a page of its own for each cell, and others that could not be tried may go by the request.
        """
        if buffers or not self._goes_by_comm or not (envelope := self._enveloped()) or not envelope.send(content):
            cast(Any, super()).send(content, buffers)

    def _enveloped(self) -> Envelope | None:
        comm = cast(Any, self).comm
        if comm is not self._comm_of_envelope:
            self._comm_of_envelope, self._envelope = comm, Envelope.of(comm)
        return self._envelope


class Output(Protocol):
    """The place on the page where an answer stands.

    `reloads` says that the page can be loaded again while the kernel goes on, and then asks for what it missed.
    """

    reloads: bool

    def show(self, widget: ResponseView, label: str) -> None:
        """Show the live view."""
        ...

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None:
        """Put the static form in its place; `stopped` says that the cell ends with the interrupt."""
        ...


class JupyterOutput:
    """An output of a cell, which can be replaced while another cell runs."""

    reloads = True

    def __init__(self) -> None:
        from IPython import display

        self._handle: Any = cast(Any, display).DisplayHandle()

    def show(self, widget: ResponseView, label: str) -> None:
        """See `Output.show`."""
        self._handle.display(widget.view(f"{label} is answering…"), raw=True)

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None:
        """See `Output.keep`."""
        self._handle.update(bundle, raw=True)


class WidgetView:
    """A `View` in a front end with widgets."""

    def __init__(
        self,
        *,
        stop_hint: str = "",
        clock: Callable[[], float] = time.monotonic,
        output: Callable[[], Output] = JupyterOutput,
        make: Callable[..., Any] = ResponseView,
    ) -> None:
        self._stop_hint = stop_hint
        self._make_output = output
        self._make = make
        self._clock = clock
        self._lock = threading.RLock()
        self._answer = Answer()
        self._scene = Scene(self._answer)
        self.answer_id = self._id = uuid.uuid4().hex
        self._widget: ResponseView | None = None
        self._output: Output | None = None
        self._keyframes = pace.keyframe_times(_ASKABLE_GROWTH if control.can_be_asked() else 2)
        self._keyframe_due = self._keyframe_armed = 0.0
        self._frame_due = 0.0
        self._start = 0.0
        self._armed = float("inf")  # when the alarm will ring for a frame
        self._dirty = False
        self._is_gathered = False  # who shows comes again by itself
        self._approvals: dict[str, Approval] = {}

    @property
    def asks(self) -> bool:
        """Whether a click on a tool's card is heard while the cell blocks."""
        return control.can_be_asked() and not self._stop_hint

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """Show the empty view with its Stop button."""
        with self._lock:
            self._answer.model = model
            can_stop = stop is not None and not self._stop_hint
            label = shortened(model)
            widget: ResponseView = self._make(
                self._id, label, can_stop=can_stop, stop_hint=self._stop_hint if stop else ""
            )
            self._widget = widget  # now: a Stop may strike on any of these lines
            control.unpin_replies(cast(Any, widget).comm)
            cast(Any, widget).on_msg(self._asked)
            control.register(
                self._id, control.Controls(stop or control.nothing, self._resync, control.nothing, self._decide)
            )
            self._start = self._clock()
            self._next_keyframe()
            self._output = self._make_output()  # before anything is shown there, for the same reason
            self._output.show(widget, label)
            self._draw_or_wait()

    def show(self, event: StreamEvent) -> None:
        """Add the event; draw it now, or with the next frame."""
        self._show((event,), gathered=False)

    def show_all(self, events: Sequence[StreamEvent]) -> None:
        """Add the events; draw them now, or when it is called the next time."""
        self._show(events, gathered=True)

    def rest_s(self) -> float:
        """See `GatheringView.rest_s`."""
        if self._widget is None:
            return 0.0
        return max(self._frame_due - self._clock(), _SOON_S if self._dirty else 0.0)

    def close(self, error: BaseException | None = None) -> None:
        """Put the static bundle in the widget's place; the widget is freed now, or soon, as a page may come late."""
        with self._lock:
            self._answer.end(error)
            self._keyframe_due = float("inf")
            if self._widget is not None and (message := self._scene.frame()) is not None:
                cast(Any, self._widget).send(message)  # what is whole on the page need not be drawn again
            if self._output is not None:
                self._output.keep(self._bundle(), stopped=is_stop(error))
            lingers = self._widget is not None and self._output is not None and self._output.reloads
            if lingers:
                control.register(self._id, control.Controls(control.nothing, self._resync, self._keep))
        if lingers:  # not under the lock: others that linger are freed here, who may be closing and free this one
            latecomers.linger(self._free)
        else:
            self._free()

    def _bundle(self) -> dict[str, str]:
        return static.of(self._answer, self._scene.drawn())

    def _show(self, events: Sequence[StreamEvent], *, gathered: bool) -> None:
        coming = iter(events)
        try:
            with self._lock:
                begins = self._apply(coming)  # something does: show it at once
                if begins:
                    self._frame_due = 0.0
                self._is_gathered = gathered
                waits = self._dirty and not gathered  # the alarm is set already
                self._dirty = self._dirty or bool(events)
                if begins or not waits:
                    self._draw_or_wait()
        except KeyboardInterrupt:
            with interrupts.put_off(), self._lock:
                self._apply(coming)  # what has come belongs to what stays
            raise

    def _apply(self, events: Iterator[StreamEvent]) -> bool:
        parts = len(self._answer.parts)
        begins = False
        for event in events:
            self._answer.apply(event)
            if isinstance(event, Approval):
                self._approvals[event.call.id] = event
                begins = True
        return begins or len(self._answer.parts) > parts

    def _free(self) -> None:
        with self._lock:
            widget, self._widget = self._widget, None
            control.forget(self._id)
            if widget is not None:
                widget.dispose()

    def _draw_or_wait(self) -> None:
        now = self._clock()
        if (self._dirty and now >= self._frame_due) or now >= self._keyframe_due:
            self._draw(now)
        if self._dirty and not self._is_gathered:
            self._arm(self._frame_due)
        if self._keyframe_due not in (self._keyframe_armed, float("inf")):
            self._keyframe_armed = self._keyframe_due
            pace.alarm().at(self._keyframe_due, self._draw_what_is_due)

    def _draw(self, now: float) -> None:
        if self._widget is None:
            return
        if now >= self._keyframe_due:
            message = {**self._scene.keyframe(), "elapsed_s": now - self._start}
            self._next_keyframe()
        else:
            message = self._scene.frame()
        if message is not None:
            cast(Any, self._widget).send(message)
        self._dirty = self._scene.is_rough
        self._frame_due = pace.next_frame(self._frame_due, now, self._clock() - now)

    def _next_keyframe(self) -> None:
        if self._answer.ended:
            self._keyframe_due = float("inf")
            return
        now = self._clock()
        self._keyframe_due = next(time for s in self._keyframes if (time := self._start + s) > now)

    def _arm(self, when: float) -> None:
        if self._widget is not None and when < self._armed:
            self._armed = when
            pace.alarm().at(when, self._rung)

    def _rung(self) -> None:
        with self._lock:
            self._armed = float("inf")
            drawn = self._dirty
            self._draw_what_is_due()
            # more will have come by then: to wake this thread only to set its alarm is dear
            if drawn and not self._is_gathered:
                self._arm(self._frame_due)

    def _draw_what_is_due(self) -> None:
        """The alarm's thread."""
        with self._lock:
            if self._widget is None:
                return
            try:
                self._draw_or_wait()
            except Exception:
                self._widget = None  # the asking thread still replaces the view at its end

    def _resync(self) -> None:
        # no lock: the asking thread may hold it
        self._keyframe_due = 0.0
        pace.alarm().at(0.0, self._draw_what_is_due)

    def _decide(self, call_id: str, yes: bool) -> None:
        # no lock, see above; the same click can come by two ways
        approval = self._approvals.pop(call_id, None)
        if approval is not None:
            approval.answer(yes)
            pace.alarm().at(0.0, lambda: self._decided(approval))

    def _decided(self, approval: Approval) -> None:
        with self._lock:
            self._answer.ask(approval.call, False)
            self._dirty, self._frame_due = True, 0.0
            self._draw_what_is_due()

    def _keep(self) -> None:
        pace.alarm().at(0.0, self._send_bundle)

    def _send_bundle(self) -> None:
        """The alarm's thread: hand the static form to a page that missed how it took the widget's place."""
        with self._lock, contextlib.suppress(Exception):
            if self._widget is not None:
                cast(Any, self._widget).send({"bundle": self._bundle()})

    def _asked(self, widget: Any, content: object, buffers: object) -> None:
        if control.obey(content):
            widget.send({"ack": True})
