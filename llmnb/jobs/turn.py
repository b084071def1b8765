"""One call at a time works at a run: the same cell, run in two notebooks, would ask and pay each row twice.

The second waits, and finds what the first has finished. The lock is the one by which `llmnb.runs()` knows that a run is
being worked at; the operating system takes it from a process that dies, however it dies. Who has it is written into
the file, for the one who waits to be told. Comparisons share that lock, and have one each for the rows that they ask.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb import forks, origin
from llmnb.errors import InvalidRequest
from llmnb.jobs.description import LOCK
from llmnb.locks import LockFile, lock_if_can, share_if_can
from llmnb.trouble import LlmnbWarning, warn_once, warn_user

if TYPE_CHECKING:
    from llmnb.settings import Settings

PAUSE_S = 0.2
_sleep = time.sleep
_TOLD_BYTES = 1_000
_HELD_UP = (
    "this run is being worked at by a task of this thread, which cannot go on while this call holds up its event loop: "
    "await the task, or the async twin of this call (amap, acompare). Nothing was sent."
)
_INSIDE = (
    "this run is being worked at by a call that waits for this one (its rows, prompts or scores ask it), so that "
    "neither would end: ask this before that, or with another prompt. Nothing was sent."
)


@dataclass(slots=True)
class Caller:
    """Who makes a call: its `thread`, which has no more to do with it when the call is over (None)."""

    thread: int | None


@dataclass(frozen=True, slots=True)
class _Holder:
    path: Path
    caller: Caller
    blocks: bool


_holders: dict[int, _Holder] = {}
"""Who has what in this process; a child has nothing."""
forks.in_child(_holders.clear)
_numbers = count()
_inside: ContextVar[frozenset[int]] = ContextVar("_inside", default=frozenset())
"""The holders for which this code is at work."""


class Turn:
    """The right to work at the run in a folder, until it is closed; one that `is_shared` is always there."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        is_shared: bool = False,
        name: str = LOCK,
        with_others: bool = False,
        caller: Caller | None = None,
        warn: Callable[[str], object] = lambda text: warn_user(text, LlmnbWarning),
    ) -> None:
        """A turn that is not there yet; see `wait`.

        Args:
            folder: the run's.
            settings: of whoever waits.
            is_shared: there is nothing to wait for.
            name: of the lock's file.
            with_others: only those who want it alone are waited for, and wait.
            caller: for whom it is; None: the thread that waits.
            warn: says whom it waits for.
        """
        self._folder, self._settings, self._warn_user = folder, settings, warn
        self._is_shared, self._with_others = is_shared, with_others
        self._path = folder / name
        self._caller = caller
        self._file: LockFile | None = None
        self._number: int | None = None

    def wait(self) -> None:
        """Until no other call has it.

        Raises:
            InvalidRequest: a call has it that cannot end while this one waits.
        """
        for pause_s in self.tries(blocks=True):
            _sleep(pause_s)

    async def wait_async(self) -> None:
        """The async twin of `wait`."""
        for pause_s in self.tries(blocks=False):
            await asyncio.sleep(pause_s)

    def enter(self) -> None:
        """What is done from here on, in this context, is done for it: it must not wait for it."""
        if self._number is not None:
            _inside.set(frozenset(number for number in _inside.get() if number in _holders) | {self._number})

    def close(self) -> None:
        """Lets the next one have it."""
        file, self._file = self._file, None
        number, self._number = self._number, None
        if file is None or file.descriptor is None:  # this is a child, and the lock its parent's
            return
        if number is not None:
            _holders.pop(number, None)
            if self._path.name != LOCK:
                with suppress(OSError):  # such as that somebody waits for it, on Windows
                    self._path.unlink()
        file.close()

    def tries(self, *, blocks: bool) -> Iterator[float]:
        """How long to wait, again and again, until it is there.

        `blocks`: the thread of the call, with its event loop, stands still for as long as this waits.

        Raises:
            InvalidRequest: a task of that thread has it, or a call for which this one is made: neither would end.
        """
        if self._is_shared:
            return
        caller = self._caller or Caller(threading.get_ident())
        tries = 0
        while (is_ours := self._take()) is False:
            tries += 1
            if tries > 1:  # whoever lists the runs has it for an instant
                self._check(caller.thread if blocks else None)
            if tries == 2:
                self._warn()
            yield PAUSE_S
        if is_ours:
            self._number = next(_numbers)
            _holders[self._number] = _Holder(self._path, caller, blocks)
            self._sign()

    def _take(self) -> bool | None:
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = self._file or LockFile(self._path)
            except OSError:  # the first row that cannot be written will tell
                return None
            assert self._file.descriptor is not None
            is_ours = (share_if_can if self._with_others else lock_if_can)(self._file.descriptor)
            if is_ours is None:
                warn_once(
                    "run without lock",
                    f"the file system of {self._folder} has no locks: if the same run is worked at in two places at "
                    "once, rows may be asked, and paid, twice. LLMNB_HOME on a local disk has locks.",
                )
            if not is_ours or self._file.is_in_place():
                return is_ours
            self._file.close()
            self._file = None

    def _check(self, stands_still: int | None) -> None:
        """Raises:
        InvalidRequest: this call would wait for ever, since that thread stands still for it.
        """
        inside = _inside.get()
        for number, holder in list(_holders.items()):
            if holder.path != self._path:
                continue
            is_held_up = stands_still is not None and holder.caller.thread == stands_still
            if number in inside or (is_held_up and holder.blocks):
                raise InvalidRequest(_INSIDE)
            if is_held_up:
                raise InvalidRequest(_HELD_UP)

    def _warn(self) -> None:
        holder = self._holder()
        who = f"process {holder['pid']}" if "pid" in holder else "another process"
        if holder.get("pid") == os.getpid() and holder.get("host") == socket.gethostname():
            who = "another call in this kernel"
        more = [f"on {host}"] if (host := holder.get("host")) not in (None, socket.gethostname()) else []
        more += [f"of {notebook}"] if (notebook := holder.get("notebook")) else []
        self._warn_user(
            f"run {self._folder.name} is being worked at by {' '.join([who, *more])}: this call waits until that ends, "
            "so that no row is paid twice, and then goes on with what is not finished. Interrupt it to stop waiting."
        )

    def _sign(self) -> None:
        told: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        told["notebook"] = origin.notebook(self._settings)
        with suppress(OSError, ValueError):
            assert self._file is not None
            assert self._file.descriptor is not None
            os.ftruncate(self._file.descriptor, 0)
            os.lseek(self._file.descriptor, 0, os.SEEK_SET)
            os.write(self._file.descriptor, json.dumps(told).encode())

    def _holder(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            assert self._file is not None
            assert self._file.descriptor is not None
            os.lseek(self._file.descriptor, 0, os.SEEK_SET)
            told = json.loads(os.read(self._file.descriptor, _TOLD_BYTES))
            if isinstance(told, dict):
                return cast("dict[str, Any]", told)
        return {}
