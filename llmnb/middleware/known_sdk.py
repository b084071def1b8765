"""Says whether the SDK and httpx2 do what the shortcuts past them were written against, and nobody has replaced it.

A shortcut leaves out code of the SDK. Where that code does more than it did, as in a newer SDK, or somebody hooked into
it, the SDK's own way has to be taken. A release that changes nothing of it is as good as the one before.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any, cast

import httpx2
from anthropic import Anthropic, AsyncAnthropic

_KNOWN = {"a0b77b354612f486", "3c50c4ea5c4bff4d"}
"""Fingerprints of code that the shortcuts were held against: of SDK 2.11 and 2.14 with httpx2 2.16, and its async."""

_SDK_METHODS = frozenset(
    (
        "_attempt_request",
        "_build_middleware_chain",
        "_process_response",
        "_prepare_options",
        "_build_request",
        "_build_headers",
        "_prepare_request",
        "_prepare_url",
        "_validate_headers",
        "_should_stream_response_body",
        "platform_headers",
    )
)
_SDK_PROPERTIES = (
    "default_headers",
    "default_query",
    "auth_headers",
    "_api_key_auth",
    "_bearer_auth",
    "user_agent",
    "custom_auth",
    "timeout",
    "base_url",
    "qs",
)
_HTTP_METHODS = frozenset(("build_request", "_merge_url", "_merge_headers", "_merge_cookies", "_merge_queryparams"))
_HTTP_PROPERTIES = ("headers", "cookies", "params")
_of_sdk_class = attrgetter(*sorted(_SDK_METHODS), *_SDK_PROPERTIES)
_of_http_class = attrgetter(*sorted(_HTTP_METHODS), *_HTTP_PROPERTIES)
_of_sdk_module = attrgetter("_prepare_middleware_options", "platform_headers", "openapi_dumps")
_of_request = attrgetter("__init__", "_prepare", "read")


def module(name: str) -> Any:
    """A module of the SDK's or httpx2's own; None where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_SDK, _HTTP = module("anthropic._base_client"), module("httpx2._client")


def is_genuine(client: Any) -> bool:
    """Whether what is left out is known, and the SDK's and httpx2's own in their modules, classes and these objects."""
    kind, http = cast("type[object]", type(client)), cast("object", client._client)
    own = known(kind)
    return (
        own is not None
        and _of_sdk_class(kind) == own[0]
        and _of_http_class(type(http)) == own[1]
        and _of_modules() == own[2]
        and _HTTP.Request is httpx2.Request
        and _SDK_METHODS.isdisjoint(vars(cast("object", client)))
        and _HTTP_METHODS.isdisjoint(vars(http))
    )


@cache
def known(kind: type) -> tuple[tuple[Any, ...], ...] | None:
    """The code of a client's class, its HTTP client's and their modules; None where it is not what is known."""
    if kind is not Anthropic and kind is not AsyncAnthropic:
        return None
    try:
        found = _found(kind)
        plain = [_unpatched(one) for some in found for one in some]
        return found if None not in plain and fingerprint(kind) in _KNOWN else None
    except Exception:  # something is gone, or of another kind
        return None


def fingerprint(kind: type) -> str:
    """What the code that is left out for clients of this class names, calls and is given, whatever the Python."""
    words = [sorted({*_words(made.__code__, made.__doc__)}) for some in _found(kind) for made in map(_function, some)]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _found(kind: type) -> tuple[tuple[Any, ...], ...]:
    http = httpx2.Client if kind is Anthropic else httpx2.AsyncClient
    return _of_sdk_class(kind), _of_http_class(http), _of_modules()


def _of_modules() -> tuple[Any, ...]:
    return *_of_sdk_module(_SDK), *_of_request(_HTTP.Request)


_CACHED = type(known)


def _function(found: Any) -> Any:
    found = found.fget if isinstance(found, property) else found
    return found.__wrapped__ if isinstance(found, _CACHED) else found


def _words(code: CodeType, doc: str | None) -> Iterator[str]:
    """Arguments, names and strings of a function and those within; as sets, since Pythons differ in the order."""
    yield from code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    yield from code.co_names
    waiting = [one for one in code.co_consts if one != doc]
    while waiting:
        one = waiting.pop()
        if isinstance(one, CodeType):
            yield from _words(one, None)
        elif isinstance(one, tuple | frozenset):
            waiting += cast("tuple[Any, ...]", one)
        elif isinstance(one, str):
            yield one


def _unpatched(found: Any) -> Callable[..., Any] | None:
    made = _function(found)
    is_own = (
        type(made) is FunctionType
        and not hasattr(made, "__wrapped__")
        and made.__module__.partition(".")[0] in ("anthropic", "httpx2")
    )
    return made if is_own else None
