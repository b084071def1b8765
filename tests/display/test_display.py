"""Which display fits where, and what happens when one fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llmnb import display
from llmnb.display.guard import GuardedView
from llmnb.display.static import StaticView
from llmnb.display.terminal import PrintView, TerminalView
from llmnb.display.turns import InTurn
from llmnb.display.where import where
from llmnb.errors import SettingsError
from llmnb.events import StreamEvent, Text


class Kernel:
    """An ipykernel as far as `where` looks at it."""

    def __init__(self, **parent: Any) -> None:
        self.parent = parent

    def get_parent(self, channel: str) -> dict[str, Any]:
        return self.parent


def shell(kernel: Kernel | None, **names: Any) -> SimpleNamespace:
    """An IPython shell as far as `where` looks at it."""
    return SimpleNamespace(kernel=kernel, user_ns=names)


BROWSER = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
PYTHON = "9f8e7d6c-5b4a3928_4711_12"
SERVED = {"JPY_SESSION_NAME": "/home/me/a.ipynb"}


def request(msg_id: str = BROWSER, cell: str | None = None, stdin: bool = True) -> Kernel:
    """A kernel that runs a cell, asked as a front end asks."""
    metadata = {} if cell is None else {"cellId": cell}
    return Kernel(header={"msg_id": msg_id}, metadata=metadata, content={"allow_stdin": stdin})


LAB = request(cell="5c1d0e6f")
NBCLIENT = request(PYTHON, stdin=False)
CONSOLE = request(PYTHON)
VSCODE = request(cell="vscode-notebook-cell:/home/me/a.ipynb#W0sZmlsZQ%3D%3D")


@pytest.mark.parametrize(
    ("running", "environ", "place"),
    [
        (shell(None), {}, "terminal"),
        (shell(LAB), SERVED, "jupyter"),
        (shell(LAB), {}, "jupyter"),
        (shell(LAB), {**SERVED, "VSCODE_PID": "1"}, "jupyter"),  # started in VS Code's terminal
        (shell(request()), SERVED, "jupyter"),  # nbclassic names no cell
        (shell(Kernel()), {}, "jupyter"),
        (shell(NBCLIENT), {}, "headless"),
        (shell(NBCLIENT), SERVED, "headless"),  # papermill, run by a cell
        (shell(request(stdin=False)), {}, "headless"),
        (shell(request(stdin=False)), SERVED, "jupyter"),
        (shell(CONSOLE), {}, "console"),
    ],
)
def test_where(running: Any, environ: dict[str, str], place: str) -> None:
    """Each front end is known by what it sends."""
    assert where(running, environ, {}) == place


@pytest.mark.parametrize(
    ("running", "environ", "modules", "place"),
    [
        # microsoft/vscode-jupyter, issue 3364: the extension's own process hands its variables on
        (shell(request()), {"VSCODE_PID": "94309"}, {}, "vscode"),
        (shell(request()), {"VSCODE_CWD": "/home/me"}, {}, "vscode"),
        # microsoft/vscode-jupyter, issue 8475: the name of the notebook as a variable in it
        (shell(request(), __vsc_ipynb_file__="/home/me/a.ipynb"), {}, {}, "vscode"),
        # VS Code's API documentation: the URI scheme of notebook cells
        (shell(VSCODE), {}, {}, "vscode"),
        (shell(VSCODE), SERVED, {}, "vscode"),  # VS Code on a Jupyter server
        # Colab's runtimes set these, and import google.colab
        (shell(request()), {"COLAB_RELEASE_TAG": "release-colab-external"}, {}, "colab"),
        (shell(request()), {"COLAB_GPU": ""}, {}, "colab"),
        (shell(request()), {"COLAB_BACKEND_VERSION": "next"}, {}, "colab"),
        (shell(request()), {}, {"google.colab": object()}, "colab"),
    ],
)
def test_where_by_documented_marks(running: Any, environ: dict[str, str], modules: dict[str, Any], place: str) -> None:
    """VS Code and Colab by marks their projects and users document; unverified, as neither can be run here."""
    assert where(running, environ, modules) == place


@pytest.mark.parametrize(("runs", "place"), [(True, "marimo"), (False, "script")])
def test_where_marimo(runs: bool, place: str) -> None:
    """A marimo notebook has no IPython; its modules may be imported in a script, too."""
    assert where(None, {}, {"marimo": SimpleNamespace(running_in_notebook=lambda: runs)}) == place


def test_a_script_is_quiet() -> None:
    """Outside IPython nothing is shown unless it is asked for by name."""
    assert where(None, {}) == "script"
    assert display.choose() is None
    assert display.choose("none") is None


def inmost(view: object) -> object:
    """The view itself, out of what keeps it from raising and lets it wait for its turn."""
    assert isinstance(view, GuardedView)
    return view.view.view if isinstance(view.view, InTurn) else view.view


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("print", PrintView),
        ("terminal", PrintView),
        ("static", StaticView),
        ("widget", StaticView),
        ("html", StaticView),
    ],
)
def test_names_in_a_script(name: str, kind: type) -> None:
    """Asked for by name a script prints; what needs a kernel prints at the end."""
    assert isinstance(inmost(display.choose(name)), kind)


def test_a_terminal_gets_the_terminal_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, on a real terminal, blocks are drawn live."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(inmost(display.choose("terminal")), TerminalView)


def test_unknown_names_are_refused() -> None:
    """A misspelled display names the known ones and the nearest."""
    with pytest.raises(
        SettingsError, match="Did you mean 'widget'\\? Known: widget, html, terminal, static, print, none"
    ):
        display.choose("wigdet")


def test_static_in_a_script_prints_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The static display of a script writes nothing before the end, then all."""
    view = display.choose("static")
    assert view is not None
    view.open("claude", None)
    view.show(Text("hello"))
    assert capsys.readouterr().out == ""
    view.close()
    assert capsys.readouterr().out == "hello\n\nclaude\n"


def test_importing_the_room_is_cheap() -> None:
    """Nothing heavy (widgets, rich, IPython, pygments, the Markdown parser) is imported before a view needs it."""
    heavy = ["markdown_it", "ipywidgets", "anywidget", "rich", "IPython", "pygments", "pandas", "anthropic"]
    code = f"import sys, llmnb.display; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


class Broken:
    """A view that fails wherever it can."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        self.asked.append("open")
        raise OSError("no front end")

    def show(self, event: StreamEvent) -> None:
        self.asked.append("show")
        raise KeyboardInterrupt

    def close(self, error: BaseException | None = None) -> None:
        self.asked.append("close")
        raise ValueError("twice")


def test_a_broken_view_warns_once_and_goes_quiet() -> None:
    """The first failure is said, nothing is raised, nothing more is shown, and close is tried all the same."""
    broken = Broken()
    view = GuardedView(broken)
    with pytest.warns(RuntimeWarning, match=r"cannot be shown \(OSError: no front end\)"):
        view.open("claude", None)
    view.show(Text("x"))
    view.close()  # a second warning would be an error here
    assert broken.asked == ["open", "close"]


def test_warnings_as_errors_do_not_come_through() -> None:
    """Even where warnings are errors a view does not raise."""
    GuardedView(Broken()).open("claude", None)


def test_an_interrupt_goes_through_a_view() -> None:
    """A KeyboardInterrupt is the person's Stop and must reach the call."""
    with pytest.raises(KeyboardInterrupt):
        GuardedView(Broken()).show(Text("x"))
