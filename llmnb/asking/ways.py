"""Which client a question goes through: by who serves its model, and by what the user gave the `LLM`."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Never, cast

from llmnb import forks
from llmnb.asking.access import Access, OurClients, UserClient, close_with_loop, stays_here
from llmnb.asking.params import Plan
from llmnb.cassette import scope
from llmnb.client import sdk_client, wrap
from llmnb.errors import InvalidRequest
from llmnb.prompt_cache import Mode
from llmnb.providers.clients import account_at
from llmnb.providers.known import Endpoint, Provider, check_prefix, checked_url, endpoint, of_user
from llmnb.settings import Settings

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic


class Accesses:
    """The ways of one `LLM` to its models.

    Args:
        settings: its settings.
        client: the client the user made, of the anthropic or the openai SDK, or None.
        base_url: the address the user gave, or None; it is that of the provider of the LLM's own model.
        provider: who serves the LLM's own model; None: a server that speaks Messages.

    Raises:
        InvalidRequest: both were given, or the address is none.
    """

    def __init__(self, settings: Settings, client: object, base_url: str | None, provider: Provider | None) -> None:
        if client is not None and base_url is not None:
            raise InvalidRequest("client= and base_url= do not go together: the client has an address of its own")
        self._settings = settings
        self.client = client
        self.base_url = None if base_url is None else checked_url(base_url)
        self._own = provider
        self._known: dict[str | None, Access] = {}
        if client is not None:
            self._of_user: Access | None = self._user_access(client)
        else:
            self._of_user = None

    def of(self, plan: Plan) -> Access:
        """The way to a plan's model.

        Raises:
            UnknownModel: its name begins with a provider that nobody knows.
        """
        provider = plan.provider
        if self._of_user is not None and (provider is None or self._of_user.endpoint is not None):
            return self._of_user
        if provider is None:
            is_gateway = self.base_url is not None or bool(os.environ.get("ANTHROPIC_BASE_URL"))
            check_prefix(plan.model, is_gateway=is_gateway)
        prefix = None if provider is None else provider.prefix
        if prefix not in self._known:
            base_url = self.base_url if provider == self._own else None
            if provider is None:
                self._known[prefix] = OurClients(self._settings, base_url)
            else:
                self._known[prefix] = ProviderClients(provider, self._settings, base_url)
        return self._known[prefix]

    def _user_access(self, client: object) -> Access:
        if type(client).__module__.partition(".")[0] == "openai":
            return OpenAIClient(client, self._own)
        return UserClient(client, self._settings)


class ProviderClients:
    """Clients of another provider, with the environment's key, shared by every LLM of the same settings."""

    can_live = True
    prompt_cache: Mode = "off"

    def __init__(self, provider: Provider, settings: Settings, base_url: str | None) -> None:
        self._provider = provider
        self._settings = settings
        self._base_url = base_url
        self._sync: tuple[tuple[object, ...], Anthropic] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it asks now: the environment may move it."""
        return endpoint(self._provider, self._base_url)

    @property
    def provider(self) -> str:
        return self.endpoint.name

    @property
    def account(self) -> str:
        return account_at(self.endpoint)

    def known(self) -> None:
        """Nothing: there is nothing in its clients that an estimate could use."""

    def sync(self) -> Anthropic:
        # looking the client up costs as much as all else llmnb does before a call, so the last one is kept
        variables = (self._provider.base_url_variable, *self._provider.key_variables)
        key = (forks.pid, scope.needs_no_key(), *map(os.environ.get, variables))
        if self._sync is None or self._sync[0] != key:
            client = sdk_client(asynchronous=False, settings=self._settings, endpoint=self.endpoint)
            self._sync = key, cast("Anthropic", client)
        return self._sync[1]

    def here(self) -> AsyncAnthropic:
        client = sdk_client(asynchronous=True, settings=self._settings, endpoint=self.endpoint)
        close_with_loop(cast("AsyncAnthropic", client))
        return cast("AsyncAnthropic", client)

    def on_loop_thread(self) -> AsyncAnthropic:
        return self.here()

    def elsewhere(self) -> Callable[[Settings], Access]:
        return partial(_provider_clients, self._provider, self._base_url)


def _provider_clients(provider: Provider, base_url: str | None, settings: Settings) -> ProviderClients:
    return ProviderClients(provider, settings, base_url)


class OpenAIClient:
    """A client of the openai SDK that the user made, under the pipeline, and its twin."""

    prompt_cache: Mode = "off"

    def __init__(self, client: Any, provider: Provider | None) -> None:
        self._client = client
        self._is_async = hasattr(client, "__aenter__")
        self.endpoint = of_user(str(client.base_url), provider)
        self._sync: Any = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    @property
    def can_live(self) -> bool:
        return self._twin_is_like_it

    @property
    def provider(self) -> str:
        return self.endpoint.name

    @property
    def account(self) -> str:
        return account_at(self.endpoint, self._client)

    def known(self) -> None:
        """Nothing: there is nothing in its clients that an estimate could use."""

    def sync(self) -> Anthropic:
        if self._sync is None:
            self._sync = self._wrapped(self._twin() if self._is_async else self._client, asynchronous=False)
        return self._sync

    def here(self) -> AsyncAnthropic:
        return self._on_loop(self._client if self._is_async else None)

    def on_loop_thread(self) -> AsyncAnthropic:
        return self._on_loop(None)

    def elsewhere(self) -> Never:
        raise stays_here()

    def _on_loop(self, client: Any) -> AsyncAnthropic:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:  # connections belong to a loop
            self._loops[loop] = self._wrapped(client or self._twin(), asynchronous=True)
            close_with_loop(self._loops[loop])
        return self._loops[loop]

    def _wrapped(self, client: Any, *, asynchronous: bool) -> Any:
        from llmnb.providers.clients import client_at

        own = client is not self._client
        made = client_at(self.endpoint, asynchronous=asynchronous, openai_client=client, is_ours=own)
        return wrap(made, cache=True)

    @property
    def _twin_is_like_it(self) -> bool:
        """Whether its settings say all there is: not of Azure's login, nor of an http_client of the user's own."""
        kind = type(self._client).__name__
        return kind in ("OpenAI", "AsyncOpenAI") and type(self._client._client).__module__.startswith("openai")

    def _twin(self) -> Any:
        import openai

        client = self._client
        if not self._twin_is_like_it:
            kind, needed = ("an async", "a sync") if self._is_async else ("a sync", "an async")
            raise InvalidRequest(
                f"this LLM was given {kind} client, and this call needs {needed} one, which cannot be made from it. "
                f"Make a second LLM with client= {needed} client."
            )
        make = openai.OpenAI if self._is_async else openai.AsyncOpenAI
        return make(
            api_key=client.api_key,
            base_url=client.base_url,
            organization=client.organization,
            project=client.project,
            timeout=client.timeout,
            default_headers=client._custom_headers,
            default_query=client._custom_query,
        )
