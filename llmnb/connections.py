"""The connections of llmnb's async clients: aiohttp's where it is installed.

The SDK's default ones get slower the more requests are under way, with 256 to half their rate; aiohttp's do not.

The SDK has a client of this kind itself (`DefaultAioHttpClient`). This one differs in what the books and long answers
need: a connection that ended after the request was sent is no failure to connect, since the request may be billed; TCP
keeps silent connections alive; and what nobody closed is closed without a word on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import weakref
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.request import getproxies

import httpx2

from llmnb import forks
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    import aiohttp
    import yarl
    from aiohttp.abc import AbstractResolver, ResolveResult

Kind = Literal["aiohttp", "httpx"]

_OLDEST = (3, 12)
"""The first aiohttp that lets one make the sockets."""
_HEADER_BYTES = 65_536
"""How long a line or header of an answer may be: as much as httpx allows for all of them."""
_PIECE_BYTES = 2**16
"""Larger bodies are sent in pieces, which fit into what a socket takes without anybody reading, so that one that is not
read is noticed; aiohttp, which has no timeout for it, also warns of bytes above 1 MiB (`TOO_LARGE_BYTES_BODY`)."""

_IDLE_S = 0.5
"""After this time without a request a server may have closed a connection without the event loop having heard of it."""


def kind(settings: Settings | None = None) -> Kind:
    """Which connections async clients get here and now."""
    return "aiohttp" if _why_not(settings or load()) is None else "httpx"


def described(settings: Settings | None = None) -> str:
    """The same in words, with the reason."""
    why_not = _why_not(settings or load())
    return "aiohttp" if why_not is None else f"the SDK's own (httpx2): {why_not}"


def _why_not(settings: Settings) -> str | None:
    if settings.transport == "httpx":
        return "the setting transport asks for it"
    if not _is_installed():
        return "aiohttp is not installed; pip install 'llmnb[aiohttp]' makes many calls at once faster"
    if getproxies().keys() & {"http", "https", "all"}:  # the SDK's speaks to more kinds of them
        return "there is a proxy"
    return None


@cache
def _is_installed() -> bool:
    if find_spec("aiohttp") is None:
        return False
    major, minor, *_ = version("aiohttp").split(".")
    return (int(major), int(minor)) >= _OLDEST


def http_client(settings: Settings | None = None) -> AioClient | None:
    """What an SDK client is given as its `http_client`; None where it shall have its own."""
    if kind(settings) == "httpx":
        return None
    from anthropic import DEFAULT_CONNECTION_LIMITS, DEFAULT_TIMEOUT

    transport = AioTransport(DEFAULT_CONNECTION_LIMITS)
    return AioClient(transport, timeout=DEFAULT_TIMEOUT, follow_redirects=True)


class AioClient(httpx2.AsyncClient):
    """An HTTP client over aiohttp."""

    def __init__(self, transport: AioTransport, **options: Any) -> None:
        super().__init__(transport=transport, **options)
        self.aio = transport
        """Its connections."""


class AioTransport(httpx2.AsyncBaseTransport):
    """Sends httpx2's requests over aiohttp's connections, in the event loop of the first one."""

    def __init__(self, limits: httpx2.Limits | None = None) -> None:
        self._limits = limits or httpx2.Limits()
        self._ssl = httpx2.create_ssl_context()  # with the certificates that httpx would trust
        self._session: aiohttp.ClientSession | None = None
        self._used_at = 0.0
        self._quietly: weakref.finalize[Any, Any] | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        data: Any
        try:
            data = request.content or None
        except httpx2.RequestNotRead:  # an upload that is made while it is sent
            data = request.stream
        headers = [(name.decode("ascii"), _text(value)) for name, value in request.headers.raw]
        if data is request.stream:
            headers = [pair for pair in headers if pair[0].lower() != "transfer-encoding"]  # aiohttp's to say
        with as_httpx(request):
            answer = await self.send(request.method, str(request.url), headers, data, request.extensions)
        _stop_clock(answer)
        told: dict[str, Any] = {"http_version": b"HTTP/1.0" if answer.version == (1, 0) else b"HTTP/1.1"}
        if answer.reason:
            told["reason_phrase"] = answer.reason.encode("latin-1", "replace")
        return httpx2.Response(
            answer.status, headers=answer.raw_headers, stream=_Body(answer, request), request=request, extensions=told
        )

    async def send(
        self, method: str, url: str, headers: Iterable[tuple[str, str]], data: Any, extensions: Mapping[str, Any]
    ) -> aiohttp.ClientResponse:
        """What aiohttp gives, whose errors are its own; `extensions` are those of httpx2's request."""
        session = self._session or self._open()
        now = time.monotonic()
        if now - self._used_at > _IDLE_S:  # the loop hears now of connections that ended while it was held up
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self._used_at = now
        timeout: Mapping[str, float | None] = extensions.get("timeout") or {}
        _LOOKUP_S.set(timeout.get("connect"))
        asked = partial(
            session.request,
            method,
            _url(url),
            headers=headers,
            allow_redirects=False,
            timeout=_timeout(timeout.get("connect"), timeout.get("read"), timeout.get("pool")),
            server_hostname=extensions.get("sni_hostname"),
        )
        if not isinstance(data, bytes) or len(data) <= _PIECE_BYTES:
            return await asked(data=data)
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                return await asked(data=_pieces(data, deadline, timeout.get("write")))
        except TimeoutError as error:
            if deadline.expired():
                raise httpx2.WriteTimeout("the request was not taken") from error
            raise

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        # a resolver of its own: aiohttp would take another one where it is installed
        connector = aiohttp.TCPConnector(
            limit=self._limits.max_connections or 0,
            keepalive_timeout=self._limits.keepalive_expiry,
            ssl=self._ssl,
            resolver=_resolver(),
            socket_factory=_socket,
        )
        self._session = session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),  # httpx2 keeps them
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        self._quietly = weakref.finalize(self, _let_go, session, connector, asyncio.get_running_loop())
        _open.add(self)
        return session

    def leave(self) -> None:
        """Forgets its connections without closing them."""
        session, self._session = self._session, None
        if session is not None and session.connector is not None:
            # its __del__ would close them; there is no public word for it
            vars(session.connector).update(_closed=True, _conns={})
            session.detach()
        if self._quietly is not None:
            self._quietly.detach()

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            if self._quietly is not None:
                self._quietly.detach()
            await session.close()


async def _pieces(data: bytes, deadline: asyncio.Timeout, each_s: float | None) -> AsyncIterator[bytes]:
    """The pieces of a body, of which each has to be taken within that time."""
    loop = asyncio.get_running_loop()
    for begin in range(0, len(data), _PIECE_BYTES):
        deadline.reschedule(None if each_s is None else loop.time() + each_s)
        yield data[begin : begin + _PIECE_BYTES]
    deadline.reschedule(None)


def _stop_clock(answer: aiohttp.ClientResponse) -> None:
    """Has aiohttp's own timeout of reading end with the headers: it would run on while nobody reads."""
    connection = answer.connection
    if connection is not None and connection.protocol is not None:
        connection.protocol.read_timeout = None
        connection.protocol.start_timeout()


class _Body(httpx2.AsyncByteStream):
    """The bytes of an answer as they come. Closed before its end, it takes its connection with it."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        timeout: Mapping[str, float | None] = self._request.extensions.get("timeout") or {}
        with as_httpx(self._request):
            content = self._answer.content
            while True:
                deadline = asyncio.timeout(timeout.get("read"))
                try:
                    async with deadline:
                        chunk = await content.readany()
                except TimeoutError as error:
                    if deadline.expired():
                        raise httpx2.ReadTimeout("nothing came of the answer", request=self._request) from error
                    raise
                except Exception:  # which aiohttp tells first, with what had come before still unread
                    if rest := content._read_nowait(-1):  # pyright: ignore[reportPrivateUsage] - no public word
                        yield rest
                    raise
                if not chunk:
                    return
                yield chunk

    async def aclose(self) -> None:
        self._answer.close()  # one that was read to its end has given its connection back by now


# Errors ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_httpx(request: httpx2.Request) -> Generator[None]:
    """Raises what goes wrong as the error of httpx2 that says the same."""
    try:
        yield
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated(str(error) or type(error).__name__, request=request) from error


def _translated(error: Exception) -> type[httpx2.RequestError] | None:
    """What httpx2 calls it. Only what failed before a request can have been read is a failure to connect."""
    from aiohttp import client_exceptions as their
    from aiohttp.http import HttpProcessingError

    known: tuple[tuple[Any, type[httpx2.RequestError]], ...] = (
        (their.ConnectionTimeoutError, httpx2.ConnectTimeout),
        (their.ServerTimeoutError, httpx2.ReadTimeout),
        (their.ClientConnectorError, httpx2.ConnectError),
        (their.ServerDisconnectedError, httpx2.RemoteProtocolError),
        (their.ClientPayloadError, httpx2.RemoteProtocolError),
        (their.ClientResponseError, httpx2.RemoteProtocolError),
        (HttpProcessingError, httpx2.RemoteProtocolError),
        ((their.InvalidURL, their.NonHttpUrlClientError), httpx2.UnsupportedProtocol),
        (their.ClientError, httpx2.ReadError),
    )
    return next((mine for theirs, mine in known if isinstance(error, theirs)), None)


# What a request is made of --------------------------------------------------------------------------------------------


@lru_cache(64)
def _url(address: str) -> yarl.URL:
    from yarl import URL

    return URL(address, encoded=True).with_user(None)  # httpx2 has made a header of it


_LOOKUP_S: ContextVar[float | None] = ContextVar("llmnb_lookup_s", default=None)
"""How long the name of a server may be looked up; aiohttp's own timeout of connecting begins after that."""


def _resolver() -> AbstractResolver:
    """The system's own way to find an address, as httpx does, in its time."""
    import aiohttp

    class Resolver(aiohttp.ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            async with asyncio.timeout(_LOOKUP_S.get()):
                return await super().resolve(host, port, family)

    return Resolver()


@lru_cache(64)
def _timeout(connect: float | None, read: float | None, pool: float | None) -> aiohttp.ClientTimeout:
    from aiohttp import ClientTimeout

    return ClientTimeout(sock_connect=connect, sock_read=read, connect=pool)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


_KEEPALIVE = (("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5), ("TCP_KEEPIDLE", 60))
"""Seconds, and how often, as in the SDK's default connections: an answer may be silent for ten minutes, and what stands
between forgets connections that are."""


def _socket(address: Any) -> socket.socket:
    family, kind_of, protocol, *_ = address
    made = socket.socket(family=family, type=kind_of, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # some systems know the name only
                made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


# What nobody closed ---------------------------------------------------------------------------------------------------

_open: weakref.WeakSet[AioTransport] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child. For the child to close a connection would take it out of the parent's event loop."""
    for transport in list(_open):
        transport.leave()


forks.in_child(_leave_to_parent)


def _let_go(session: aiohttp.ClientSession, connector: aiohttp.TCPConnector, loop: asyncio.AbstractEventLoop) -> None:
    """Closes a session whose transport is gone, at exit at the latest. aiohttp itself would complain on stderr."""
    session.detach()
    here = asyncio._get_running_loop()
    with contextlib.suppress(RuntimeError):  # another thread has closed the loop in between
        if loop.is_closed():
            closing = connector.close()
            with contextlib.suppress(StopIteration):
                closing.send(None)  # without a loop there is nothing to wait for
            closing.close()
        elif loop.is_running():
            loop.call_soon_threadsafe(_close_in, loop, connector)
        elif here is None:  # a notebook's at exit
            loop.run_until_complete(connector.close())


_closing: set[asyncio.Task[None]] = set()


def _close_in(loop: asyncio.AbstractEventLoop, connector: aiohttp.TCPConnector) -> None:
    task = loop.create_task(connector.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
