"""The cache part: answers what was asked before from the response cache, and keeps what is asked for the first time.

It stands inside the ledger part, so that a hit is a row, too, and outside everything else: a hit needs no budget and no
pacing, and the key is taken before breakpoints are placed. Whatever goes wrong in it is a miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import httpx2
from anthropic import APIRequest

from llmnb import keys
from llmnb.cache.flights import PATIENCE_S, Flight, Halt, is_worth_waiting
from llmnb.cache.responses import Arrived, ResponseCache
from llmnb.cache.stored import KEPT_HEADERS, StoredAnswer
from llmnb.cache.world import depends_on_the_world
from llmnb.messages.folding import CannotFold
from llmnb.middleware import answering
from llmnb.middleware.flow import BLOCKS, CLIENT, Answer, Flow, Part, Pause, sending
from llmnb.middleware.ledger import is_billable
from llmnb.middleware.tee import End, decoded, watch
from llmnb.middleware.watch import is_aws_frames, sse_of_aws_frames
from llmnb.records import CacheUse, Caching, current_context
from llmnb.trouble import quietly

FIRST_LOOK_S = 0.002
LONGEST_LOOK_S = 0.05
"""How long a waiting call waits between two looks, at first and at most."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What all calls of one wrapped client share. `use` is what holds for calls that say nothing of the cache."""

    responses: ResponseCache
    use: CacheUse
    provider: str
    base_url: str
    headers: dict[str, Any]


@dataclass(slots=True, eq=False)  # not frozen: it is made for every call, and frozen takes three times as long
class Asked:
    """A question to the cache."""

    key: str
    around: keys.Around
    canonical: bytes
    model: str
    caching: Caching
    base_url: httpx2.URL
    turn: keys.Turn | None = None

    def request(self) -> bytes:
        """What is kept of the question, as JSON."""
        return b'{"around":' + self.around.text + b',"body":' + self.canonical + b"}"


_NO_CACHING = Caching()


class CachePart(Part):
    """Answers from the response cache where it may, and keeps answers in it."""

    def __init__(self, cached: Cached) -> None:
        self.cached = cached
        self._responses = cached.responses
        self._base_url = httpx2.URL(cached.base_url)
        self._known_around: tuple[tuple[Any, ...], keys.Around] | None = None

    def concerns(self, request: APIRequest) -> bool:
        caching = current_context().caching
        return (self.cached.use if caching is None or caching.use is None else caching.use) is not False

    def flow(self, request: APIRequest) -> Flow:
        caching = self._wanted(request)
        asked = None if caching is None else self._asked(request, caching, (yield CLIENT))
        if asked is None:
            return (yield sending(request))
        http = self._found(asked, request)
        flight = None if http is not None else self._responses.flights.lead(asked.key)
        if flight is not None:
            http, flight = self._took_off(asked, request, flight)
        elif http is None:
            http, flight = yield from self._waited(asked, request)
        if http is not None:
            return (yield Answer(http, request))
        try:
            response = yield sending(request)
        except BaseException:
            self.failed(flight)
            raise
        self._came(asked, response, flight)
        return response

    # The question -----------------------------------------------------------------------------------------------------

    def _wanted(self, request: APIRequest) -> Caching | None:
        """What is wanted of the cache; None when the call has nothing to do with it."""
        if not is_billable(request):
            return None
        caching = current_context().caching or _NO_CACHING
        use = self.cached.use if caching.use is None else caching.use
        body: Any = request.json
        if use is False or body.get("max_tokens") == 0:  # it writes nothing: it is there to fill the prompt cache
            return None
        return caching if use == "all" or not depends_on_the_world(body) else None

    def _asked(self, request: APIRequest, caching: Caching, client: Any) -> Asked | None:
        try:
            body: Any = request.json
            base_url = self._base_url if client is None else client._base_url
            around = self._around(request, caching, client, base_url)
            canonical = keys.canonical_body(body)
            turn = self._responses.threads.turn(body) if "thread" in body else None
            key = around.key(canonical if turn is None else turn.canonical)
            return Asked(key, around, canonical, str(body.get("model")), caching, base_url, turn)
        except Exception as trouble:  # such as a body that JSON cannot hold
            quietly("naming a question for the response cache", trouble)
            return None

    def _around(self, request: APIRequest, caching: Caching, client: Any, base_url: Any) -> keys.Around:
        """What counts besides the body; mostly that of the call before."""
        custom = self.cached.headers if client is None else client._custom_headers
        options, own = request.options, request.headers
        facts = (base_url, custom, own, options.url, options.params, caching.sample)
        known = self._known_around
        if known is None or known[0] != facts:
            found = keys.around(
                provider=self.cached.provider,
                base_url=str(base_url),
                path=options.url,
                query=options.params,
                headers={**custom, **{name: value for name, value in own.items() if isinstance(value, str)}},
                sample=caching.sample,
            )
            copied = (base_url, dict(custom), dict(own), options.url, dict(options.params), caching.sample)
            self._known_around = known = (copied, keys.Around(found))
        return known[1]

    # An answer that is there, or comes --------------------------------------------------------------------------------

    def _waited(
        self, asked: Asked, request: APIRequest
    ) -> Generator[Any, Any, tuple[httpx2.Response | None, Flight | None]]:
        """What becomes of a question that somebody else is asking: the answer, or the flight of this call, which leads
        the question then; neither when it goes by itself."""
        flights, waited_s, look_s, flight = self._responses.flights, 0.0, FIRST_LOOK_S, None
        blocks: bool = yield BLOCKS
        while flight is None:
            other = flights.other(asked.key)
            if asked.caching.fresh or not is_worth_waiting(other, blocks=blocks) or waited_s > PATIENCE_S:
                return None, None
            halt = Halt(other) if other is not None and other.is_own else None
            while other is not None and not other.is_over:
                if halt is not None and halt.has_come(time.monotonic()):
                    return None, None
                yield Pause(look_s)
                look_s = min(look_s * 1.5, LONGEST_LOOK_S)
            if other is None:  # another process asks
                yield Pause(look_s)
                waited_s, look_s = waited_s + look_s, min(look_s * 1.5, LONGEST_LOOK_S)
            if (http := self._found(asked, request)) is not None or (other is not None and not other.answered):
                return http, None
            flight = flights.lead(asked.key)
        return self._took_off(asked, request, flight, look_again=waited_s > 0)

    def _took_off(
        self, asked: Asked, request: APIRequest, flight: Flight, *, look_again: bool = False
    ) -> tuple[httpx2.Response | None, Flight | None]:
        """What came between the first look and the lead, which is over then, or the lead."""
        if asked.caching.fresh:
            return None, flight
        try:
            if look_again:
                http = self._found(asked, request)
            else:
                http = self._response(self._responses.just_now(asked.key), asked, request)
        except BaseException:
            self.failed(flight)
            raise
        if http is None:
            return None, flight
        self.failed(flight)
        return http, None

    def _found(self, asked: Asked, request: APIRequest) -> httpx2.Response | None:
        if asked.caching.fresh:
            return None
        return self._response(self._responses.find(asked.key, ttl_s=asked.caching.ttl_s), asked, request)

    def _response(self, answer: StoredAnswer | None, asked: Asked, request: APIRequest) -> httpx2.Response | None:
        if answer is None:
            return None
        try:
            if asked.turn is not None:
                self._responses.threads.answered(asked.turn, answer)
            return answering.http_response(
                answer,
                request,
                source="cache",
                base_url=asked.base_url,
                words_per_s=asked.caching.words_per_s,
            )
        except (
            CannotFold
        ):  # it was streamed, and holds what no message can be made of: asked again, and then kept whole
            return None
        except Exception as trouble:
            quietly("answering from the response cache", trouble)
            return None

    # An answer that came ----------------------------------------------------------------------------------------------

    def _came(self, asked: Asked, response: Any, flight: Flight | None) -> None:
        try:
            http: httpx2.Response | None = getattr(response, "http_response", None)
            if http is None or http.status_code != 200:
                self.failed(flight)
            elif http.is_closed:
                content = http.content
                self.keep(asked, http, flight, lambda: content)
            else:
                tee = watch(http, _Body(self, asked, response, flight))
                if flight is not None:
                    flight.reading = tee
        except Exception as trouble:
            self.failed(flight)
            quietly("keeping an answer", trouble)

    def keep(self, asked: Asked, http: httpx2.Response, flight: Flight | None, body: Callable[[], bytes]) -> None:
        """The body is here, and those who wait for it may have it."""
        headers = http.headers
        self._responses.keep(
            Arrived(
                key=asked.key,
                model_requested=asked.model,
                provider=self.cached.provider,
                request=asked.request,
                body=body,
                created_us=self._responses.now_us(),
                headers=lambda: _kept(headers),
                ttl_s=asked.caching.ttl_s,
                flight=flight,
                turn=asked.turn,
            )
        )
        if flight is not None:
            self._responses.flights.arrived(flight, answered=True)

    def failed(self, flight: Flight | None) -> None:
        """There is no answer; who waits for it asks by itself."""
        if flight is not None:
            self._responses.flights.arrived(flight, answered=False)


_KEPT_NAMES = {name.encode(): name for name in KEPT_HEADERS}


def _kept(headers: httpx2.Headers) -> list[tuple[str, str]]:
    # to ask for one by its name goes through all of them
    found = [(name.lower(), value) for name, value in headers.raw if name.lower() in _KEPT_NAMES]
    return [(_KEPT_NAMES[name], _text(value, headers)) for name, value in found]


def _text(value: bytes, headers: httpx2.Headers) -> str:
    # to find their encoding goes through all of them, too
    return value.decode("ascii") if value.isascii() else value.decode(headers.encoding)


class _Body:
    """Watches a streamed body, and has it kept when it was read to its end."""

    def __init__(self, part: CachePart, asked: Asked, response: Any, flight: Flight | None) -> None:
        self._part, self._asked, self._response, self._flight = part, asked, response, flight

    def look(self, chunks: list[bytes]) -> int:
        return 1 << 62

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        if how in ("failed", "dropped"):
            self._part.failed(self._flight)
            return
        response = self._response
        http: httpx2.Response = response.http_response

        def body() -> bytes:
            raw = decoded(b"".join(chunks), http.headers)
            return sse_of_aws_frames(raw, response) if is_aws_frames(http.headers) else raw

        self._part.keep(self._asked, http, self._flight, body)
