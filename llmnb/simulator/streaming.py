"""Sending a stream: events at a pace, faults acted out, the client watched, and what had been generated counted."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from llmnb.simulator.answer import Answer
from llmnb.simulator.clock import Clock
from llmnb.simulator.dialect import MESSAGES, Dialect
from llmnb.simulator.engine import Outcome
from llmnb.simulator.fault import Fault
from llmnb.simulator.stream_faults import Act, Step, chunks, with_fault
from llmnb.simulator.turn import Frame
from llmnb.simulator.wire import Connection, Header

COALESCED_BYTES = 4096
"""Events that wait for nothing are written together, up to this size: a token at a time is slow and no more real."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a reply comes, in seconds of the server's clock."""

    first_token_s: float = 0.0
    tokens_per_second: float | None = None
    delta_delay_s: float = 0.0
    chunk_bytes: int | None = None

    @classmethod
    def of(cls, answer: Answer, default: Pace) -> Pace:
        """An answer's pace, with the server's own for what it leaves out."""
        return cls(
            default.first_token_s if answer.first_token_s is None else answer.first_token_s,
            answer.tokens_per_second or default.tokens_per_second,
            default.delta_delay_s if answer.delta_delay_s is None else answer.delta_delay_s,
            answer.chunk_bytes or default.chunk_bytes,
        )

    @property
    def steady(self) -> bool:
        """Whether every event may be sent at once."""
        return not self.tokens_per_second and not self.delta_delay_s and not self.chunk_bytes

    def wait_s(self, frame: Frame) -> float:
        """How long an event takes to be generated."""
        if not frame.is_delta:
            return 0.0
        return self.delta_delay_s + (frame.tokens / self.tokens_per_second if self.tokens_per_second else 0.0)


class StreamSender:
    """Sends the events of one reply, and reports once how that ended."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        frames: list[Frame],
        *,
        pace: Pace,
        fault: Fault | None,
        request_id: str,
        on_end: Callable[[Outcome], None],
        dialect: Dialect = MESSAGES,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._steps = with_fault(frames, fault, request_id, dialect)
        self._ending = dialect.ending
        self._pace = pace
        self._split_utf8 = fault is not None and fault.kind == "split_utf8"
        self._squeeze = zlib.compressobj(wbits=31) if fault is not None and fault.kind == "gzip" else None
        self._on_end: Callable[[Outcome], None] | None = on_end
        self._tokens = 0
        self._any_content = False
        self._pending = bytearray()

    async def run(self, status: int, headers: list[Header]) -> None:
        """Send everything; when the client leaves, this is cancelled."""
        connection = self._connection
        connection.on_lost = lambda exc: self._end(aborted=True)
        try:
            if self._pace.first_token_s:
                await self._clock.sleep(self._pace.first_token_s)
            if self._squeeze is not None:
                headers = [*headers, ("content-encoding", "gzip")]
            connection.start(status, headers)
            for at, step in enumerate(self._steps):
                if not await self._send(step, is_last=at == len(self._steps) - 1):
                    return
            self._finish()
        except asyncio.CancelledError:
            self._end(aborted=True)
            if not connection.lost:
                raise

    def _finish(self) -> None:
        """The last bytes. The books come first: whoever has read the end of a stream may look at them."""
        rest = self._taken(last=True)
        self._end(aborted=False, unsent=len(rest))
        self._put(rest)
        self._connection.finish()

    async def _send(self, step: Step, *, is_last: bool) -> bool:
        if isinstance(step, Act):
            return await self._act(step)
        wait = self._pace.wait_s(step)
        if wait:
            self._flush()
            await self._clock.sleep(wait)
        self._tokens += step.tokens
        self._any_content = self._any_content or step.is_delta
        self._pending += step.data
        if not is_last and (wait or len(self._pending) >= COALESCED_BYTES or not self._pace.steady):
            self._flush()
            await self._connection.drain()
            await asyncio.sleep(0)
        return True

    async def _act(self, act: Act) -> bool:
        """Wait, or break off; False when nothing is left to be sent."""
        self._flush()
        if act.kind == "wait":
            if act.seconds is None:
                await asyncio.Event().wait()
            await self._clock.sleep(act.seconds or 0.0)
            return True
        if act.kind == "partial":
            self._connection.write_partial(act.data)
            await asyncio.sleep(0)
            return True
        self._end(aborted=False)
        if act.kind == "reset":
            self._connection.reset()
        else:
            self._connection.close()
        return False

    def _flush(self) -> None:
        self._put(self._taken(last=False))

    def _taken(self, *, last: bool) -> bytes:
        """What waits to be sent, compressed where that was asked for."""
        data = bytes(self._pending)
        self._pending.clear()
        if self._squeeze is None:
            return data
        return self._squeeze.compress(data) + self._squeeze.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    def _put(self, data: bytes) -> None:
        for chunk in chunks(data, self._pace.chunk_bytes, self._split_utf8):
            self._connection.write(chunk)

    def _end(self, *, aborted: bool, unsent: int = 0) -> None:
        """Report the end, once: a lost connection and a cancelled task are the same end."""
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        complete = not aborted and any(
            isinstance(step, Frame) and step.data.startswith(self._ending) for step in self._steps[-1:]
        )
        sent = self._connection.bytes_sent + unsent
        on_end(Outcome(complete, aborted, self._tokens, self._any_content, sent))
