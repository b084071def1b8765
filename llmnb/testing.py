"""Test your notebooks and programs against a simulated API: no key, no network, nothing billed.

`serve_simulator()` starts one; the pytest fixture `llmnb_simulator` (installed with llmnb) does it for one test. To
test against recorded answers of the real API, mark a test with `@pytest.mark.llmnb_cassette`, see
`llmnb.pytest_plugin`, or use `with llmnb.replay(path)`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmnb.simulator import Clock, Simulator

__all__ = ["serve_simulator"]


@contextmanager
def serve_simulator(
    seed: int = 0, clock: Clock | None = None, *, environ: bool = False, **options: Any
) -> Generator[Simulator]:
    """A running `Simulator`, stopped at the end of the block.

    The same `seed` gives the same answers to the same requests. `clock` is the server's time: hand it a
    `llmnb.simulator.Clock` to move it. `environ=True` points `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY` at it for the
    block, so that any client made inside talks to it, and the variables of OpenAI, Gemini and ollama, too. `options` go
    to `Simulator` (`tokens_per_second`, `limits`, …).
    """
    from llmnb.simulator.server import Simulator

    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator(seed=seed, clock=clock, **options))
        if environ:
            stack.enter_context(_environment(simulator.environ()))
        yield simulator


@contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Set variables, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
