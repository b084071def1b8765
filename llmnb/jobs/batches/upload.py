"""A batch on its way: what makes it whole goes last, when that is on disk.

Nobody can act on half a JSON document. So a batch whose sending broke off before its last byte was handed over was
never made, for certain, and may be sent again; only of one that was whole it has to be found out whether it arrived.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

from anthropic import APIRequest, Middleware

if TYPE_CHECKING:
    from anthropic import APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext

_PIECE_BYTES = 2**16
PIECE_S = 120.0
"""A server that takes no piece for so long is given up."""
_YIELDS_EVERY = 500


def encoded(request: dict[str, Any]) -> bytes:
    """One request of a batch as it is sent.

    Raises:
        UnicodeEncodeError: it has half a character.
    """
    return json.dumps(request, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class Upload(Middleware):
    """Sends the body of a batch in pieces, calling `before_the_end` before the last byte; what it raises ends all."""

    def __init__(self, before_the_end: Callable[[], None]) -> None:
        self._before_the_end = before_the_end
        self.is_whole = False
        """Whether the last byte was handed over, so that the batch may have arrived."""
        self.trouble: Exception | None = None
        """What `before_the_end` raised."""

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        raise NotImplementedError("batches are sent by async clients")

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        pieces = await _pieces(cast("dict[str, Any]", request.json)["requests"])
        options = request.options.model_copy()
        length = sum(map(len, pieces)) + 1
        options.headers = {**request.headers, "content-length": str(length), "content-type": "application/json"}
        async with asyncio.timeout(None) as deadline:
            options.json_data, options.content = None, self._body(pieces, deadline)
            sent = APIRequest(
                options=options,
                cast_to=request.cast_to,
                stream=request.stream,
                stream_cls=request.stream_cls,
                retries_taken=request.retries_taken,
            )
            return await call_next(sent)

    async def _body(self, pieces: list[bytes], deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        for piece in pieces:
            deadline.reschedule(loop.time() + PIECE_S)
            yield piece
        try:
            self._before_the_end()
        except Exception as error:
            self.trouble = error
            raise
        self.is_whole = True
        deadline.reschedule(None)  # how long an answer may take, the client says
        yield b"}"


async def _pieces(requests: list[dict[str, Any]]) -> list[bytes]:
    """All of the body but its last byte."""
    pieces, piece = list[bytes](), bytearray(b'{"requests":[')
    for number, request in enumerate(requests):
        if number % _YIELDS_EVERY == 0:
            await asyncio.sleep(0)
        piece += b"," * (number > 0) + encoded(request)
        if len(piece) >= _PIECE_BYTES:
            pieces.append(bytes(piece))
            piece.clear()
    return [*pieces, bytes(piece + b"]")]
