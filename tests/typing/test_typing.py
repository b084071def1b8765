"""Holds the types of the public API against `api.py`, which says what they should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright")

ROOT = Path(__file__).parents[2]


def test_public_types(tmp_path: Path) -> None:
    """pyright, strict, finds the types that api.py asserts, and every misuse that it marks."""
    for name in ("llmnb", "tests"):  # pyright looks only below its configuration
        (tmp_path / name).symlink_to(ROOT / name)
    settings = {
        "include": ["tests/typing/api.py"],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": True,
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    report = json.loads(ran.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    assert [found["message"] for found in report["generalDiagnostics"]] == []
