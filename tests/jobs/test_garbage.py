"""Python looks for garbage less often while a run asks, and as before when it is over."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

import llmnb
from llmnb.jobs import garbage
from llmnb.jobs.garbage import OBJECTS, looked_for_less_often
from llmnb.simulator import Simulator


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(garbage, "_runs", 0)  # one that a test has left behind may be under way
    before = gc.get_threshold()
    gc.set_threshold(700)
    yield
    gc.set_threshold(*before)


def test_runs_within_one_another() -> None:
    """The last to end sets it back, however it ends; how often older objects are looked at is left alone."""
    before = gc.get_threshold()
    with looked_for_less_often():
        with pytest.raises(ZeroDivisionError), looked_for_less_often():
            raise ZeroDivisionError
        assert gc.get_threshold() == (OBJECTS, *before[1:])
    assert gc.get_threshold() == before


@pytest.mark.parametrize("mine", [0, OBJECTS * 5])
def test_what_the_user_has_set_counts(mine: int) -> None:
    """Never, or less often still, is left as it is."""
    gc.set_threshold(mine)
    with looked_for_less_often():
        assert gc.get_threshold()[0] == mine
    assert gc.get_threshold()[0] == mine


def test_what_is_set_meanwhile_stays() -> None:
    """Whoever sets it during a run means it to last."""
    with looked_for_less_often():
        gc.set_threshold(900)
    assert gc.get_threshold()[0] == 900


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child() -> None:
    """It has none of its parent's runs, also when it leaves what was begun there; its own are as ever."""
    before, is_right = gc.get_threshold(), False
    with looked_for_less_often():
        if not (child := os.fork()):
            try:
                is_right = gc.get_threshold() == before
                with looked_for_less_often():
                    is_right &= gc.get_threshold()[0] == OBJECTS
                is_right &= gc.get_threshold() == before
                garbage._end()
                with looked_for_less_often():
                    is_right &= gc.get_threshold()[0] == OBJECTS
            finally:
                os._exit(not is_right)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert gc.get_threshold()[0] == OBJECTS


def test_a_run(sim: Simulator) -> None:
    """While rows are asked, and no longer, though one of them has failed."""
    seen: list[int] = []

    def answer(request: object) -> str:
        seen.append(gc.get_threshold()[0])
        return "fine"

    sim.rule(answer)
    llmnb.LLM(cache=False).map(["a", "b"], "Say {{ value }}")
    assert seen == [OBJECTS] * 2
    assert gc.get_threshold()[0] == 700
