"""A loopback server that keeps every byte it is sent and answers as it is told, to hold what clients send together."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import BinaryIO

_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "sjø"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
_EVENTS = (
    {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "sjø"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
)
_ERROR = b'{"type":"error","error":{"type":"api_error","message":"no"}}'


class Wire:
    """Hears requests, and answers each with the next of `answers`: "ok" when there is none.

    An answer is "ok", "cookie" (one that sets two), "fails" (500, to be retried), "refuses" (400), "moved" (307) or
    "hangs up" (no answer at all).
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = f"http://localhost:{listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        self.answers: deque[str] = deque()

    def serve(self) -> None:
        """Takes connections until the listener is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            while head := _head(lines):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-1])
                body = lines.read(int(fields.get(b"content-length", b"0")))
                self.heard.append(head + b"\r\n" + body)
                answer = self.answers.popleft() if self.answers else "ok"
                if answer == "hangs up":
                    return
                connection.sendall(_answer(answer, is_stream=b'"stream":true' in body))


def _head(lines: BinaryIO) -> bytes:
    """What comes before an empty line; nothing where the client has hung up."""
    head = b""
    while (line := lines.readline()) != b"\r\n":
        if not line:
            return b""
        head += line
    return head


def _answer(answer: str, *, is_stream: bool) -> bytes:
    kind, body = "application/json", json.dumps(_MESSAGE, ensure_ascii=False).encode()
    status, more = "200 OK", ""
    if answer == "fails":
        status, body, more = "500 Internal Server Error", _ERROR, "retry-after-ms: 1\r\n"
    elif answer == "refuses":
        status, body = "400 Bad Request", _ERROR
    elif answer == "moved":
        status, body, more = "307 Temporary Redirect", b"", "location: /elsewhere/v1/messages\r\n"
    elif is_stream:
        kind = "text/event-stream"
        body = b"".join(
            b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), json.dumps(event).encode()) for event in _EVENTS
        )
    if answer == "cookie":
        more = "set-cookie: __cf_bm=a.b-c; path=/; HttpOnly\r\nset-cookie: gone=1; path=/nowhere\r\n"
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nrequest-id: req_1\r\n{more}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def wire() -> Iterator[Wire]:
    """A server, until the end of the block."""
    with socket.create_server(("localhost", 0)) as listener:
        server = Wire(listener)
        thread = Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
