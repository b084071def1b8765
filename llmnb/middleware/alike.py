"""Begins requests that differ from one before in nothing but their messages, without putting the rest together anew.

For every call the SDK looks through all parameters and makes a validated object of the options that come of them. Here
what it made of the first call is copied for those with the same parameters; from there on all is the SDK's: preparing,
the chain of middleware, retries. Whatever is not exactly that goes the SDK's whole way.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast

_NAME = "_llmnb_alike"
_MADE: ContextVar[list[Any] | None] = ContextVar("_MADE", default=None)
"""Where what the SDK makes of the call of this task is put."""


class Alike:
    """What the SDK made of a call of a client, for those that are like it."""

    def __init__(self) -> None:
        self._arguments: dict[str, Any] | None = None
        self._options: Any = None

    def options(self, arguments: Mapping[str, Any]) -> Any:
        """The options of a request with these arguments of `create`; None where the SDK has to make them."""
        known, options = self._arguments, self._options
        if known is None or len(arguments) != len(known) + 1 or not _is_text(arguments.get("messages")):
            return None
        for name, value in known.items():
            if name not in arguments or arguments[name] != value:
                return None
        copied = options.model_copy()
        copied.json_data = {**options.json_data, "messages": arguments["messages"]}
        copied.idempotency_key = None  # the SDK gives each its own
        return copied

    def learn(self, arguments: Mapping[str, Any], options: Any) -> None:
        """Keeps what the SDK made of a call, as it was before any part of the chain saw it, where that can be told."""
        body = options.json_data
        if not isinstance(body, dict) or not _is_text(arguments.get("messages")) or options.extra_json is not None:
            return
        if cast("dict[str, Any]", body).get("messages") != arguments["messages"]:
            return
        self._options = options
        self._arguments = {name: value for name, value in arguments.items() if name != "messages"}


def _is_text(given: Any) -> bool:
    """Whether it is one question in words, of which the SDK makes nothing else."""
    if type(given) is not list:
        return False
    messages = cast("list[dict[str, Any]]", given)
    return len(messages) == 1 and messages[0].keys() == {"role", "content"} and type(messages[0]["content"]) is str


def many(client: Any) -> Any:
    """The client, which nobody else has and whose requests are taken to be alike from now on."""
    request = client.request

    async def noted(cast_to: Any, options: Any, **kinds: Any) -> Any:
        made = _MADE.get()
        if made is not None and not made:
            made.append(options.model_copy())
        return await request(cast_to, options, **kinds)

    client.request = noted
    setattr(client, _NAME, Alike())
    return client


async def created(client: Any, arguments: Mapping[str, Any]) -> Any:
    """The SDK's raw response to a message that is created with these arguments; as its own `create`."""
    alike: Alike | None = getattr(client, _NAME, None)
    if alike is None:
        return await client.messages.with_raw_response.create(**arguments)
    options = alike.options(arguments)
    if options is None:
        made: list[Any] = []
        token = _MADE.set(made)
        try:
            response = await client.messages.with_raw_response.create(**arguments)
        finally:
            _MADE.reset(token)
        if made:
            alike.learn(arguments, made[0])
        return response
    from anthropic.types import Message

    return await client.request(Message, options)
