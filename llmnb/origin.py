"""Who asks, and from where: the session, user, notebook and cell that a ledger row names.

A session is one process of one kernel, script or shell: `host:pid:start:random`, so that a reader can tell whether it
still lives.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from llmnb import forks
from llmnb.settings import Settings

_sessions: dict[int, str] = {}


def session() -> str:
    """The session of this process; a forked child has one of its own."""
    pid = forks.pid
    if pid not in _sessions:
        host = socket.gethostname().replace(":", "-")
        _sessions[pid] = f"{host}:{pid}:{started_at(pid) or int(time.time())}:{secrets.token_hex(2)}"
    return _sessions[pid]


def started_at(pid: int) -> int | None:
    """When a process began, in whole seconds since 1970; None where /proc does not tell."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return int(boot.split()[1]) + int(after_name[19]) // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def user(settings: Settings) -> str | None:
    """The setting, else the JupyterHub user, else the login."""
    return settings.user or os.environ.get("JUPYTERHUB_USER") or _login()


@cache
def _login() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run under a user id without a name
        return None


def notebook(settings: Settings) -> str | None:
    """The notebook's file name as Jupyter or VS Code tells it, else the script's; None at a bare prompt."""
    if settings.notebook:
        return settings.notebook
    if told := os.environ.get("JPY_SESSION_NAME"):
        return Path(told).name
    shell = _shell()
    if shell is not None:
        told = shell.user_ns.get("__vsc_ipynb_file__")
        return Path(told).name if isinstance(told, str) else None
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(script).name if isinstance(script, str) else None


def notebook_path(settings: Settings) -> Path | None:
    """The file of the notebook or script that runs, as far as it is known; a notebook's folder may be a guess."""
    if settings.notebook:
        return Path(settings.notebook).absolute()
    if told := os.environ.get("JPY_SESSION_NAME"):
        path = Path(told)
        # a server may tell the path under its own root; a kernel starts in the folder of its notebook
        return path if path.is_absolute() and path.parent.is_dir() else Path(path.name).absolute()
    shell = _shell()
    if shell is not None:
        told = shell.user_ns.get("__vsc_ipynb_file__")
        return Path(told) if isinstance(told, str) else None
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(script).absolute() if isinstance(script, str) else None


def cell() -> str | None:
    """The id of the running cell where the front end sends one, else its execution count; None in a script."""
    if "IPython" not in sys.modules:  # `_shell` without the detour, on every call of a script
        return None
    shell = _shell()
    return None if shell is None else _cell_id(shell) or str(shell.execution_count)


def cell_run() -> tuple[str, int] | None:
    """The id of the running cell and its execution count, where the front end sends an id."""
    shell = _shell()
    if shell is None:
        return None
    cell_id = _cell_id(shell)
    return None if cell_id is None else (cell_id, int(shell.execution_count))


def _cell_id(shell: Any) -> str | None:
    kernel = getattr(shell, "kernel", None)
    try:
        parent: dict[str, Any] = kernel.get_parent() if kernel is not None else {}
        cell_id = parent.get("metadata", {}).get("cellId")
    except Exception:  # a front end may send anything, and the label is not worth an error
        cell_id = None
    return cell_id if isinstance(cell_id, str) else None


def _shell() -> Any:
    """The running IPython shell, or None; IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
