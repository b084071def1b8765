"""A process the demo starts, and surely ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmnb.errors import LlmnbError

POLL_S = 0.05


class ChildError(LlmnbError):
    """A process of the demo ended or stayed silent; the message ends with the last lines it wrote."""


class Child:
    """A Python module run as a process of its own, in a session of its own: Ctrl-C reaches the demo, which ends it.

    It ends with the demo even when that is killed (see `tethered`). What it prints goes to `log`, and is quoted when
    something goes wrong.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llmnb.demo.tethered", *command],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, within_s: float) -> None:
        """Waits for it to end well.

        Raises:
            ChildError: it ended with an error, or not within `within_s` seconds.
        """
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise ChildError(f"{self.name} did not end within {within_s:.0f} s{self.last_words()}") from None
        if code:
            raise ChildError(f"{self.name} ended with exit code {code}{self.last_words()}")

    def until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Waits until `ready()`.

        Raises:
            ChildError: the process ended before, or `within_s` seconds went by.
        """
        end = time.monotonic() + within_s
        while not ready():
            if self.process.poll() is not None:
                raise ChildError(f"{self.name} ended with exit code {self.process.returncode}{self.last_words()}")
            if time.monotonic() > end:
                raise ChildError(f"{self.name} did not answer within {within_s:.0f} s{self.last_words()}")
            time.sleep(POLL_S)

    def stop(self, patience_s: float = 10) -> None:
        """Asks it to end, so that it can end what it started itself, and after `patience_s` seconds makes it."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()

    def last_words(self, lines: int = 15) -> str:
        """The last lines it printed, as the end of an error message."""
        tail = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "".join(f"\n    {line}" for line in tail)
