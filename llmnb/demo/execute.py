"""Runs a notebook through Jupyter, in place and as a process of its own: `… -m llmnb.demo.execute NOTEBOOK SECONDS`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat.sign import NotebookNotary


def main(path: Path, cell_timeout_s: int) -> None:
    """Runs every cell, each for at most so many seconds, and writes the notebook back with what they showed."""
    nbformat: Any = importlib.import_module("nbformat")  # its functions have no types
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=cell_timeout_s, resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(notebook, path)
    # trusted: these outputs were made here and now, and JupyterLab may show them as they are
    NotebookNotary().sign(notebook)  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
