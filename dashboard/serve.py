"""The dashboard's process: Streamlit on app.py, warmed up while the browser loads, gone with its launcher.

Standard input is a pipe held open by the launcher; when it closes, however the launcher ended, this process ends. A
line on standard output says that the port is ours and the server ready: an answer over HTTP could be another server's.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

READY = "llmnb-dashboard-ready"
_SLOW = ("numpy", "pandas", "pyarrow", "jinja2", "llmnb.ledger")  # none of them imports streamlit


def main() -> None:
    """Serve until the launcher closes the pipe or a signal comes; the arguments are `streamlit run`'s options."""
    from streamlit import net_util
    from streamlit.web import cli

    # a page of another origin that knocks would have Streamlit ask the internet for this machine's address
    net_util.get_external_ip = lambda: None
    for work in (_warm_up, _announce, _leave_with_launcher):
        threading.Thread(target=work, daemon=True).start()
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]]
    sys.exit(cli.main())


def _warm_up() -> None:
    for name in _SLOW:
        importlib.import_module(name)


def _announce() -> None:
    from streamlit.runtime import Runtime, RuntimeState

    while not Runtime.exists() or Runtime.instance().state == RuntimeState.INITIAL:
        time.sleep(0.01)
    os.write(1, f"\n{READY}\n".encode())  # in one piece: the log goes the same way


def _leave_with_launcher() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock, held here, would make a normal exit a crash
        pass
    for output in (1, 2):  # nobody reads it any more, and a broken pipe would stop Streamlit from stopping
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
