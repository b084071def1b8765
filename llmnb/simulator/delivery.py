"""One reply on its way: as a whole or as a stream, at its pace, with its fault, onto the books when it is over."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmnb.simulator.answer import Answer, Recorded, SeenRequest
from llmnb.simulator.api_error import ApiError
from llmnb.simulator.billing import BillingRecord, canonical
from llmnb.simulator.chat import wire as chat
from llmnb.simulator.chat.reply import ChatReply
from llmnb.simulator.dialect import MESSAGES
from llmnb.simulator.engine import Outcome, Prepared, settled
from llmnb.simulator.fault import Fault
from llmnb.simulator.json_value import as_text, dump_bytes
from llmnb.simulator.recorded import bill_recorded, recorded_frames, recorded_headers
from llmnb.simulator.streaming import Pace, StreamSender
from llmnb.simulator.turn import Frame, frames
from llmnb.simulator.wire import Connection, Header

if TYPE_CHECKING:
    from llmnb.simulator.app import Simulation

EVENT_STREAM = ("content-type", "text/event-stream; charset=utf-8")
JSON = ("content-type", "application/json")

Work = Coroutine[Any, Any, None]


class Delivery:
    """The reply to one request on one connection."""

    def __init__(self, simulation: Simulation, seen: SeenRequest, connection: Connection) -> None:
        self._simulation = simulation
        self._seen = seen
        self._connection = connection
        self._dialect = chat.CHAT if seen.is_chat else MESSAGES
        simulation.in_flight += 1

    # -- small replies ----------------------------------------------------------------------------------------------

    def refuse(self, error: ApiError) -> None:
        """An error in the API's envelope; a refused message is a record without a charge."""
        seen = self._seen
        body = self._dialect.error(error, seen.request_id)
        status = chat.STATUSES.get(error.status, error.status) if seen.is_chat else error.status
        if seen.is_message:
            self._simulation.bill(self._free_record(status, len(body)))
        headers = [*self._simulation.headers(seen, limits=False), JSON, *error.headers]
        self._reply(status, headers, body)

    def whole(self, body: bytes, answer: Answer) -> Work | None:
        """A JSON body, at once unless the answer is slow."""
        return self._send_whole(200, [*self._headers(), JSON], body, answer, self._nothing, tokens=0)

    def message(self, prepared: Prepared, answer: Answer, reply: ChatReply | None = None) -> Work | None:
        """A turn as JSON or as a stream, whichever was asked for; `reply` is it in the words of the chat wire."""
        asked = bool(self._seen.body.get("stream"))
        if asked and not _is(answer.fault, "json_for_sse"):
            if reply is None:
                turn_frames = frames(prepared.turn, deltas=answer.deltas, delta_tokens=answer.delta_tokens)
            else:
                turn_frames = reply.frames(answer.deltas, answer.delta_tokens)
            return self._stream([*self._headers(), EVENT_STREAM], turn_frames, answer, self._on_turn_end(prepared))
        body = dump_bytes(prepared.turn.message() if reply is None else reply.document())
        tokens = prepared.turn.output_tokens
        return self._send_whole(200, [*self._headers(), JSON], body, answer, self._on_turn_end(prepared), tokens)

    def recorded(self, recorded: Recorded, answer: Answer) -> Work | None:
        """A recording, byte by byte."""
        headers = [*self._simulation.headers(self._seen, limits=False), *recorded_headers(recorded)]

        def on_end(outcome: Outcome) -> None:
            if self._seen.is_message:
                record = self._free_record(recorded.status, outcome.bytes_sent)
                self._simulation.bill(self._billed(record, recorded, outcome))

        if recorded.kind == "sse":
            return self._stream(headers, recorded_frames(recorded), answer, on_end, recorded.status)
        return self._send_whole(recorded.status, headers, recorded.body, answer, on_end, tokens=0)

    def _billed(self, record: BillingRecord, recorded: Recorded, outcome: Outcome) -> BillingRecord:
        ended = bill_recorded(record, recorded, complete=outcome.complete, tokens=outcome.tokens)
        return replace(ended, aborted=outcome.aborted, complete=outcome.complete)

    def _headers(self) -> list[Header]:
        return self._simulation.headers(self._seen, limits=True)

    def _nothing(self, outcome: Outcome) -> None:
        del outcome

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send_whole(
        self,
        status: int,
        headers: list[Header],
        body: bytes,
        answer: Answer,
        on_end: Callable[[Outcome], None],
        tokens: int,
    ) -> Work | None:
        fault = answer.fault
        if _is(fault, "gzip"):
            headers, body = [*headers, ("content-encoding", "gzip")], gzip.compress(body)
        pace = Pace.of(answer, self._simulation.pace)
        wait = pace.first_token_s + (tokens / pace.tokens_per_second if pace.tokens_per_second else 0.0)
        wait += (fault.seconds or 0.1) if fault is not None and fault.kind == "slow_body" else 0.0
        if fault is not None and fault.kind == "stall" and fault.seconds is not None:
            return self._stalled_whole(status, headers, body, fault.seconds, on_end, tokens)
        if fault is not None and fault.kind in ("reset", "drop", "stall"):
            return self._broken_whole(status, headers, body, fault, on_end)
        if wait:
            return self._slow_whole(status, headers, body, wait, on_end, tokens)
        on_end(Outcome(True, False, tokens, True, len(body)))
        self._reply(status, headers, body)
        return None

    async def _slow_whole(
        self,
        status: int,
        headers: list[Header],
        body: bytes,
        wait: float,
        on_end: Callable[[Outcome], None],
        tokens: int,
    ) -> None:
        """A reply that is generated before it is sent: a client that leaves meanwhile is still billed for all of it."""
        self._watch(lambda: on_end(Outcome(False, True, tokens, True, 0)))
        await self._simulation.clock.sleep(wait)
        self._connection.on_lost = None
        on_end(Outcome(True, False, tokens, True, len(body)))
        self._reply(status, headers, body)

    async def _stalled_whole(
        self,
        status: int,
        headers: list[Header],
        body: bytes,
        seconds: float,
        on_end: Callable[[Outcome], None],
        tokens: int,
    ) -> None:
        """The two halves of a body, with a pause between them."""
        self._watch(lambda: on_end(Outcome(False, True, tokens, True, self._connection.bytes_sent)))
        half = len(body) // 2
        self._connection.start(status, headers)
        self._connection.write(body[:half])
        await self._simulation.clock.sleep(seconds)
        self._connection.on_lost = None
        on_end(Outcome(True, False, tokens, True, len(body)))
        self._connection.write(body[half:])
        self._finished(status)
        self._connection.finish()

    async def _broken_whole(
        self, status: int, headers: list[Header], body: bytes, fault: Fault, on_end: Callable[[Outcome], None]
    ) -> None:
        """A body of which only the first half comes."""
        self._watch(lambda: on_end(Outcome(False, True, 0, True, self._connection.bytes_sent)))
        self._connection.start(status, headers)
        self._connection.write_partial(body)
        if fault.kind == "stall":
            await asyncio.Event().wait()  # until the client leaves: then this task is cancelled
        self._connection.on_lost = None
        on_end(Outcome(False, False, 0, False, self._connection.bytes_sent))
        self._finished(status)
        self._break(reset=fault.kind == "reset")

    def _stream(
        self,
        headers: list[Header],
        found: list[Frame],
        answer: Answer,
        on_end: Callable[[Outcome], None],
        status: int = 200,
    ) -> Work:
        def ended(outcome: Outcome) -> None:
            on_end(outcome)
            self._finished(status, left=outcome.aborted)

        sender = StreamSender(
            self._connection,
            self._simulation.clock,
            found,
            pace=Pace.of(answer, self._simulation.pace),
            fault=answer.fault,
            request_id=self._seen.request_id,
            on_end=ended,
            dialect=self._dialect,
        )
        return sender.run(status, headers)

    def connection_fault(self, fault: Fault, respond: Callable[[], Work | None]) -> Work | None:
        """Nothing comes back, or not for a while."""
        if fault.kind == "slow_headers":
            return self._late(fault.seconds, respond)
        if self._seen.is_message:
            self._simulation.bill(self._free_record(0, 0))
        self._finished(0)
        self._break(reset=fault.kind == "reset_before_headers")
        return None

    async def _late(self, seconds: float | None, respond: Callable[[], Work | None]) -> None:
        self._watch(lambda: self._simulation.bill(self._free_record(0, 0)) if self._seen.is_message else None)
        await self._simulation.clock.sleep(1.0 if seconds is None else seconds)
        self._connection.on_lost = None
        work = respond()
        if work is not None:
            await work

    # -- ends -------------------------------------------------------------------------------------------------------

    def _on_turn_end(self, prepared: Prepared) -> Callable[[Outcome], None]:
        def on_end(outcome: Outcome) -> None:
            whole = not self._seen.body.get("stream")
            generated = outcome if outcome.complete or not whole else _generated(outcome)
            # that a refusal is free is a word of the Claude API's only
            is_chat = self._seen.is_chat
            record = settled(prepared.record, prepared.turn, generated, len(self._seen.raw), bills_refusals=is_chat)
            self._simulation.bill(replace(record, complete=outcome.complete))

        return on_end

    def _watch(self, on_left: Callable[[], None]) -> None:
        """What to do should the client leave."""

        def lost(exc: Exception | None) -> None:
            del exc
            on_left()
            self._finished(0, left=True)

        self._connection.on_lost = lost

    def _reply(self, status: int, headers: list[Header], body: bytes) -> None:
        self._finished(status)
        self._connection.reply(status, headers, body)

    def _finished(self, status: int, *, left: bool = False) -> None:
        simulation, seen = self._simulation, self._seen
        simulation.in_flight -= 1
        seen.status = status or seen.status
        if left:
            seen.disconnected_at = simulation.clock.now()
        else:
            seen.finished_at = simulation.clock.now()

    def _break(self, *, reset: bool) -> None:
        if reset:
            self._connection.reset()
        else:
            self._connection.close()

    def _free_record(self, status: int, bytes_sent: int) -> BillingRecord:
        seen = self._seen
        model = as_text(seen.body.get("model"))
        return BillingRecord(
            request_id=seen.request_id,
            message_id=None,
            ts=self._simulation.clock.now(),
            model=canonical(model),
            model_requested=model,
            status=status,
            stream=bool(seen.body.get("stream")),
            complete=False,
            bytes_received=len(seen.raw),
            bytes_sent=bytes_sent,
        )


def _is(fault: Fault | None, kind: str) -> bool:
    return fault is not None and fault.kind == kind


def _generated(outcome: Outcome) -> Outcome:
    """A whole reply that did not arrive: generated to its end when the client left, not at all otherwise."""
    return replace(outcome, complete=outcome.aborted)
