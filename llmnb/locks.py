"""Locks on files that the operating system releases when their holder dies, however it dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_S = 0.02
_PATIENCE_S = 10.0

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Takes the lock of an open file; False when another process holds it."""
        try:
            # a byte far beyond the content, since Windows locks forbid reading what they cover
            os.lseek(descriptor, 0x7FFF_FFFF, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def try_lock_byte(descriptor: int, offset: int) -> bool:
        """Takes the lock of one byte, which need not exist; False when another process holds it."""
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock_byte(descriptor: int, offset: int) -> None:
        """Gives the lock of a byte back."""
        os.lseek(descriptor, offset, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Takes the lock of an open file; False when another process holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    # such locks belong to the process, whichever thread takes them, and end when it closes *any* descriptor of the
    # file: open it once

    def try_lock_byte(descriptor: int, offset: int) -> bool:
        """Takes the lock of one byte, which need not exist; False when another process holds it."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except BlockingIOError:
            return False
        return True

    def unlock_byte(descriptor: int, offset: int) -> None:
        """Gives the lock of a byte back."""
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)


@contextmanager
def held(path: Path) -> Generator[None]:
    """Holds the lock of a lock file, waiting for it up to ten seconds.

    Raises:
        TimeoutError: somebody else kept it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process keeps {path} locked")
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)
