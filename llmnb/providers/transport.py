"""The way to a chat completions server: an httpx2 transport under a client of the anthropic SDK.

It hands a request to the openai SDK, which knows addresses, keys, and how Azure wants to be asked, and gives back what
a Messages server would have answered. Retries are the outer SDK's, so the inner one makes none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httpx2
import jiter

from llmnb.providers.answer import as_dict, message_of
from llmnb.providers.known import Endpoint
from llmnb.providers.refusal import not_there, refused, told_headers
from llmnb.providers.request import MARK
from llmnb.providers.stream import Translation

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

Json = dict[str, Any]

_SSE = ("content-type", "text/event-stream; charset=utf-8")
_JSON = ("content-type", "application/json")
_ATTEMPT = "x-stainless-retry-count"
_NAMED = ("messages", "model", "stream")


class _Way:
    """What both ways share."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def _asked(self, request: httpx2.Request) -> tuple[Json, int, Json]:
        """The body that is sent, the estimate of its tokens, and the options of the openai SDK."""
        body = as_dict(jiter.from_json(request.content))
        mark = as_dict(body.pop(MARK, None))
        timeout = request.extensions.get("timeout")
        options = {
            "extra_headers": {**as_dict(mark.get("headers")), _ATTEMPT: request.headers.get(_ATTEMPT, "0")},
            "timeout": httpx2.Timeout(**timeout) if timeout else None,
            "extra_query": dict(request.url.params) or None,
        }
        return body, int(mark.get("estimated_input") or 0), options

    def _is_message(self, request: httpx2.Request) -> bool:
        return request.method == "POST" and request.url.path.endswith("/v1/messages")

    def _nothing(self, request: httpx2.Request) -> httpx2.Response:
        body = not_there(request.url.path.rpartition("/v1/")[2], self._endpoint.name)
        return httpx2.Response(404, headers=[_JSON], content=body, request=request)

    def _refused(self, response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
        body, headers = refused(response)
        return httpx2.Response(response.status_code, headers=[_JSON, *headers], content=body, request=request)

    def _whole(self, body: bytes, http: httpx2.Response, request: httpx2.Request, estimated: int) -> httpx2.Response:
        try:
            completion = as_dict(jiter.from_json(body))
        except ValueError:
            completion = {}
        if "choices" in completion:
            message = message_of(completion, estimated_input=estimated)
            body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
        headers = [_JSON, *told_headers(http.headers)]  # what is no completion is for the client to wonder at
        return httpx2.Response(200, headers=headers, content=body, request=request)


def _arguments(body: Json) -> Json:
    """The body as arguments of the openai SDK; what it has no name for goes as it is."""
    return {**{name: body[name] for name in _NAMED if name in body}, "extra_body": _without(body)}


def _without(body: Json) -> Json:
    return {name: value for name, value in body.items() if name not in _NAMED}


def _is_sse(http: httpx2.Response) -> bool:
    return "event-stream" in http.headers.get("content-type", "")


def _broke(error: Exception) -> NoReturn:
    """The network's own error behind one of the openai SDK's; the outer SDK has its own words for it."""
    cause = error.__cause__
    raise cause if isinstance(cause, httpx2.HTTPError) else httpx2.ConnectError(str(error)) from None


class Transport(_Way, httpx2.BaseTransport):
    """The way for blocking calls. `client` gives the openai SDK's client when it is first needed; ours is closed."""

    def __init__(self, endpoint: Endpoint, client: Callable[[], OpenAI], *, is_ours: bool) -> None:
        super().__init__(endpoint)
        self._make = client
        self._is_ours = is_ours
        self._client: OpenAI | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self._is_message(request):
            return self._nothing(request)
        import openai

        body, estimated, options = self._asked(request)
        client = self._client = self._client or self._make()
        calls = cast("Any", client.chat.completions.with_streaming_response)
        manager = calls.create(**_arguments(body), **options)
        try:
            http = cast(httpx2.Response, manager.__enter__().http_response)
        except openai.APIStatusError as error:
            return self._refused(error.response, request)
        except openai.APIConnectionError as error:
            _broke(error)
        if not (body.get("stream") and _is_sse(http)):
            try:
                return self._whole(http.read(), http, request, estimated)
            finally:
                http.close()
        stream = _Body(http, Translation(estimated_input=estimated))
        return httpx2.Response(200, headers=[_SSE, *told_headers(http.headers)], stream=stream, request=request)

    def close(self) -> None:
        if self._client is not None and self._is_ours:
            self._client.close()


class AsyncTransport(_Way, httpx2.AsyncBaseTransport):
    """The way for calls of an event loop, to which its client belongs."""

    def __init__(self, endpoint: Endpoint, client: Callable[[], AsyncOpenAI], *, is_ours: bool) -> None:
        super().__init__(endpoint)
        self._make = client
        self._is_ours = is_ours
        self._client: AsyncOpenAI | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self._is_message(request):
            return self._nothing(request)
        import openai

        body, estimated, options = self._asked(request)
        client = self._client = self._client or self._make()
        calls = cast("Any", client.chat.completions.with_streaming_response)
        manager = calls.create(**_arguments(body), **options)
        try:
            http = cast(httpx2.Response, (await manager.__aenter__()).http_response)
        except openai.APIStatusError as error:
            return self._refused(error.response, request)
        except openai.APIConnectionError as error:
            _broke(error)
        if not (body.get("stream") and _is_sse(http)):
            try:
                return self._whole(await http.aread(), http, request, estimated)
            finally:
                await http.aclose()
        stream = _AsyncBody(http, Translation(estimated_input=estimated))
        return httpx2.Response(200, headers=[_SSE, *told_headers(http.headers)], stream=stream, request=request)

    async def aclose(self) -> None:
        if self._client is not None and self._is_ours:
            await self._client.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, http: httpx2.Response, translation: Translation) -> None:
        self._http = http
        self._translation = translation

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._http.iter_bytes():
            if events := self._translation.feed(chunk):
                yield events
        if events := self._translation.end():
            yield events

    def close(self) -> None:
        self._http.close()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, http: httpx2.Response, translation: Translation) -> None:
        self._http = http
        self._translation = translation

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._http.aiter_bytes():
            if events := self._translation.feed(chunk):
                yield events
        if events := self._translation.end():
            yield events

    async def aclose(self) -> None:
        await self._http.aclose()
