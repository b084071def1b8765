"""Where the code runs: in which front end an answer would be shown.

The marks of VS Code and Colab are as their projects document them; they could not be tried here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

Place = Literal["script", "terminal", "jupyter", "headless", "vscode", "colab"]


def where(shell: Any = None, environ: Mapping[str, str] | None = None) -> Place:
    """The front end of `shell` (default: the running IPython, if any)."""
    environ = os.environ if environ is None else environ
    shell = shell or running_shell()
    if shell is None:
        return "script"
    if getattr(shell, "kernel", None) is None:
        return "terminal"
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in environ:
        return "colab"
    if "VSCODE_PID" in environ or "VSCODE_CWD" in environ or _cell_of_vscode(shell):
        return "vscode"
    return "headless" if _headless(shell, environ) else "jupyter"


def running_shell() -> Any:
    """The IPython shell of this process, or None; IPython is not imported to find out."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


def has_widgets() -> bool:
    """Whether the packages of live widgets are installed in the kernel's environment."""
    from importlib.util import find_spec

    return find_spec("anywidget") is not None and find_spec("ipywidgets") is not None


def _request(shell: Any) -> dict[str, Any]:
    """The execute request under way."""
    try:
        return dict(shell.kernel.get_parent("shell"))
    except Exception:  # an old or foreign kernel
        return {}


def _headless(shell: Any, environ: Mapping[str, str]) -> bool:
    """nbclient and papermill allow no input; a Jupyter server's kernels know their session's name."""
    request = _request(shell)
    if "cellId" in request.get("metadata", {}) and "JPY_SESSION_NAME" in environ:
        return False
    return request.get("content", {}).get("allow_stdin") is False and "JPY_SESSION_NAME" not in environ


def _cell_of_vscode(shell: Any) -> bool:
    return "__vsc_ipynb_file__" in getattr(shell, "user_ns", {})
