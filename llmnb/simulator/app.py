"""The routes: who asks, what for, and which part of the simulator answers; every request is written down."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from llmnb.simulator.answer import Answer, Recorded, Script, SeenRequest
from llmnb.simulator.api_error import ApiError, invalid, not_found
from llmnb.simulator.batches import Batches, page
from llmnb.simulator.billing import BillingRecord
from llmnb.simulator.catalog import BY_NAME, MODELS
from llmnb.simulator.chat.models import CHAT_MODELS
from llmnb.simulator.chat.reply import ChatReply
from llmnb.simulator.chat.request import model_of
from llmnb.simulator.chat.wire import limit_headers
from llmnb.simulator.clock import Clock
from llmnb.simulator.delivery import Delivery
from llmnb.simulator.engine import Caller, Engine
from llmnb.simulator.fault import CONNECTION, parse_fault
from llmnb.simulator.json_value import Json, as_object, as_text, dump_bytes
from llmnb.simulator.limits import Limits
from llmnb.simulator.streaming import Pace
from llmnb.simulator.wire import Connection, Header, Request

ORGANIZATION_ID = "5175a7ed-0000-4000-8000-000000000000"
JSON_HEADERS = (("content-type", "application/json"), ("server", "llmnb-simulator"))

Reply = Coroutine[Any, Any, None] | None


@dataclass(frozen=True, slots=True)
class Options:
    """How a simulator behaves where its clients do not say.

    `valid_keys` (None: any but those starting `sk-ant-invalid`) are the API keys let in. `tokens_per_second` and
    `first_token_s` pace replies (None, 0: as fast as they can). `batch_seconds` is how long a batch takes. `keep`
    bounds how many requests are remembered (None: all).
    """

    valid_keys: frozenset[str] | None = None
    tokens_per_second: float | None = None
    first_token_s: float = 0.0
    batch_seconds: float = 60.0
    limits: Limits = field(default_factory=Limits)
    organization_id: str = ORGANIZATION_ID
    keep: int | None = None


class Simulation:
    """The simulated API behind the HTTP server."""

    def __init__(self, seed: int, clock: Clock, options: Options) -> None:
        self.options = options
        self.clock = clock
        self.engine = Engine(seed, clock, options.limits)
        self.batches = Batches(self.engine, options.batch_seconds, self._answer_for_body)
        self.script = Script()
        self.requests: list[SeenRequest] = []
        self.crashes: list[str] = []
        self.connections: set[Connection] = set()
        self.pace = Pace(options.first_token_s, options.tokens_per_second)
        self.url = ""
        self.in_flight = 0

    # -- the App of wire.Connection ---------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)

    def refuse(self, status: int, message: str, connection: Connection) -> None:
        """Answer what could not be read as a request."""
        kind = "request_too_large" if status == 413 else "invalid_request_error"
        connection.reply(status, JSON_HEADERS, ApiError(kind, message).body(self.engine.ids.new("req_")))

    def handle(self, request: Request, connection: Connection) -> Reply:
        """Answer one request."""
        seen = self._write_down(request)
        delivery = Delivery(self, seen, connection)
        return self._guarded(delivery, lambda: self._begin(seen, delivery))

    def crashed(self, error: BaseException) -> None:
        """A bug of the simulator, or of a reply function it was given: kept where tests look for it."""
        self.crashes.append("".join(traceback.format_exception(error)))

    def _begin(self, seen: SeenRequest, delivery: Delivery) -> Reply:
        answer = self._answer_for(seen)
        fault = answer.fault
        seen.fault = fault.kind if fault is not None else None
        if fault is not None and fault.kind in CONNECTION:
            return delivery.connection_fault(
                fault, lambda: self._guarded(delivery, lambda: self._route(seen, answer, delivery))
            )
        if fault is not None and (error := fault.error()) is not None:
            raise error
        return self._route(seen, answer, delivery)

    def _guarded(self, delivery: Delivery, answer: Callable[[], Reply]) -> Reply:
        """Answer, or refuse; a bug is a 500 that says where to look."""
        try:
            return answer()
        except ApiError as error:
            delivery.refuse(error)
        except Exception as error:
            self.crashed(error)
            delivery.refuse(ApiError("api_error", "The simulator crashed: see Simulator.crashes."))
        return None

    # -- requests ---------------------------------------------------------------------------------------------------

    def _write_down(self, request: Request) -> SeenRequest:
        path, _, query = request.target.partition("?")
        seen = SeenRequest(
            request_id=self.engine.ids.new("req_"),
            method=request.method,
            path=unquote(path) if "%" in path else path,
            query=request.query if query else {},
            headers=request.headers,
            raw=request.body,
            body=_parsed(request.body),
            at=self.clock.now(),
        )
        self.requests.append(seen)
        if self.options.keep is not None and len(self.requests) > self.options.keep:
            del self.requests[0]
        return seen

    def _answer_for(self, seen: SeenRequest) -> Answer:
        """The scripted answer, with what the request's own headers ask of the simulator."""
        answer = self.script.answer_for(seen) or Answer()
        headers = seen.headers
        text = headers.get("x-simulator-reply")
        if text is not None:
            answer = replace(answer, text=unquote(text))
        rate = headers.get("x-simulator-tokens-per-second")
        deltas = headers.get("x-simulator-deltas")
        named = headers.get("x-simulator-fault")
        try:
            if rate is not None:
                answer = replace(answer, tokens_per_second=float(rate))
            if deltas is not None:
                answer = replace(answer, deltas=int(deltas))
            if named is not None:
                fault = parse_fault(named)
                if fault.times is None or seen.attempt < fault.times:
                    answer = replace(answer, fault=fault)
        except ValueError as error:
            raise invalid(f"x-simulator header: {error}") from None
        return answer

    def _answer_for_body(self, body: Json) -> Answer:
        """The scripted answer for one request of a batch, which has no HTTP request of its own."""
        at = self.clock.now()
        seen = SeenRequest("", "POST", "/v1/messages", {}, {}, b"", body, at)
        return self.script.answer_for(seen) or Answer()

    def caller(self, seen: SeenRequest) -> Caller:
        """Who asks; ApiError 401 for nobody and for the keys that are not let in."""
        headers = seen.headers
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or headers.get("api-key")  # the second is how Azure wants it
        key = key or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise ApiError("authentication_error", "x-api-key header is required")
        valid = self.options.valid_keys
        if key.startswith("sk-ant-invalid") or (valid is not None and key not in valid):
            raise ApiError("authentication_error", "invalid x-api-key")
        scope = headers.get("anthropic-workspace-id") or key
        beta = seen.query.get("beta") == "true"
        return Caller(key, scope, headers.get("anthropic-beta", ""), beta)

    # -- routes -----------------------------------------------------------------------------------------------------

    def _route(self, seen: SeenRequest, answer: Answer, delivery: Delivery) -> Reply:
        path, method = seen.path, seen.method
        if answer.recorded is not None:
            return delivery.recorded(answer.recorded, answer)
        if path == "/v1/messages" and method == "POST":
            return self._message(seen, answer, delivery)
        if seen.is_chat and method == "POST":
            return self._chat(seen, answer, delivery)
        if path == "/health":
            return delivery.whole(dump_bytes({"status": "ok", "simulated": True}), answer)
        return delivery.whole(self._read(seen), answer)

    def _message(self, seen: SeenRequest, answer: Answer, delivery: Delivery) -> Reply:
        caller = self.caller(seen)
        prepared = self.engine.prepare(_body(seen), caller, answer, seen.request_id)
        return delivery.message(prepared, answer)

    def _chat(self, seen: SeenRequest, answer: Answer, delivery: Delivery) -> Reply:
        caller = self.caller(seen)
        body = _body(seen)
        model = model_of(body)
        prepared = self.engine.prepare_chat(body, model, caller, answer, seen.request_id)
        asks_for_usage = not body.get("stream") or as_object(body.get("stream_options")).get("include_usage") is True
        reply = ChatReply(prepared.turn, model, int(self.clock.now()), asks_for_usage and not answer.no_usage)
        return delivery.message(prepared, answer, reply)

    def _models(self, seen: SeenRequest) -> Json:
        """All models of the wire that asks: one of them always tells its version."""
        if "anthropic-version" in seen.headers:
            return page([model.info() for model in MODELS], seen.query)
        return {"object": "list", "data": [model.info() for model in CHAT_MODELS]}

    def _read(self, seen: SeenRequest) -> bytes:
        """Every route but that of messages: small JSON, no streams."""
        caller = self.caller(seen)
        parts = seen.path.strip("/").split("/")
        routes: dict[tuple[str, int], Callable[[], Json | bytes]] = {
            ("GET models", 2): lambda: self._models(seen),
            ("GET models", 3): lambda: _model(parts[2]),
            ("POST messages/count_tokens", 3): lambda: self.engine.count(_body(seen)),
            ("POST messages/batches", 3): lambda: self.batches.create(_body(seen), caller, self.url),
            ("GET messages/batches", 3): lambda: self.batches.list(seen.query, caller, self.url),
            ("GET messages/batches", 4): lambda: self.batches.retrieve(parts[3], caller, self.url),
            ("DELETE messages/batches", 4): lambda: self.batches.delete(parts[3], caller),
            ("GET messages/batches/results", 5): lambda: self.batches.results(parts[3], caller),
            ("POST messages/batches/cancel", 5): lambda: self.batches.cancel(parts[3], caller, self.url),
        }
        found = routes.get((_route_name(seen.method, parts), len(parts)))
        if found is None or parts[0] != "v1":
            raise not_found("Not Found")
        result = found()
        return result if isinstance(result, bytes) else dump_bytes(result)

    def headers(self, seen: SeenRequest, *, limits: bool) -> list[Header]:
        """The headers of every reply: request id, organisation, and the rate limits of the key."""
        now = self.clock.now()
        key = seen.headers.get("x-api-key") or seen.headers.get("authorization", "").partition(" ")[2].strip()
        told = self.engine.limiter.headers(key, now) if limits else []
        if seen.is_chat:
            headers = [("x-request-id", seen.request_id), ("server", "llmnb-simulator")]
            return headers + (limit_headers(told, now) if told else [])
        return [
            ("request-id", seen.request_id),
            ("anthropic-organization-id", self.options.organization_id),
            ("server", "llmnb-simulator"),
            *told,
        ]

    def bill(self, record: BillingRecord) -> None:
        """Put a record on the books."""
        self.engine.billing.append(record)


def _route_name(method: str, parts: list[str]) -> str:
    """Method and the fixed parts of a path: ids, which stand in fourth place, left out."""
    fixed = [*parts[1:3], *parts[4:]] if len(parts) > 2 and parts[1] == "messages" else parts[1:2]
    return f"{method} {'/'.join(fixed)}"


def _model(name: str) -> Json:
    model = BY_NAME.get(name)
    if model is None:
        raise not_found(f"model: {name}")
    return model.info()


def _parsed(raw: bytes) -> Json:
    """The body as a JSON object; empty when it is none, which `_body` refuses."""
    if not raw:
        return {}
    try:
        return as_object(json.loads(raw))
    except (ValueError, RecursionError):
        return {}


def _body(seen: SeenRequest) -> Json:
    """The request's JSON object; ApiError 400 when the body is none."""
    if not seen.body and seen.raw.strip() != b"{}":
        raise invalid("The request body is not valid JSON.")
    return seen.body


def recorded_from(status: int, headers: dict[str, str] | None, body: bytes, kind: str | None) -> Recorded:
    """A recording with its kind filled in from the headers or the body."""
    given = tuple((headers or {}).items())
    content_type = as_text(next((value for name, value in given if name.lower() == "content-type"), ""))
    streamed = "event-stream" in content_type or (not content_type and body.lstrip().startswith((b"event:", b"data:")))
    found = kind or ("sse" if streamed else "json")
    if not content_type:
        media = "text/event-stream; charset=utf-8" if found == "sse" else "application/json"
        given = (*given, ("content-type", media))
    return Recorded(status, given, body, found)
