"""HTTP itself: keep-alive, pipelining, odd framing, many connections, and clients that vanish."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from llmnb.simulator import Answer, Clock, Fault, Simulator
from llmnb.simulator.wire import parse_head

from .asking import ask

BODY = json.dumps(ask("Say hi")).encode()


@contextmanager
def connected(sim: Simulator) -> Iterator[socket.socket]:
    """A bare socket to the simulator."""
    host, port = sim.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        yield sock


def request(body: bytes = BODY, extra: bytes = b"", framing: bytes | None = None) -> bytes:
    """A raw POST."""
    length = b"content-length: %d\r\n" % len(body) if framing is None else framing
    return b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\n" + extra + length + b"\r\n" + body


def replies(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of so many replies with a content-length."""
    buffer, found = b"", list[bytes]()
    while len(found) < count:
        head, mark, rest = buffer.partition(b"\r\n\r\n")
        length = int(parse_head(b"GET / HTTP/1.1\r\n" + head.partition(b"\r\n")[2])[2]["content-length"]) if mark else 0
        if mark and len(rest) >= length:
            found.append(rest[:length])
            buffer = rest[length:]
            continue
        data = sock.recv(65536)
        assert data, "the server closed the connection"
        buffer += data
    return found


def test_one_connection_serves_many_requests_also_pipelined(sim: Simulator) -> None:
    """Two requests in one write are answered in order on a connection that stays open."""
    with connected(sim) as sock:
        sock.sendall(request() + request())
        first, second = replies(sock, 2)
        sock.sendall(request())
        (third,) = replies(sock, 1)
    assert {json.loads(body)["type"] for body in (first, second, third)} == {"message"}
    assert sim.requests[0].headers["host"] == "x"


def test_requests_that_arrive_byte_by_byte(sim: Simulator) -> None:
    """Slow clients are waited for."""
    with connected(sim) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request()), 7):
            sock.sendall(request()[at : at + 7])
        assert json.loads(replies(sock, 1)[0])["role"] == "assistant"


def test_chunked_and_compressed_bodies_are_read(sim: Simulator) -> None:
    """Transfer-encoding chunked and content-encoding gzip come out as the same body."""
    half = len(BODY) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:half], BODY[half:])) + b"0\r\n\r\n"
    with connected(sim) as sock:
        sock.sendall(request(chunks, framing=b"transfer-encoding: chunked\r\n"))
        replies(sock, 1)
        sock.sendall(request(gzip.compress(BODY), b"content-encoding: gzip\r\n"))
        replies(sock, 1)
        sock.sendall(request(b"not gzip", b"content-encoding: gzip\r\n"))
        assert b"invalid_request_error" in replies(sock, 1)[0]
    assert [seen.prompt for seen in sim.requests] == ["Say hi", "Say hi"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"413"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sim: Simulator, sent: bytes, status: bytes) -> None:
    """400 or 413 in the API's envelope, then the end."""
    with connected(sim) as sock:
        sock.sendall(sent)
        received = b""
        while data := sock.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 " + status)
    assert b'"type":"error"' in received


def test_connection_close_is_honoured(sim: Simulator) -> None:
    """A client that asks for it gets its answer and the end of the connection."""
    with connected(sim) as sock:
        sock.sendall(request(extra=b"connection: close\r\n"))
        received = b""
        while data := sock.recv(65536):
            received += data
    assert b"connection: close" in received


def test_a_vanishing_client_is_seen_while_the_server_is_silent() -> None:
    """The moment is written down in milliseconds, not at the next write."""
    with Simulator(clock=Clock(scale=1)) as sim:
        sim.script(Answer(text="word " * 50, fault=Fault("stall", after_events=1)))
        with connected(sim) as sock:
            sock.sendall(request(json.dumps(ask(stream=True)).encode()))
            sock.recv(100)
            left = time.time()
        sim.settle()
        seen = sim.requests[0]
        assert seen.disconnected_at is not None
        assert seen.disconnected_at - left < 1
        assert sim.open_connections == 0


def test_a_slow_reader_holds_the_stream_back_and_loses_nothing(sim: Simulator) -> None:
    """Back-pressure: a large stream is not piled up, and arrives complete."""
    text = "word " * 600_000
    sim.script(Answer(blocks=[{"type": "text", "text": text}], deltas=3000))
    body = ask(stream=True)
    with httpx2.stream("POST", f"{sim.url}/v1/messages", json=body, headers={"x-api-key": "k"}) as reply:
        deltas = [json.loads(line[6:]) for line in reply.iter_lines() if '"text_delta"' in line]
    assert "".join(delta["delta"]["text"] for delta in deltas) == text


async def test_three_hundred_connections_at_once(sim: Simulator) -> None:
    """Many clients are served side by side, each with its own answer."""
    limits = httpx2.Limits(max_connections=300, max_keepalive_connections=300)
    async with httpx2.AsyncClient(limits=limits, headers={"x-api-key": "k"}, timeout=30) as http:
        sent = [http.post(f"{sim.url}/v1/messages", json=ask(f"What is {at} + 1?")) for at in range(300)]
        answers = [reply.json()["content"][0]["text"] for reply in await asyncio.gather(*sent)]
    assert [f"= **{at + 1}**" in text for at, text in enumerate(answers)] == [True] * 300


def test_stopping_ends_everything_and_frees_the_port() -> None:
    """After stop there is no thread and no listener; stopping again does nothing."""
    sim = Simulator(clock=Clock.frozen())
    with sim:
        sim.fail("stall")
        with connected(sim) as sock:
            sock.sendall(request(json.dumps(ask(stream=True)).encode()))
            sock.recv(10)
            sim.stop()
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", int(sim.url.rsplit(":", 1)[1])), timeout=1)
    sim.stop()
    with pytest.raises(RuntimeError, match="cannot be started again"):
        sim.start()


def test_an_address_needs_a_running_simulator() -> None:
    """Before start there is no URL, and the error says what to do."""
    with pytest.raises(RuntimeError, match="with"):
        _ = Simulator().url


def test_it_listens_on_loopback_only(sim: Simulator) -> None:
    """Nobody else on the network can reach it."""
    assert sim.url.startswith("http://127.0.0.1:")


def test_a_process_of_its_own_prints_its_address_and_ends_on_interrupt() -> None:
    """`python -m llmnb.simulator` serves until Ctrl-C, and exits cleanly."""
    process = subprocess.Popen([sys.executable, "-m", "llmnb.simulator"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        url = process.stdout.readline().strip()
        assert httpx2.get(f"{url}/health").json()["status"] == "ok"
        process.send_signal(2)
        assert process.wait(10) == 0
