"""What tests of several kinds of rows share."""

from __future__ import annotations

import pytest

from llmnb.jobs import spooled


@pytest.fixture
def rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are asked as soon as the first is there, without half a second for others to tell of more columns."""
    monkeypatch.setattr(spooled, "FIRST_S", 0.0)
