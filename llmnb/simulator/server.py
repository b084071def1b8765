"""The simulator as its users hold it: a server on a loopback port of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llmnb.simulator.answer import Answer, Match, Reply, Rule, SeenRequest
from llmnb.simulator.app import Options, Simulation, recorded_from
from llmnb.simulator.billing import BilledTotal, BillingRecord, total
from llmnb.simulator.clock import Clock
from llmnb.simulator.fault import Chance, Fault
from llmnb.simulator.wire import Connection

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic

HOST = "127.0.0.1"
BACKLOG = 1024
API_KEY = "sk-ant-simulated"


class Simulator:
    """A loopback HTTP server that speaks the Messages wire, and the chat completions wire of OpenAI and those like it.

    `seed` fixes every answer and id. `clock` is the server's time (real by default). `valid_keys`,
    `tokens_per_second`, `first_token_s`, `batch_seconds`, `limits` and `keep` are those of `Options`. Use it as a
    context manager, or `start()` and `stop()` it; it listens on 127.0.0.1 only, on a free port unless `port` is given.
    """

    def __init__(self, *, seed: int = 0, clock: Clock | None = None, port: int = 0, **options: Any) -> None:
        self.seed = seed
        self.clock = clock or Clock()
        self._port = port
        if "valid_keys" in options and options["valid_keys"] is not None:
            options["valid_keys"] = frozenset(options["valid_keys"])
        self._simulation = Simulation(seed, self.clock, Options(**options))
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._dice = random.Random(seed)

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen; returns once clients can connect."""
        if self._thread is not None:
            raise RuntimeError("This simulator is running already; a stopped one cannot be started again.")
        sock = _listening_socket(self._port)
        self._simulation.url = f"http://{HOST}:{sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, args=(sock,), name="llmnb-simulator", daemon=True)
        self._thread.start()
        self._started.wait()
        return self

    def stop(self) -> None:
        """Close every connection and end the thread. Stopping twice does nothing."""
        if self._thread is None or self._loop is None or self._stop is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def serve_forever(self) -> None:
        """Serve until interrupted (for a process of its own); start it first to know the address."""
        if self._thread is None:
            self.start()
        try:
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(1.0)
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def _run(self, sock: socket.socket) -> None:
        asyncio.run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: Connection(self._simulation), sock=sock, backlog=BACKLOG)
        self._started.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._simulation.connections):
            connection.reset()
        await asyncio.sleep(0)

    # -- addresses --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL, for `ANTHROPIC_BASE_URL`; `OPENAI_BASE_URL` is this with `/v1`."""
        if not self._simulation.url:
            raise RuntimeError("The simulator is not running: use it in a `with` statement or call start().")
        return self._simulation.url

    @property
    def api_key(self) -> str:
        """A key that it lets in."""
        valid = self._simulation.options.valid_keys
        return min(valid) if valid else API_KEY

    def environ(self) -> dict[str, str]:
        """The environment variables that point an SDK client here."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self.api_key,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": self.api_key,
            "GOOGLE_GEMINI_BASE_URL": self.url,
            "GEMINI_API_KEY": self.api_key,
            "OLLAMA_HOST": self.url,
        }

    def client(self, **options: Any) -> Anthropic:
        """A real `anthropic.Anthropic` pointed here; options go to it. The caller closes it."""
        import anthropic

        return anthropic.Anthropic(**self._pointed(options))

    def async_client(self, **options: Any) -> AsyncAnthropic:
        """A real `anthropic.AsyncAnthropic` pointed here; options go to it. The caller closes it."""
        import anthropic

        return anthropic.AsyncAnthropic(**self._pointed(options))

    def _pointed(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": self.api_key} | options

    # -- what it saw ------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request, in the order they came."""
        return self._simulation.requests

    @property
    def billing(self) -> list[BillingRecord]:
        """The provider's books: one record for each message asked for, also in batches that have ended."""
        self._simulation.batches.settle()
        return self._simulation.engine.billing

    def billed(self) -> BilledTotal:
        """The sums of the books."""
        return total(self.billing)

    @property
    def crashes(self) -> list[str]:
        """Tracebacks of the simulator's own bugs: empty, or something to report."""
        return self._simulation.crashes

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._simulation.connections)

    def settle(self, timeout_s: float = 5.0) -> None:
        """Wait until no reply is on its way, so that the books are complete; TimeoutError when one still is.

        After a client has hung up, its record is written a moment later: call this before reading `billing`.
        """
        deadline = time.monotonic() + timeout_s
        while self._simulation.in_flight:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._simulation.in_flight} replies are still on their way")
            time.sleep(0.001)

    def reset(self) -> None:
        """Forget requests, books, scripts and the prompt cache; connections stay open."""
        self._simulation.requests.clear()
        self._simulation.engine.billing.clear()
        self._simulation.script.clear()
        self.clear_prompt_cache()

    def forget_threads(self) -> None:
        """Lose every message thread, as a server may: the SDK then sends the conversation again."""
        self._simulation.engine.threads.forget()

    def clear_prompt_cache(self) -> None:
        """Empty the prompt cache."""
        self._simulation.engine.cache.clear()
        self._simulation.engine.prefixes.clear()

    # -- what it is told --------------------------------------------------------------------------------------------

    def script(self, *replies: Reply, match: Match = None, times: int = 1) -> Self:
        """Queue replies: each is used `times` times, in this order, by the next message requests that match.

        A reply is a text, an `Answer`, a `Fault`, or a function of the request that returns one (or None to decline).
        `match` is a part of the prompt, a compiled pattern, a part of the body, or a function of the request.
        """
        for reply in replies:
            self._simulation.script.add(Rule(reply, match, times))
        return self

    def rule(self, reply: Reply, match: Match = None, *, any_route: bool = False) -> Self:
        """A standing reply, for all message requests that match and find no queued one (`any_route`: on any route)."""
        self._simulation.script.add(Rule(reply, match, any_route=any_route))
        return self

    def fail(
        self,
        kind: str | Fault,
        *,
        times: int | None = 1,
        probability: float | None = None,
        match: Match = None,
        any_route: bool = False,
        **parameters: Any,
    ) -> Self:
        """Have the next `times` requests go wrong (None: all), or each with a probability, by the seed's dice.

        `kind` and `parameters` are those of `Fault`. With a probability and the default `times`, all requests are at
        risk.
        """
        fault = kind if isinstance(kind, Fault) else Fault(kind, **parameters)
        chance = None if probability is None else Chance(probability, random.Random(self._dice.getrandbits(64)))
        uses = None if probability is not None and times == 1 else times
        self._simulation.script.add(Rule(fault, match, uses, chance, any_route))
        return self

    def replay(
        self,
        status: int,
        headers: Mapping[str, str] | None,
        body: bytes,
        kind: str | None = None,
        *,
        match: Match = None,
        times: int | None = 1,
        any_route: bool = True,
        **pace: Any,
    ) -> Self:
        """Serve a recorded body verbatim; `kind` ("sse", "json") is told from headers or body when left out.

        `pace` takes the pace and the fault of an `Answer`. It is billed by what its bytes say was used.
        """
        recorded = recorded_from(status, dict(headers or {}), body, kind)
        self._simulation.script.add(Rule(Answer(recorded=recorded, **pace), match, times, None, any_route))
        return self


def _listening_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    sock.setblocking(False)
    return sock
