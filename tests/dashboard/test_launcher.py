"""The dashboard's process: it answers when `launch` returns, and is gone when it should be."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import DASHBOARD

from llmnb.commands import dashboard_launcher
from llmnb.commands.dashboard_launcher import launch
from llmnb.errors import InvalidRequest, MissingExtra


def health(url: str) -> str:
    """What the server says about itself."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)) as connection:
        connection.request("GET", "/_stcore/health", headers={"Connection": "close"})
        return connection.getresponse().read().decode()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until_gone(pid: int) -> None:
    """Return once the process ended; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def test_answers_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """The address answers when `launch` returns; after `stop`, which may be called twice, process and port are gone."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]  # the usual one may be taken by another test as soon as it is free
    dashboard = launch(ledger=tmp_path / "ledger.db", port=port)
    try:
        assert dashboard.url == f"http://127.0.0.1:{port}"
        assert health(dashboard.url) == "ok"
        with pytest.raises(InvalidRequest, match="taken"):
            launch(port=urlsplit(dashboard.url).port)
    finally:
        dashboard.stop()
    assert not alive(dashboard.pid)
    with pytest.raises(OSError, match="refused"):
        health(dashboard.url)
    dashboard.stop()


def test_two_at_once() -> None:
    """A second dashboard finds a port of its own."""
    with launch() as one, launch() as two:
        assert one.url != two.url
        assert health(one.url) == health(two.url) == "ok"


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is how it is done elsewhere")
def test_a_killed_launcher_takes_the_dashboard_along() -> None:
    """When the launching process is killed outright, the dashboard ends by itself."""
    start = "from llmnb.commands.dashboard_launcher import launch"
    script = f"{start}; import time; print(launch().pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        assert alive(pid)
        launcher.send_signal(signal.SIGKILL)
    wait_until_gone(pid)


def test_wait_returns_when_it_ends() -> None:
    """`wait` comes back when the dashboard is ended from outside."""
    with launch() as dashboard:
        os.kill(dashboard.pid, signal.SIGTERM)
        assert isinstance(dashboard.wait(), int)
        assert not alive(dashboard.pid)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.com", "::"])
def test_open_doors_are_refused(host: str) -> None:
    """Without a login nobody else may look; the message says how to set one, and how to look without."""
    with pytest.raises(InvalidRequest, match=r"LLMNB_DASHBOARD_PASSWORD.*\[auth\].*ssh -L"):
        launch(host=host)


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    """It is not called taken: no other program has it."""
    with pytest.raises(InvalidRequest, match="port must be from 1 to 65535, not"):
        launch(port=port)


def test_streamlit_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Streamlit the message names the extra to install."""
    monkeypatch.setitem(sys.modules, "streamlit", None)
    with pytest.raises(MissingExtra, match=r"the dashboard needs.*llmnb\[dashboard\]"):
        launch()


def test_a_start_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the process said before it ended is in the error, and no process stays."""
    (tmp_path / "app.py").touch()
    (tmp_path / "serve.py").write_text("raise SystemExit('no luck today')")
    monkeypatch.setattr(dashboard_launcher, "_app_folder", lambda: tmp_path)
    with pytest.raises(dashboard_launcher.LlmnbError, match="did not start: no luck today"):
        launch()


def test_a_snatched_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program takes the chosen port first, the dashboard starts on another one and never claims theirs."""
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        monkeypatch.setattr(dashboard_launcher, "_port", lambda port, host: theirs.getsockname()[1])
        with launch() as dashboard:
            assert urlsplit(dashboard.url).port != theirs.getsockname()[1]
            assert health(dashboard.url) == "ok"


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process gets the ledger asked for, and neither slow imports nor the settings of somebody's Streamlit app."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "1")
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    environment = dashboard_launcher._environment(tmp_path / "books.db")
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert "STREAMLIT_SERVER_PORT" not in environment
    assert environment["LLMNB_TIMEZONE"] == "UTC"
    assert environment["LLMNB_STORE_URL"] == f"sqlite:///{tmp_path / 'books.db'}"


def test_the_signal_of_readiness_is_one() -> None:
    """The launcher waits for the very line that the dashboard's process writes."""
    assert f'READY = "{dashboard_launcher._READY}"' in (DASHBOARD / "serve.py").read_text()
