"""The SDK clients behind an `LLM`: llmnb's own of the environment, or one the user made, and its twin where needed.

A sync client serves scripts; an async one serves `await`, and the live view's loop thread. A client the user made is of
one kind only. For a plain `Anthropic()` the other kind is made from its settings; where settings could be lost (a
proxy, credentials that rotate, a cloud's login), llmnb says so instead of guessing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Never, Protocol, cast

from llmnb import connections, forks
from llmnb.cassette import scope
from llmnb.client import marking_mode, provider_of, sdk_client, wrap
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.pacing.pacer import scope_of
from llmnb.settings import Settings

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic

    from llmnb.prompt_cache import Mode
    from llmnb.providers.known import Endpoint


_SDK_VARIABLES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_CONFIG_DIR",
)
"""What the SDK's client is made from; when one changes, the next call gets another client."""
_SDK_PROFILES = ("ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_PROFILE", "ANTHROPIC_CONFIG_DIR")
"""Those of them that say more than an address and a key."""


class Access(Protocol):
    """Hands out clients; each is asked for when the request is about to be sent."""

    @property
    def can_live(self) -> bool:
        """Whether there is an async client for the live view's loop thread."""
        ...

    @property
    def provider(self) -> str:
        """OpenTelemetry's name of who serves."""
        ...

    @property
    def account(self) -> str:
        """A fingerprint of whom it asks as, address and key: each account has limits and outages of its own."""
        ...

    @property
    def endpoint(self) -> Endpoint | None:
        """Where another provider is asked; None where Messages are spoken."""
        ...

    @property
    def prompt_cache(self) -> Mode:
        """How calls that do not say so use the prompt cache."""
        ...

    def known(self) -> Anthropic | AsyncAnthropic | None:
        """A client like those that ask, to be looked at; None where the SDK was not needed yet, or has no key."""
        ...

    def sync(self) -> Anthropic:
        """The client for blocking calls."""
        ...

    def here(self) -> AsyncAnthropic:
        """The client for the running event loop."""
        ...

    def on_loop_thread(self) -> AsyncAnthropic:
        """The client for llmnb's own loop thread, which is running."""
        ...

    def elsewhere(self) -> Callable[[Settings], Access]:
        """What makes another process' access like it, with the key of that process' environment; it can be pickled.

        Raises:
            InvalidRequest: it holds a client of the user's own, whose key would have to travel.
        """
        ...


class OurClients:
    """Clients of the environment's key and base URL, or another's, shared by every LLM of the same settings."""

    can_live = True
    provider = "anthropic"
    endpoint = None

    def __init__(self, settings: Settings, base_url: str | None = None) -> None:
        self._settings = settings
        self._base_url = base_url
        self._options: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
        self.prompt_cache: Mode = settings.prompt_cache
        self._sync: tuple[tuple[object, ...], Anthropic] | None = None

    @property
    def account(self) -> str:
        client = self.known()
        return "" if client is None else scope_of(client)

    def known(self) -> Anthropic | None:
        # its import takes seconds, and what it would find besides these variables is looked for only if it must be
        if not self._options and "anthropic" not in sys.modules and not any(map(os.environ.get, _SDK_PROFILES)):
            return None
        try:
            return self.sync()
        except (LlmnbError, ValueError, OSError):  # no key, or a configuration that the SDK refuses
            return None

    def sync(self) -> Anthropic:
        # looking the client up costs as much as all else llmnb does before a call, so the last one is kept
        key = (forks.pid, scope.needs_no_key(), *map(os.environ.get, _SDK_VARIABLES))
        if self._sync is None or self._sync[0] != key:
            self._sync = (
                key,
                cast("Anthropic", sdk_client(asynchronous=False, settings=self._settings, **self._options)),
            )
        return self._sync[1]

    def here(self) -> AsyncAnthropic:
        client = cast("AsyncAnthropic", sdk_client(asynchronous=True, settings=self._settings, **self._options))
        close_with_loop(client)
        return client

    def on_loop_thread(self) -> AsyncAnthropic:
        return self.here()

    def elsewhere(self) -> Callable[[Settings], Access]:
        return partial(OurClients, base_url=self._base_url)


class UserClient:
    """A client of the anthropic SDK that the user made, wrapped, and its twins."""

    endpoint = None

    def __init__(self, client: Any, settings: Settings) -> None:
        # a client that was wrapped with a mode of its own keeps it
        self.prompt_cache: Mode = marking_mode(client) or settings.prompt_cache
        self._client = wrap(client, cache=True, prompt_cache=self.prompt_cache)
        self._is_async = hasattr(client, "__aenter__")
        self._obstacle = _obstacle(client)
        self._sync_twin: Any = None
        self._async_twins: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    @property
    def can_live(self) -> bool:
        return self._obstacle is None

    @property
    def provider(self) -> str:
        return provider_of(self._client)

    @property
    def account(self) -> str:
        return scope_of(self._client)

    def known(self) -> Anthropic | AsyncAnthropic:
        return self._client

    def sync(self) -> Anthropic:
        if not self._is_async:
            return self._client
        if self._sync_twin is None:
            self._sync_twin = self._twin(asynchronous=False)
        return self._sync_twin

    def here(self) -> AsyncAnthropic:
        return self._client if self._is_async else self.on_loop_thread()

    def on_loop_thread(self) -> AsyncAnthropic:
        loop = asyncio.get_running_loop()
        if loop not in self._async_twins:  # connections belong to a loop, the user's own client to theirs
            self._async_twins[loop] = self._twin(asynchronous=True)
            close_with_loop(self._async_twins[loop])
        return self._async_twins[loop]

    def elsewhere(self) -> Never:
        raise stays_here()

    def _twin(self, *, asynchronous: bool) -> Any:
        import anthropic

        if self._obstacle is not None:
            kind, needed = ("an async", "a sync") if self._is_async else ("a sync", "an async")
            raise InvalidRequest(
                f"this LLM was given {kind} client, and this call needs {needed} one, which cannot be made from it: "
                f"{self._obstacle}. Make a second LLM with client= {needed} client."
            )
        known = _settings_of(self._client)
        if asynchronous:
            plain = anthropic.AsyncAnthropic(http_client=connections.http_client(), **known)
        else:
            plain = anthropic.Anthropic(**known)
        return wrap_like(self._client, plain)


def stays_here() -> InvalidRequest:
    """Why a client of the user's own does not go to another process."""
    return InvalidRequest(
        "client= holds a key, which is not sent to other machines: leave it out, and set the key in the environment "
        "of the workers. Nothing was sent."
    )


_closers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, AsyncGenerator[None]]] = (
    weakref.WeakKeyDictionary()
)


def close_with_loop(client: AsyncAnthropic) -> None:
    """Has the running loop close the client's connections when it ends, as `asyncio.run` does end it.

    A loop tells nobody that it ends, but it closes the async generators that were begun in it.
    """
    closers = _closers.setdefault(asyncio.get_running_loop(), {})
    if id(client) not in closers:
        closers[id(client)] = closer = _closer(client)
        with suppress(StopIteration):
            closer.__anext__().send(None)  # up to its yield, which awaits nothing


async def _closer(client: AsyncAnthropic) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await client.close()


def wrap_like(wrapped: Any, plain: Any) -> Any:
    """`plain` with the pipeline of `wrapped`; the parts run in both kinds of clients."""
    return plain.copy(middleware=wrapped.middleware)


def _settings_of(client: Any) -> dict[str, Any]:
    key = {"api_key": client.api_key} if client.api_key is not None else {"auth_token": client.auth_token}
    return {
        **key,
        "base_url": client.base_url,
        "timeout": client.timeout,
        "max_retries": client.max_retries,
        "default_headers": client._custom_headers,
        "default_query": client._custom_query,
    }


def _obstacle(client: Any) -> str | None:
    """What keeps a client's twin from being like it, or None."""
    import anthropic
    from anthropic._base_client import AsyncHttpxClientWrapper, SyncHttpxClientWrapper

    if type(client) not in (anthropic.Anthropic, anthropic.AsyncAnthropic):
        return f"{type(client).__name__} logs in in its own way"
    if client.api_key is None and client.auth_token is None and not scope.needs_no_key():
        return "it has credentials= of its own" if client.credentials is not None else "it has no API key"
    if not isinstance(client._client, (SyncHttpxClientWrapper, AsyncHttpxClientWrapper)):
        return "it has an http_client= of its own"
    if any(not hasattr(part, "handle_async") for part in client.middleware):
        return "it has middleware that is a plain function"
    return None
