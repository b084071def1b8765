"""The connections of async clients: which are chosen, what their errors mean, and that none is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import pytest

import llmnb
from llmnb import connections, settings
from llmnb.simulator import Fault, Simulator

from .processes import Python

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'llmnb[aiohttp]'")
QUESTION: Any = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Explain WAL."}],
}
BOTH = pytest.mark.parametrize("transport", ["auto", "httpx"])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has set."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def client_of(sim: Simulator, transport: str, **options: Any) -> anthropic.AsyncAnthropic:
    """A plain client of the SDK over the connections that llmnb would give it."""
    http = connections.http_client(settings.load(transport=transport))
    assert (http is not None) == (transport == "auto")
    return sim.async_client(http_client=http, **options)


def test_aiohttp_is_taken_where_it_is_installed() -> None:
    """By every async client of llmnb's own, unless the setting says otherwise."""
    assert connections.kind() == "aiohttp"
    assert connections.kind(settings.load(transport="httpx")) == "httpx"
    assert "setting" in connections.described(settings.load(transport="httpx"))


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_a_proxy_is_the_sdks_to_speak_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own connections know more kinds of proxies, and which addresses need none."""
    monkeypatch.setenv(name, "socks5://localhost:1080")
    assert connections.http_client() is None
    assert "proxy" in connections.described()


def test_no_proxy_for_some_addresses_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many environments set only that."""
    monkeypatch.setenv("no_proxy", "localhost")
    assert connections.kind() == "aiohttp"


@pytest.mark.parametrize("version", ["3.11.18", "3.8.6"])
def test_an_old_aiohttp_is_left_alone(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else may have installed it."""
    monkeypatch.setattr(connections, "version", lambda _name: version)
    connections._is_installed.cache_clear()
    try:
        assert connections.kind() == "httpx"
        assert "not installed" in connections.described()
    finally:
        connections._is_installed.cache_clear()


async def test_llms_async_client_has_them(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's loop as in llmnb's own."""
    assert isinstance(llmnb.LLM()._access.here()._client, connections.AioClient)
    assert (await llmnb.LLM(display="none").aask("Hi")).text
    monkeypatch.setenv("LLMNB_TRANSPORT", "httpx")
    assert not isinstance(llmnb.LLM()._access.here()._client, connections.AioClient)
    assert (await llmnb.LLM(display="none").aask("Hi there")).text


async def test_so_has_the_twin_of_a_client_of_the_users(sim: Simulator) -> None:
    """One that was made for threads is asked in a loop through another that is like it."""
    with sim.client(timeout=7) as client:
        llm = llmnb.LLM(client=client, display="none")
        twin = llm._access.here()
        assert isinstance(twin._client, connections.AioClient)
        assert twin.timeout == 7
        assert (await llm.aask("Hi")).text


async def test_the_server_is_told_the_same(sim: Simulator) -> None:
    """Not a header more or less, whichever way a request goes."""
    seen: list[dict[str, str]] = []
    for transport in ("auto", "httpx"):
        async with client_of(sim, transport) as client:
            await client.messages.create(**QUESTION, extra_headers={"x-name": "Sjøhaug".encode().decode("latin-1")})
        headers = {name.lower(): value for name, value in dict(sim.requests[-1].headers).items()}
        seen.append({name: value for name, value in headers.items() if name != "idempotency-key"})
    assert seen[0] == seen[1]


async def test_pictures_of_megabytes_are_sent_without_a_word(sim: Simulator) -> None:
    """A body that is large arrives as it is, with the headers of any other one; aiohttp warns of such bytes."""
    sim.rule("Hi")
    large = {**QUESTION, "messages": [{"role": "user", "content": "word " * 300_000}]}
    for transport in ("auto", "httpx"):
        async with client_of(sim, transport) as client:
            await client.messages.create(**large)
    ours, theirs = sim.requests
    assert ours.raw == theirs.raw
    assert len(ours.raw) > 2**20
    assert ours.headers | {"idempotency-key": ""} == theirs.headers | {"idempotency-key": ""}


async def test_a_client_has_the_sdks_own_limits(sim: Simulator) -> None:
    """Timeouts, connections and redirects are those of a client that is given nothing."""
    async with client_of(sim, "auto") as ours, sim.async_client() as theirs:
        assert ours.timeout == theirs.timeout
        assert ours._client.follow_redirects == theirs._client.follow_redirects
        assert ours._timeout_overridden == theirs._timeout_overridden


@BOTH
async def test_connections_are_used_again(sim: Simulator, transport: str) -> None:
    """Ten calls, eight at a time, need no more than eight sockets, and closing the client closes them."""
    async with client_of(sim, transport) as client:
        await asyncio.gather(*(client.messages.create(**QUESTION) for _ in range(8)))
        await asyncio.gather(*(client.messages.create(**QUESTION) for _ in range(2)))
        assert 0 < sim.open_connections <= 8
    await until(lambda: sim.open_connections == 0)


# Errors ---------------------------------------------------------------------------------------------------------------

BEFORE = {
    "reset_before_headers": (anthropic.APIConnectionError, (httpx2.ReadError, httpx2.RemoteProtocolError)),
    "close_before_headers": (anthropic.APIConnectionError, (httpx2.RemoteProtocolError,)),
    "overloaded": (anthropic.APIStatusError, ()),
}


@BOTH
@pytest.mark.parametrize("kind", list(BEFORE))
async def test_a_request_that_was_read_did_not_fail_to_connect(sim: Simulator, transport: str, kind: str) -> None:
    """The API may bill it, so that the ledger must not take it for one that was never sent."""
    error, causes = BEFORE[kind]
    sim.fail(Fault(kind))
    async with client_of(sim, transport, max_retries=0) as client:
        with pytest.raises(error) as raised:
            await llmnb.wrap(client).messages.create(**QUESTION)
    row = llmnb.calls().iloc[-1]
    assert row.status == "error"
    if causes:
        assert isinstance(raised.value.__cause__, causes)
        assert row.estimated
        assert row.input_tokens > 0


@BOTH
async def test_nobody_there_is_a_failure_to_connect(transport: str) -> None:
    """It costs nothing, and the ledger knows."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    http = connections.http_client(settings.load(transport=transport))
    async with anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{port}", api_key="none", max_retries=0, http_client=http
    ) as client:
        with pytest.raises(anthropic.APIConnectionError) as raised:
            await llmnb.wrap(client).messages.create(**QUESTION)
    assert isinstance(raised.value.__cause__, httpx2.ConnectError)
    assert llmnb.calls().iloc[-1].input_tokens == 0


@BOTH
async def test_silence_is_a_timeout(sim: Simulator, transport: str) -> None:
    """Before the headers, and between two events of a stream."""
    async with client_of(sim, transport, max_retries=0, timeout=0.15) as client:
        sim.fail(Fault("slow_headers", seconds=30))
        with pytest.raises(anthropic.APITimeoutError):
            await client.messages.create(**QUESTION)
        sim.fail(Fault("stall", after_events=2))
        with pytest.raises(httpx2.ReadTimeout):
            async for _ in await client.messages.create(**QUESTION, stream=True):
                pass


@BOTH
@pytest.mark.parametrize("kind", ["reset", "drop"])
async def test_a_body_that_breaks_off_is_an_error_of_httpx(sim: Simulator, transport: str, kind: str) -> None:
    """Those are what everything above listens for."""
    sim.fail(Fault(kind))
    async with client_of(sim, transport, max_retries=0) as client:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError, anthropic.APIConnectionError)):
            async for _ in await client.messages.create(**QUESTION, stream=True):
                pass


async def test_an_answer_that_is_no_http_is_an_error_of_the_protocol() -> None:
    """Whatever listens at the address."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async with served(answer) as url, httpx2.AsyncClient(transport=connections.AioTransport()) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(url)
        with pytest.raises(httpx2.UnsupportedProtocol):
            await client.get("gopher://127.0.0.1/")


async def test_what_came_before_an_answer_broke_off_is_read() -> None:
    """However slowly: the end of an answer may be in it, with what the answer costs."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    reading, read = asyncio.Event(), []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"3\r\none\r\n")
        await writer.drain()
        await reading.wait()
        writer.write(b"5\r\nthree\r\n")
        writer.write_eof()

    async def slowly(stream: Any) -> None:
        async for piece in stream:
            read.append(piece)
            reading.set()
            if piece == b"one":
                await until(lambda: stream._answer.content.exception() is not None)

    async with served(answer) as url:
        transport = connections.AioTransport()
        response = await transport.handle_async_request(httpx2.Request("GET", url))
        with pytest.raises(httpx2.RemoteProtocolError):
            await slowly(response.stream)
        await response.aclose()
        await transport.aclose()
    assert read == [b"one", b"three"]


async def test_a_connection_that_ended_while_the_loop_was_held_up_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook works with pandas between two questions, longer than the server keeps a connection."""
    monkeypatch.setattr(connections, "_IDLE_S", 0.0)
    ended = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.write_eof()  # without a word of it in the headers
        ended += 1

    async with served(answer) as url, httpx2.AsyncClient(transport=connections.AioTransport()) as client:
        for asked in (1, 2, 3):
            assert (await client.get(url)).text == "hi"
            assert ended == asked
            time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up, and what the server did is known to the system


async def test_a_slow_reader_is_no_silence_of_the_server() -> None:
    """The time for reading runs while one waits for the server, and not while one does other things between pieces."""
    read_on = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await writer.drain()
        await read_on.wait()
        writer.write(b"two")
        await writer.drain()
        writer.close()

    transport = connections.AioTransport()
    async with served(answer) as url, httpx2.AsyncClient(transport=transport, timeout=1.0) as client:
        async with client.stream("GET", url) as response:
            pieces: list[bytes] = []
            async for piece in response.aiter_raw():
                pieces.append(piece)
                if not read_on.is_set():
                    await asyncio.sleep(1.3)
                    read_on.set()
        assert b"".join(pieces) == b"onetwo"


async def test_a_server_that_falls_silent_in_its_answer_is_a_timeout() -> None:
    """As over httpx."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await reader.read()
        writer.close()

    transport = connections.AioTransport()
    async with served(answer) as url, httpx2.AsyncClient(transport=transport, timeout=0.3) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(url)


async def test_a_name_that_is_looked_up_for_too_long_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of connecting, so that nothing is billed and it may be tried again."""
    found = threading.Event()
    system = socket.getaddrinfo

    def slow(host: Any, *more: Any, **options: Any) -> Any:
        if host == "slow.invalid":
            found.wait(30)
            raise socket.gaierror("not found")
        return system(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    transport = connections.AioTransport()
    try:
        patient = httpx2.Timeout(30, connect=0.1)
        async with httpx2.AsyncClient(transport=transport, timeout=patient) as client:
            with pytest.raises(httpx2.ConnectTimeout):
                await client.get("http://slow.invalid/")
    finally:
        found.set()


async def test_a_request_that_nobody_reads_is_a_timeout() -> None:
    """With pictures in it, that is, larger than what waits in a socket."""
    over = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        writer.transport.abort()

    transport, patient = connections.AioTransport(), httpx2.Timeout(30, write=0.1)
    async with served(answer) as url, httpx2.AsyncClient(transport=transport, timeout=patient) as client:
        with pytest.raises(httpx2.WriteTimeout):
            await client.post(url, content=bytes(20_000_000))
        over.set()


async def test_a_base_url_may_hold_a_password() -> None:
    """httpx2 makes a header of it, and aiohttp would have only one of both."""
    told: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")

    async with served(answer) as url, httpx2.AsyncClient(transport=connections.AioTransport()) as client:
        assert (await client.get(url.replace("//", "//me:secret@"))).text == "hi"
    assert b"authorization: Basic bWU6c2VjcmV0" in told[0] or b"Authorization: Basic bWU6c2VjcmV0" in told[0]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[str]:
    """The address of a server that answers so; it ends when its clients have gone."""
    tasks: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        await reader.read()  # until the client has closed its end
        writer.close()
        await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(answer(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await asyncio.gather(*tasks)


# Ends -----------------------------------------------------------------------------------------------------------------


@BOTH
async def test_the_server_sees_at_once_that_a_call_is_cancelled(sim: Simulator, transport: str) -> None:
    """Also while nothing comes."""
    async with client_of(sim, transport) as client:
        sim.fail(Fault("slow_headers", seconds=60))
        task = asyncio.create_task(client.messages.create(**QUESTION))
        await until(lambda: sim.open_connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: sim.open_connections == 0)


@BOTH
async def test_a_stream_that_is_left_closes_its_connection(sim: Simulator, transport: str) -> None:
    """And the next call gets another one."""
    async with client_of(sim, transport) as client:
        sim.fail(Fault("stall", after_events=1))
        async with client.messages.stream(**QUESTION) as stream:
            async for _ in stream:
                break
        await until(lambda: sim.open_connections == 0)
        assert (await client.messages.create(**QUESTION)).content


def test_a_client_that_is_dropped_is_closed_without_a_word(sim: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
    """In a loop that goes on."""

    async def ask() -> None:
        await client_of(sim, "auto").messages.create(**QUESTION)

    async def ask_and_wait() -> None:
        await ask()
        gc.collect()
        await until(lambda: sim.open_connections == 0)

    asyncio.run(ask_and_wait())
    assert capfd.readouterr().err == ""


EXITS = {
    "of a loop thread": "import llmnb; print(llmnb.LLM(display='print').map(['a'], 'Say {{ value }}').text[0] != '')",
    "of a loop that was run": "import asyncio, llmnb; print(asyncio.run(llmnb.LLM().aask('Hi')).text != '')",
    "of a loop that was closed without much ado": (
        "import asyncio, llmnb; loop = asyncio.new_event_loop(); "
        "print(loop.run_until_complete(llmnb.LLM().aask('Hi')).text != ''); loop.close()"
    ),
    "of a loop that stands still": (
        "import asyncio, llmnb; loop = asyncio.new_event_loop(); "
        "print(loop.run_until_complete(llmnb.LLM().aask('Hi')).text != '')"
    ),
}


@pytest.mark.parametrize("code", EXITS.values(), ids=EXITS)
def test_a_process_ends_without_a_word(sim: Simulator, code: str) -> None:
    """aiohttp complains on stderr about what was left open, which nobody could have closed."""
    process = Python(["-c", code], env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert (out.strip().splitlines()[-1], err) == ("True", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_connections_alone(sim: Simulator) -> None:
    """It drops what it has of them, and the parent goes on over the same socket."""

    def fork() -> int:
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        known.clear()
        gc.collect()
        os._exit(0)

    known: list[anthropic.AsyncAnthropic] = []

    async def ask() -> None:
        client = client_of(sim, "auto", max_retries=0, timeout=20)
        known.append(client)
        await client.messages.create(**QUESTION)
        assert fork() == 0
        await client.messages.create(**QUESTION)
        assert sim.open_connections == 1
        await client.close()

    asyncio.run(ask())


async def test_silent_connections_are_kept_alive(sim: Simulator) -> None:
    """As the SDK's own are: what stands between forgets those that say nothing for minutes."""
    async with client_of(sim, "auto") as client:
        await client.messages.create(**QUESTION)
        made = connections._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)))
        with made:
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_an_upload_is_sent_while_it_is_made() -> None:
    """Of a length that nobody knows, and of one that is told."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        heard.append(await reader.readuntil(b"0\r\n\r\n" if b"chunked" in heard[-1].lower() else b"end"))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"begin"
        yield b"end"

    async with served(answer) as url, httpx2.AsyncClient(transport=connections.AioTransport()) as client:
        assert (await client.post(url, content=pieces())).status_code == 204
        told = await client.post(url, content=pieces(), headers={"content-length": "8"})
        assert told.status_code == 204
    assert b"chunked" in heard[0].lower()
    assert b"content-length: 8" in heard[2].lower()
    assert heard[3] == b"beginend"


async def until(true: Callable[[], bool]) -> None:
    """Waits for it."""
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)
