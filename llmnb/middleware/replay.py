"""The replay part: answers from the cassette that is in force, or records into it. Without one, it is not there.

It stands where the cache stands, inside the ledger. While a cassette is replayed nothing goes further in than this, so
that nothing is sent. While one is recorded, an answer of the cache inside is recorded like any other.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import anthropic
import anyio
import httpx2
from anthropic import APIRequest

from llmnb.cache.stored import CONTENT_TYPES, Form
from llmnb.cassette import scope
from llmnb.cassette.body import Event
from llmnb.cassette.interaction import Cut, Failure, Interaction, Request, Response
from llmnb.cassette.redaction import compact_json
from llmnb.cassette.session import Cassette
from llmnb.cassette.telling import told_request
from llmnb.errors import ReplayMiss
from llmnb.messages import folding
from llmnb.middleware.answering import SOURCE
from llmnb.middleware.flow import CLIENT, Answer, Flow, Part, Pause
from llmnb.middleware.ledger import is_retried
from llmnb.middleware.recording import Take
from llmnb.trouble import quietly

_CREDENTIALS = ("api_key", "auth_token", "access_token", "aws_secret_key", "aws_access_key", "aws_session_token")
"""Where the SDK's clients keep them."""


class ReplayPart(Part):
    """Answers from the cassette in force, or records into it."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def concerns(self, request: APIRequest) -> bool:
        return scope.anywhere()

    def flow(self, request: APIRequest) -> Flow:
        cassette = cast("Cassette | None", scope.in_force())
        if cassette is None:
            return (yield request)
        client = yield CLIENT
        try:
            asked = self._told(cassette, request, client)
        except Exception as trouble:
            if cassette.needs_no_key:
                raise  # nothing is sent under replay, whatever happens
            quietly("telling a request to a cassette", trouble, _LACKS)
            return (yield request)
        found = cassette.find(asked)
        if found is not None:
            return (yield from _replayed(found, request, client, cassette))
        take = Take(cassette, asked, retry=request.retries_taken > 0)
        try:
            response = yield request
        except BaseException as error:
            _taken(take.failed, error)
            raise
        _taken(take.responded, response)
        return response

    def _told(self, cassette: Cassette, request: APIRequest, client: Any) -> Request:
        found = (getattr(client, name, None) for name in _CREDENTIALS)
        cassette.redaction.learn(*(secret for secret in found if isinstance(secret, str)))
        base_url = str(getattr(client, "base_url", ""))
        return told_request(request, cassette.redaction, provider=self.provider, base_url=base_url)


def _taken(what: Callable[[Any], None], of: Any) -> None:
    try:
        what(of)
    except Exception as trouble:
        quietly("recording into a cassette", trouble, _LACKS)


_LACKS = "the cassette lacks it"


def _replayed(found: Interaction, request: APIRequest, client: Any, cassette: Cassette) -> Flow:
    """The recorded response, or the recorded failure."""
    slow = cassette.pace == "recorded"
    outcome = found.outcome
    if isinstance(outcome, Failure):
        if slow:
            yield Pause(outcome.at_ms / 1000)
        elif _retries_left(request, client):
            # the SDK would wait before it tries again, and as long as it likes, unless a response tells it otherwise
            return (yield Answer(_stand_in(found), request))
        raise _error_of(outcome, request, found)
    try:
        outcome = _in_the_form_asked(outcome, found, request)
    except ValueError as trouble:  # CannotFold is one
        raise ReplayMiss(
            f"{cassette.path} holds this request as a stream that is no whole message ({trouble}): ask for it as a "
            'stream, or ask anew with mode="new".',
            path=str(cassette.path),
            request=found.request,
            nearest=found,
        ) from None
    http = _http_response(outcome, found, request, client, slow=slow)
    if not slow and _retries_left(request, client) and is_retried(http):
        http.headers["retry-after-ms"] = "1"  # the wait was the server's wish of then
    return (yield Answer(http, request))


def _in_the_form_asked(outcome: Response, found: Interaction, request: APIRequest) -> Response:
    """A message for a recorded stream of one, and the other way round.

    Raises:
        ValueError: the stream is no whole message.
    """
    recorded, asked = _asks_for_stream(found.request.body), _asks_for_stream(request.json)
    if recorded == asked or outcome.status != 200 or not found.request.path.endswith("/v1/messages"):
        return outcome
    if asked and outcome.events is None:
        body = folding.sse(folding.stream_of(json.loads(outcome.body)))
        events = (Event(outcome.at_ms, body),)
        return replace(outcome, headers=_typed(outcome.headers, "sse"), body=b"", events=events)
    if not asked and outcome.events is not None:
        if not outcome.is_whole:
            raise ValueError("it broke off")
        message = folding.message_of(folding.events_of(outcome.content))
        return replace(outcome, headers=_typed(outcome.headers, "json"), body=compact_json(message), events=None)
    return outcome


def _asks_for_stream(body: Any) -> bool:
    return isinstance(body, dict) and cast("dict[str, Any]", body).get("stream") is True


def _typed(headers: dict[str, str], form: Form) -> dict[str, str]:
    return {**headers, "content-type": CONTENT_TYPES[form]}


def _http_response(
    outcome: Response, found: Interaction, request: APIRequest, client: Any, *, slow: bool
) -> httpx2.Response:
    if slow or _breaks_off(outcome):
        kind = AsyncBody if hasattr(client, "__aenter__") else SyncBody
        body: dict[str, Any] = {"stream": kind(outcome, slow=slow)}
    else:
        body = {"content": outcome.content}
    address = found.request.base_url + found.request.url
    betas = request.headers.get("anthropic-beta")  # the SDK's accumulator of beta streams looks into them
    sent = httpx2.Request(found.request.method, address, headers={"anthropic-beta": betas} if betas else None)
    response = httpx2.Response(
        outcome.status, headers=outcome.headers, request=sent, extensions={SOURCE: "replay"}, **body
    )
    response.elapsed = datetime.timedelta(milliseconds=outcome.at_ms if slow else 0)
    return response


def _breaks_off(outcome: Response) -> bool:
    # the body of an error that was retried was closed unread
    return outcome.cut is not None and (outcome.cut.how == "failed" or outcome.status < 400)


def _retries_left(request: APIRequest, client: Any) -> bool:
    return request.retries_taken < request.options.get_max_retries(getattr(client, "max_retries", 0))


def _stand_in(found: Interaction) -> httpx2.Response:
    """What the SDK sees of a failure that it will retry: nobody else sees it."""
    sent = httpx2.Request(found.request.method, found.request.base_url + found.request.url)
    headers = {"x-should-retry": "true", "retry-after-ms": "1"}
    return httpx2.Response(503, headers=headers, request=sent, content=b"", extensions={SOURCE: "replay"})


def _error_of(failure: Failure, request: APIRequest, found: Interaction) -> anthropic.APIConnectionError:
    sent = httpx2.Request(request.method, found.request.base_url + found.request.url)
    if failure.error == "APITimeoutError":
        return anthropic.APITimeoutError(request=sent)
    return anthropic.APIConnectionError(message=failure.message, request=sent)


# Bodies ---------------------------------------------------------------------------------------------------------------


class _Body:
    """A recorded body that comes piece by piece: at its own pace, or to a point where it broke off."""

    def __init__(self, outcome: Response, *, slow: bool) -> None:
        self._cut = outcome.cut
        self._pieces = outcome.events or (Event(outcome.at_ms, outcome.body),)
        self._slow = slow

    def _timed(self) -> Iterator[tuple[float, bytes]]:
        """Each piece, and how many seconds after the one before it came."""
        before = 0
        for piece in self._pieces:
            yield (max(piece.at_ms - before, 0) / 1000 if self._slow else 0.0), piece.data
            before = max(piece.at_ms, before)

    def _ended(self) -> None:
        """Raises what the body broke off with, when it did."""
        if self._cut is None:
            return
        if self._cut.how == "failed":
            raise _transport_error(self._cut)
        raise ReplayMiss("the recorded stream was closed here by its reader: what came after is not known")


class SyncBody(_Body, httpx2.SyncByteStream):
    """For a sync client."""

    def __iter__(self) -> Iterator[bytes]:
        for wait_s, piece in self._timed():
            if wait_s:
                time.sleep(wait_s)
            yield piece
        self._ended()


class AsyncBody(_Body, httpx2.AsyncByteStream):
    """For an async client."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for wait_s, piece in self._timed():
            if wait_s:
                await anyio.sleep(wait_s)
            yield piece
        self._ended()


def _transport_error(cut: Cut) -> Exception:
    kind = getattr(httpx2, cut.error, None)
    if isinstance(kind, type) and issubclass(kind, (httpx2.TransportError, httpx2.DecodingError)):
        return kind(cut.message)
    return httpx2.ReadError(cut.message or "the recorded connection broke here")
