"""Sends a request that is like one before it without having the SDK and httpx2 build the same once more.

For every request the SDK merges headers, address and timeouts, and httpx2 does so again: a sixth of what a call costs.
Here what they made of one request is used again for those that have the same options, of a client that has not changed
since, with their own body, cookies and number of retries. The SDK's HTTP client sends it as ever: its authentication,
redirects, event hooks, transports and cookie jar are its own business.

What is learned is held against what the SDK makes, to the last attribute, before it is used. Whatever is not exactly
the plain case goes the SDK's way: other classes of clients and replaced methods, credentials that may change, uploads,
queries, traced calls, all of it where the SDK logs what it sends, and with an SDK that is not known (`known_sdk.py`).
"""

# what is sent must be what these would have made, to the last attribute
# pyright: reportPrivateUsage=false
from __future__ import annotations

import logging
from operator import attrgetter, is_
from types import FunctionType
from typing import Any, Final, NoReturn, cast

import httpx2
from anthropic import (
    AnthropicError,
    APIConnectionError,
    APIRequest,
    APIResponse,
    APITimeoutError,
    AsyncAPIResponse,
    AsyncCallNext,
    CallNext,
    Middleware,
    NotGiven,
    Omit,
)

from llmnb.middleware import known_sdk

_SDK = known_sdk.module("anthropic._base_client")
_SDK_LOG = logging.getLogger("anthropic._base_client")
_COUNTED, _COOKIE, _LENGTH = b"x-stainless-retry-count", b"cookie", b"content-length"
_OWN = {"x-stainless-retry-count", "cookie", "content-length", "transfer-encoding"}
"""Headers that every request has a value of its own for. Who gives one means it."""
_MOST_KINDS = 8
_CREDIT, _MOST_CREDIT = 8, 64
"""To learn a request costs more than is saved by one like it: where there hardly ever is one, it is given up."""


class PrebuiltPart(Middleware):
    """The innermost part of a client's pipeline."""

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        sender = kind = built = None
        try:
            sender = _sender(call_next)
            if sender is not None and sender.may_send(request):
                state = _state(sender.client)
                kind = sender.known(request, state)
                if kind is None and sender.learns():
                    options = sender.client._prepare_options(_SDK._prepare_middleware_options(request))
                    kind = sender.learned(request, options, state)
                built = kind and kind.request(request)
        except Exception:  # what is wrong with a request the SDK says best
            built = None
        if sender is None or kind is None or built is None:
            return call_next(request)
        client = sender.client
        try:
            http = client._client.send(built, stream=request.stream or kind.is_read_later)
        except Exception as error:
            _raise(error, built)
        return client._process_response(**_facts(http, request))

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        sender = kind = built = None
        try:
            sender = _sender(call_next)
            if sender is not None and sender.may_send(request):
                state = _state(sender.client)
                kind = sender.known(request, state)
                if kind is None and sender.learns():
                    options = await sender.client._prepare_options(_SDK._prepare_middleware_options(request))
                    kind = sender.learned(request, options, state)
                built = kind and kind.request(request)
        except Exception:
            built = None
        if sender is None or kind is None or built is None:
            return await call_next(request)
        client = sender.client
        try:
            http = await client._client.send(built, stream=request.stream or kind.is_read_later)
        except Exception as error:
            _raise(error, built)
        return await client._process_response(**_facts(http, request))


def _raise(error: Exception, request: httpx2.Request) -> NoReturn:
    """As the SDK does."""
    if isinstance(error, httpx2.TimeoutException):
        raise APITimeoutError(request=request) from error
    if isinstance(error, AnthropicError):
        raise error
    raise APIConnectionError(request=request) from error


def _facts(http: httpx2.Response, request: APIRequest) -> dict[str, Any]:
    return {
        "cast_to": request.cast_to,
        "options": request.options,
        "response": http,
        "stream": request.stream,
        "stream_cls": request.stream_cls,
        "retries_taken": request.retries_taken,
    }


class _Kind:
    """What the SDK made of one request, for those that are like it."""

    def __init__(self, request: APIRequest, sent: httpx2.Request, cookies: httpx2.Cookies) -> None:
        asked = request.options
        self._url, self._timeout = asked.url, _time(asked.timeout)
        self._named = _items(asked.headers)
        self.is_read_later = sent.headers.get(_SDK.RAW_RESPONSE_HEADER) == "stream"
        *items, self._length = sent.headers._list
        self._items = [item for item in items if item[1] != _COOKIE]
        self._counted_at = next(at for at, item in enumerate(self._items) if item[1] == _COUNTED)
        self._counted = self._items[self._counted_at][:2]
        self._method, self._sent_to, self._extensions = sent.method, sent.url, _copied(sent.extensions)
        self._encoding = sent.headers.encoding  # which takes a look at all of them
        self._cookies = cookies

    def is_like(self, request: APIRequest) -> bool:
        """Whether the SDK would make the same of a request, but for what is its own."""
        its = request.options
        return its.url == self._url and _time(its.timeout) == self._timeout and _items(its.headers) == self._named

    def request(self, request: APIRequest) -> httpx2.Request:
        """The request as httpx2 would have made it of what the SDK gives."""
        body = _SDK.openapi_dumps(request.options.json_data)
        headers = httpx2.Headers()
        headers._list = items = self._items.copy()
        items[self._counted_at] = (*self._counted, b"%d" % request.retries_taken)
        built = httpx2.Request.__new__(httpx2.Request)
        built.method, built.url, built.headers = self._method, self._sent_to, headers
        built.extensions = _copied(self._extensions)
        if self._cookies:
            self._cookies.set_cookie_header(built)
            headers._encoding = None  # it was asked for those so far
        else:
            headers._encoding = self._encoding
        items.append((*self._length[:2], b"%d" % len(body)))
        built.stream, built._content = httpx2.ByteStream(body), body
        return built


class _Sender:
    """What is known of the requests of one client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._learned: tuple[list[Any], tuple[_Kind, ...]] = [], ()  # in one: threads see both, or neither
        self._credit = _CREDIT
        self._has_seen_one = False  # a copy of a client may be made for one call

    def may_send(self, request: APIRequest) -> bool:
        """Whether nothing stands against it in the request, and nobody has changed how the client works."""
        its = request.options
        return (
            type(its.json_data) is dict
            and its.method == "post"
            and its.files is its.content is its.extra_json is its.follow_redirects is None
            and not its.params
            and not _SDK_LOG.isEnabledFor(logging.DEBUG)
            and known_sdk.is_genuine(self.client)
        )

    def known(self, request: APIRequest, state: list[Any]) -> _Kind | None:
        """What is known of requests like this one, of a client in this state."""
        before, kinds = self._learned
        if not _is_same(state, before):
            return None
        for kind in kinds:
            if kind.is_like(request):
                if self._credit < _MOST_CREDIT:
                    self._credit += 1
                return kind
        return None

    def learns(self) -> bool:
        """Whether it is likely to be worth it."""
        had_one, self._has_seen_one = self._has_seen_one, True
        return had_one and self._credit > 0

    def learned(self, request: APIRequest, options: Any, state: list[Any]) -> _Kind | None:
        """The same of what the SDK makes of this one; None where it cannot be used for others."""
        self._credit -= 1
        client, http = self.client, self.client._client
        given = (request.headers, client._custom_headers, client._credential_headers, http.headers)
        if any(_OWN & {name.lower() for name in names} for names in given):
            return None
        if not _are_texts(client.api_key, client.auth_token, *(value for some in given for value in some.values())):
            return None
        if client._idempotency_header or client._token_cache or client._custom_auth:
            return None
        if http.params or client._custom_query:
            return None
        sent = client._build_request(options, retries_taken=request.retries_taken)
        kind = _Kind(request, sent, http.cookies)
        if _told(kind.request(request)) != _told(sent):
            return None
        if not _is_same(_state(client), state):
            return None  # another thread changed the client: nobody knows of which state this was made
        before, kinds = self._learned
        self._learned = state, (kind, *(kinds[: _MOST_KINDS - 1] if _is_same(state, before) else ()))
        return kind


def _is_same(state: list[Any], before: list[Any]) -> bool:
    return len(state) == len(before) and all(map(is_, state, before))


def _are_texts(*values: Any) -> bool:
    """Whether each is what it will be the next time: what is only like a text may be written differently each time."""
    return all(value is None or type(value) in (str, Omit) for value in values)


def _items(headers: Any) -> Any:
    if not hasattr(headers, "items"):
        return None
    return [(name, value, type(value)) for name, value in headers.items()]


_times = attrgetter("connect", "read", "write", "pool")


def _time(given: Any) -> Any:
    """A timeout as it is now, to be compared; it is written out, as 600 or as 600.0."""
    if isinstance(given, httpx2.Timeout):
        return type(given), _times(given), type(given.read)
    if isinstance(given, NotGiven):
        return NotGiven  # a copy of a request's options has one of its own
    return type(given), given


def _copied(extensions: Any) -> dict[str, Any]:
    return {name: value.copy() if type(value) is dict else value for name, value in extensions.items()}


def _told(request: httpx2.Request) -> dict[str, Any]:
    """All that a request is, to be compared."""
    told = dict(vars(request))
    told["headers"] = request.headers._list, request.headers.encoding
    told["stream"] = type(request.stream), vars(request.stream)
    return told


# The client -----------------------------------------------------------------------------------------------------------

_SENDER: Final = "_llmnb_sender"


def _sender(call_next: Any) -> _Sender | None:
    """Who sends for the client whose chain of middleware ends with `call_next`; None where somebody else is to."""
    try:
        return call_next.__dict__[_SENDER]
    except (AttributeError, KeyError):
        client = _client_of(call_next)
        sender = None if known_sdk.known(cast("type[object]", type(client))) is None else _Sender(client)
        if type(call_next) is FunctionType:
            vars(call_next)[_SENDER] = sender  # lives as long as the chain, which holds the client as well
        return sender


def _client_of(call_next: Any) -> Any:
    if not getattr(call_next, "__qualname__", "").endswith("._build_middleware_chain.<locals>.base_handler"):
        return None
    cells = (cell.cell_contents for cell in call_next.__closure__)
    held = dict(zip(call_next.__code__.co_freevars, cells, strict=True))
    is_plain = held.keys() == {"call", "self"} and held["call"] is None  # no span of the call
    return held["self"] if is_plain else None


_of_client = attrgetter(
    "_client",
    "api_key",
    "auth_token",
    "credentials",
    "_base_url",
    "_timeout",
    "_token_cache",
    "_custom_auth",
    "_idempotency_header",
    "_version",
    "_platform",
)
_of_http = attrgetter("_headers", "_params", "_cookies")


_NEXT: Final = object()
"""Stands between the parts: a header is no query."""


def _state(client: Any) -> list[Any]:
    """All that a request is made of besides its options; what can be changed in place, in its parts."""
    values = [*_of_client(client), *_of_http(client._client), *client._client._headers._list]
    for given in (client._custom_headers, client._credential_headers, client._custom_query):
        values.append(_NEXT)
        if given:
            values += given
            values += given.values()
    values.append(_NEXT)
    if isinstance(client._timeout, httpx2.Timeout):
        values += _times(client._timeout)
    return values
