"""How often a stream is looked at: hardly while it is fast, and in time when it is slow, or gets slower."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from llmnb.messages import wire
from llmnb.middleware import watch as watch_room
from llmnb.middleware.watch import BodyWatch

START = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5",\
"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

"""
WORD = b"""event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}

"""


class Row:
    """The entry of a call, as far as a watch needs it: when it was brought up to date."""

    model_requested = "claude-sonnet-5-5"
    saw_first_token = False

    def __init__(self) -> None:
        self.told = 0

    def first_token(self) -> None:
        """There is one."""
        self.saw_first_token = True

    def progressed(self, outcome: wire.Outcome) -> None:
        """Counts how often."""
        self.told += 1


def test_looks_keep_up_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand chunks in a second need few looks; then one comes every two seconds, and its row is told of it."""
    now, row, looks, wait = 100.0, Row(), 0, 1
    monkeypatch.setattr(watch_room, "time", SimpleNamespace(monotonic=lambda: now))
    entry: Any = row
    watch, chunks = BodyWatch(entry, None, httpx2.Response(200)), list[bytes]()

    def came(chunk: bytes, after_s: float) -> None:
        nonlocal now, looks, wait
        now += after_s
        chunks.append(chunk)
        wait -= 1
        if not wait:
            wait = watch.look(chunks)
            looks += 1

    came(START, 1.0)
    for _ in range(60):
        came(WORD, 1 / 30)
    slow_looks = looks
    assert wait <= 30
    for _ in range(1_000):
        came(WORD, 1 / 1_000)
    assert looks - slow_looks < 15
    while wait > 1:  # those of the fast stretch
        came(WORD, 2.0)
    came(WORD, 2.0)
    told, looks = row.told, 0
    for _ in range(10):
        came(WORD, 2.0)
    assert looks == 10
    now += 10_000.0
    came(WORD, 2.0)
    assert row.told > told
