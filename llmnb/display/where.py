"""Where the code runs: in which front end an answer would be shown.

The marks of VS Code and Colab are as their projects and users document them; they could not be tried here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

Place = Literal["script", "terminal", "console", "jupyter", "headless", "vscode", "colab", "marimo"]

KERNELS: frozenset[Place] = frozenset({"console", "jupyter", "headless", "vscode", "colab"})
"""Where a kernel's outputs are shown."""
UNHEARD: frozenset[Place] = frozenset({"vscode", "colab", "marimo"})
"""Where a click on a widget does not reach a kernel that is busy, and there is no way round."""
STOP_HINT = "to stop, use the notebook's interrupt button"
"""What is said there in a Stop button's place."""

_COLAB = ("COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION", "COLAB_GPU")
_VSCODE = ("VSCODE_PID", "VSCODE_CWD")
_VSCODE_CELL = "vscode-notebook-cell:"
_JUPYTER_CLIENT_ID = re.compile(r"_\d+_\d+$")
"""How jupyter_client ends the ids of its messages, with its process and a count; front ends in a browser do not."""


def where(
    shell: Any = None, environ: Mapping[str, str] | None = None, modules: Mapping[str, Any] | None = None
) -> Place:
    """The front end of `shell` (default: the running IPython, if any)."""
    environ = os.environ if environ is None else environ
    modules = sys.modules if modules is None else modules
    shell = shell or running_shell()
    if shell is None:
        return "marimo" if _in_marimo(modules) else "script"
    if getattr(shell, "kernel", None) is None:
        return "terminal"
    if "google.colab" in modules or any(name in environ for name in _COLAB):
        return "colab"
    return _kernels_front_end(shell, environ)


def running_shell() -> Any:
    """The IPython shell of this process, or None; IPython is not imported to find out."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


def has_widgets() -> bool:
    """Whether the packages of live widgets are installed in the kernel's environment."""
    from importlib.util import find_spec

    return find_spec("anywidget") is not None and find_spec("ipywidgets") is not None


def _kernels_front_end(shell: Any, environ: Mapping[str, str]) -> Place:
    request = _request(shell)
    by_python = _JUPYTER_CLIENT_ID.search(str(request.get("header", {}).get("msg_id", ""))) is not None
    can_ask = request.get("content", {}).get("allow_stdin") is not False
    cell = str(request.get("metadata", {}).get("cellId") or "")
    served = "JPY_SESSION_NAME" in environ  # by a Jupyter server, which tells its kernels the name of their session
    if cell.startswith(_VSCODE_CELL):
        return "vscode"
    if by_python and not can_ask:  # nbclient and papermill, also where they run in a cell of a server's kernel
        return "headless"
    if cell and served:  # also where the server was started in VS Code's terminal, and has its variables
        return "jupyter"
    if any(name in environ for name in _VSCODE) or "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}):
        return "vscode"
    if served:
        return "jupyter"
    if not can_ask:
        return "headless"
    # jupyter console, qtconsole and Spyder: no widgets, and most of them do not update what was displayed
    return "console" if by_python else "jupyter"


def _request(shell: Any) -> dict[str, Any]:
    """The execute request under way."""
    try:
        return dict(shell.kernel.get_parent("shell"))
    except Exception:  # an old or foreign kernel
        return {}


def _in_marimo(modules: Mapping[str, Any]) -> bool:
    marimo = modules.get("marimo")
    running = getattr(marimo, "running_in_notebook", None)
    return callable(running) and bool(running())
