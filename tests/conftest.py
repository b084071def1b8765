"""Every test has an llmnb home of its own, and no setting or key of the person who runs it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# the first example pays for the imports of what it tests, which on a cold disk takes longer than the 200 ms allowed
hypothesis.settings.register_profile("llmnb", deadline=None)
hypothesis.settings.load_profile("llmnb")


@pytest.fixture(autouse=True)
def llmnb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh LLMNB_HOME for one test."""
    for name in list(os.environ):
        if name.startswith(("LLMNB_", "ANTHROPIC_")) and not name.startswith("LLMNB_TEST_"):
            monkeypatch.delenv(name)
    home = tmp_path / "llmnb-home"
    monkeypatch.setenv("LLMNB_HOME", str(home))
    return home
