"""Batches of the same rows at another address: another run, as its answers may be others, and one that is paid as well.

A run is told from others by its address, too. So who moves to another server, or sets the variable for it in one kernel
and forgets it in the next, has the rows asked there anew. That is right, and it is said: the batch at the first address
goes on, and costs what it costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llmnb.jobs.asking import Row
from llmnb.jobs.batches.manifest import Manifest
from llmnb.jobs.batches.notes import Note, noted
from llmnb.trouble import LlmnbWarning, quietly, warn_user

if TYPE_CHECKING:
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.results import Results
    from llmnb.settings import Settings


class Elsewhere:
    """Batches of one run's rows at other addresses. `run_id_at` is what the run would be called at an address."""

    def __init__(self, settings: Settings, server: str, run_id_at: Callable[[str], str]) -> None:
        self._settings, self._server, self._run_id_at = settings, server, run_id_at
        self._said: set[str] = set()

    def say(self, keys: Iterable[bytes] | None) -> None:
        """Warns of rows that are about to be sent and that a batch at another address holds, once for each batch.

        `keys` are theirs, which are looked at only where there is such a batch; None: they are not known yet.
        """
        try:
            notes = [one for one in noted(self._settings) if one.name not in self._said and self._is_of_this_run(one)]
            rows = None if keys is None or not notes else _rows(notes, keys)
            for note in notes:
                if rows is None or rows[note.name]:
                    self._said.add(note.name)
                    warn_user(self._told(note, None if rows is None else rows[note.name]), LlmnbWarning)
        except LlmnbWarning:
            raise
        except Exception as trouble:
            quietly("looking for batches of the same rows at another address", trouble, but="the rows are sent")

    def _is_of_this_run(self, note: Note) -> bool:
        is_there = note.is_open and (note.is_whole or note.stage != "intended")
        return is_there and note.server not in ("", self._server) and self._run_id_at(note.server) == note.run_id

    def _told(self, note: Note, rows: int | None) -> str:
        name = note.id or note.name
        state = "has ended, and its results were not read" if note.stage == "ended" else "was sent"
        some = "Rows of this run" if rows is None else f"{rows:,} of these rows"
        return (
            f"{some} are in a batch at another address already: {name} at {note.server} {state}. They "
            f"are now asked, and paid, at {self._server} as well. To have the answers of that batch, set "
            f"ANTHROPIC_BASE_URL (or base_url=) to {note.server} and run the same call; `llmnb batches show {name}` "
            f"says how far it is, `llmnb batches cancel {name}` ends it."
        )


def say_before_live(job: Job, results: Results, *, failed_again: bool) -> None:
    """The same of rows that are about to be asked one by one."""
    elsewhere = Elsewhere(job.settings, job.server, lambda server: replace(job, server=server).run_id)
    # what an iterator gives is not waited for
    elsewhere.say(None if job.source.count is None else _left(job, results, failed_again=failed_again))


def _left(job: Job, results: Results, *, failed_again: bool) -> Iterator[bytes]:
    """The keys of the rows that are not finished."""
    fresh = job.plan.ledger["caching"].fresh
    for prompt in job.prompts():
        with suppress(Exception):  # it will be that row's error
            key = Row.of(prompt).key
            if fresh or not results.has(key, but_failed=failed_again):
                yield key


def _rows(notes: Iterable[Note], keys: Iterable[bytes]) -> Counter[str]:
    """How many of the rows are in each of these batches."""
    held: dict[str, set[bytes]] = {}
    for note in notes:
        manifest = Manifest(note.requests_path)
        held[note.name] = set(manifest)
        manifest.close()
    rows: Counter[str] = Counter()
    for key in keys:
        for name, waiting in held.items():
            if key in waiting:
                waiting.remove(key)  # rows that ask the same are one
                rows[name] += 1
    return rows
