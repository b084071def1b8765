"""A stored answer comes out of every use of the SDK as the real one did: parsed, raw, streamed, sync and async."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest

from llmnb.cache.stored import StoredAnswer, stored
from llmnb.messages import folding
from llmnb.middleware import answering
from llmnb.middleware.flow import Answer, Flow, Part
from llmnb.middleware.tee import watch
from llmnb.simulator import Simulator

from .conftest import QUESTION
from .test_every_use import BILLABLE, City


class Keeping(Part):
    """Keeps answers while they come over the network; once told to, gives them back in the order they came."""

    def __init__(self) -> None:
        self.answers: list[StoredAnswer] = []
        self.given: int | None = None

    def flow(self, request: anthropic.APIRequest) -> Flow:
        if self.given is not None:
            http = answering.http_response(
                self.answers[self.given], request, source="replay", base_url="http://recorded.example"
            )
            self.given += 1
            return (yield Answer(http, request))
        response = yield request
        if response.http_response.is_closed:
            self.keep(response.http_response, response.http_response.content)
        else:
            watch(response.http_response, _End(self, response.http_response))
        return response

    def keep(self, http: httpx2.Response, body: bytes) -> None:
        answer = stored(body, model_requested="m", created_us=0, headers=http.headers.items())
        assert answer is not None
        self.answers.append(StoredAnswer.decoded(answer.encoded()))


class _End:
    def __init__(self, part: Keeping, http: httpx2.Response) -> None:
        self.part, self.http = part, http

    def look(self, chunks: list[bytes]) -> int:
        return 1_000

    def end(self, chunks: list[bytes], how: object, error: object) -> None:
        self.part.keep(self.http, b"".join(chunks))


def comparable(result: Any) -> Any:
    """What a use gives; of streams, what they say and not in how many pieces."""
    if isinstance(result, list) and result and isinstance(result[0], str):
        result = folding.events_of("\n".join(result).encode())
    if isinstance(result, list) and result and result[0].get("type") == "message_start":
        return folding.folded(result)
    if isinstance(result, tuple) and isinstance(result[0], list):
        return ["".join(result[0]), *result[1:]]
    return result


@pytest.mark.parametrize("use", BILLABLE, ids=lambda use: use.__name__)
def test_a_stored_answer_comes_out_of_every_use_of_the_sdk(
    simulator: Simulator, use: Callable[[anthropic.Anthropic], Any]
) -> None:
    """Equal to the first time, in every field, with the request id."""
    part = Keeping()
    with simulator.client() as plain:
        client = plain.with_middleware(part)
        first = use(client)
        asked = len(simulator.requests)
        part.given = 0
        assert comparable(use(client)) == comparable(first)
        assert len(simulator.requests) == asked


@pytest.mark.parametrize("streaming", [False, True])
def test_each_form_serves_the_other_way_of_asking(simulator: Simulator, streaming: bool) -> None:
    """What was streamed is given in one piece, and the other way round."""
    part = Keeping()

    def ask(client: Any, stream: bool) -> anthropic.types.Message:
        if not stream:
            return client.messages.create(**QUESTION)
        with client.messages.stream(**QUESTION) as events:
            return events.get_final_message()

    with simulator.client() as plain:
        client = plain.with_middleware(part)
        first = ask(client, streaming).to_dict()
        part.given = 0
        again = ask(client, not streaming)
    assert again.to_dict() | {"stop_details": None} == first | {"stop_details": None}
    if streaming:
        assert again._request_id is not None  # the SDK sets it on messages that came in one piece


async def test_async_clients_get_async_responses(simulator: Simulator) -> None:
    """create, stream, parse, raw and streaming responses of AsyncAnthropic."""
    part = Keeping()

    async def uses(client: anthropic.AsyncAnthropic) -> list[Any]:
        message = await client.messages.create(**QUESTION)
        events = [event async for event in await client.messages.create(**QUESTION, stream=True)]
        async with client.messages.stream(**QUESTION) as stream:
            final = await stream.get_final_message()
        parsed = await client.messages.parse(**QUESTION, output_format=City)
        raw = await client.messages.with_raw_response.create(**QUESTION)
        async with client.messages.with_streaming_response.create(**QUESTION) as response:
            read = await response.json()
        return [
            message.model_dump(),
            folding.folded([event.model_dump() for event in events]),
            final.model_dump(),
            parsed.model_dump(),
            (raw.status_code, raw.request_id, json.loads(await raw.text()), type(raw).__name__),
            read,
        ]

    async with simulator.async_client() as plain:
        client = plain.with_middleware(part)
        first = await uses(client)
        part.given = 0
        assert await uses(client) == first


def test_what_a_response_was_made_of_can_be_told(simulator: Simulator) -> None:
    """The ledger reads it there; a response of the network has nothing."""
    part = Keeping()
    with simulator.client() as plain:
        client = plain.with_middleware(part)
        live = client.messages.with_raw_response.create(**QUESTION)
        assert answering.answered_from(live.http_response) is None
        part.given = 0
        again = client.messages.with_raw_response.create(**QUESTION)
    assert answering.answered_from(again.http_response) == (part.answers[0], "replay")
    assert str(again.http_request.url) == "http://recorded.example/v1/messages"
    assert "authorization" not in again.http_request.headers
    assert "x-api-key" not in again.http_request.headers
    assert again.elapsed.total_seconds() == 0


def test_the_client_that_parses_cannot_send() -> None:
    """Nor does it read the machine's certificates, which takes longer than a call."""
    for asynchronous in (False, True):
        client = answering._offline_client(asynchronous)
        assert client is answering._offline_client(asynchronous)
        with pytest.raises(httpx2.ConnectError, match="sends nothing"):
            client._client._transport.handle_request(httpx2.Request("GET", "http://x"))
