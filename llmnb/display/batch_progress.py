"""What is said of a run whose rows are in message batches: what is waited for, until when, and what it saves."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from llmnb.display.footer import dollars
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
        told.append(f"half the price: {dollars(status.half_nanousd / Decimal(NANO))} saved")
    return told


def note(status: BatchStatus) -> str:
    """What a person wants to know of a batch that is waited for: what it costs, and what may be closed or stopped."""
    if not status.waiting or status.is_over:
        return ""
    many = len(status.waiting) > 1
    they, go, them = ("the batches", "go", "them") if many else ("the batch", "goes", "it")
    return (
        f"Half the price of live calls. You can close this notebook or stop its kernel: {they} {go} on at the API, and "
        f"this cell, run again, waits for {them} again and pays nothing twice. Stop ends the waiting only; to end "
        f"{them}: llmnb batches cancel {' '.join(status.waiting)}"
    )


def _since(status: BatchStatus) -> str:
    minutes = int(status.waited_s // 60)
    usual = "most end within an hour"
    if status.usual_s is not None:
        usual = f"yours took {max(1, round(status.usual_s / 60)):,} min at most"
    return f", sent {minutes:,} min ago ({usual})" if minutes else f" ({usual})"


def _by(status: BatchStatus, now: float) -> str:
    if status.ends_by is None:
        return ""
    by = time.localtime(status.ends_by)
    day = "" if by.tm_yday == time.localtime(now).tm_yday else " tomorrow" if status.ends_by - now < 48 * 3600 else ""
    return f", at an end by {time.strftime('%H:%M', by)}{day} at the latest"
