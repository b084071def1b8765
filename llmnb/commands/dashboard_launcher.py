"""Starts the dashboard as a process of its own, waits until it answers, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from llmnb.commands.dashboard_access import LOOPBACK, refuse_open_doors
from llmnb.errors import InvalidRequest, LlmnbError, MissingExtra

PREFERRED_PORT = 8520
"""Tried first, so that a bookmark of a view works the next time, too."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
_READY = "llmnb-dashboard-ready"


def launch(
    *, port: int | None = None, host: str = "127.0.0.1", ledger: Path | None = None, open_browser: bool = False
) -> Dashboard:
    """The running dashboard, which answers at its `url` already.

    Args:
        port: where to listen; None takes 8520, or any free port when that is taken.
        host: where to listen; beyond this machine (0.0.0.0) only with a password or OIDC, see `dashboard_access`.
        ledger: the ledger file to show; None shows the one of the settings in force.
        open_browser: show it in the browser of this machine, where there is a display.

    Raises:
        MissingExtra: Streamlit is not installed.
        InvalidRequest: `host` can be reached from other machines and nothing protects it, or `port` is taken or
            impossible.
        LlmnbError: the dashboard did not start; the message holds what it said.
    """
    refuse_open_doors(host)
    folder = _app_folder()
    dashboard = _ready(folder, host, _port(port, host), ledger, another_port=port is None)
    if open_browser:
        _show(dashboard.url)
    return dashboard


class Dashboard:
    """A running dashboard at `url`; use it as a context manager, or call `stop`."""

    def __init__(self, process: subprocess.Popen[str], host: str, port: int) -> None:
        seen = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - everywhere is also here
        self.url = f"http://{f'[{seen}]' if ':' in seen else seen}:{port}"
        self._process = process
        self._said: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._listen, name="llmnb-dashboard-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The id of the dashboard's process."""
        return self._process.pid

    def wait(self) -> int:
        """Its exit code, once it ended by itself; Ctrl-C while waiting stops it."""
        try:
            return self._process.wait()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the dashboard's process and wait until it is gone; harmless when it is gone already."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.close()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when the server listens; raise LlmnbError with what it said when it ended, or took too long."""
        self._ready.wait(timeout_s)
        if self._ready.is_set() and self._process.poll() is None and not self._ended:
            return
        self.stop()
        said = "".join(self._said).strip() or "it said nothing"
        raise LlmnbError(f"the dashboard did not start: {said}")

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    _ended = False

    def _listen(self) -> None:
        """Read all it says, lest a full pipe stops it; the end of its output wakes whoever waits for the start."""
        with cast("IO[str]", self._process.stdout) as output:
            for line in output:
                if line.strip() == _READY:
                    self._ready.set()
                else:
                    self._said.append(line)
        self._ended = True
        self._ready.set()


def _app_folder() -> Path:
    """The folder of app.py: inside the package of an installed wheel, beside it in a checkout."""
    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtra("the dashboard", "dashboard")
    package = Path(__file__).parents[1]
    for folder in (package / "_dashboard", package.parent / "dashboard"):
        if (folder / "app.py").is_file():
            return folder
    raise LlmnbError(f"the dashboard's files are missing from {package}: install llmnb again")


def _ready(folder: Path, host: str, port: int, ledger: Path | None, *, another_port: bool) -> Dashboard:
    """The dashboard once it listens; where the port is ours to choose and was snatched away, on another one."""
    dashboard = Dashboard(_start(folder, host, port, ledger), host, port)
    try:
        dashboard.wait_until_ready(START_TIMEOUT_S)
    except LlmnbError as error:
        # whoever snatched it may have let go of it again since
        snatched = f"Port {port} is not available" in str(error) or not _free(host, port)
        if not another_port or not snatched:
            raise
        return _ready(folder, host, _any_free(host), ledger, another_port=False)
    return dashboard


def _port(port: int | None, host: str) -> int:
    """A port that was free a moment ago."""
    if port is not None:
        if not 0 < port < 65_536:
            raise InvalidRequest(f"port must be from 1 to 65535, not {port}")
        if not _free(host, port):
            raise InvalidRequest(f"port {port} is taken: leave it out to use a free one, or name another")
        return port
    return PREFERRED_PORT if _free(host, PREFERRED_PORT) else _any_free(host)


def _free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        if os.name != "nt":  # there it would let us take the port of a living server
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
        return True


def _any_free(host: str) -> int:
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _start(folder: Path, host: str, port: int, ledger: Path | None) -> subprocess.Popen[str]:
    """The process, in a session of its own: a Ctrl-C reaches the launcher only. -P: the user's files are no imports."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.baseUrlPath": "",
        "server.sslCertFile": "",
        "server.sslKeyFile": "",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    if host not in LOOPBACK:
        options["server.allowedHosts"] = "*"  # whatever name others know this machine by; the login protects it
    return subprocess.Popen(
        [sys.executable, "-P", str(folder / "serve.py"), *(f"--{name}={value}" for name, value in options.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(ledger),
        start_new_session=True,
    )


def _environment(ledger: Path | None) -> dict[str, str]:
    """The user's, without what makes Streamlit slow (no bytecode: 2–5×) or another app (its STREAMLIT_ settings)."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("STREAMLIT_")
    }
    root = Path(__file__).parents[2]
    if root.name not in ("site-packages", "dist-packages"):  # a checkout: the child must find this very llmnb
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environment.get("PYTHONPATH"))))
    if ledger is not None:
        environment["LLMNB_STORE_URL"] = f"sqlite:///{ledger.expanduser().absolute()}"
    return {**environment, "PYTHONIOENCODING": "utf-8"}


def _show(url: str) -> None:
    """Open a browser, except where that would start a text browser in the user's terminal."""
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
