"""`python -m benchmarks.lean_server`: answers every message with the same bytes, so that a client is all that counts.

The simulator tokenizes, bills and validates, and would be slower than what it is asked by. Here a request is cut out
of the stream by its content-length and not looked at; the first part of its path is how many milliseconds the answer
takes.
It speaks HTTP/1.1 with connections kept alive, on 127.0.0.1, until it is terminated.
"""

from __future__ import annotations

import asyncio
import json
import sys

TEXT = "Write-ahead logging appends each change to a log before it touches the table, so that readers go on. " * 3
_MESSAGE = json.dumps(  # written as the API writes it
    {
        "model": "claude-sonnet-5-5",
        "id": "msg_01LeanServerLeanServerLean",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 24,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 70,
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
    },
    separators=(",", ":"),
).encode()
_LIMITS = "".join(  # as the API sends them, and so far away that nothing has to be held back
    f"anthropic-ratelimit-{kind}-{what}: {value}\r\n"
    for kind in ("requests", "input-tokens", "output-tokens")
    for what, value in (("limit", 10**9), ("remaining", 10**9), ("reset", "2030-01-01T00:00:00Z"))
)
_ANSWER = (
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_01LeanServer\r\n"
    f"{_LIMITS}content-length: {len(_MESSAGE)}\r\n\r\n"
).encode() + _MESSAGE


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(buffer) < end + 4 + length:
                return
            del buffer[: end + 4 + length]
            self._answer(float(head.split(b"/", 2)[1]))

    def _answer(self, delay_ms: float) -> None:
        assert self._transport is not None
        if delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self._transport.write, _ANSWER)
        else:
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
