"""Pages that come late to an answer: one that was loaded again in the middle of it, or in the second of its end.

Such a page knows of the answer's widget from the saved notebook. It asks for the state of all widgets, in a message to
the kernel's main shell, and gives up after four seconds; but the main shell is at work on the cell. On ipykernel 7 a
thread of its own receives what is for the main shell: `listen` hears the questions there, and has them answered at
once. They go on to the main shell as they came, so they are answered a second time, which a page ignores. (Older
kernels answer when the cell is over.) And `linger` keeps what is over for a moment, as it may still be asked for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, cast

from llmnb.display import pace
from llmnb.display.where import running_shell

LINGER_S = 10.0
"""How long a view is kept when it is over: more than a page takes to load again."""
LINGERING = 4
"""How many views are kept, whatever their time."""
_WIDGETS = "jupyter.widget.control"
"""The comm target of ipywidgets at which a page asks for the state of all widgets."""

Message = dict[str, Any]
Opened = Callable[[Any, Message], None]

# Views that are over --------------------------------------------------------------------------------------------------

_lingering: dict[int, deque[tuple[float, Callable[[], None]]]] = {}  # by process: after a fork they are the parent's


def linger(free: Callable[[], None]) -> None:
    """Call `free` in `LINGER_S` seconds, or when more than `LINGERING` others have come."""
    waiting = _lingering.setdefault(os.getpid(), deque())
    due = time.monotonic() + LINGER_S
    waiting.append((due, free))
    while len(waiting) > LINGERING:
        _free(waiting)
    pace.alarm().at(due, _free_what_is_due)


def let_go() -> None:
    """Free all that linger, now."""
    waiting = _lingering.get(os.getpid(), deque())
    while waiting:
        _free(waiting)


def _free_what_is_due() -> None:
    waiting = _lingering.get(os.getpid(), deque())
    while waiting and waiting[0][0] <= time.monotonic():
        _free(waiting)


def _free(waiting: deque[tuple[float, Callable[[], None]]]) -> None:
    with contextlib.suppress(Exception):  # IndexError: another thread did; else the front end is gone
        waiting.popleft()[1]()


# Questions to a kernel whose cell blocks ------------------------------------------------------------------------------


def listen(target: str, opened: Opened) -> None:
    """From now on hear what pages ask a busy main shell: comms to `target`, and the state of all widgets."""
    kernel = getattr(running_shell(), "kernel", None)
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is None or getattr(kernel, _MARK, False):
        return
    with contextlib.suppress(Exception):  # a kernel that is not as ipykernel 7 is: then as on older ones
        hearing = _Hearing(kernel, {target: opened, _WIDGETS: _widgets_asked})
        thread.io_loop.add_callback(hearing.begin)
        setattr(kernel, _MARK, True)


_MARK = "_llmnb_hears_pages"


class _Hearing:
    """Looks at each message to the main shell before it goes there; in the thread that receives them."""

    def __init__(self, kernel: Any, targets: dict[str, Opened]) -> None:
        self._kernel = kernel
        self._targets = targets
        self._comms: dict[str, Any] = {}  # that were opened for the state of all widgets

    def begin(self) -> None:
        """Take the kernel's place as the receiver; it is handed everything."""
        self._kernel.shell_stream.on_recv(self._received, copy=False)

    def _received(self, frames: Any) -> Any:
        with contextlib.suppress(Exception):
            self._hear(frames)
        return self._kernel.shell_channel_thread_main(frames)

    def _hear(self, frames: Any) -> None:
        session = self._kernel.session
        parts = session.feed_identities(frames, copy=False)[1]
        message: Message = session.deserialize(parts, content=False, copy=False)  # only a look: nothing is taken
        kind = message["header"]["msg_type"]
        if kind not in ("comm_open", "comm_msg", "comm_close") or message["header"].get("subshell_id") is not None:
            return
        message["content"] = session.unpack(message["content"])
        comm_id = message["content"]["comm_id"]
        if kind == "comm_open" and (opened := self._targets.get(target := message["content"]["target_name"])):
            comm = _comm(message["content"])
            if target == _WIDGETS:
                self._comms[comm_id] = comm
            pace.alarm().at(0.0, partial(_quietly, opened, comm, message))
        elif kind == "comm_msg" and comm_id in self._comms:
            pace.alarm().at(0.0, partial(_quietly, self._comms[comm_id].handle_msg, message))
        elif kind == "comm_close":
            self._comms.pop(comm_id, None)


def _comm(content: Message) -> Any:
    """Our end of a comm that a page opens. The main shell will have another one, with the same id."""
    import comm

    return cast(Any, comm).create_comm(target_name=content["target_name"], comm_id=content["comm_id"], primary=False)


def _widgets_asked(comm: Any, message: Message) -> None:
    cast(Any, import_module("ipywidgets")).Widget.handle_control_comm_opened(comm, message)


def _quietly(act: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(Exception):  # the main shell will answer
        act(*arguments)
