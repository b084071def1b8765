"""Puts the form of an answer that stays where its reader is: an output of a cell, marimo's, or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

Bundle = dict[str, str]


def publish(bundle: Bundle) -> None:
    """As an output of the cell."""
    _ipython_display()(bundle, raw=True)


def publish_updatable(bundle: Bundle) -> Callable[[Bundle], Any]:
    """As an output of the cell; what is given puts another one in its place."""
    handle = _ipython_display()(bundle, raw=True, display_id=True)
    return lambda changed: handle.update(changed, raw=True)


def publish_in_marimo(bundle: Bundle) -> None:
    """As an output of marimo's cell."""
    from llmnb.display import marimo_output

    marimo_output.publish(bundle)


def print_plain(bundle: Bundle) -> None:
    """As plain text."""
    with suppress(ValueError):  # a closed stdout
        sys.stdout.write(bundle["text/plain"] + "\n")


def _ipython_display() -> Any:
    from IPython import display

    return cast(Any, display).display
