"""Runs a module as `python -m` does, but not longer than the process that started it.

Standard input is a pipe which that process holds open; when it closes, however its holder ended, this one ends, too.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """`python -m llmnb.demo.tethered MODULE ARGUMENT…`."""
    tether = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # the module finds an empty standard input and cannot eat the tether
    os.close(null)
    threading.Thread(target=_end_with, args=(tether,), daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with(tether: int) -> None:
    while os.read(tether, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
