"""What `pip install llmnb` and `pip install 'llmnb[all]'` give, in environments that hold nothing else."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# the clock starts with the fixtures
pytestmark = pytest.mark.timeout(400)

CALL = """
import llmnb, llmnb.testing
with llmnb.testing.serve_simulator(environ=True) as simulator:
    reply = llmnb.LLM().ask("What is WAL?")
    assert reply.cost.nanousd == simulator.billed().price_nanousd > 0
row = llmnb.calls().iloc[0]
assert row["output_tokens"] == reply.usage.output_tokens, row
print(llmnb.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("llmnb-*.whl"))


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes an empty environment with the wheel and its extras in it, as a user's machine would, and gives its bin."""
    installed = runpy.run_path(str(ROOT / "tools" / "bootstrap.py"))["install"]

    def make(extras: str) -> Path:
        folder = tmp_path_factory.mktemp("env") / "venv"
        venv.create(folder)
        installed(folder / "bin" / "python", f"{wheel}{extras}", by=Path(sys.executable))
        return folder / "bin"

    return make


@pytest.fixture
def run(tmp_path: Path, llmnb_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of an environment far away from the checkout."""

    def running(*command: object) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        arguments = [str(part) for part in command]
        return subprocess.run(
            arguments,
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return running


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Dashboard and notebooks are inside the package; tests, tools and caches stay at home."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"llmnb"}
    assert {"llmnb/_dashboard/app.py", "llmnb/_notebooks/01_quickstart.ipynb", "llmnb/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name or ".ipynb_checkpoints" in name]


def test_bare_wheel_imports_calls_and_says_what_the_demo_needs(
    install: Callable[[str], Path], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The core alone asks, books and reports; what needs an extra names it in one line."""
    bin_folder = install("")
    called = run(bin_folder / "python", "-W", "error", "-c", CALL)
    assert called.returncode == 0, called.stderr
    assert "site-packages" in called.stdout
    assert run(bin_folder / "python", "-c", "import streamlit").returncode != 0
    demo, dashboard = run(bin_folder / "llmnb", "demo"), run(bin_folder / "llmnb", "dashboard", "--no-browser")
    assert (demo.returncode, demo.stderr.count("\n")) == (1, 1)
    assert "pip install 'llmnb[all]'" in demo.stderr
    assert "pip install 'llmnb[dashboard]'" in dashboard.stderr
    assert "claude-sonnet-5-5" in run(bin_folder / "llmnb", "usage").stdout


def test_full_wheel_runs_the_demo(
    install: Callable[[str], Path], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """`pip install 'llmnb[all]'` and `llmnb demo --check`: notebook, books, dashboard, all from the wheel."""
    bin_folder = install("[all]")
    done = run(bin_folder / "llmnb", "demo", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything works." in done.stdout
    assert run(bin_folder / "python", "-c", "import dashboard").returncode != 0
