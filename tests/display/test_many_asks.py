"""Many answers in one kernel, asked of a simulated API and of the cache: nothing piles up."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmnb.testing import serve_simulator

from .kernels import Kernel, output

SETUP = """
import gc, os
os.environ.update({environ!r})
import psutil
from ipywidgets.widgets.widget import _instances
import llmnb
from llmnb.display import control, latecomers, widget
llm = llmnb.LLM()

def ask(count, sources):
    for number in range(count):
        reply = llm(f"Question {{number}}")
        sources.append(reply.source)
        widgets.append(len(_instances))
    del reply

def grown(count, sources):
    before = psutil.Process().memory_info().rss
    ask(count, sources)
    latecomers.let_go()
    gc.collect()
    return psutil.Process().memory_info().rss - before
"""
MANY = """
widgets, sources = [], []
ask({warm}, [])
megabytes = [round(grown({asks}, sources) / 1e6, 1) for _ in range(2)]
alive = sum(isinstance(thing, widget.ResponseView) for thing in gc.get_objects())
print(sources.count("live"), sources.count("cache"), max(widgets), len(_instances), control.known(), alive, *megabytes)
"""


@pytest.mark.parametrize("kernel", ["installed"], indirect=True)
@pytest.mark.parametrize("asks", [40, pytest.param(1_000, marks=pytest.mark.soak)])
def test_many_asks(kernel: Kernel, llmnb_home: Path, asks: int) -> None:
    """The widgets alive stay at the few that linger, and the kernel's memory within 20 MB, live and from the cache."""
    warm = 20
    with serve_simulator() as simulator:
        simulator.rule(lambda request: f"An answer to **{request.prompt}**, with `code`.")
        output(kernel.run(SETUP.format(environ={**simulator.environ(), "LLMNB_HOME": str(llmnb_home)})))
        printed = output(kernel.run(MANY.format(warm=warm, asks=asks)))
    live, cached, most, left, known, alive, *megabytes = map(float, printed.split())
    assert (live, cached) == (asks - warm, asks + warm)
    assert most == 8  # views and their layouts
    assert (left, known, alive) == (0, 0, 0)
    assert max(megabytes) < 20, printed
