"""How a comparison is shown while it goes on: `shown` chooses the way that fits here, and no way ever raises.

One prompt: columns of answers (a widget, HTML, a terminal's panels, or only what stays at the end). Many prompts: a
table of how all stand and of the rows that were finished last (see `live_table`), in a terminal a bar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from llmnb.display import pace, publishing
from llmnb.display.answer import Answer
from llmnb.display.guard import warn
from llmnb.display.where import KERNELS, UNHEARD, Place, has_widgets, where
from llmnb.events import StreamEvent
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.jobs.comparing.comparison import Comparison
    from llmnb.jobs.comparing.sofar import SoFar
    from llmnb.jobs.run import Status

Stop = Callable[[], None]
_HTML_FRAME_S = 0.5
"""A frame holds all columns, as far as they are."""


def shown(name: str | None, *, is_single: bool) -> Shown:
    """What shows a comparison: the display called `name`, or what fits here.

    Raises:
        SettingsError: no display has that name.
    """
    from llmnb.display import NAMES, choose

    if name not in (None, *NAMES):
        choose(name)
    place: Place = "script" if name in ("none", "print") else where()
    if not is_single:
        return Shown(None if name == "none" else _many(place))
    return Shown(_single(name or _fits(place), place))


def stays(view: Shown) -> bool:
    """Whether what it shows stays where it is, so that it need not be shown again."""
    return view.is_there


class Shown:
    """A view of a comparison, or none, that never fails: what goes wrong is said once, and the work goes on."""

    def __init__(self, view: View | None) -> None:
        self._view = view
        self._is_broken = False
        self.is_there = view is not None and view.stays
        self.is_table = view is not None and view.is_table

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Stop | None) -> None:
        """It begins."""
        self._try(lambda view: view.open(labels, models, stop))

    def show(self, column: int, event: StreamEvent) -> None:
        """The next event of an answer."""
        self._try(lambda view: view.show(column, event))

    def end(self, column: int, error: BaseException | None) -> None:
        """An answer is over."""
        self._try(lambda view: view.end(column, error))

    def far(self, status: Status, judging: bool, so_far: SoFar | None = None) -> None:
        """How far it is, and how they stand."""
        self._try(lambda view: view.far(status, judging, so_far))

    def close(self, comparison: Comparison | None, error: BaseException | None = None) -> None:
        """Nothing comes any more."""
        self._is_broken = False  # it is tried all the same, so that nothing stays open
        self._try(lambda view: view.close(comparison, error))

    def _try(self, act: Callable[[View], None]) -> None:
        if self._view is None or self._is_broken:
            return
        try:
            act(self._view)
        except Exception as failure:
            self._is_broken = True
            warn(failure)


class View(Protocol):
    """What `Shown` guards. `stays` says that the whole comparison is left where it was shown, `is_table` that it wants
    to know how the contestants stand."""

    stays: bool
    is_table: bool

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Stop | None) -> None: ...
    def show(self, column: int, event: StreamEvent) -> None: ...
    def end(self, column: int, error: BaseException | None) -> None: ...
    def far(self, status: Status, judging: bool, so_far: SoFar | None) -> None: ...
    def close(self, comparison: Comparison | None, error: BaseException | None) -> None: ...


class Progress:
    """How far the answers of many prompts are, then the judging: in a terminal a bar, and how each stands."""

    stays = False
    is_table = True

    def __init__(self) -> None:
        self._standing = ""
        self._bar: AbstractContextManager[Callable[[Status], None]] | None = None
        self._tell: Callable[[Status], None] | None = None
        self._judging = False

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Stop | None) -> None:
        """The first status draws it; the notebook's interrupt button, and Ctrl-C, stop it."""

    def show(self, column: int, event: StreamEvent) -> None:
        """Words of single answers are not shown."""

    def end(self, column: int, error: BaseException | None) -> None:
        """Nor their ends."""

    def far(self, status: Status, judging: bool, so_far: SoFar | None) -> None:
        """Draws it."""
        from llmnb.display.live_table import in_a_line
        from llmnb.display.run_progress import progress

        self._standing = "" if so_far is None else in_a_line(so_far)
        if judging != self._judging:
            self._end()
            self._judging = judging
        if self._bar is None:
            self._bar = progress(also=lambda: self._standing, unit="judgements" if judging else "answers")
            self._tell = self._bar.__enter__()
        assert self._tell is not None
        self._tell(status)

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """The last is drawn for good."""
        self._end()

    def _end(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(None, None, None)


class Columns:
    """The answers to one prompt. This one shows nothing before the end, and then what stays: what headless runs use."""

    stays = True
    is_table = False

    def __init__(self, publish: Callable[[dict[str, str]], Any], *, html: bool = True) -> None:
        self._publish = publish
        self._html = html
        self.labels: Sequence[str] = ()
        self.answers: list[Answer] = []

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Stop | None) -> None:
        """It begins."""
        self.labels = labels
        self.answers = [Answer(model) for model in models]

    def show(self, column: int, event: StreamEvent) -> None:
        """Adds the event to its answer."""
        self.answers[column].apply(event)

    def end(self, column: int, error: BaseException | None) -> None:
        """Ends the answer."""
        self.answers[column].end(error)

    def far(self, status: Status, judging: bool, so_far: SoFar | None) -> None:
        """How far the judging is."""

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """Shows all there is."""
        self._publish(self.kept(comparison, error))

    def kept(self, comparison: Comparison | None, error: BaseException | None) -> dict[str, str]:
        """The form that stays."""
        from llmnb.display import compared

        for answer in self.answers:
            if not answer.ended:
                answer.end(error)
        if comparison is not None:  # what could not be asked has no event of its own
            for label, answer in zip(self.labels, self.answers, strict=True):
                [facts] = comparison.facts[label]
                if answer.done is None and answer.error is None and not facts.get("scoring_failed"):
                    answer.error = RuntimeError(str(facts.get("error", "no answer")))
        bundle = compared.columns(self.labels, self.answers, comparison)
        return bundle if self._html else {name: said for name, said in bundle.items() if name != "text/html"}


class HtmlColumns(Columns):
    """Columns where there are no widgets: one output, drawn again twice a second."""

    def __init__(self, publish: Callable[[dict[str, str]], Any]) -> None:
        super().__init__(publish)
        self._update: Callable[[dict[str, str]], Any] | None = None
        self._due = 0.0

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Stop | None) -> None:
        """Draws the empty columns."""
        super().open(labels, models, stop)
        self._draw()

    def show(self, column: int, event: StreamEvent) -> None:
        """Adds the event; it is drawn now, or with a later one."""
        super().show(column, event)
        if time.monotonic() >= self._due:
            self._draw()

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """Puts what stays in their place."""
        (self._update or self._publish)(self.kept(comparison, error))

    def _draw(self) -> None:
        from llmnb.display import compared

        began = time.monotonic()
        bundle = compared.columns(self.labels, self.answers)
        if self._update is None:
            self._update = self._publish(bundle)
        else:
            self._update(bundle)
        now = time.monotonic()
        self._due = now + max(_HTML_FRAME_S, pace.LOAD * (now - began))


# Which fits -----------------------------------------------------------------------------------------------------------

_PAGES = ("jupyter", "vscode", "colab")


def _fits(place: Place) -> str:
    from llmnb.display import FITS

    return FITS[place]


def _many(place: Place) -> View:
    if place in _PAGES:
        from llmnb.display.live_table import LiveTable

        return LiveTable(can_stop=place == "jupyter" and has_widgets())
    return Progress()


def _single(name: str, place: Place) -> Columns | None:
    if name == "none":
        return None
    if name == "widget" and (place in KERNELS or place == "marimo") and has_widgets():
        from llmnb.display.columns_widget import WidgetColumns

        return WidgetColumns(place, can_hear=place not in UNHEARD)
    if name == "html" and place in KERNELS:
        return HtmlColumns(publishing.publish_updatable)
    if name == "terminal" and place not in KERNELS and is_terminal(sys.stdout):
        from llmnb.display.columns_terminal import TerminalColumns

        return TerminalColumns()
    if name in ("widget", "html", "static") and place in KERNELS:
        return Columns(publishing.publish, html=place != "headless")
    if name in ("widget", "html", "static") and place == "marimo":
        return Columns(publishing.publish_in_marimo)
    return Columns(publishing.print_plain, html=False)
