"""`meter()`: what this kernel spends, live in a cell's output.

Import this module only when a meter is wanted: its widget is heavy, and made when it is shown.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb.display import gauge, pace, style
from llmnb.display.where import has_widgets, where
from llmnb.settings import load

if TYPE_CHECKING:
    from llmnb.display.meter_widget import MeterWidget

LOOK_S = 0.5
"""How often it is looked whether the ledger has changed: two calls of the operating system."""
FRESH_S = 30.0
"""How old what is shown may be when it has not: days end, and budgets begin anew."""

_live: Meter | None = None


def meter(*, project: str | None = None) -> Meter:
    """A live meter: tokens and dollars of this kernel, of the project and of the day, and the budgets they count for.

    Make it a cell's last value to see it. It follows every call of every process on this ledger within a second. One
    meter is live at a time: showing another, `close()` and the end of the kernel leave what it says then in its place.
    Where nothing can be live (a script, a headless run) it shows what is so now.

    Args:
        project: the project to show; default: the setting `project`.
    """
    return Meter(project=project)


class Meter:
    """What `meter()` gives. `gauge` is what was read last; `refresh` reads anew, `close` ends it."""

    def __init__(self, *, project: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = load()
        self._project = project or self._settings.project
        self._clock = clock
        self._lock = threading.RLock()
        self._widget: MeterWidget | None = None
        self._handle: Any = None
        self._seen: object = None
        self._read_at = 0.0
        self._pid = os.getpid()
        self.gauge = gauge.Gauge(())
        self._read()

    @property
    def is_live(self) -> bool:
        """Whether it is shown, and follows what happens."""
        return self._widget is not None

    def refresh(self) -> None:
        """Reads the ledger now, and shows what it says."""
        from llmnb.ledger import settle

        settle(self._settings.ledger_path)
        with self._lock:
            self._read()
            self._draw()

    def close(self) -> None:
        """Leaves what it says now in its place, and frees it."""
        global _live
        with self._lock:
            widget, self._widget = self._widget, None
            if _live is self:
                _live = None
            if widget is None or self._pid != os.getpid():
                return
            self._read()
            self._handle.update(self._bundle(), raw=True)
            widget.dispose()

    # How it is shown --------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return gauge.plain(self.gauge)

    def _ipython_display_(self) -> None:
        global _live
        place = where()
        if place in ("script", "terminal"):
            raise NotImplementedError  # IPython goes on to repr
        if place == "headless" or not has_widgets() or self._settings.display in ("none", "print", "static", "html"):
            self._read()
            _display()(self._bundle(html=place != "headless"), raw=True)
            return
        if _live is not None:
            _live.close()
        self._show()
        _live = self

    def _show(self) -> None:
        from llmnb.display.meter_widget import MeterWidget

        with self._lock:
            self._read()
            self._widget = MeterWidget(gauge.html(self.gauge))
            self._handle = _display()(self._widget.view(gauge.plain(self.gauge)), raw=True, display_id=True)
        pace.alarm().at(self._clock() + LOOK_S, self._look)

    def _bundle(self, *, html: bool = True) -> dict[str, str]:
        page = gauge.html(self.gauge)
        kept = {"text/markdown": gauge.markdown(self.gauge), "text/plain": gauge.plain(self.gauge)}
        return {"text/html": page.replace(">", f">{style.tag(meter_css(), page)}", 1), **kept} if html else kept

    # Following the ledger ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The alarm's thread: draws what is new, and comes again as long as the meter is live."""
        with self._lock:
            if self._widget is None:
                return
            try:
                if self._changed() != self._seen or self._clock() - self._read_at >= FRESH_S:
                    self._read()
                    self._draw()
            except Exception:
                self._widget = None  # whatever it is, nothing is drawn any more, and nobody's call is harmed
                return
        pace.alarm().at(self._clock() + LOOK_S, self._look)

    def _changed(self) -> object:
        """Something that is another after every commit to the ledger."""
        path = self._settings.ledger_path
        if not isinstance(path, Path):
            return None  # of a database nothing is known without asking it: it is read anew after a while
        return _stamp(path), _stamp(path.with_name(path.name + "-wal"))

    def _read(self) -> None:
        self._seen, self._read_at = self._changed(), self._clock()
        self.gauge = gauge.read(self._settings, self._project)

    def _draw(self) -> None:
        if self._widget is not None:
            self._widget.show(gauge.html(self.gauge))


@cache
def meter_css() -> str:
    """The style sheet of a meter."""
    return style.squeezed("meter.css")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _display() -> Any:
    from IPython import display

    return cast(Any, display).display


@atexit.register
def _close_last() -> None:
    if _live is not None:
        try:
            _live.close()
        except Exception:  # the front end may be gone before the kernel
            return
