"""Which sessions still live: a row left `running` by a process that died becomes `interrupted`.

A session is `host:pid:start:random`, see `llmnb.origin`. On this host the process table tells; on another host, or
where nothing can be told, a call that has been running for a day is taken for dead. A wrong guess heals itself: the end
of the call overwrites the row.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from llmnb.ledger.sql import Connection
from llmnb.origin import started_at

GIVE_UP_US = 24 * 3600 * 1_000_000
"""A call that has been running for longer is over, whoever made it."""

_CLOCK_STEP_S = 10
"""The start of a process, told from the boot time, moves when the clock is set."""


def is_dead(session: str | None) -> bool:
    """Whether the process of a session is known to be gone."""
    try:
        host, pid, started, _ = (session or "").rsplit(":", 3)
        process, started_s = int(pid), int(started)
    except ValueError:
        return False
    if host != _this_host():
        return False
    return not _exists(process) or _was_reused(process, started_s)


def is_of_this_host(session: str) -> bool:
    """Whether a session's process ran here, where the process table tells of it."""
    return session.rsplit(":", 3)[0] == _this_host()


def _this_host() -> str:
    return socket.gethostname().replace(":", "-")


if sys.platform == "win32":

    def _exists(pid: int) -> bool:
        import ctypes

        # os.kill(pid, 0) would send Ctrl-C on Windows
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
else:

    def _exists(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is there, and somebody else's
            return True
        return True


def _was_reused(pid: int, started_s: int) -> bool:
    """Whether the process that now has this pid began after the session's."""
    now_s = started_at(pid)
    return now_s is not None and now_s > started_s + _CLOCK_STEP_S


def sweep(connection: Connection, now_us: int | None = None) -> int:
    """Marks what dead sessions left running; gives the number of rows. Costs one look into a tiny index."""
    oldest = (time.time_ns() // 1000 if now_us is None else now_us) - GIVE_UP_US
    running = connection.execute("SELECT session, min(ts) FROM calls WHERE status = 'running' GROUP BY session")
    dead = [(session, oldest, is_dead(session)) for session, first in running if first < oldest or is_dead(session)]
    if not dead:
        return 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        swept = sum(_interrupt(connection, *entry) for entry in dead)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return swept


def _interrupt(connection: Connection, session: str | None, oldest: int, everything: bool) -> int:
    return connection.execute(
        "UPDATE calls SET status = 'interrupted', estimated = TRUE"
        " WHERE status = 'running' AND session IS ? AND (? OR ts < ?)",
        (session, everything, oldest),
    ).rowcount
