"""Sends the requests of a run, which differ in nothing but their body, without building each of them anew.

For every request the SDK merges headers, addresses and timeouts, and httpx2 does so again: half of all that a row of a
run costs. Here the first request is left to the SDK, and what it made of it is used again for those that have the same
options, with their own body, idempotency key and number of retries. Whatever is not exactly that goes the SDK's way:
streams, uploads, redirects, credentials that may change, all of it when somebody listens in, by logging or tracing, and
with an SDK that is not known (`known_sdk.py`).
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from typing import Any, ClassVar, NoReturn, cast

import httpx2
from anthropic import (
    APIConnectionError,
    APIRequest,
    APITimeoutError,
    AsyncAnthropic,
    AsyncAPIResponse,
    AsyncCallNext,
    Middleware,
)
from opentelemetry import trace

from llmnb.connections import AioClient, AioTransport, as_httpx
from llmnb.middleware import alike
from llmnb.middleware.answering import dressed, http_of
from llmnb.middleware.known_sdk import known
from llmnb.middleware.ledger import is_billable
from llmnb.middleware.prebuilt import PrebuiltPart
from llmnb.unread import RECORDS_SPANS

_LISTENERS = tuple((logging.getLogger(name), level) for name, level in (("anthropic", 10), ("httpx2", 20)))
"""Who says what is sent, and at which level."""
_COUNTED = b"x-stainless-retry-count"
_OWN = (b"content-length", _COUNTED)
"""Headers that every request has a value of its own for, besides its idempotency key."""
_DUMPS = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode  # as the SDK writes it
_READ = httpx2.ByteStream(b"")
_FACTS = {"http_version": b"HTTP/1.1"}


def for_many(client: Any) -> Any:
    """The client for many requests that are alike."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) and not _has_tracer(client):
        client = client.with_options(open_telemetry=False)  # nobody records spans, and to begin one takes its time
    if not _suits(client):
        return client
    others = [part for part in client.middleware if not isinstance(part, PrebuiltPart)]  # which only works innermost
    return alike.many(client.copy(middleware=[*others, DirectPart(client)]))


def _has_tracer(client: Any) -> bool:
    return client.open_telemetry.get("tracer_provider") is not None


def _suits(client: Any) -> bool:
    http: Any = client._client
    return (
        type(client) is AsyncAnthropic
        and known(AsyncAnthropic) is not None
        and isinstance(http, AioClient)
        and client.credentials is None
        and client.custom_auth is None
        and not any(http.event_hooks.values())
    )


class DirectPart(Middleware):
    """The innermost part of a client whose requests are alike."""

    is_innermost: ClassVar[bool] = True

    def __init__(self, client: Any) -> None:
        self._transport: AioTransport = client._client.aio
        self._known: _Alike | None = None

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        known = self._known
        if known is None or not known.is_like(request) or _is_listened_to():
            return await self._through_the_sdk(request, call_next)
        http = await known.sent(self._transport, request)
        if 300 <= http.status_code < 400:  # the SDK follows them
            await http.aclose()
            return await call_next(request)
        return cast("AsyncAPIResponse[Any]", dressed(http, request, asynchronous=True))

    async def _through_the_sdk(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        response = await call_next(request)
        http = http_of(response)
        if self._known is None and http is not None and http.is_success and not http.history and _is_plain(request):
            self._known = _Alike(request, http.request)
        return response


class _Alike:
    """What the SDK made of a request, for those that are like it."""

    def __init__(self, request: APIRequest, sent: httpx2.Request) -> None:
        self._options = request.options
        self._method, self._url = sent.method, str(sent.url)
        self._extensions = dict(sent.extensions)
        key = str(request.options.idempotency_key).encode()
        raw = sent.headers.raw
        self._key_name = next((name.decode("ascii") for name, value in raw if value == key), None)
        self._headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in raw
            if value != key and name.lower() not in _OWN
        ]
        self._counted = any(name.lower() == _COUNTED for name, _ in raw)

    def is_like(self, request: APIRequest) -> bool:
        """Whether a request differs in nothing that the SDK would make something else of."""
        mine, its = self._options, request.options
        return (
            its.url == mine.url
            and its.headers == mine.headers
            and its.timeout == mine.timeout
            and its.params == mine.params
            and _is_plain(request)
        )

    async def sent(self, transport: AioTransport, request: APIRequest) -> httpx2.Response:
        """The response, read to its end.

        Raises:
            APIConnectionError: as the SDK's.
        """
        body = _DUMPS(request.options.json_data).encode()
        headers = [*self._headers, ("content-length", str(len(body)))]
        if self._key_name is not None:
            headers.append((self._key_name, str(request.options.idempotency_key)))
        if self._counted:
            headers.append((_COUNTED.decode(), str(request.retries_taken)))
        began = time.perf_counter()
        try:
            answer = await transport.send(self._method, self._url, headers, body, self._extensions)
            content = await answer.read()
            response = _Response(answer.status, headers=answer.raw_headers, stream=_READ, extensions=_FACTS)
            response.hold(content, time.perf_counter() - began, lambda: self._request(headers, body))
        except Exception as error:
            self._raise(error, headers, body)
        return response

    def _request(self, headers: list[tuple[str, str]], body: bytes) -> httpx2.Request:
        return httpx2.Request(self._method, self._url, headers=headers, content=body, extensions=self._extensions)

    def _raise(self, error: Exception, headers: list[tuple[str, str]], body: bytes) -> NoReturn:
        request = self._request(headers, body)
        try:
            with as_httpx(request):
                raise error
        except httpx2.TimeoutException as late:
            raise APITimeoutError(request=request) from late
        except Exception as failed:
            raise APIConnectionError(request=request) from failed


class _Response(httpx2.Response):
    """A response that has been read. The request to it is made up when somebody looks."""

    def hold(self, content: bytes, seconds: float, asked: Any) -> None:
        """Has the body, which took so long."""
        if b"".join([part for pair in self.headers.raw for part in pair]).isascii():
            self.headers.encoding = "ascii"  # as it would find out by decoding each of them
        if "content-encoding" in self.headers:
            self._content = httpx2.Response(200, headers=self.headers, content=content).content
        else:
            self._content = content
        self._num_bytes_downloaded = len(content)
        self.is_closed = self.is_stream_consumed = True
        self._elapsed = datetime.timedelta(seconds=seconds)
        self._asked = asked

    @property
    def request(self) -> httpx2.Request:
        if self._request is None:
            self._request = cast("httpx2.Request", self._asked())
        return self._request

    @request.setter
    def request(self, value: httpx2.Request) -> None:
        self._request = value


def _is_plain(request: APIRequest) -> bool:
    its = request.options
    return (
        not request.stream
        and is_billable(request)
        and its.files is None
        and its.content is None
        and its.extra_json is None
        and its.follow_redirects is None
    )


def _is_listened_to() -> bool:
    return RECORDS_SPANS in sys.modules or any(logger.isEnabledFor(level) for logger, level in _LISTENERS)
