"""What is said of a run whose rows are in message batches: what is waited for, until when, and what it saves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.jobs.batches.status import BatchStatus

_OUTCOMES = ("succeeded", "errored", "expired", "canceled")


def parts(status: BatchStatus, now: Callable[[], float] = time.time) -> list[str]:
    """What there is to say besides the rows, most important first."""
    told: list[str] = []
    if status.doing and not status.is_over:
        told.append(status.doing)
    if status.waiting:
        count = len(status.waiting)
        name = f"batch {status.waiting[0]}" if count == 1 else f"{count:,} batches"
        told.append(f"{status.sent:,} in progress in {name}{_since(status)}{_by(status, now())}")
    ended = [f"{count:,} {name}" for name in _OUTCOMES if (count := getattr(status, name))]
    if ended:
        told.append(", ".join(ended))
    if status.half_nanousd > 0:
        told.append(f"half the price saved ${status.half_nanousd / float(NANO):,.4f}")
    return told


def _since(status: BatchStatus) -> str:
    minutes = int(status.seconds // 60)
    return f", waited for {minutes:,} min" if minutes else ""


def _by(status: BatchStatus, now: float) -> str:
    if status.ends_by is None:
        return ""
    by = time.localtime(status.ends_by)
    day = "" if by.tm_yday == time.localtime(now).tm_yday else " tomorrow" if status.ends_by - now < 48 * 3600 else ""
    return f", at an end by {time.strftime('%H:%M', by)}{day} at the latest"
