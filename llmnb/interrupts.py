"""The notebook's interrupt button and Ctrl-C, where the main thread does not wait for the answer itself.

Python tells an interrupt to the main thread only. So an answer that another thread waits for looks whether the cell
that asked for it was interrupted, and a coroutine hears of the signal while the event loop is at rest: ipykernel's own
handler does not wake it, and a KeyboardInterrupt, as in IPython's terminal, would leave it in the middle of its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

STOPPED = "Stopped. What the answer had used by then is in the ledger."
NOT_SENT = "Stopped: the cell was interrupted before this question was sent."

_POLL_S = 0.1
_PRESSES = 3
_REMEMBERED = 64
"""How many interrupted cells are known."""


class Stopped(KeyboardInterrupt):
    """The person stopped the answer. Shown as one line instead of a traceback.

    `by_view` when it was this answer's own Stop button, and not an interrupt, which is meant for the whole cell.
    """

    by_view = False

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Cancelled(asyncio.CancelledError):
    """The same in async code, where a KeyboardInterrupt would tear down the event loop."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


# In threads -----------------------------------------------------------------------------------------------------------


class _Cells:
    """The cells of the running IPython shell, counted from when it is first looked at."""

    def __init__(self) -> None:
        self.begun = 0
        self._running: int | None = None  # how many now; a cell can run another. Not known before one begins or ends
        self._interrupted = False  # the last one that ended, and none has begun since
        self._struck: deque[int] = deque(maxlen=_REMEMBERED)  # that were interrupted
        self._shell: Any = None

    def look(self) -> None:
        """Listens to the shell that is running now, if there is one."""
        ipython = sys.modules.get("IPython")
        shell: Any = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
        if shell is not None and shell is not self._shell:
            self._shell = shell
            shell.events.register("pre_run_cell", self._begins)
            shell.events.register("post_run_cell", self._ended)

    def interrupted(self) -> bool:
        """Whether the running cell is being interrupted, or the last one was; outside IPython, the program."""
        return self._interrupted or _is_interrupt(_unwinding())

    def struck(self, cell: int) -> bool:
        """Whether that cell is being interrupted, or was, however soon the next one began."""
        return cell in self._struck or (cell == self.begun and self.running() and _is_interrupt(_unwinding()))

    def running(self) -> bool:
        """Whether a cell runs, as far as is known; outside IPython, the program."""
        return self._running != 0

    def _begins(self, info: object) -> None:
        self.begun += 1
        self._running = (self._running or 0) + 1
        self._interrupted = False

    def _ended(self, result: Any) -> None:
        self._running = max((self._running or 0) - 1, 0)
        self._interrupted = _is_interrupt(getattr(result, "error_in_exec", None))
        if self._interrupted:
            self._struck.append(self.begun)


_cells = _Cells()
_this_thread = threading.local()  # `cell` is the one in which it asked first


def refuse() -> None:
    """Ends a thread that goes on asking for a cell that was interrupted, as a pool's workers do with what is left.

    Raises:
        Stopped: this thread asked before, in a cell that was interrupted then; nothing was sent.
    """
    if threading.current_thread() is threading.main_thread():
        return
    _cells.look()
    cell = getattr(_this_thread, "cell", None)
    if cell is None:
        _this_thread.cell = _cells.begun
    elif cell == _cells.begun and _cells.interrupted():
        raise _for_a_thread(Stopped(NOT_SENT))


def of_this_cell() -> Callable[[], bool]:
    """What tells this thread, again and again, whether the cell that is running now was interrupted.

    It costs nothing to ask. The main thread is told by Python itself, and here never; nor is a thread that goes on
    while no cell runs: the interrupt of the last one was not meant for what was asked after it.
    """
    if threading.current_thread() is threading.main_thread():
        return _never
    _cells.look()
    return _Ear(_cells.begun) if _cells.running() else _never


def _never() -> bool:
    return False


class _Ear:
    """One cell's interrupt as another thread hears it."""

    def __init__(self, cell: int) -> None:
        self._cell = cell
        self._due = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + _POLL_S
        return _cells.struck(self._cell)


def stopped(*, by_view: bool) -> Stopped:
    """What the waiting thread raises; a thread that nobody waits for shows it in one line, too."""
    error = Stopped(STOPPED)
    error.by_view = by_view
    return _for_a_thread(error)


def shorten(error: BaseException | None) -> None:
    """Has IPython show an interrupt that ended a call in one line, and not in the 200 of the HTTP library's inside.

    The exception itself passes as it is; a script, and whoever catches it, sees no difference.
    """
    if type(error) in (KeyboardInterrupt, asyncio.CancelledError):
        error._render_traceback_ = lambda: [STOPPED]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def _unwinding() -> object:
    """The exception that the main thread is dealing with, such as a pool that waits for its workers after Ctrl-C."""
    found: object = cast(Any, sys)._current_exceptions().get(threading.main_thread().ident)
    return cast(Any, found)[1] if isinstance(found, tuple) else found  # Python 3.11 has what sys.exc_info() gives


def _is_interrupt(error: object) -> bool:
    return isinstance(error, KeyboardInterrupt) and not (isinstance(error, Stopped) and error.by_view)


def _for_a_thread(error: Stopped) -> Stopped:
    if threading.current_thread() is not threading.main_thread() and not isinstance(threading.excepthook, _Hook):
        threading.excepthook = _Hook(threading.excepthook)
    return error


class _Hook:
    """Tells the end of a thread as Python does, but that of a stopped one in one line."""

    def __init__(self, usual: Callable[[Any], object]) -> None:
        self._usual = usual

    def __call__(self, args: Any) -> None:
        if isinstance(args.exc_value, Stopped):
            name = args.thread.name if args.thread is not None else "a thread"
            sys.stderr.write(f"{name}: {args.exc_value}\n")
        else:
            self._usual(args)


# While a view is closed -----------------------------------------------------------------------------------------------


class Late:
    """Interrupts that came while they were put off."""

    def __init__(self) -> None:
        self.times = 0

    def strike(self) -> None:
        """Has them come now, as one."""
        if self.times:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def put_off() -> Generator[Late]:
    """Has what must not be left half done come to its end, and then drops the interrupts that came meanwhile.

    One more press than a person's two or three is let through: it may be that it never ends.
    """
    late = Late()
    usual: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield late
        return

    def hold(number: int, frame: FrameType | None) -> None:
        late.times += 1
        if late.times > _PRESSES:
            usual(number, frame)

    try:
        signal.signal(signal.SIGINT, hold)
    except ValueError:  # a subinterpreter has no signals
        yield late
        return
    try:
        yield late
    finally:
        signal.signal(signal.SIGINT, usual)


# In coroutines --------------------------------------------------------------------------------------------------------


class Hearing:
    """One coroutine that hears of interrupts; `struck` says that there was one."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = stop
        self.struck = False


class _Ears:
    """The signal handler of this process while coroutines listen; it goes before the one that was there."""

    def __init__(self) -> None:
        self._hearings: list[Hearing] = []
        self._usual: Any = None

    def open(self, hearing: Hearing) -> None:
        """Begins to tell `hearing`."""
        self._hearings.append(hearing)
        now = signal.getsignal(signal.SIGINT)
        if now != self._strikes and callable(now):
            self._usual = now
            signal.signal(signal.SIGINT, self._strikes)

    def close(self, hearing: Hearing) -> None:
        """The last one that goes puts the usual handler back, unless somebody else has set one."""
        self._hearings.remove(hearing)
        if not self._hearings and signal.getsignal(signal.SIGINT) == self._strikes:
            signal.signal(signal.SIGINT, self._usual)

    def _strikes(self, number: int, frame: FrameType | None) -> None:
        new = [hearing for hearing in self._hearings if not hearing.struck]
        for hearing in new:
            hearing.struck = True
            hearing.loop.call_soon_threadsafe(_wake)
        if self._usual is not signal.default_int_handler:
            self._usual(number, frame)  # asyncio's and ipykernel's handlers cancel what has to be cancelled
        elif not new or not _in_a_loop():
            signal.default_int_handler(number, frame)
        else:
            for hearing in new:
                hearing.stop()


_ears = _Ears()


@contextmanager
def heard(stop: Callable[[], None]) -> Generator[Hearing]:
    """Lets the running coroutine hear of interrupts, which signals tell to the main thread only.

    Where an interrupt would tear the event loop down, `stop` is called instead, the first time.
    """
    hearing = Hearing(stop)
    if threading.current_thread() is not threading.main_thread():
        yield hearing
        return
    with contextlib.suppress(ValueError):  # a subinterpreter has no signals
        _ears.open(hearing)
    try:
        yield hearing
    finally:
        with contextlib.suppress(ValueError):
            _ears.close(hearing)


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wake() -> None:
    """Nothing to do: to be called is enough for a loop that sleeps."""
