"""One call at a time works at a run: the same cell, run in two notebooks, would ask and pay each row twice.

The second waits, and finds what the first has finished. The lock is the one by which `llmnb.runs()` knows that a run is
being worked at; the operating system takes it from a process that dies, however it dies. Who has it is written into
the file, for the one who waits to be told.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb import origin
from llmnb.errors import InvalidRequest
from llmnb.jobs.description import LOCK
from llmnb.locks import lock_if_can
from llmnb.trouble import LlmnbWarning, warn_once, warn_user

if TYPE_CHECKING:
    from llmnb.settings import Settings

PAUSE_S = 0.2
_sleep = time.sleep
_TOLD_BYTES = 1_000
_NEVER = (
    "this run is being worked at by a task of this kernel, which cannot go on while this call holds up its event loop: "
    "await the task, or the async twin of this call (amap, acompare). Nothing was sent."
)


class Turn:
    """The right to work at the run in a folder, until it is closed; one that `is_shared` is always there."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        is_shared: bool = False,
        warn: Callable[[str], object] = lambda text: warn_user(text, LlmnbWarning),
    ) -> None:
        """`warn` says whom this call waits for."""
        self._folder, self._settings, self._warn_user = folder, settings, warn
        self._is_shared = is_shared
        self._descriptor: int | None = None

    def wait(self) -> None:
        """Until no other call has it.

        Raises:
            InvalidRequest: a task on this thread's own event loop has it, and would never end.
        """
        for pause_s in self.tries(holds_up_loop=asyncio._get_running_loop() is not None):
            _sleep(pause_s)

    async def wait_async(self) -> None:
        """The async twin of `wait`."""
        for pause_s in self.tries():
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """Lets the next one have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def tries(self, *, holds_up_loop: bool = False) -> Iterator[float]:
        """How long to wait, again and again, until it is there.

        `holds_up_loop`: the user's event loop stands still for as long as this call waits.

        Raises:
            InvalidRequest: a task on that loop has it, and would never end.
        """
        if self._is_shared:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # the first row that cannot be written will tell
            return
        tries = 0
        while (is_ours := lock_if_can(self._descriptor)) is False:
            tries += 1
            if tries == 2:  # whoever lists the runs has it for an instant
                if holds_up_loop and self._holder().get("pid") == os.getpid():
                    raise InvalidRequest(_NEVER)
                self._warn()
            yield PAUSE_S
        if is_ours is None:
            warn_once(
                "run without lock",
                f"the file system of {self._folder} has no locks: if the same run is worked at in two places at once, "
                "rows may be asked, and paid, twice. LLMNB_HOME on a local disk has locks.",
            )
            return
        self._sign()

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
            assert self._descriptor is not None
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, json.dumps(told).encode())

    def _holder(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            assert self._descriptor is not None
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            told = json.loads(os.read(self._descriptor, _TOLD_BYTES))
            if isinstance(told, dict):
                return cast("dict[str, Any]", told)
        return {}
