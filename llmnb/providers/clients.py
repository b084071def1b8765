"""Clients of the anthropic SDK whose requests go to a chat completions server: what the pipeline is put on."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from llmnb.errors import MissingExtra
from llmnb.pacing.credentials import fingerprint
from llmnb.providers.known import Endpoint

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic

NO_KEY = "the-key-is-the-openai-clients"
"""Stands where the anthropic SDK wants a key; it is sent to nobody."""

_OPENAI = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")


def check_installed(prefix: str) -> None:
    """Refuses when the openai SDK is not there.

    Raises:
        MissingExtra: says how to install it.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingExtra(f"a model of {prefix}", "openai")


def client_at(
    endpoint: Endpoint, *, asynchronous: bool, openai_client: Any = None, is_ours: bool = True, **options: Any
) -> Anthropic | AsyncAnthropic:
    """A client that asks there with the environment's key, or through a client of the openai SDK.

    That one is closed with it if it `is_ours`.
    """
    import anthropic
    import httpx2

    from llmnb.providers.part import TranslationPart
    from llmnb.providers.transport import AsyncTransport, Transport

    def made() -> Any:
        if openai_client is not None:
            return openai_client.with_options(max_retries=0)
        import openai

        make = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        client: Any = make(base_url=endpoint.base_url, api_key=endpoint.key(os.environ), max_retries=0)
        if endpoint.name != "openai":  # what the environment has for OpenAI is nobody else's
            client.organization = client.project = None
            client._custom_headers = {}  # a copy without them would read them from the environment again
        return client

    shared: dict[str, Any] = {
        "api_key": NO_KEY,
        "base_url": endpoint.base_url,
        "middleware": [TranslationPart(endpoint, account_at(endpoint, openai_client))],
        **options,
    }
    if asynchronous:
        http = httpx2.AsyncClient(transport=AsyncTransport(endpoint, made, is_ours=is_ours))
        return _named(anthropic.AsyncAnthropic, endpoint.name)(http_client=http, **shared)
    http = httpx2.Client(transport=Transport(endpoint, made, is_ours=is_ours))
    return _named(anthropic.Anthropic, endpoint.name)(http_client=http, **shared)


def account_at(endpoint: Endpoint, openai_client: Any = None) -> str:
    """What tells the accounts at one address apart: each has limits of its own."""
    if openai_client is not None:
        return fingerprint(*(getattr(openai_client, name, None) for name in ("api_key", "organization", "project")))
    key = next(filter(None, map(os.environ.get, endpoint.provider.key_variables)), None)
    return fingerprint(key, *(os.environ.get(name) if endpoint.name == "openai" else None for name in _OPENAI))


@cache
def _named(kind: type[Any], name: str) -> type[Any]:
    """The SDK's class under another provider's name, which its spans carry and `wrap` reads."""
    return type(kind.__name__, (kind,), {"_gen_ai_provider_name": name, "__module__": __name__})
