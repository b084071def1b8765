"""A run whose rows are asked in message batches, at half the price.

It goes round until no row is left: what is known of the run's batches is read, results of those that have ended become
rows, the rows that are in no batch are sent, and the batches are waited for. Only the waiting is done without the run's
lock, so that of several kernels with the same run one sends and one reads, and all of them wait. Whatever moment it is
killed at, the next time begins with what is on disk (see `notes`).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from llmnb.asking.extraction import Extraction
from llmnb.jobs.asking import Outcome, Row
from llmnb.jobs.batches import service
from llmnb.jobs.batches.choice import durations
from llmnb.jobs.batches.elsewhere import Elsewhere
from llmnb.jobs.batches.holding import Holding
from llmnb.jobs.batches.manifest import Entry, Manifest, body_of, headers_of
from llmnb.jobs.batches.notes import Note, Notes, noted
from llmnb.jobs.batches.sending import Packing, Sender
from llmnb.jobs.batches.service import Service
from llmnb.jobs.batches.status import BatchStatus
from llmnb.jobs.batches.taking import Taking, half_nanousd
from llmnb.jobs.batches.upload import encoded
from llmnb.jobs.run import Run, Status
from llmnb.locks import try_lock
from llmnb.middleware.batch_results import BatchFacts, remember, row_uid
from llmnb.records import NANO, Call, Ended, calling

if TYPE_CHECKING:
    from anthropic.types.messages import MessageBatch

    from llmnb.asking.params import Plan
    from llmnb.asking.question import Question
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.results import Results

_LOCK = "batches.lock"
_LOCK_PAUSE_S = 0.2
AGAIN = 1
"""How often a request that expired, or failed on the API's side, is sent again by itself."""
_YIELDS_EVERY = 50
_LARGEST_ROW_BYTES = 32_000_000
"""The API takes no larger request (its documentation, "Errors": request_too_large)."""


class BatchRun(Run):
    """The work of one call of `map` with via="batch"."""

    def __init__(self, job: Job, plan: Plan, results: Results, **options: Any) -> None:
        def question(row: Row) -> Question:
            return job.question(row, plan)

        super().__init__(job.prompts(), job.source.count, results, question, concurrency=1, **options)
        self._job, self._plan = job, plan
        self._settings = job.settings
        self._caches = job.settings.cache != "off" and plan.ledger["caching"].use is not False
        shape = job.shape
        asked = question(Row(b"", ""))
        if shape is not None:
            asked = Extraction(asked, shape, self._retries).question
        self._taking = Taking(asked, shape, self._retries, job.settings)
        self._in: dict[bytes, str] = {}  # the batch that a row waits for
        self._heard: set[str] = set()  # batches whose results were read here
        self._lost: set[str] = set()  # those of which nobody knows whether they were sent
        self._looked_since: dict[str, float] = {}
        self._batch_counts: Counter[str] = Counter()
        self._half_nanousd = 0
        self._unknown_nanousd = 0  # what answers may have cost whose cost is not known
        self._doing = ""
        self._usual_s = max(durations(noted(job.settings)), default=None)
        self.notes = Notes(job.folder)
        self._elsewhere = Elsewhere(job.settings, job.server, lambda server: replace(job, server=server).run_id)

    @property
    def status(self) -> Status:
        """How far it is now."""
        told = super().status
        told_so_far: dict[str, Any] = {one.name: getattr(told, one.name) for one in fields(told)}
        sent = self._waiting()
        since = min((note.created for note in sent if note.created), default=None)
        return BatchStatus(
            **told_so_far,
            waiting=tuple(note.id for note in sent if note.id),
            sent=sum(note.requests for note in sent if note.id),
            succeeded=self._batch_counts["succeeded"],
            errored=self._batch_counts["errored"],
            expired=self._batch_counts["expired"],
            canceled=self._batch_counts["canceled"],
            waited_s=0.0 if since is None else max(0.0, service.clock.now() - since),
            usual_s=self._usual_s,
            ends_by=max((note.expires for note in sent if note.expires), default=None),
            half_nanousd=self._half_nanousd,
            doing=self._doing,
        )

    @property
    def way_back(self) -> str:
        """What a person who stops waiting should know."""
        ids = [note.id for note in self._waiting() if note.id]
        if not ids:
            return " A batch was being sent: the same call finds out whether it was." if self._waiting() else ""
        they, them = ("The batches go", "them") if len(ids) > 1 else ("The batch goes", "it")
        return (
            f" {they} on at the API: the same call waits for {them} again and sends nothing twice. To end {them}: "
            f"llmnb batches cancel {' '.join(ids)}"
        )

    def _waiting(self) -> list[Note]:
        names = set(self._in.values())
        return [note for note in self.notes.open if note.name in names]

    async def work(self) -> AsyncGenerator[Status]:
        """Does all of it, and tells now and then how far it is. What is finished stays, and so does what was sent.

        Raises:
            Exception: what makes all rows fail, such as a missing key; or the first error, if errors are to be raised.
        """
        try:
            for step in (self._look_through, self._round):
                async for status in self._at_work([step()]):
                    yield status
            while self._in:
                for step in (self._wait, self._round):
                    async for status in self._at_work([step()]):
                        yield status
        finally:
            self._doing = ""
            self._ahead.close()
            self._results.close()

    # One round --------------------------------------------------------------------------------------------------------

    async def _look_through(self) -> None:
        """Finds out which rows are not finished."""
        while await self._next() is not None:
            pass
        self._see_the_end()

    async def _round(self) -> None:
        with calling(**self._plan.ledger):
            client = self._job.access.here()
            api, holding = Service(client), Holding(client, self._plan.model)
            async with self._alone():
                self.notes.read()
                for key in self._results.catch_up():
                    self._finished_elsewhere(key)
                sender = Sender(self.notes, api, holding, self._settings, self._does)
                for note in self.notes.open:
                    await self._look_at(note, sender, api, holding)
                self._in = self._covered()
                if len(self._in) < len(self._asking):
                    await self._send_the_rest(sender, holding)
                self._close(sender)
            self._does("")

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Holds the run's lock, which dies with the process."""
        self._job.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._job.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not try_lock(descriptor):
                self._does("another kernel is at this run's batches")
                await asyncio.sleep(_LOCK_PAUSE_S)
            self._does("")
            yield
        finally:
            os.close(descriptor)

    def _does(self, doing: str) -> None:
        self._doing = doing

    def _covered(self) -> dict[bytes, str]:
        """The rows that wait for batches whose results have not been read here."""
        found: dict[bytes, str] = {}
        for note in self.notes.open:
            if note.name not in self._heard:
                manifest = Manifest(note.requests_path)
                found |= {key: note.name for key in manifest if key in self._asking}
                manifest.close()
        return found

    def _close(self, sender: Sender) -> None:
        """Notes of batches that no row waits for any more that all is done with them."""
        for note in self.notes.open:
            if note.name not in self._heard:
                continue
            manifest = Manifest(note.requests_path)
            is_done = not any(key in self._asking for key in manifest)
            manifest.close()
            if is_done and self._results.is_saved():  # else the batch is all that knows what its rows became
                sender.end(note, "read")

    # Sending ----------------------------------------------------------------------------------------------------------

    async def _send_the_rest(self, sender: Sender, holding: Holding) -> None:
        """Sends the rows that are in no batch, as many at a time as the limits take."""
        purse = self._money()
        counts_money = purse is not None or holding.is_asked
        packing, passed = Packing(), set[bytes]()
        for number, prompt in enumerate(self._prompts):
            if number % _YIELDS_EVERY == 0:
                await asyncio.sleep(0)
            row = self._wanted(prompt, number, passed)
            if row is None:
                continue
            question = await self._taking.next_question(row.key, self._question(row))
            if isinstance(question, Outcome):  # the response cache had all of it
                self._finish(row, question)
                continue
            body = body_of(question)
            try:
                size = len(encoded(body))
            except (TypeError, ValueError) as error:  # such as half a character, which the API would not take
                self._leave(row, f"not asked: {type(error).__name__}: {error}")
                continue
            if size > _LARGEST_ROW_BYTES:
                self._leave(row, f"not asked: {size:,} bytes are more than the API takes")
                continue
            bound = holding.bound(body) if counts_money else None
            if purse is not None:
                most = None if bound is None else bound.take("usd", bound.most_output_tokens)
                if most is None or most > purse:
                    if most is None or not (
                        self._in or packing.entries
                    ):  # else there may be more when those have ended
                        self._leave(row, self._no_money(most))
                    continue
                purse -= most
            if not packing.has_room(size):
                await self._send(packing, sender)
                packing = Packing()
            packing.add(Entry.of(row, question, body, cached=self._caches), body, size, headers_of(question), bound)
        if packing.entries:
            await self._send(packing, sender)

    async def _send(self, packing: Packing, sender: Sender) -> None:
        self._elsewhere.say(entry.key for entry in packing.entries)
        note = await sender.send(
            packing,
            model=self._plan.model,
            server=self._job.server,
            project=self._plan.ledger.get("project") or self._settings.project,
        )
        self._in |= {entry.key: note.name for entry in packing.entries}

    def _wanted(self, prompt: Any, number: int, passed: set[bytes]) -> Row | None:
        """The row of a prompt, if it is to be sent, in no batch, and none that asks the same has been passed."""
        try:
            row = None if isinstance(prompt, Exception) else Row.of(prompt, number)
        except Exception:  # it was refused when the rows were looked through
            return None
        if row is None or row.key not in self._asking or row.key in self._in or row.key in passed:
            return None
        passed.add(row.key)
        return row

    def _money(self) -> int | None:
        """What is left of `budget_usd` for rows that are in no batch, in nano-dollars."""
        if self._job.budget_usd is None:
            return None
        left = int(self._job.budget_usd * NANO) - self._results.spent_nanousd - self._unknown_nanousd
        for note in self.notes.open:
            if note.name not in self._heard:
                left -= left if note.most_nanousd is None else note.most_nanousd
        return left

    def _no_money(self, most: int | None) -> str:
        if most is None:
            return (
                f"not asked: budget_usd wants the price of a batch, and none is known for {self._plan.model}: set one"
            )
        return f"not asked: it could cost more than is left of budget_usd={self._job.budget_usd}"

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until a batch that rows wait for has ended."""
        from anthropic import APIConnectionError, APIStatusError

        pause_s = service.FIRST_POLL_S
        with calling(**self._plan.ledger):
            api = Service(self._job.access.here())
            if any(note.id is None for note in self._waiting()):
                self._does("looking for a batch whose sending was cut off, so that nothing is sent twice")
                await service.sleep(service.LOOK_S)
                return
            while True:
                told_s = 0.0
                for note in self._waiting():
                    try:
                        shown = await api.look(str(note.id))
                        if shown.processing_status == "ended":
                            return
                    except (APIConnectionError, APIStatusError) as error:  # the batch goes on all the same
                        service.raise_final(error, note)
                        self._does("the API cannot be reached just now")
                        told_s = max(told_s, service.told_wait_s(error) or 0.0)
                    else:
                        self._does("it is being cancelled" if shown.processing_status == "canceling" else "")
                await service.sleep(max(pause_s, told_s))
                pause_s = min(pause_s * service.POLL_GROWTH, service.LONGEST_POLL_S)

    # Results ----------------------------------------------------------------------------------------------------------

    async def _look_at(self, note: Note, sender: Sender, api: Service, holding: Holding) -> None:
        """Finds a batch that was lost, and reads the results of one that has ended, unless this run has done so."""
        from anthropic import APIConnectionError, APIStatusError

        if note.name in self._heard or note.name in self._lost:
            return
        if note.stage == "intended" and not note.is_whole:
            sender.drop(note)
            return
        try:
            if note.stage == "intended" and not await sender.is_found(note):
                self._give_up_in_time(note)
                return
            note = self.notes.all[note.name]
            shown = await api.look(str(note.id))
        except (APIConnectionError, APIStatusError) as error:  # it is waited for, and looked at again
            service.raise_final(error, note)
            return
        if shown.processing_status != "ended":
            return
        if shown.results_url is None:
            raise service.no_longer_kept(note)
        if not note.is_certain and not await sender.is_ours(note, shown.id):
            note = sender.tell(note, stage="intended", id=None, strangers=(shown.id,))
            await self._look_at(note, sender, api, holding)
            return
        await self._read(note, shown, api)
        sender.tell(note, **service.facts_of(shown), is_certain=True)
        holding.let_go(note.name)
        self._heard.add(note.name)

    def _give_up_in_time(self, note: Note) -> None:
        """Leaves the rows of a batch that the API should have shown by now, had it arrived: a person has to judge."""
        now = service.clock.now()
        since = self._looked_since.setdefault(note.name, now)  # for a clock that was set back
        if max(now - note.intended, now - since) < service.SETTLED_S:
            return
        told = service.unknown(note)
        manifest = Manifest(note.requests_path)
        for key in manifest:
            if key in self._asking:
                self._leave(Row(key, ""), told)
        manifest.close()
        self._lost.add(note.name)

    async def _read(self, note: Note, shown: MessageBatch, api: Service) -> None:
        self._does(f"reading the results of {shown.id}")
        remember(shown.id, BatchFacts(round(shown.created_at.timestamp() * 1e6), note.model))
        manifest, heard = Manifest(note.requests_path), dict[str, tuple[Call, ...]]()

        def hear(ended: Ended) -> None:
            heard[ended.rows[0].uid] = ended.rows

        seen: set[bytes] = set()
        try:
            with calling(on_end=hear):
                async with aclosing(api.results(shown.id)) as lines:
                    async for line in lines:
                        key = bytes.fromhex(line["custom_id"])
                        rows = heard.pop(row_uid(shown.id, line["custom_id"]), ())
                        if key in manifest and key not in seen:
                            seen.add(key)
                            self._take(shown.id, manifest.entry(key), line["result"], rows)
                            if self._is_unknown(key):
                                self._unknown_nanousd += (note.most_nanousd or 0) // note.requests
        finally:
            manifest.close()
            self._does("")

    def _take(self, batch_id: str, entry: Entry, result: dict[str, Any], rows: tuple[Call, ...]) -> None:
        """What one line of the results makes of its row, unless that is on disk."""
        self._batch_counts[str(result.get("type"))] += 1
        self._half_nanousd += half_nanousd(rows, self._settings)
        known = self._results.facts(entry.key)
        if known is not None and (known.get("batch") == batch_id or entry.key not in self._asking):
            self._finished_elsewhere(entry.key)
            return
        # nobody waits for a row that is no more in the frame: it is kept, and not sent again
        outcome = self._taking.outcome(entry, result, rows, AGAIN if entry.key in self._asking else -1)
        if outcome is None:
            return
        self._taking.trials.pop(entry.key, None)
        self._asking.setdefault(entry.key, 0)
        facts = {**outcome.facts, "batch": batch_id}
        self._finish(Row(entry.key, entry.beginning, None, entry.number), Outcome(_in_order(facts), outcome.error))

    def _is_unknown(self, key: bytes) -> bool:
        """Whether nobody knows what a row cost that was finished here."""
        if self._job.budget_usd is None or not self._results.is_new(key):
            return False
        facts = self._results.facts(key)
        return facts is not None and facts.get("cost_nanousd") is None

    def _finished_elsewhere(self, key: bytes) -> None:
        """A row was finished by another kernel, or by this run before it was killed."""
        rows = self._asking.pop(key, 0)
        self._in.pop(key, None)
        self._counts["done"] += rows
        self._counts["failed"] += rows * self._results.has_failed(key)

    def _look_for_hope(self, outcome: Outcome) -> None:
        """Nothing: a batch is asked as a whole."""


def _in_order(facts: dict[str, Any]) -> dict[str, Any]:
    """With the batch before what is counted, which lines of `Results` end with."""
    return {"batch": facts["batch"], **facts}
