"""The ledger's history of how soon calls followed each other, read once a process, in the background.

No call waits for it: what was not read yet, or cannot be read, is no history. It leaves out this process, whose own
calls are known better from memory.
"""

from __future__ import annotations

import _thread
import os
import threading
import time

from llmnb import origin
from llmnb.ledger.rereads import Group, rereads
from llmnb.places import Place
from llmnb.prompt_cache import Gaps
from llmnb.trouble import quietly

_FORK_PATIENCE_S = 1.0


class History:
    """What the ledger at `path` tells of earlier processes."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._found: dict[Group, Gaps] = {}
        self._begun = False
        self._ended = threading.Event()

    def gaps(self, project: str | None, model: str, *, in_chat: bool) -> Gaps:
        """The gaps of a project's calls of a model, none until they were read."""
        self.begin()
        return self._found.get((project, model, in_chat), Gaps())

    def begin(self) -> None:
        """Has it read in the background, if nobody has yet."""
        if self._begun:
            return
        self._begun = True
        try:
            _thread.start_new_thread(self._read, ())
        except RuntimeError:  # the interpreter is ending
            self._ended.set()

    def wait(self, timeout_s: float) -> bool:
        """Until it was read, for whoever has to know; whether it was."""
        return self._ended.wait(timeout_s)

    def _read(self) -> None:
        try:
            with _reading:
                self._found = rereads(self._path, time.time_ns() // 1000, without_session=origin.session())
        except Exception as trouble:
            quietly("reading how often prompts were cached", trouble)
        finally:
            self._ended.set()


# SQLite's locks and a fork do not go together (see the ledger's writer): a fork waits until a read is over.
_reading = threading.Lock()
_waited = False
_by_path: dict[Place, History] = {}


def history(path: Place) -> History:
    """The history of a ledger, the same one for the whole process."""
    return _by_path.setdefault(path, History(path))


def _before_fork() -> None:
    global _waited
    _waited = _reading.acquire(timeout=_FORK_PATIENCE_S)


def _after_fork_in_parent() -> None:
    if _waited:
        _reading.release()


def _after_fork_in_child() -> None:
    global _reading
    _reading = threading.Lock()
    _by_path.clear()  # a read that was under way has no thread here that would end it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
