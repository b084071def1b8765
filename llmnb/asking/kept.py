"""Looks whether a question is answered in the response cache already. Sends nothing, and imports no SDK for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llmnb import keys
from llmnb.asking.question import Question
from llmnb.cache.responses import responses
from llmnb.cache.stored import StoredAnswer
from llmnb.cache.world import depends_on_the_world
from llmnb.records import Caching
from llmnb.settings import Settings
from llmnb.trouble import quietly

_API = "https://api.anthropic.com"
_NOT_IN_BODY = ("extra_body", "extra_headers", "extra_query", "timeout")


def kept_answer(question: Question, body: Mapping[str, Any], settings: Settings) -> StoredAnswer | None:
    """The answer that asking would give from the response cache; None when it would be sent, or nobody can tell.

    `body` is what would be sent, as arguments of the SDK.
    """
    caching: Caching = question.plan.ledger["caching"]
    sent = {name: value for name, value in body.items() if name not in _NOT_IN_BODY}
    is_off = settings.cache == "off" or caching.use is False or caching.fresh
    is_elsewhere = question.access.endpoint is not None  # other providers' clients are only made to ask
    if is_off or is_elsewhere or (caching.use != "all" and depends_on_the_world(sent)):
        return None
    if settings.cache_url is None and not settings.cache_folder.exists():
        return None
    try:
        key = keys.key_of(around(question, caching), keys.canonical_body(sent))
        return responses(settings).find(key, ttl_s=caching.ttl_s)
    except Exception as trouble:  # such as content that JSON cannot hold
        quietly("looking into the response cache for an estimate", trouble)
        return None


def around(question: Question, caching: Caching, headers: Mapping[str, Any] | None = None) -> bytes:
    """What counts besides the body, as the pipeline names it; `headers` are those of the question itself."""
    client: Any = question.access.known()
    base_url = os.environ.get("ANTHROPIC_BASE_URL") or _API if client is None else str(client._base_url)
    custom: dict[str, Any] = {} if client is None else client._custom_headers
    arguments = question.plan.arguments
    return keys.around(
        provider=question.access.provider,
        base_url=base_url,
        path="/v1/messages",
        query=arguments.get("extra_query"),
        headers={**custom, **((arguments.get("extra_headers") or {}) if headers is None else headers)},
        sample=caching.sample,
    )
