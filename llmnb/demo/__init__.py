"""`llmnb demo`: the whole product at work on this machine, with no API key, no network and no cost.

A simulator plays the API; a notebook is run against it through Jupyter; a ledger of the demo's own holds what that
cost, after a month of invented calls; JupyterLab and the dashboard show both. Everything lives in a temporary folder
that goes away at the end, and nothing of the user's is read or written: key, settings, ledger, Jupyter configuration.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmnb.errors import LlmnbError, MissingExtra
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.simulator import Simulator

NOTEBOOK = "01_quickstart.ipynb"
NOTEBOOK_S = 180
"""How long the notebook may take: some seconds as a rule."""
NEEDED = ("streamlit", "altair", "jupyterlab", "ipykernel", "nbclient", "nbformat")
TOKENS_PER_S = 400
"""How fast the simulator answers: slow enough to see the text arrive."""

Say = Callable[[str], None]


def run(*, check: bool = False, say: Say = print) -> None:
    """Shows everything, and then keeps serving until Ctrl-C where there is a terminal to press it in.

    Args:
        check: verify what the dashboard shows against the ledger, and end.
        say: is told, line by line, what happens.

    Raises:
        MissingExtra: `llmnb[all]` is not installed.
        LlmnbError: a step failed; the message holds what the process that failed said last.
        KeyboardInterrupt: a signal ended it before everything was up.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingExtra("llmnb demo", "all")
    from llmnb.demo.signals import ending

    with ending() as end_undisturbed, ExitStack() as stack:
        try:
            _tell(_open(stack, say, check=check), say)
            _stay(say, check=check)
        finally:
            end_undisturbed()


def _open(stack: ExitStack, say: Say, *, check: bool) -> dict[str, str]:
    """Starts everything, in the order in which one builds on the other; gives the addresses to look at."""
    from llmnb.commands.dashboard_launcher import launch
    from llmnb.demo.lab import Lab
    from llmnb.testing import serve_simulator

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmnb-demo-", ignore_cleanup_errors=True)))
    notebook = _copied(folder)
    stack.enter_context(_nothing_of_the_users(folder))
    say("llmnb demo: no API key, no network, no cost; all of it lives in a temporary folder.\n")
    simulator = stack.enter_context(serve_simulator(environ=True, tokens_per_second=None if check else TOKENS_PER_S))
    say("  ✓ a simulator on this machine plays the API")
    lab = Lab(notebook.parent, folder / "jupyter")
    stack.callback(lab.stop)
    _run_notebook(notebook, folder, simulator, stack, say)
    _write_history(say)
    dashboard = stack.enter_context(launch())
    if check:
        _look_at_page(dashboard.url, say)
    lab.wait()
    say("  ✓ JupyterLab and the dashboard answer")
    return {"notebook": lab.url(notebook.name), "dashboard": dashboard.url}


def _run_notebook(notebook: Path, folder: Path, simulator: Simulator, stack: ExitStack, say: Say) -> None:
    from llmnb.demo.lab import execute
    from llmnb.demo.proof import books_agree_with_bill

    began = time.monotonic()
    child = execute(notebook, folder / "jupyter")
    stack.callback(child.stop)
    child.finish(NOTEBOOK_S)
    say(f"  ✓ {notebook.name} ran from top to bottom in {time.monotonic() - began:.1f} s")
    calls, nanousd = books_agree_with_bill(simulator)
    if not calls:
        raise LlmnbError(f"{notebook.name} ran, but left no call in the ledger")
    say(f"  ✓ its {calls} calls are on the books, to the token as the simulator billed them: ${nanousd / 1e9:.6f}")


def _write_history(say: Say) -> None:
    from llmnb import settings
    from llmnb.demo import history

    count = history.write(settings.load(), datetime.now().astimezone())
    say(f"  ✓ {history.DAYS} days of invented calls were added for the dashboard: {count:,}")


def _look_at_page(url: str, say: Say) -> None:
    from llmnb.demo.proof import page_agrees_with_books

    spend, calls = page_agrees_with_books(url)
    say(f"  ✓ the dashboard shows what the ledger holds: {spend}, {calls} calls")


def _tell(addresses: dict[str, str], say: Say) -> None:
    say("")
    for name, url in addresses.items():
        say(f"  {name:<10} {url}")
    say("")


def _stay(say: Say, *, check: bool) -> None:
    """Until Ctrl-C; where nobody could press it, not at all."""
    if check:
        say("Everything works.")
    elif not is_terminal(sys.stdin):
        say("There is no terminal to press Ctrl-C in, so the demo ends here; run it in one to look around.")
    else:
        say("Look around, change the notebook, watch the dashboard. Ctrl-C ends it and leaves nothing behind.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("\nGone.")


def _copied(folder: Path) -> Path:
    """A copy of the notebooks, of which the first will be run; in a checkout they stand beside the package."""
    package = Path(__file__).parent.parent
    for notebooks in (package / "_notebooks", package.parent / "notebooks"):
        if (notebooks / NOTEBOOK).is_file():
            shutil.copytree(notebooks, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
            return folder / "notebooks" / NOTEBOOK
    raise LlmnbError(f"the notebooks are missing from {package}: install llmnb again")


@contextmanager
def _nothing_of_the_users(folder: Path) -> Generator[None]:
    """The environment and the working directory of the demo; the user's come back at the end."""
    before, place = dict(os.environ), Path.cwd()
    for name in before:
        if name.startswith(("LLMNB_", "ANTHROPIC_")):
            del os.environ[name]
    os.environ["LLMNB_HOME"] = str(folder / "home")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    # settings are looked for upwards from the working directory, and this is where that ends
    (folder / "pyproject.toml").touch()
    os.chdir(folder / "notebooks")
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
