"""The pytest fixture `llmnb_simulator`. Loaded in every pytest run of an environment with llmnb: it imports nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llmnb.simulator.server import Simulator


@pytest.fixture
def llmnb_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated API for one test; ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY point at it, OPENAI_… and others, too."""
    from llmnb.testing import serve_simulator

    with serve_simulator() as simulator:
        for name, value in simulator.environ().items():
            monkeypatch.setenv(name, value)
        yield simulator
