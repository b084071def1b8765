"""Real kernels without a browser: of the ipykernel installed, and of older ones fetched for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from .kernels import Kernel

VERSIONS = ["installed", "7.3.0", "6.31.0"]
"""Three ways of a message to a kernel whose cell blocks: ipykernel 7.4, 7.0 to 7.3 and 6 each have their own."""


@pytest.fixture(scope="session")
def older_ipykernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of older ipykernels by version, filled when one is needed; each goes before the installed one."""
    folder = tmp_path_factory.mktemp("ipykernels")
    return {version: folder / version for version in VERSIONS[1:]}


@pytest.fixture(scope="module", params=VERSIONS)
def kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, older_ipykernels: dict[str, Path]
) -> Iterator[Kernel]:
    """A kernel as a notebook server starts it."""
    home = tmp_path_factory.mktemp("kernel")
    folders = {"IPYTHONDIR": str(home / "ipython"), "LLMNB_HOME": str(home / "llmnb"), "JPY_SESSION_NAME": "/a.ipynb"}
    if request.param in older_ipykernels:
        folders["PYTHONPATH"] = str(_fetched(request.param, older_ipykernels[request.param]))
    manager = KernelManager()
    manager.start_kernel(env={**os.environ, **folders})
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield Kernel(request.param, manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def _fetched(version: str, folder: Path) -> Path:
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
        found = subprocess.run([*pip, f"--target={folder}", f"ipykernel=={version}"], capture_output=True, text=True)
        if found.returncode:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no ipykernel {version}: {found.stderr}")
    return folder
