"""The times at which live views are drawn."""

from __future__ import annotations

import threading
from itertools import islice

import pytest

from llmnb.display import pace


def test_keyframe_times() -> None:
    """Early, for front ends that missed the first messages, then at each doubling, or less often."""
    assert list(islice(pace.keyframe_times(), 7)) == [0.15, 0.5, 1, 2, 4, 8, 16]
    assert list(islice(pace.keyframe_times(4), 6)) == [0.15, 0.5, 1, 4, 16, 64]


def test_frames_come_at_their_pace() -> None:
    """At least fifteen a second, also where each is drawn a little late; fewer only where they are dear to draw."""
    now = due = 100.0
    for _ in range(150):
        now = due + 0.004
        due = pace.next_frame(due, now, 0.001)
    assert 15 <= 150 / (now - 100) < 16
    assert pace.next_frame(due, due, 0.1) == due + 0.5
    assert pace.next_frame(0.0, now, 0.001) == now + pace.FRAME_S  # the first after a pause


def test_an_alarm_rings_in_order_and_from_one_thread() -> None:
    """Calls come in the order of their times, all from the same daemon thread."""
    rung: list[tuple[str, str]] = []
    over = threading.Event()
    alarm = pace.Alarm(clock=lambda: 100.0)
    with alarm._changed:  # so that none rings before all are set
        alarm.at(3, over.set)
        for name, when in (("b", 2.0), ("a", 1.0)):
            alarm.at(when, lambda name=name: rung.append((name, threading.current_thread().name)))
    assert over.wait(10)
    assert rung == [("a", "llmnb-display"), ("b", "llmnb-display")]


def test_an_idle_alarm_lets_its_thread_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without appointments the thread ends, and the next appointment starts another."""
    monkeypatch.setattr(pace, "IDLE_S", 0.001)
    alarm = pace.Alarm()
    for _ in range(2):
        rung = threading.Event()
        alarm.at(0, rung.set)
        assert rung.wait(10)
        thread = alarm._thread
        if thread is not None:
            thread.join(10)
        assert alarm._thread is None
