"""Answers a request from what is stored: as a real response of the SDK, whichever way the request was made.

The stored bytes are put into an HTTP response, which is dressed the way the SDK dresses one that came over the network:
for this request's type, streaming or not, raw or parsed. The SDK then treats it like any other.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import httpx2
from anthropic import Anthropic, APIRequest, APIResponse, AsyncAnthropic, AsyncAPIResponse
from anthropic._response import extract_response_type

from llmnb.cache.stored import CONTENT_TYPES, Form, StoredAnswer
from llmnb.middleware.reading_speed import ReadingSpeed
from llmnb.records import Source

if TYPE_CHECKING:
    from llmnb.middleware.flow import Response

ANSWER = "llmnb.answer"
"""The name under which the HTTP response's `extensions` hold the `StoredAnswer` it was made of, and its source."""

SOURCE = "llmnb.source"
"""The same for a response that is no `StoredAnswer`: where it came from, "replay"."""

_NO_TIME = datetime.timedelta(0)


def http_response(
    answer: StoredAnswer,
    request: APIRequest,
    *,
    source: Source,
    base_url: str | httpx2.URL = "",
    words_per_s: float | None = None,
) -> httpx2.Response:
    """The answer in the form that the request asks for.

    `source` is "cache" or "replay", for the ledger row. A stream comes at once, or at `words_per_s`.

    Raises:
        llmnb.messages.folding.CannotFold: the request wants a message, and none can be made of the stored stream.
    """
    form: Form = "sse" if request.stream else "json"
    body = answer.body_as(form)
    slowly = None if words_per_s is None or form == "json" else ReadingSpeed(body, words_per_s)
    response = _Kept(
        answer.status,
        headers=[*answer.headers, ("content-type", CONTENT_TYPES[form])],
        stream=slowly or httpx2.ByteStream(body),
        extensions={ANSWER: (answer, source)},
    )
    response.asked = lambda: _http_request(request, base_url)
    if slowly is None:
        response.hold(body)
    return response


class _Kept(httpx2.Response):
    """A response whose body is here. The request to it is made up when somebody looks: parsing its address costs more
    than finding the answer did."""

    asked: Callable[[], httpx2.Request]

    def hold(self, body: bytes) -> None:
        """Has the body as if it had been read."""
        self._content = body
        self.is_closed = self.is_stream_consumed = True

    @property
    def request(self) -> httpx2.Request:
        if self._request is None:
            self._request = self.asked()
        return self._request

    @request.setter
    def request(self, value: httpx2.Request) -> None:
        self._request = value

    @property
    def elapsed(self) -> datetime.timedelta:
        return _NO_TIME

    @elapsed.setter
    def elapsed(self, elapsed: datetime.timedelta) -> None:
        del elapsed


def dressed(http: httpx2.Response, request: APIRequest, *, asynchronous: bool) -> Response:
    """The HTTP response as the SDK hands one to its caller."""
    if request.cast_to is httpx2.Response:
        return cast("Response", http)  # what the SDK gives to those who ask for it
    kind: type[Any] = AsyncAPIResponse if asynchronous else APIResponse
    cast_to: Any = request.cast_to
    if not request.stream and isinstance(cast_to, type) and issubclass(cast_to, kind):
        kind, cast_to = cast_to, extract_response_type(cast_to)  # a download: its response has a class of its own
    known: dict[str, Any] = {
        "raw": http,
        "cast_to": cast_to,
        "client": _offline_client(asynchronous),
        "stream": request.stream,
        "stream_cls": request.stream_cls,
        "options": request.options,
        "retries_taken": request.retries_taken,
    }
    return kind(**known)


def http_of(response: Any) -> httpx2.Response | None:
    """The HTTP response behind what a chain of middleware gives; None for an object that a part inside made.

    Who asks the SDK for an `httpx2.Response` is given that, and so is the middleware.
    """
    return response if isinstance(response, httpx2.Response) else getattr(response, "http_response", None)


def answered_from(http: httpx2.Response) -> tuple[StoredAnswer, Source] | None:
    """The stored answer that a response was made of and its source; None for one that came over the network."""
    return http.extensions.get(ANSWER)


def source_of(http: httpx2.Response) -> Source:
    """Where a response came from."""
    answered = answered_from(http)
    return http.extensions.get(SOURCE, "live") if answered is None else answered[1]


def _http_request(request: APIRequest, base_url: str | httpx2.URL) -> httpx2.Request:
    # the SDK's accumulator of beta streams looks into the betas; the other headers may hold secrets, and are not needed
    betas = request.headers.get("anthropic-beta")
    headers = {"anthropic-beta": betas} if isinstance(betas, str) else None
    return httpx2.Request(request.method.upper(), str(base_url).rstrip("/") + request.url, headers=headers)


@cache
def _offline_client(asynchronous: bool) -> Anthropic | AsyncAnthropic:
    """A client that only parses: it reads server-sent events whatever the provider's own are, and cannot send."""
    if asynchronous:
        return AsyncAnthropic(api_key="offline", http_client=httpx2.AsyncClient(transport=_Nowhere()))
    return Anthropic(api_key="offline", http_client=httpx2.Client(transport=_Nowhere()))


class _Nowhere(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The way to no network; without one, the client would load the machine's certificates."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("this client answers from disk and sends nothing", request=request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle_request(request)
