"""Batches of the same rows at another address: another run, as its answers may be others, and one that is paid as well.

A run is told from others by its address, too. So who moves to another server, or sets the variable for it in one kernel
and forgets it in the next, has the rows asked there anew. That is right, and it is said: the batch at the first address
goes on, and costs what it costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmnb.jobs.asking import Row
from llmnb.jobs.batches.manifest import Manifest
from llmnb.jobs.batches.notes import Note, noted
from llmnb.trouble import LlmnbWarning, quietly, warn_user

if TYPE_CHECKING:
    from llmnb.jobs.mapping import Job
    from llmnb.settings import Settings


class Elsewhere:
    """Batches of one run's rows at other addresses. `run_id_at` is what the run would be called at an address."""

    def __init__(self, settings: Settings, server: str, run_id_at: Callable[[str], str]) -> None:
        self._settings, self._server, self._run_id_at = settings, server, run_id_at
        self._said: set[str] = set()

    def say(self, keys: Iterable[bytes]) -> None:
        """Warns of rows that are about to be sent and that a batch at another address holds, once for each batch.

        `keys` are theirs, which are looked at only where there is such a batch.
        """
        held = self.held()
        if not held:
            return
        rows: Counter[str] = Counter()
        for key in keys:
            for note, waiting in held:
                if key in waiting:
                    waiting.remove(key)  # rows that ask the same are one
                    rows[note.name] += 1
        for note, _ in held:
            if rows[note.name]:
                self._said.add(note.name)
                self.warn(note, f"{rows[note.name]:,} of these rows")

    def held(self) -> list[tuple[Note, set[bytes]]]:
        """The batches at other addresses that were not warned of yet, and the keys of the rows in each."""
        try:
            notes = [one for one in noted(self._settings) if one.name not in self._said and self._is_of_this_run(one)]
            return [(note, _keys(note)) for note in notes]
        except Exception as trouble:
            quietly("looking for batches of the same rows at another address", trouble, but="the rows are sent")
            return []

    def warn(self, note: Note, rows: str) -> None:
        """Says that this batch holds these rows."""
        warn_user(self._told(note, rows), LlmnbWarning)

    def _is_of_this_run(self, note: Note) -> bool:
        is_there = note.is_open and (note.is_whole or note.stage != "intended")
        return is_there and note.server not in ("", self._server) and self._run_id_at(note.server) == note.run_id

    def _told(self, note: Note, rows: str) -> str:
        name = note.id or note.name
        state = "has ended, and its results were not read" if note.stage == "ended" else "was sent"
        return (
            f"{rows} are in a batch at another address already: {name} at {note.server} {state}. They "
            f"are now asked, and paid, at {self._server} as well. To have the answers of that batch, set "
            f"ANTHROPIC_BASE_URL (or base_url=) to {note.server} and run the same call; `llmnb batches show {name}` "
            f"says how far it is, `llmnb batches cancel {name}` ends it."
        )


class OneByOne:
    """The prompts of rows that are asked one by one, and the same warning when the first is that such a batch holds.

    How many there are is not known before all have been made, which can take as long as the run: a person's function
    makes them, or an iterator. So nothing is done ahead, and what a batch holds is read in the thread that makes them.
    """

    def __init__(self, job: Job) -> None:
        self._prompts = job.prompts()
        self._elsewhere = Elsewhere(job.settings, job.server, lambda server: replace(job, server=server).run_id)
        self._held: list[tuple[Note, set[bytes]]] = []

    def __iter__(self) -> Iterator[Any]:
        self._held = self._elsewhere.held()
        yield from self._prompts

    def seen(self, row: Row) -> Row:
        """The row, of which it is said if a batch holds it: it is about to be asked."""
        for one in [one for one in self._held if row.key in one[1]] if self._held else ():
            self._held.remove(one)
            self._elsewhere.warn(one[0], "Rows of this run")
        return row


def _keys(note: Note) -> set[bytes]:
    manifest = Manifest(note.requests_path)
    try:
        return set(manifest)
    finally:
        manifest.close()
