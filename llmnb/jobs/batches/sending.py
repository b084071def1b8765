"""Sends requests as batches: packed up to the limits, noted before they go, and never twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmnb.budgeting.bound import Bound
from llmnb.jobs.batches import service
from llmnb.jobs.batches.holding import Holding, Needed
from llmnb.jobs.batches.manifest import Entry
from llmnb.jobs.batches.notes import Note, Notes, noted
from llmnb.jobs.batches.service import Lost, Service
from llmnb.settings import Settings
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

_AROUND_BYTES = 64
"""What a request has around its parameters: its id, and the names of both."""


@dataclass
class Packing:
    """The requests of the next batch. `most_nanousd` is None where a request has no price, or nobody counted."""

    entries: list[Entry] = field(default_factory=list[Entry])
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: dict[str, Any] = field(default_factory=dict[str, Any])
    needed: Needed = field(default_factory=Needed)
    most_nanousd: int | None = 0
    size: int = 0

    def has_room(self, size: int) -> bool:
        """Whether one more request of that size fits."""
        within = self.size + size + _AROUND_BYTES <= service.MOST_BYTES
        return not self.entries or (within and len(self.entries) < service.MOST_REQUESTS)

    def add(self, entry: Entry, body: dict[str, Any], size: int, headers: dict[str, Any], bound: Bound | None) -> None:
        """One more request; headers are those of all of them."""
        self.entries.append(entry)
        self.requests.append({"custom_id": entry.key.hex(), "params": body})
        self.headers = headers
        self.size += size + _AROUND_BYTES
        most = None if bound is None else bound.take("usd", bound.most_output_tokens)
        self.most_nanousd = None if most is None or self.most_nanousd is None else self.most_nanousd + most
        if bound is not None:
            self.needed.add(bound)


class Sender:
    """Sends the batches of one run. `doing` is told what goes on."""

    def __init__(
        self, notes: Notes, api: Service, holding: Holding, settings: Settings, doing: Callable[[str], None]
    ) -> None:
        self._notes, self._api, self._holding, self._settings, self._doing = notes, api, holding, settings, doing

    async def send(self, packing: Packing, **facts: Any) -> Note:
        """Sends a batch, and gives its note.

        Raises:
            BudgetExceeded, UnknownPrice: a budget does not allow it; nothing was sent.
            StoreError: it cannot be noted; nothing was sent.
            anthropic.APIError: the API did not take it, or cannot be reached.
        """
        if not self._notes.all:
            await self._api.check(packing.requests[0]["params"])
        for left in reversed(range(service.LOST_TRIES)):
            note = self._notes.intend(
                (entry.line() for entry in packing.entries),
                before=await self._api.newest(),
                intended=service.clock.now(),
                requests=len(packing.entries),
                most_nanousd=packing.most_nanousd,
                **facts,
            )
            self._doing(f"sending {note.requests:,} requests")
            try:
                await self._holding.hold(note.name, packing.needed, service.sleep)
                made = await self._api.send(packing.requests, packing.headers)
            except Lost as lost:
                if await self.settle(note):
                    return self._notes.all[note.name]
                if not left:
                    raise lost.error from None
            except Exception:  # it was refused: it never was there
                self.drop(note)
                raise
            else:
                return self.tell(note, **service.facts_of(made))
        raise AssertionError("the last try returns or raises")

    async def settle(self, note: Note) -> bool:
        """Finds out whether a batch whose sending was cut off has arrived; if not, its rows are free to be sent.

        Whether it is the right one is only known when it has ended; if not, it is looked for again.
        """
        while True:
            self._doing("looking for a batch that may have been sent")
            taken = {one.id for one in noted(self._settings) if one.id is not None} | set(note.strangers)
            found = await self._api.find(note, taken)
            if found is None:
                self.drop(note)
                return False
            ended = found.processing_status == "ended"
            if not ended or await self.is_ours(note, found.id):
                self.tell(note, **service.facts_of(found), is_certain=ended)
                return True
            note = self.tell(note, strangers=(found.id,))

    async def is_ours(self, note: Note, batch_id: str) -> bool:
        """Whether the batch at the API, which has ended, is the one that was noted."""
        first = await self._api.first_row(batch_id)
        with note.requests_path.open("rb") as file:
            return any(line[2:34].decode() == first for line in file)

    def drop(self, note: Note) -> None:
        """The batch was not sent."""
        self.end(note, "dropped")
        self._holding.let_go(note.name)

    def end(self, note: Note, stage: str) -> None:
        """All is done with a batch. Its requests are kept until that is on disk: a note without them helps nobody."""
        try:
            self._notes.tell(note, stage=stage)
        except OSError as trouble:
            quietly("noting that a batch is done with", trouble, but="its results are read again the next time")
        else:
            note.requests_path.unlink(missing_ok=True)

    def tell(self, note: Note, **facts: Any) -> Note:
        """Notes something of a batch; when the disk refuses, one warning says so."""
        try:
            return self._notes.tell(note, **facts)
        except OSError as trouble:
            quietly("noting what became of a batch", trouble, but="it is looked for at the API the next time")
            return self._notes.all[note.name]
