"""Jupyter for the demo: it runs the notebook, and serves it afterwards; both know nothing of the user's own set-up."""

from __future__ import annotations

import json
import os
import secrets
import urllib.request
from pathlib import Path

from llmnb.demo.child import Child

START_S = 60
"""How long JupyterLab may take to answer: some seconds as a rule, on a cold disk much longer."""


def isolated(folder: Path) -> dict[str, str]:
    """The environment of a Jupyter that keeps everything below `folder` and reads no configuration of the user's."""
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    for place in places.values():
        (folder / place).mkdir(parents=True, exist_ok=True)
    return {**os.environ, **{name: str(folder / place) for name, place in places.items()}}


def execute(notebook: Path, jupyter: Path, *, cell_timeout_s: int = 60) -> Child:
    """Begins to run `notebook` from top to bottom, in place, each cell for at most `cell_timeout_s` seconds."""
    command = ["llmnb.demo.execute", str(notebook), str(cell_timeout_s)]
    env = {**isolated(jupyter), "LLMNB_NOTEBOOK": notebook.name}
    return Child(f"running {notebook.name}", command, log=jupyter / "execute.log", cwd=notebook.parent, env=env)


class Lab:
    """JupyterLab on 127.0.0.1 over the notebooks of `folder`, behind a token of its own."""

    def __init__(self, folder: Path, jupyter: Path) -> None:
        self._token = secrets.token_urlsafe(24)
        self._runtime = jupyter / "runtime"
        # the token is handed over in the environment: a command line can be read by every user of the machine
        env = {**isolated(jupyter), "JUPYTER_TOKEN": self._token}
        _configure(jupyter / "config", folder)
        command = ["jupyterlab"]
        self._child = Child("JupyterLab", command, log=jupyter / "lab.log", cwd=folder, env=env)
        self._address: str | None = None

    def wait(self) -> None:
        """Waits until it answers."""
        self._child.until(self._answers, START_S)

    def url(self, notebook: str) -> str:
        """The address of `notebook`, token included."""
        return f"{self._address}lab/tree/{notebook}?token={self._token}"

    def stop(self) -> None:
        """Ends it and the kernels it started."""
        self._child.stop()

    def _answers(self) -> bool:
        state = self._runtime / f"jpserver-{self._child.process.pid}.json"
        try:
            self._address = f"http://127.0.0.1:{json.loads(state.read_text())['port']}/"
            return answers(f"{self._address}api/status?token={self._token}")
        except (OSError, ValueError):  # not there yet, or half written
            return False


def answers(url: str) -> bool:
    """Whether a page of this machine answers with success; it is asked directly, whatever proxy is configured."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _configure(config: Path, folder: Path) -> None:
    server = {
        "ip": "127.0.0.1",
        "port": 0,  # the system picks a free one, and the server writes it into its runtime file
        "open_browser": False,
        "root_dir": str(folder),
        "allow_root": True,
        "terminals_enabled": False,
    }
    lab = {
        "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "extension_manager": "readonly",  # the other one asks PyPI
    }
    (config / "jupyter_lab_config.json").write_text(json.dumps({"ServerApp": server, "LabApp": lab}))
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (config / "labconfig").mkdir(exist_ok=True)
    (config / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(quiet))
