"""The response cache as a cassette: what was asked before, in a file that can be read and handed on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from llmnb.cache.browse import opened
from llmnb.cache.responses import request_name
from llmnb.cache.stored import CONTENT_TYPES, StoredAnswer, Unreadable
from llmnb.cassette.body import split_events
from llmnb.cassette.interaction import Interaction, Request, Response
from llmnb.cassette.redaction import Redact
from llmnb.cassette.telling import address_of, write

if TYPE_CHECKING:
    from llmnb.cache.backends import Backend
    from llmnb.settings import Settings


def export(
    path: str | os.PathLike[str], *, model: str | None = None, redact: Redact = (), settings: Settings | None = None
) -> int:
    """Writes the answers of the response cache into a cassette, oldest first, in place of what is in the file.

    `llmnb.replay` answers from it, and `llmnb.cache.import_` puts its answers into another cache. Secrets are kept out
    as `record` does. What was streamed has its pieces put together and no times. An answer that has a `ttl` keeps it.
    Entries that are damaged or have expired, or of which the request is not known any more, are left out.

    Args:
        path: the file.
        model: only answers to requests that asked this model.
        redact: as for `record`.
        settings: settings to use instead of those in force here and now.

    Returns:
        How many interactions were written.

    Raises:
        StoreError: the cache cannot be read.
        OSError: the file cannot be written.
    """
    with opened(settings) as cache:
        found = sorted(_answers(cache.backend), key=lambda pair: (pair[0].created_us, pair[0].key))
    wanted = [pair for pair in found if model in (None, pair[0].model_requested)]
    write(path, (_interaction(number, *pair) for number, pair in enumerate(wanted, start=1)), redact=redact)
    return len(wanted)


def _answers(backend: Backend) -> Iterator[tuple[StoredAnswer, dict[str, Any]]]:
    for name in backend.names():
        if "/" in name:  # a request that is kept apart
            continue
        try:
            answer = StoredAnswer.decoded(backend.get(name) or b"")
            request: Any = json.loads(answer.request or backend.get(request_name(answer.key)) or b"null")
        except (Unreadable, ValueError):  # a pickled entry is a ValueError, too
            continue
        if isinstance(request, dict):
            yield answer, request


def _interaction(number: int, answer: StoredAnswer, kept: dict[str, Any]) -> Interaction:
    around, streamed = kept["around"], answer.form == "sse"
    request = Request(
        method="POST",
        url=address_of(around["path"], around["query"], around["base_url"]),
        body={**kept["body"], **({"stream": True} if streamed else {})},
        headers={name: value for name, value in around["headers"].items() if name.startswith("anthropic-")},
        provider=around["provider"],
        base_url=around["base_url"],
    )
    response = Response(
        status=answer.status,
        headers={**dict(answer.headers), "content-type": CONTENT_TYPES[answer.form]},
        at_ms=0,
        body=b"" if streamed else answer.body,
        events=tuple(split_events([(0, answer.body)])) if streamed else None,
    )
    return Interaction(
        number,
        request,
        response,
        source="cache",
        key=answer.key,
        created=_moment(answer.created_us),
        expires=None if answer.expires_us is None else _moment(answer.expires_us),
    )


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, timezone.utc).isoformat()  # noqa: UP017
