"""HTTP/1.1 by hand: a parser for requests, a writer for replies, and the moment a client goes away.

One `Connection` a socket. Small replies are written inside `data_received`, without a task: this path is used in
benchmarks. A streamed reply is a coroutine, which is cancelled when its client disconnects.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024  # the Messages endpoint's own limit on a request
MAX_BATCH_BYTES = 256 * 1000 * 1000  # that of the Message Batches endpoint

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"} | {
    405: "Method Not Allowed", 413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error"
}  # fmt: skip

Header = tuple[str, str]


@dataclass(slots=True)
class Request:
    """One HTTP request as it was read. Header names are in lower case; `body` is decompressed."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    started: float

    @property
    def path(self) -> str:
        """The target without its query, percent-decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one given twice, the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


class App(Protocol):
    """What a connection asks for its replies."""

    def handle(self, request: Request, connection: Connection) -> Coroutine[Any, Any, None] | None:
        """Answer at once and return None, or return the coroutine that will."""
        ...

    def refuse(self, status: int, message: str, connection: Connection) -> None:
        """Answer something that is not an HTTP request this server reads."""
        ...

    def crashed(self, error: BaseException) -> None:
        """A coroutine of `handle` raised."""
        ...

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        ...

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        ...


class Connection(asyncio.Protocol):
    """One client socket: reads requests one after another, and writes the reply of each."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._writable: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._busy = False
        self._chunked = False
        self._keep_alive = True
        self.on_lost: Callable[[Exception | None], None] | None = None
        self.lost = False
        self.bytes_sent = 0

    # -- reading ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._app.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._read_requests()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._app.closed(self)
        if self._writable is not None:
            self._writable.set()
        if self.on_lost is not None:
            self.on_lost(exc)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def _read_requests(self) -> None:
        while not self._busy and not self.lost:
            try:
                request = self._next_request()
            except ValueError as error:
                self._keep_alive = False
                self._busy = True
                self._app.refuse(413 if "large" in str(error) else 400, str(error), self)
                return
            if request is None:
                return
            self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        self._busy = True
        self.on_lost = None
        self.bytes_sent = 0
        self._keep_alive = request.headers.get("connection", "").lower() != "close"
        work = self._app.handle(request, self)
        if work is not None:
            self._task = asyncio.get_running_loop().create_task(work)
            self._task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        """A reply that crashed half-way cannot be mended: the client gets a reset, the app the error."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._app.crashed(error)
            self.reset()

    def _next_request(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise ValueError("The request's headers are too large.")
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head[2].get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, target, headers = self._head
        body = self._next_body(headers, MAX_BATCH_BYTES if _makes_a_batch(target) else MAX_BODY_BYTES)
        if body is None:
            return None
        self._head = None
        return Request(method, target, headers, decompressed(body, headers), time.monotonic())

    def _next_body(self, headers: dict[str, str], most: int) -> bytes | None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._next_chunked_body(most)
        length = int(headers.get("content-length") or 0)
        if not 0 <= length <= most:
            raise ValueError("Request size exceeds the limit: the body is too large.")
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _next_chunked_body(self, most: int) -> bytes | None:
        parts: list[bytes] = []
        at = 0
        while True:
            line = self._buffer.find(b"\r\n", at)
            if line < 0:
                return None
            size = int(bytes(self._buffer[at:line]).split(b";")[0], 16)
            at = line + 2
            if at + size > most:
                raise ValueError("Request size exceeds the limit: the body is too large.")
            if len(self._buffer) < at + size + 2:
                return None
            if size == 0:
                del self._buffer[: at + 2]
                return b"".join(parts)
            parts.append(bytes(self._buffer[at : at + size]))
            at += size + 2

    # -- writing ----------------------------------------------------------------------------------------------------

    def reply(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """A whole reply in one write."""
        head = _head_bytes(status, headers, f"content-length: {len(body)}\r\n", self._keep_alive)
        self._transport.write(head + body)
        self.bytes_sent += len(body)
        self._done()

    def start(self, status: int, headers: Iterable[Header]) -> None:
        """The head of a reply whose body follows in chunks."""
        self._chunked = True
        self._transport.write(_head_bytes(status, headers, "transfer-encoding: chunked\r\n", self._keep_alive))

    def write(self, data: bytes) -> None:
        """One HTTP chunk of a reply that was started."""
        if data and not self.lost:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.bytes_sent += len(data)

    def write_partial(self, data: bytes) -> None:
        """The first half of an HTTP chunk that promised all of the data."""
        if not self.lost:
            half = data[: len(data) // 2]
            self._transport.write(b"%x\r\n%b" % (len(data), half))
            self.bytes_sent += len(half)

    def finish(self) -> None:
        """The end of a reply that was started."""
        if not self.lost:
            self._transport.write(b"0\r\n\r\n")
        self._done()

    async def drain(self) -> None:
        """Wait until the client has read enough to be sent more."""
        if self._writable is not None:
            await self._writable.wait()

    def reset(self) -> None:
        """Drop the connection with a TCP reset, whatever was promised."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close the connection in good order once what was written is out."""
        self._transport.close()

    def _done(self) -> None:
        self._chunked = False
        self._task = None
        if not self._keep_alive:
            self._transport.close()
            return
        self._busy = False
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._read_requests)


def _makes_a_batch(target: str) -> bool:
    return target.partition("?")[0] == "/v1/messages/batches"


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers of a request head; ValueError when it is not one."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("That is not an HTTP/1.1 request.")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return words[0], words[1], headers


def decompressed(body: bytes, headers: dict[str, str]) -> bytes:
    """The body without its content-encoding."""
    encoding = headers.get("content-encoding", "").lower()
    if encoding in ("", "identity") or not body:
        return body
    try:
        if encoding == "gzip":
            return gzip.decompress(body)
        if encoding == "deflate":
            return zlib.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"The request body is not valid {encoding}.") from error
    raise ValueError(f"The request body's content-encoding {encoding!r} is not supported.")


def _head_bytes(status: int, headers: Iterable[Header], framing: str, keep_alive: bool) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    ending = "" if keep_alive else "connection: close\r\n"
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n{lines}{framing}{ending}\r\n".encode(
        "latin-1", "replace"
    )
