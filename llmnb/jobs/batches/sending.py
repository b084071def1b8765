"""Sends requests as batches: packed up to the limits, noted before they go, and never twice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmnb.budgeting.bound import Bound
from llmnb.errors import StoreError
from llmnb.jobs.batches import service
from llmnb.jobs.batches.holding import Holding, Needed
from llmnb.jobs.batches.manifest import Entry
from llmnb.jobs.batches.notes import Note, Notes, noted
from llmnb.jobs.batches.service import Lost, NotSent, Service
from llmnb.settings import Settings
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic.types.messages import MessageBatch

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
        wait_s = service.FIRST_POLL_S
        for left in reversed(range(service.LOST_TRIES)):
            note = self._notes.intend(
                (entry.line() for entry in packing.entries),
                before=await self._api.newest(),
                intended=service.clock.now(),
                requests=len(packing.entries),
                most_nanousd=packing.most_nanousd,
                is_whole=False,
                **facts,
            )
            try:
                await self._holding.hold(note.name, packing.needed, service.sleep)
                return self.tell(note, **service.facts_of(await self._sent(note, packing)))
            except Lost as lost:
                note = self.tell(note, cut_off=f"{type(lost.error).__name__}: {lost.error}"[:200])
                if not lost.is_refused or await self._settle(note):
                    return self._notes.all[note.name]
                if not left:
                    raise lost.error from None
            except NotSent as failed:
                self.drop(note)
                if not left or isinstance(failed.error, StoreError):
                    raise failed.error from None
                self._doing("the API cannot be reached just now")
                await service.sleep(wait_s)
                wait_s *= 2
            except Exception:  # it was refused: it never was there
                self.drop(note)
                raise
            except asyncio.CancelledError:  # a person stopped it
                if not self._notes.all[note.name].is_whole:
                    self.drop(note)
                raise
        raise AssertionError("the last try returns or raises")

    async def _sent(self, note: Note, packing: Packing) -> MessageBatch:
        """Sends it; a rate limit, which refuses it for certain, is waited for."""
        from anthropic import RateLimitError

        wait_s = service.FIRST_POLL_S
        while True:
            self._doing(f"sending {note.requests:,} requests")
            try:
                return await self._api.send(packing.requests, packing.headers, lambda: self._notes.is_whole(note))
            except RateLimitError as error:
                self.tell(note, is_whole=False)
                self._doing("waiting for the limits of the API, which takes no more batches just now")
                await service.sleep(service.told_wait_s(error) or wait_s)
                wait_s = min(wait_s * 2, service.LONGEST_POLL_S)

    async def _settle(self, note: Note) -> bool:
        """Whether a batch has arrived to which the API answered that it failed; if not, its rows are free again."""
        until = service.clock.now() + service.REFUSED_S
        while not await self.is_found(note):
            if service.clock.now() >= until:
                self.drop(note)
                return False
            await service.sleep(service.LOOK_S)
        return True

    async def is_found(self, note: Note) -> bool:
        """Looks once whether a batch whose sending was cut off is at the API.

        Whether it is the right one is only known when it has ended; if not, it is looked for again.
        """
        while True:
            self._doing("looking for a batch whose sending was cut off")
            taken = {one.id for one in noted(self._settings) if one.id is not None} | set(note.strangers)
            found = await self._api.find(note, taken)
            if found is None:
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
