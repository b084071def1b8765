"""One recorded request and what came of it, and the lines of a cassette that hold them.

An interaction is a few lines of JSON in a row: its request; then either its response, followed by one line per event
when it was streamed, or the failure to get one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llmnb.cassette.body import Event, Json, body_fields, body_of, event_fields, event_of
from llmnb.keys import canonical_body

FORMAT = "llmnb.cassette"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it is told: without secrets, and without what no answer depends on.

    `url` is path and query; `base_url` and `provider` say whom it was sent to. `headers` are those that change the
    answer. `body` is JSON; the content of images, documents and files is told by its digest.
    """

    method: str
    url: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    provider: str = "anthropic"
    base_url: str = ""

    @property
    def path(self) -> str:
        """The address without the query."""
        return self.url.partition("?")[0]

    @property
    def address(self) -> tuple[str, str]:
        """Provider and base URL."""
        return self.provider, self.base_url

    @property
    def model(self) -> str | None:
        """The model that was asked, where there is one."""
        body: Any = self.body
        model = cast("Json", body).get("model") if isinstance(body, dict) else None
        return model if isinstance(model, str) else None

    def telling_body(self) -> Any:
        """What of the body the answer depends on."""
        return json.loads(self._canonical()) if self.body is not None else None

    def name(self) -> bytes:
        """A digest of everything that a recorded request must share with one that is asked."""
        around = json.dumps([self.method, self.url, sorted(self.headers.items())])
        digest = hashlib.blake2b(around.encode(), digest_size=20)
        digest.update(self._canonical())
        return digest.digest()

    def _canonical(self) -> bytes:
        body: Any = self.body
        return canonical_body(cast("Json", body)) if isinstance(body, dict) else json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Cut:
    """How a body ended that did not end by itself.

    `how` is `closed` when its reader had enough, `failed` when the connection broke, with the error's name and text.
    """

    how: str
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it came, decoded; `at_ms` is when its head was there, in milliseconds after the request."""

    status: int
    headers: dict[str, str]
    at_ms: int
    body: bytes = b""
    events: tuple[Event, ...] | None = None
    cut: Cut | None = None

    @property
    def content(self) -> bytes:
        """The whole body, as far as it came."""
        return self.body if self.events is None else b"".join(event.data for event in self.events)

    @property
    def is_whole(self) -> bool:
        """Whether it is an answer, and came to its end."""
        if self.cut is not None or not 200 <= self.status < 300:
            return False
        return self.events is None or b"event: message_start" not in self.content or b"message_stop" in self.content


@dataclass(frozen=True, slots=True)
class Failure:
    """No response came: the SDK's error, by its name and text."""

    error: str
    message: str
    at_ms: int = 0

    is_whole = False


@dataclass(frozen=True, slots=True)
class Interaction:
    """A request and what came of it.

    `number` is its place in the order in which requests were sent, from 1. `cell` and `run` are the notebook cell that
    asked and its execution count. `instead` is True when it was recorded in place of earlier ones to the same request.
    `source` is `live`, or `cache` when llmnb's cache answered while it was recorded. Where it was exported from the
    response cache, `key` is its key there, `created` when the answer came (ISO 8601), and `expires` until when it is
    used, where that is not for ever. `line` is where it begins in its file, from 1.
    """

    number: int
    request: Request
    outcome: Response | Failure
    cell: str | None = None
    run: int | None = None
    instead: bool = False
    source: str = "live"
    key: str | None = None
    created: str | None = None
    expires: str | None = None
    line: int = field(default=0, compare=False)


def header() -> Json:
    """The first line of a cassette."""
    return {"format": FORMAT, "version": VERSION}


# To lines -------------------------------------------------------------------------------------------------------------


def lines_of(interaction: Interaction) -> list[Json]:
    """The lines of an interaction."""
    request = interaction.request
    head: Json = {
        "number": interaction.number,
        "request": {
            "method": request.method,
            "url": request.url,
            "provider": request.provider,
            "base_url": request.base_url,
            "headers": dict(sorted(request.headers.items())),
            "body": _sorted(request.body),
        },
    }
    more = {
        "cell": interaction.cell,
        "run": interaction.run,
        "instead": interaction.instead or None,
        "source": None if interaction.source == "live" else interaction.source,
        "key": interaction.key,
        "created": interaction.created,
        "expires": interaction.expires,
    }
    head |= {name: value for name, value in more.items() if value is not None}
    return [head, *_outcome_lines(interaction.outcome)]


def _outcome_lines(outcome: Response | Failure) -> list[Json]:
    if isinstance(outcome, Failure):
        return [{"failure": {"at_ms": outcome.at_ms, "error": outcome.error, "message": outcome.message}}]
    told: Json = {"status": outcome.status, "at_ms": outcome.at_ms, "headers": outcome.headers}
    if outcome.cut is not None:
        cut = outcome.cut
        told["cut"] = {"how": cut.how, "error": cut.error, "message": cut.message} if cut.error else {"how": cut.how}
    if outcome.events is None:
        return [{"response": {**told, **body_fields(outcome.body)}}]
    return [{"response": {**told, "events": len(outcome.events)}}, *map(event_fields, outcome.events)]


def _sorted(value: Any) -> Any:
    """The same with sorted keys, however deep, so that a request is told the same way every time."""
    if isinstance(value, dict):
        return {name: _sorted(inner) for name, inner in sorted(cast("Json", value).items())}
    if isinstance(value, (list, tuple)):
        return [_sorted(inner) for inner in cast("Sequence[Any]", value)]
    return value


# From lines -----------------------------------------------------------------------------------------------------------


class Assembly:
    """Puts lines together again, one after the other. The line of a request drops what was begun before it."""

    def __init__(self) -> None:
        self._begun: Interaction | None = None
        self._events: list[Event] = []
        self._missing = 0

    @property
    def is_open(self) -> bool:
        """Whether an interaction was begun and is not whole yet."""
        return self._begun is not None

    def drop(self) -> None:
        """Forgets an interaction that was begun."""
        self._begun, self._events, self._missing = None, [], 0

    def add(self, line: Json, number: int) -> Interaction | None:
        """Takes the next line; gives the interaction it completes.

        Raises:
            ValueError: it does not belong here; what was begun is dropped.
        """
        try:
            return self._add(line, number)
        except (KeyError, TypeError, AttributeError) as error:
            self.drop()
            raise ValueError(f"{type(error).__name__}: {error}") from None
        except ValueError:
            self.drop()
            raise

    def _add(self, line: Json, number: int) -> Interaction | None:
        if "request" in line:
            self._begin(line, number)
            return None
        if self._begun is None:
            raise ValueError("there is no request before it")
        if "failure" in line:
            failure = line["failure"]
            return self._ended(Failure(str(failure["error"]), str(failure["message"]), int(failure.get("at_ms", 0))))
        if "response" in line:
            return self._responded(line["response"])
        if not self._missing:
            raise ValueError("it is neither a request nor an event of the response before it")
        self._events.append(event_of(line))
        self._missing -= 1
        assert isinstance(self._begun.outcome, Response)
        return None if self._missing else self._ended(replace(self._begun.outcome, events=tuple(self._events)))

    def _begin(self, line: Json, number: int) -> None:
        self.drop()
        told = line["request"]
        request = Request(
            method=str(told["method"]),
            url=str(told["url"]),
            body=told.get("body"),
            headers={str(name).lower(): str(value) for name, value in told.get("headers", {}).items()},
            provider=str(told.get("provider", "anthropic")),
            base_url=str(told.get("base_url", "")),
        )
        self._begun = Interaction(
            number=int(line["number"]),
            request=request,
            outcome=_NOTHING,
            cell=_text(line.get("cell")),
            run=None if line.get("run") is None else int(line["run"]),
            instead=bool(line.get("instead", False)),
            source=str(line.get("source", "live")),
            key=_text(line.get("key")),
            created=_text(line.get("created")),
            expires=_text(line.get("expires")),
            line=number,
        )

    def _responded(self, told: Json) -> Interaction | None:
        cut = told.get("cut")
        response = Response(
            status=int(told["status"]),
            headers={str(name): str(value) for name, value in told["headers"].items()},
            at_ms=int(told.get("at_ms", 0)),
            cut=None if cut is None else Cut(str(cut["how"]), str(cut.get("error", "")), str(cut.get("message", ""))),
        )
        if "events" not in told:
            return self._ended(replace(response, body=body_of(told)))
        self._missing = int(told["events"])
        if not self._missing:
            return self._ended(replace(response, events=()))
        assert self._begun is not None
        self._begun = replace(self._begun, outcome=response)
        return None

    def _ended(self, outcome: Response | Failure) -> Interaction:
        assert self._begun is not None
        whole = replace(self._begun, outcome=outcome)
        self.drop()
        return whole


_NOTHING = Failure("", "")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def encoded(lines: Sequence[Json]) -> bytes:
    """Lines as they stand in the file."""
    return b"".join(map(_encoded, lines))


def _encoded(line: Json) -> bytes:
    try:
        return json.dumps(line, ensure_ascii=False, default=repr).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold
        return json.dumps(line, default=repr).encode() + b"\n"
