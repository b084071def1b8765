"""Locks on files that the operating system releases when their holder dies, however it dies."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

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

    def share_if_can(descriptor: int) -> bool | None:
        """Takes it if nobody has it; True in any case, since Windows has no locks that are shared."""
        lock_if_can(descriptor)
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

    def share_if_can(descriptor: int) -> bool | None:
        """Takes it with others that share it; False when somebody has it alone, None where there are no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
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


_changing = RLock()
"""Held while a lock file is opened or closed: a child that is forked in between would not know of it."""


class LockFile:
    """A file that is open to be locked; `descriptor` is None when it is closed.

    A forked child closes its copy, or it would keep its parent's lock for as long as it lives.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor: int | None = None
        self._path = path
        with _changing:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            _open.add(self)

    def is_in_place(self) -> bool:
        """Whether it is still the file at its path: who had it before may have taken it away."""
        try:
            return self.descriptor is not None and os.path.samestat(os.fstat(self.descriptor), os.stat(self._path))
        except OSError:
            return False

    def close(self) -> None:
        """Gives the lock back."""
        with _changing:
            _open.discard(self)
            descriptor, self.descriptor = self.descriptor, None
            if descriptor is not None:
                os.close(descriptor)


_open: set[LockFile] = set()


def _in_child() -> None:
    for file in tuple(_open):
        file.close()
    _changing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_in_child)


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
