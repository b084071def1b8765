"""Python's search for garbage, which a run has made less often.

What a row needs are hundreds of small objects, which are gone by themselves when it is answered. By their number Python
takes them for garbage that piles up, and looks through all that the process has again and again: without this it is a
tenth of what a row costs. The same goes for thousands of results on their way into a frame.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager

from llmnb.forks import in_child

OBJECTS = 10_000
"""So many more objects than before are looked through, and not the 700 (3.11) or 2,000 of Python itself. What a user's
own function leaves behind in circles, such as a figure, is itself made of thousands."""

_lock = threading.Lock()
_runs = 0
_before = _ours = gc.get_threshold()


@contextmanager
def looked_for_less_often() -> Generator[None]:
    """Within it, in the whole process. What the user has set counts: more than that, or 0, which is never."""
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _runs, _before, _ours
    with _lock:
        _runs += 1
        if _runs == 1:
            objects, *older = _before = _ours = gc.get_threshold()
            if 0 < objects < OBJECTS:
                gc.set_threshold(OBJECTS, *older)
                _ours = gc.get_threshold()


def _end() -> None:
    global _runs
    with _lock:
        if not _runs:  # begun in the parent of this process
            return
        _runs -= 1
        if not _runs and gc.get_threshold() == _ours:  # else somebody has set it meanwhile
            gc.set_threshold(*_before)


def _begin_anew() -> None:
    """In a forked child: the runs are its parent's."""
    global _lock, _runs
    _lock = threading.Lock()
    if _runs and gc.get_threshold() == _ours:
        gc.set_threshold(*_before)
    _runs = 0


in_child(_begin_anew)
