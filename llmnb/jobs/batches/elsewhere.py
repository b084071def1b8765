"""Batches of the same rows at another address: another run, as its answers may be others, and one that is paid as well.

A run is told from others by its address, too. So who moves to another server, or sets the variable for it in one kernel
and forgets it in the next, has the rows asked there anew. That is right, and it is said: the batch at the first address
goes on, and costs what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmnb.jobs.batches.manifest import Manifest
from llmnb.jobs.batches.notes import Note, noted
from llmnb.trouble import LlmnbWarning, quietly, warn_user

if TYPE_CHECKING:
    from llmnb.settings import Settings


class Elsewhere:
    """Batches of one run's rows at other addresses. `run_id_at` is what the run would be called at an address."""

    def __init__(self, settings: Settings, server: str, run_id_at: Callable[[str], str]) -> None:
        self._settings, self._server, self._run_id_at = settings, server, run_id_at
        self._said: set[str] = set()

    def say(self, keys: Iterable[bytes]) -> None:
        """Warns of rows that are about to be sent and that a batch at another address holds, once for each batch."""
        try:
            wanted = frozenset(keys)
            for note in noted(self._settings):
                if note.name not in self._said and self._is_of_this_run(note) and (rows := _rows(note, wanted)):
                    self._said.add(note.name)
                    warn_user(self._told(note, rows), LlmnbWarning)
        except Exception as trouble:
            quietly("looking for batches of the same rows at another address", trouble, but="the rows are sent")

    def _is_of_this_run(self, note: Note) -> bool:
        is_there = note.is_open and (note.is_whole or note.stage != "intended")
        return is_there and note.server not in ("", self._server) and self._run_id_at(note.server) == note.run_id

    def _told(self, note: Note, rows: int) -> str:
        name = note.id or note.name
        state = "has ended, and its results were not read" if note.stage == "ended" else "was sent"
        return (
            f"{rows:,} of these rows are in a batch at another address already: {name} at {note.server} {state}. They "
            f"are now asked, and paid, at {self._server} as well. To have the answers of that batch, set "
            f"ANTHROPIC_BASE_URL (or base_url=) to {note.server} and run the same call; `llmnb batches show {name}` "
            f"says how far it is, `llmnb batches cancel {name}` ends it."
        )


def _rows(note: Note, wanted: frozenset[bytes]) -> int:
    manifest = Manifest(note.requests_path)
    try:
        return sum(key in wanted for key in manifest)
    finally:
        manifest.close()
