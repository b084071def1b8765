"""The providers llmnb knows by a prefix of the model's name (`openai:gpt-…`), where they are, and what they take."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from llmnb.errors import InvalidRequest, MissingKey, UnknownModel

ANTHROPIC = "anthropic"
SHORT_TOKENS = 4_096


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server is known to take; of one nobody knows, everything, so that it refuses by itself.

    `max_tokens` is how it calls the longest answer; `no_schema` matches models that take no JSON schema for their
    answer, `short` those whose answers may be no longer than `SHORT_TOKENS`. `all_required` is whether it holds a model
    only to schemas in which every field is required. `asks_for_usage` is whether it must be asked to count a stream.
    """

    max_tokens: str = "max_tokens"
    pdf: bool = True
    top_k: bool = True
    no_schema: re.Pattern[str] | None = None
    short: re.Pattern[str] | None = None
    thought_signatures: bool = False
    all_required: bool = False
    asks_for_usage: bool = True


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    `name` is OpenTelemetry's `gen_ai.provider.name`. `base_url_variable` names the variable that the provider's own
    tools read its address from, to which `path` is added. A key is in one of `key_variables`.
    """

    prefix: str
    name: str
    base_url: str
    base_url_variable: str
    path: str
    key_variables: tuple[str, ...]
    abilities: Abilities
    needs_key: bool = True

    def longest(self, model: str) -> int | None:
        """The highest limit a model's answers may be given, where it is a low one."""
        short = self.abilities.short
        return SHORT_TOKENS if short is not None and short.match(model) else None


_OLD_OPENAI = re.compile(r"gpt-3\.5|gpt-4$|gpt-4-|gpt-4o-2024-05-13|o1-(mini|preview)|chatgpt-4o")
"""Models from before structured outputs (https://platform.openai.com/docs/guides/structured-outputs)."""
_SHORT_OPENAI = re.compile(r"gpt-3\.5|gpt-4$|gpt-4-|gpt-4o-2024-05-13")
"""Models that write no more than 4,096 tokens, and refuse a higher limit (https://platform.openai.com/docs/models)."""
_NO_SCHEMA_ELSEWHERE = re.compile(r"deepseek-(chat|reasoner)")
"""Of servers reached by an address: DeepSeek's own API takes JSON, but no schema (its guide "JSON Output")."""
_ELSEWHERE = Abilities(no_schema=_NO_SCHEMA_ELSEWHERE)
_COUNTS_UNASKED = ("mistral_ai",)
"""Who refuses `stream_options`, and ends a stream with its usage all the same (openai-agents-python issue 442)."""

PROVIDERS = (
    Provider(
        "openai",
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_BASE_URL",
        "",
        ("OPENAI_API_KEY",),
        Abilities("max_completion_tokens", top_k=False, no_schema=_OLD_OPENAI, short=_SHORT_OPENAI, all_required=True),
    ),
    Provider(
        "gemini",
        "gcp.gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GOOGLE_GEMINI_BASE_URL",
        "/v1beta/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        Abilities(pdf=False, top_k=False, thought_signatures=True),
    ),
    Provider(
        "ollama",
        "ollama",
        "http://127.0.0.1:11434/v1",
        "OLLAMA_HOST",
        "/v1",
        ("OLLAMA_API_KEY",),  # for its cloud
        Abilities(pdf=False, top_k=False),
        needs_key=False,
    ),
)
BY_PREFIX = {provider.prefix: provider for provider in PROVIDERS}

_OLLAMA_PORT = 11434
_NAMES = {
    "api.openai.com": "openai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
}
"""OpenTelemetry's names of who answers at an address; others are called by their host."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the models of a provider are asked: `name` goes on the ledger's rows, and decides who is paid."""

    provider: Provider
    name: str
    base_url: str
    abilities: Abilities
    is_own: bool = True

    @property
    def needs_key(self) -> bool:
        """Whether there can be no answer without a key. A server of one's own may need none."""
        return self.is_own and self.provider.needs_key

    def key(self, environ: Mapping[str, str]) -> str:
        """The key of the environment, or what stands in for none.

        Raises:
            MissingKey: it needs one, and there is none.
        """
        found = next((environ[name] for name in self.provider.key_variables if environ.get(name)), None)
        if found is None and self.needs_key:
            raise MissingKey(self.provider.prefix, self.provider.key_variables)
        return found or "none-needed"

    def environment(self, environ: Mapping[str, str]) -> tuple[tuple[str, str | None], ...]:
        """What a client is made from; when it changes, the next call gets another one."""
        return tuple((name, environ.get(name)) for name in self.provider.key_variables)

    def takes_schema(self, model: str) -> bool:
        """Whether a model can be held to a JSON schema by `response_format`."""
        pattern = self.abilities.no_schema
        return pattern is None or pattern.match(model) is None


def split(model: str) -> tuple[Provider | None, str]:
    """The provider that a model's name begins with, and the rest; None for Anthropic's own.

    What a name has before a colon is a provider only when it is a known one: `llama3.2:3b` and Bedrock's ids have
    colons of their own.

    Raises:
        UnknownModel: nothing comes after the prefix.
    """
    prefix, colon, name = model.partition(":")
    if not colon or (prefix not in BY_PREFIX and prefix != ANTHROPIC):
        return None, model
    if not name:
        raise UnknownModel(model)
    return BY_PREFIX.get(prefix), name


def check_prefix(model: str, *, is_gateway: bool = False) -> None:
    """Refuses a name with a colon that only a provider's prefix could explain; of a gateway's names, a misspelled one.

    Raises:
        UnknownModel: says which prefixes there are, and the nearest.
    """
    prefix, colon, name = model.partition(":")
    if not colon or "claude" in model:
        return
    if near := difflib.get_close_matches(prefix, (*BY_PREFIX, ANTHROPIC), n=1, cutoff=0.8):
        raise UnknownModel(model, (f"{near[0]}:{name}",))
    if not is_gateway:
        known = ", ".join(f"{name}:" for name in (*BY_PREFIX, ANTHROPIC))
        raise UnknownModel(
            model,
            hint=f"{prefix!r} is no provider llmnb knows: {known}. A local model is asked as 'ollama:{model}', one of "
            f"any other server as 'openai:{model}' with base_url=.",
        )


def endpoint(provider: Provider, base_url: str | None, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Where to ask: at `base_url`, else where the provider's own variable says, else at the provider.

    Raises:
        InvalidRequest: the address is none.
    """
    if base_url is not None:
        url = checked_url(base_url)
        host = str(urlsplit(url).hostname)
        name = _NAMES.get(host, _host_and_port(url))
        own = next((known for known in PROVIDERS if known.name == name), None)
        abilities = (
            own.abilities if own is not None else replace(_ELSEWHERE, asks_for_usage=name not in _COUNTS_UNASKED)
        )
        return Endpoint(provider, name, url, abilities, is_own=own is not None)
    told = environ.get(provider.base_url_variable)
    if not told:
        return Endpoint(provider, provider.name, provider.base_url, provider.abilities)
    if provider.prefix == "ollama":
        url = _ollama_url(told)
        name = "ollama.com" if str(urlsplit(url).hostname).endswith("ollama.com") else provider.name
        return Endpoint(provider, name, url + provider.path, provider.abilities)
    return Endpoint(provider, provider.name, checked_url(told) + provider.path, provider.abilities)


def of_user(base_url: str, provider: Provider | None) -> Endpoint:
    """Where a client that the user made asks."""
    found = endpoint(provider or BY_PREFIX["openai"], base_url)
    if ".openai.azure.com" in found.base_url or ".cognitiveservices.azure.com" in found.base_url:
        return replace(found, name="azure.ai.openai", abilities=BY_PREFIX["openai"].abilities)
    return found


def checked_url(url: str) -> str:
    """An address of a server, without the slash at its end.

    Raises:
        InvalidRequest: it is no http address, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"base_url must be an address such as 'http://localhost:8000/v1', not {url!r}")
    if parts.password or parts.username:
        raise InvalidRequest("base_url must hold no user or password: addresses are written to the ledger")
    return url.rstrip("/")


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _ollama_url(told: str) -> str:
    """OLLAMA_HOST as ollama reads it: scheme and port may be left out, and 0.0.0.0 is where its server listens."""
    parts = urlsplit(told if "://" in told else f"//{told}")
    scheme = parts.scheme or "http"
    host = parts.hostname or "127.0.0.1"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - not bound to, but what a user may say
    port = parts.port or (_OLLAMA_PORT if scheme == "http" else 443)
    return f"{scheme}://{host}:{port}"
