"""How an answer is shown while it comes, and what stays of it: the room that fills `views.views`.

`choose` gives a new view by name, or the one that fits where the code runs.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any

from llmnb.display import publishing
from llmnb.display.guard import GuardedView
from llmnb.display.where import KERNELS, STOP_HINT, UNHEARD, Place, has_widgets, where
from llmnb.errors import SettingsError
from llmnb.events import ToolCall
from llmnb.terminals import is_terminal
from llmnb.views import View, views

__all__ = ["NAMES", "bundle", "choose"]

NAMES = ("widget", "html", "terminal", "static", "print", "none")
"""The displays that LLMNB_DISPLAY and `display=` can name."""

FITS: dict[Place, str] = {
    "script": "none",
    "terminal": "terminal",
    "console": "print",
    "jupyter": "widget",
    "headless": "static",
    "vscode": "widget",
    "colab": "widget",
    "marimo": "widget",
}


def choose(name: str | None = None) -> View | None:
    """A new view: the one called `name`, or the one that fits here; None when nothing is to be shown.

    Raises:
        SettingsError: no display has that name.
    """
    if name is not None and name not in NAMES:
        raise SettingsError(_unknown(name), name="display")
    place: Place = "script" if name in ("none", "print") else where()
    view = _MAKERS[name or FITS[place]](place)
    return None if view is None else GuardedView(view)


def bundle(text: str, **known: Any) -> dict[str, str]:
    """See `llmnb.display.static.bundle`, which is imported when it is needed."""
    from llmnb.display import static

    return static.bundle(text, **known)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown display {name!r}.{hint} Known: {', '.join(NAMES)} (display= or LLMNB_DISPLAY)."


def _widget(place: Place) -> View:
    if place not in KERNELS and place != "marimo":
        return _static(place)
    if not has_widgets():
        return _html(place)
    from llmnb.display.widget import JupyterOutput, WidgetView

    return WidgetView(
        stop_hint=STOP_HINT if place in UNHEARD else "",
        output=_marimo().MarimoOutput if place == "marimo" else JupyterOutput,
    )


def _html(place: Place) -> View:
    if place not in KERNELS:
        return _static(place)
    from llmnb.display.html import HtmlView

    return HtmlView(publishing.publish_updatable)


def _static(place: Place) -> View:
    from llmnb.display import static

    if place in KERNELS:
        return static.StaticView(publishing.publish, html=place != "headless")
    if place == "marimo":
        return static.StaticView(publishing.publish_in_marimo, html=True)
    return static.StaticView(publishing.print_plain, html=False)


def _terminal(place: Place) -> View:
    from llmnb.display.terminal import PrintView, TerminalView
    from llmnb.display.turns import InTurn

    return InTurn(TerminalView() if place not in KERNELS and is_terminal(sys.stdout) else PrintView())


def _print(place: Place) -> View:
    from llmnb.display.terminal import PrintView
    from llmnb.display.turns import InTurn

    return InTurn(PrintView())


def _none(place: Place) -> None:
    return None


_MAKERS: dict[str, Callable[[Place], View | None]] = {
    "widget": _widget,
    "html": _html,
    "terminal": _terminal,
    "static": _static,
    "print": _print,
    "none": _none,
}


def _marimo() -> Any:
    from llmnb.display import marimo_output

    return marimo_output


def _prompt(call: ToolCall) -> bool:
    from llmnb.display import prompt

    return prompt.ask(call)


def _can_prompt() -> bool:
    from llmnb.display import prompt

    return prompt.can_ask()


views.fill(choose, bundle, _prompt, _can_prompt)
