"""Makes SDK clients that carry llmnb's pipeline: one the user made (`wrap`), or one of llmnb's own (`sdk_client`)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import weakref
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmnb import connections
from llmnb.cassette import scope
from llmnb.errors import InvalidRequest, MissingKey
from llmnb.plain_numbers import real
from llmnb.prompt_cache import MODES, Mode
from llmnb.records import CacheUse
from llmnb.settings import Settings, load

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic, Middleware

    from llmnb.middleware.cache import CachePart
    from llmnb.middleware.ledger import LedgerPart
    from llmnb.middleware.ledgered import Recorder
    from llmnb.middleware.marking import MarkingPart
    from llmnb.middleware.placement import Marking
    from llmnb.providers.known import Endpoint

ClientT = TypeVar("ClientT")

UNSAID: Any = "unsaid"
"""The default of `prompt_cache` where None means something: without caching."""


def wrap(
    client: ClientT,
    *,
    project: str | None = None,
    tag: str | None = None,
    cache: CacheUse | None = None,
    settings: Settings | None = None,
    books: Recorder | None = None,
    prompt_cache: Mode | None = UNSAID,
) -> ClientT:
    """The same SDK client, with every call of it on the books.

    Args:
        client: any client of the anthropic SDK, sync or async: Anthropic, Bedrock, Vertex, Foundry, AWS. It is not
            changed; the result is a copy of the same class that shares its connections.
            Middleware of yours that may send a request of its own, such as the SDK's refusal fallback, belongs on the
            client before it is wrapped: of what is added inside, only the last answer is seen.
        project: project written on the ledger rows; default: the setting.
        tag: tag written on the ledger rows.
        cache: True answers what was asked before from the response cache, and keeps what is asked for the first time;
            "all" also calls with server tools, such as web search, or a container. Default: no cache.
        settings: settings to use instead of those in force here and now.
        books: where rows go instead of the ledger of the settings.
        prompt_cache: "5m" or "1h" marks tools, system prompt, long documents and the growing end of conversations for
            the API's prompt cache, "auto" only what is likely to be read often enough to pay (see `LLM`). None, the
            default, leaves requests as they are. Breakpoints of your own are respected.

    Returns:
        A client of the same class. Wrapping a wrapped client again replaces its project, tag, cache and prompt_cache
        where they are given.

    Raises:
        InvalidRequest: `client` is no client of the anthropic SDK, or another argument none of its values.
    """
    _check_client(client)
    from llmnb.middleware.batch_results import BatchesPart
    from llmnb.middleware.budget import BudgetPart
    from llmnb.middleware.cache import CachePart
    from llmnb.middleware.ledger import LedgerPart
    from llmnb.middleware.marking import MarkingPart
    from llmnb.middleware.pacing import PacingPart
    from llmnb.middleware.prebuilt import PrebuiltPart
    from llmnb.middleware.replay import ReplayPart

    sdk_client = cast("Anthropic", client)
    ledgers = [part for part in sdk_client.middleware if isinstance(part, LedgerPart)]
    caches = [part for part in sdk_client.middleware if isinstance(part, CachePart)]
    ours = (LedgerPart, BatchesPart, ReplayPart, CachePart, MarkingPart, BudgetPart, PacingPart, PrebuiltPart)
    theirs = [part for part in sdk_client.middleware if not isinstance(part, ours)]
    outside = [part for part in theirs if not getattr(part, "is_innermost", False)]
    innermost = [part for part in theirs if part not in outside]
    ledger = _ledger_part(sdk_client, ledgers, project=project, tag=tag, settings=settings, books=books)
    mode = cache_mode(prompt_cache, marking_mode(client))
    marking = [] if mode is None else [_marking_part(sdk_client, ledger, mode)]
    cached = _cache_parts(sdk_client, caches, cache, ledger.ledgered.settings)
    ledger.answering = cached[-1] if cached else None
    replay = ReplayPart(ledger.ledgered.provider)
    inside = [
        ledger,
        BatchesPart(ledger.ledgered),
        replay,
        *cached,
        *marking,
        *_budget_part(ledger),
        *_pacing_part(ledger, client),
        PrebuiltPart(),
    ]
    return cast(ClientT, sdk_client.copy(middleware=[*outside, *inside, *innermost]))


def _check_client(client: object) -> None:
    if not isinstance(client, type) and hasattr(client, "with_middleware"):
        return
    hint = ""
    if type(client).__module__.partition(".")[0] == "openai":
        hint = "; to ask through this one: llmnb.LLM('openai:gpt-…', client=client)"
    raise InvalidRequest(
        f"llmnb.wrap() takes a client of the anthropic SDK, such as anthropic.Anthropic(), not {_named(client)}{hint}"
    )


def marking_mode(client: object) -> Mode | None:
    """The `prompt_cache` that a client was wrapped with; None for one that was wrapped with none."""
    marking = marking_of(client)
    return None if marking is None else marking.mode


def marking_of(client: object) -> Marking | None:
    """What a client's breakpoints are decided by; None for one that was wrapped without."""
    from llmnb.middleware.marking import MarkingPart

    parts: tuple[object, ...] = getattr(client, "middleware", ())
    return next((part.marking for part in parts if isinstance(part, MarkingPart)), None)


def cache_mode(given: object, unsaid: Mode | None) -> Mode | None:
    """A value of `prompt_cache` that the user gave as a mode: None is "off"; `unsaid` where none was given.

    Raises:
        InvalidRequest: it is none of its values.
    """
    if given is UNSAID:
        return unsaid
    if given is None:
        return "off"
    if given not in MODES:
        raise InvalidRequest(f'prompt_cache must be "5m", "1h", "auto" or None, not {given!r}')
    return given


def label(given: object, name: str) -> str:
    """What the user calls something on the rows, as text; numbers are taken, too.

    Raises:
        InvalidRequest: it is neither; a row that holds it could not be written.
    """
    if isinstance(given, str):
        return given
    if (number := real(given)) is not None:
        return str(number)
    raise InvalidRequest(f"{name} must be a text, not {given!r}")


def _marking_part(client: Any, ledger: LedgerPart, mode: Mode) -> MarkingPart:
    from llmnb.middleware.marking import Marking, MarkingPart

    ledgered = ledger.ledgered
    return MarkingPart(
        Marking(ledgered.settings, mode, provider=ledgered.provider, project=ledgered.project, scope=_scope(client))
    )


_salt = os.urandom(16)


def _scope(client: Any) -> bytes:
    """What the API keeps cache entries apart by, as far as a client knows: the address and the key, unreadably."""
    from llmnb.pacing.credentials import account_of

    return hashlib.blake2b(repr(account_of(client)).encode(), key=_salt, digest_size=8).digest()


def _cache_parts(client: Any, earlier: list[CachePart], use: CacheUse | None, settings: Settings) -> list[CachePart]:
    """The cache part, or nothing where there is to be no cache."""
    if use is None:
        return earlier
    if use not in (True, False, "all"):
        raise InvalidRequest(f"cache must be True, False or 'all' (server tools, too), not {use!r}")
    if use is False or settings.cache == "off":
        return []
    from llmnb.cache.responses import responses
    from llmnb.middleware.cache import Cached, CachePart

    cached = Cached(responses(settings), use, provider_of(client), str(client.base_url), dict(client._custom_headers))
    return [CachePart(cached)]


def _budget_part(ledger: LedgerPart) -> list[Middleware]:
    """The part that keeps budgets, of calls whose rows go to the ledger that the budgets are in, and ceilings."""
    from llmnb.budgeting.guard import guard
    from llmnb.ledger import books as books_of
    from llmnb.middleware.budget import BudgetPart

    shared = ledger.ledgered
    is_off = shared.settings.budgets == "off" or shared.books is not books_of(shared.settings)
    return [BudgetPart(None if is_off else guard(shared.settings), shared)]


def _pacing_part(ledger: LedgerPart, client: object) -> list[Middleware]:
    """The part that holds calls back when limits are near; what is kept in no ledger is paced for this process."""
    from llmnb.ledger import books as books_of
    from llmnb.middleware.pacing import PacingPart
    from llmnb.pacing import Pacer, pacer
    from llmnb.pacing.pacer import scope_of
    from llmnb.pacing.shelves import MemoryShelf

    shared = ledger.ledgered
    if shared.settings.pacing == "off":
        return []
    is_kept = shared.books is books_of(shared.settings)
    paced = pacer(shared.settings) if is_kept else Pacer(shared.settings, MemoryShelf())
    return [PacingPart(paced, scope_of(client))]


def _ledger_part(
    client: Any,
    earlier: list[LedgerPart],
    *,
    project: str | None,
    tag: str | None,
    settings: Settings | None,
    books: Recorder | None,
) -> LedgerPart:
    from llmnb.ledger import books as books_of
    from llmnb.middleware.ledger import LedgerPart
    from llmnb.middleware.ledgered import Ledgered

    before = earlier[-1].ledgered if earlier else None
    settings = settings or (before.settings if before else load())
    return LedgerPart(
        Ledgered(
            books=books or (before.books if before else books_of(settings)),
            settings=settings,
            provider=provider_of(client),
            project=label(project, "project") if project else (before.project if before else None),
            tag=label(tag, "tag") if tag else (before.tag if before else None),
        )
    )


def provider_of(client: object) -> str:
    """OpenTelemetry's `gen_ai.provider.name` of an SDK client."""
    if "Foundry" in type(client).__name__:
        return "azure.ai.inference"
    # the SDK names the others itself, for its own spans
    return str(getattr(client, "_gen_ai_provider_name", "anthropic"))


def _named(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


# llmnb's own clients --------------------------------------------------------------------------------------------------

_clients: dict[tuple[object, ...], Any] = {}
_loop_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], Any]] = (
    weakref.WeakKeyDictionary()
)
_lock = Lock()


def sdk_client(
    *,
    asynchronous: bool = False,
    project: str | None = None,
    settings: Settings | None = None,
    endpoint: Endpoint | None = None,
    **options: Any,
) -> Anthropic | AsyncAnthropic:
    """A wrapped client of the environment's key and base URL, with the cache, the same for the same configuration.

    An async client belongs to the running event loop, as its connections do. `endpoint` is where another provider is
    asked; `options` go to the SDK's constructor.

    Raises:
        MissingKey: the SDK finds no credentials, and no cassette is replayed.
        MissingExtra: the provider's SDK is not installed.
    """
    settings = settings or load()
    needs_none = scope.needs_no_key()
    environment = _environment() if endpoint is None else endpoint.environment(os.environ)
    asked = (endpoint, tuple(sorted(options.items())))
    # the store's address may hold a password, and is not in the text of the settings
    key = (asynchronous, project, settings, settings.store_url, environment, *asked, os.getpid(), needs_none)
    with _lock:
        known = _loop_clients.setdefault(asyncio.get_running_loop(), {}) if asynchronous else _clients
        fingerprint = tuple(map(repr, key))
        if fingerprint not in known:
            if endpoint is None:
                made = _made(asynchronous, settings, options)
            else:
                made = _made_at(endpoint, asynchronous, options)
            # other providers' prompt caches work by themselves
            mode = settings.prompt_cache if endpoint is None else UNSAID
            known[fingerprint] = wrap(made, project=project, cache=True, settings=settings, prompt_cache=mode)
        return known[fingerprint]


def _made(asynchronous: bool, settings: Settings, options: dict[str, Any]) -> Anthropic | AsyncAnthropic:
    import anthropic

    if asynchronous:
        client = anthropic.AsyncAnthropic(http_client=connections.http_client(settings), **options)
    else:
        client = anthropic.Anthropic(**options)
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        if not scope.needs_no_key() and "base_url" not in options:  # a server of one's own may want none
            raise MissingKey
        return client.copy(api_key=NO_KEY)
    return client


def _made_at(endpoint: Endpoint, asynchronous: bool, options: dict[str, Any]) -> Anthropic | AsyncAnthropic:
    from llmnb.providers.clients import check_installed, client_at

    if not scope.needs_no_key():
        check_installed(endpoint.provider.prefix)
        endpoint.key(os.environ)
    return client_at(endpoint, asynchronous=asynchronous, **options)


NO_KEY = "no-key-needed-to-replay"
"""Stands where the SDK wants a key; it is sent to no one but a server given by its address."""


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("ANTHROPIC_")))
