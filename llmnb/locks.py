"""Locks on files that the operating system releases when their holder dies, however it dies."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_S = 0.02
_PATIENCE_S = 10.0
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # and on Windows EDEADLOCK, which is the same there

if sys.platform == "win32":
    import msvcrt

    def lock_if_can(descriptor: int) -> bool | None:
        """Takes the lock of an open file; False when another process holds it, None where there are no locks."""
        try:
            # a byte far beyond the content, since Windows locks forbid reading what they cover
            os.lseek(descriptor, 0x7FFF_FFFF, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return False if error.errno in _HELD else None
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

    def unlock_bytes(descriptor: int, offsets: Collection[int], held: Collection[int] = ()) -> None:
        """Gives the locks of bytes back; `held` are all others that are taken, and stay so."""
        del held
        for offset in offsets:
            os.lseek(descriptor, offset, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def lock_if_can(descriptor: int) -> bool | None:
        """Takes the lock of an open file; False when another process holds it, None where there are no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in _HELD else None
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

    def unlock_bytes(descriptor: int, offsets: Collection[int], held: Collection[int] = ()) -> None:
        """Gives the locks of bytes back; `held` are all others that are taken, and stay so."""
        if len(offsets) <= len(held) + 1:
            for offset in offsets:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
            return
        begin = 0  # all between those that stay: each call gives Python's lock up, and many wait for it long
        for offset in sorted(held):
            if offset > begin:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, offset - begin, begin)
            begin = offset + 1
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 0, begin)


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file; False when another process holds it, or there are no locks."""
    return lock_if_can(descriptor) is True


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
