"""via="auto": whether rows go live or into a batch, by when they are needed; and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmnb.asking.question import Question
from llmnb.jobs.batches.fitness import unfit
from llmnb.jobs.batches.notes import Note, Notes, noted
from llmnb.jobs.batches.service import POLL_GROWTH

if TYPE_CHECKING:
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.options import Via

LONGEST_S = 24 * 3600.0
"""No batch takes longer: what was not processed by then has expired (the API's documentation, "Batch processing")."""
ENOUGH = 3
"""So many batches of one's own say how long the next one takes."""
_LATEST = 20


def chosen(job: Job, within_s: float) -> tuple[Via, str]:
    """How the rows are to be asked to be there in time, at half the price where that can be relied on; and why."""
    if Notes(job.folder).open:
        return "batch", "batch: rows of this run are in a batch already"
    question = Question(job.plan, [], job.access, 1, routing=job.routing)
    if (why := unfit(question)) is not None:
        return "live", f"live: {why}"
    if within_s >= LONGEST_S:
        return "batch", "batch: every batch ends within 24 hours, at half the price"
    took = durations(noted(job.settings))
    slowest = max(took, default=0.0) * POLL_GROWTH
    if len(took) >= ENOUGH and slowest <= within_s:
        return "batch", f"batch: none of your last {len(took)} took longer than {_time(max(took))}, at half the price"
    yours = "batch" if len(took) == 1 else f"{len(took)} batches"
    past = f"your last {yours} took up to {_time(max(took))}" if took else "none of yours has ended yet"
    minutes = job.estimate().minutes
    if minutes is None or minutes * 60 <= within_s:
        about = "" if minutes is None else f"it takes about {_time(minutes * 60)}, and "
        return "live", f"live: {about}a batch might take up to 24 hours ({past})"
    return "batch", f"batch: live it would take about {_time(minutes * 60)}; most batches end within an hour ({past})"


def durations(notes: Iterable[Note]) -> list[float]:
    """How long the latest batches took, in seconds; those that expired are among them, cancelled ones are not."""
    ended = [note for note in notes if note.ended is not None and note.created is not None]
    ended = [note for note in ended if not note.counts.get("canceled")]
    ended.sort(key=lambda note: note.created or 0.0)
    return [(note.ended or 0.0) - (note.created or 0.0) for note in ended[-_LATEST:]]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
