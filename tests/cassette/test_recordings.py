"""All recorded responses of the real API, through record, replay and cache: equal to the byte, as every SDK object.

The recordings are in the folder named by LLMNB_TEST_RECORDINGS and are no part of the project; without it these skip.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

import llmnb
from llmnb.cache.responses import responses
from llmnb.cassette import read
from llmnb.messages import folding
from llmnb.testing import serve_simulator

# the SDK warns of the old models that were recorded
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

FOLDER = os.environ.get("LLMNB_TEST_RECORDINGS")
METAS = sorted(Path(FOLDER).glob("*.meta.json")) if FOLDER else []
KNOWN = ("model", "max_tokens", "messages", "stream")


def seen(client: anthropic.Anthropic, request: dict[str, Any]) -> list[Any]:
    """Everything that the SDK gives for a recorded request: raw bytes, status, parsed objects, events, or the error."""
    path, body = request["path"], request["body"] or {}
    beta: Any = client.beta if "beta=true" in path else client
    route = path.partition("?")[0]
    if route == "/v1/models":
        return [beta.models.with_raw_response.list().text(), [model.model_dump() for model in beta.models.list()]]
    extra = {name: value for name, value in body.items() if name not in KNOWN}
    parameters = {name: body[name] for name in KNOWN if name in body} | {"extra_body": extra, "timeout": 30}
    if route == "/v1/messages/count_tokens":
        create = beta.messages.count_tokens
    elif route == "/v1/messages/batches":
        create, parameters = beta.messages.batches.create, {"requests": body["requests"]}
    else:
        create = beta.messages.create
    try:
        answer = create(**parameters)
        objects = [event.model_dump() for event in answer] if body.get("stream") else answer.model_dump()
    except anthropic.APIStatusError as error:
        objects = [type(error), error.body, str(error), error.request_id]
    return [raw(client, path, body), objects]


def raw(client: anthropic.Anthropic, path: str, body: dict[str, Any]) -> list[Any]:
    """The bytes and the telling headers of the same request, through the SDK's generic method."""
    try:
        response = client.with_options(max_retries=0).post(path, body=body, cast_to=httpx2.Response)
    except anthropic.APIStatusError as error:
        response = error.response
    return [
        response.status_code,
        response.content,
        response.headers.get("request-id"),
        response.headers["content-type"],
    ]


def test_none_of_the_forty_is_left_out() -> None:
    """36 messages, and four of the other routes."""
    if not FOLDER:
        pytest.skip("set LLMNB_TEST_RECORDINGS to a folder of recorded responses to run this")
    assert len(METAS) == 40


@pytest.mark.parametrize("meta", METAS, ids=lambda path: path.name[:3])
def test_a_recording_comes_again_to_the_byte(meta: Path, tmp_path: Path) -> None:
    """Recorded from a server, read from the file without one: the same bytes, objects and errors."""
    told = json.loads(meta.read_text())
    response = told["response"]
    body = (meta.parent / response["file"]).read_bytes()
    path = tmp_path / "a.jsonl"
    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain:
        simulator.replay(response["status"], response["headers"], body, response["kind"], times=2)
        with llmnb.record(path):
            first = seen(llmnb.wrap(plain), told["request"])
    assert body in (first[0][1], first[0].encode() if isinstance(first[0], str) else None)
    assert len(read(path).interactions) == 2
    with llmnb.replay(path, repeat=False) as cassette:
        assert seen(llmnb.wrap(anthropic.Anthropic()), told["request"]) == first
    assert cassette.unused == ()


def _is_an_answer(meta: Path) -> bool:
    told = json.loads(meta.read_text())
    return told["request"]["path"].partition("?")[0] == "/v1/messages" and told["response"]["status"] == 200


ANSWERS = [meta for meta in METAS if _is_an_answer(meta)]


def asked(client: anthropic.Anthropic, body: dict[str, Any], *, beta: bool) -> Any:
    """The whole answer to a recorded request, as the SDK's objects have it; of a stream, what its events add up to."""
    extra = {name: value for name, value in body.items() if name not in KNOWN}
    parameters = {name: body[name] for name in KNOWN if name in body} | {"extra_body": extra, "timeout": 30}
    api: Any = client.beta if beta else client
    answer = api.messages.create(**parameters)
    if not body.get("stream"):
        return answer.model_dump()
    return folding.message_of(folding.folded(event.model_dump(mode="json", exclude_unset=True) for event in answer))


@pytest.mark.parametrize("meta", ANSWERS, ids=lambda path: path.name[:3])
def test_recorded_replayed_and_from_the_cache(meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One live call; the cassette and then the cache, each with the server gone, give the very same answer."""
    told = json.loads(meta.read_text())
    request, response = told["request"], told["response"]
    body, beta, path = request["body"], "beta=true" in request["path"], tmp_path / "a.jsonl"
    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain:
        simulator.replay(
            response["status"], response["headers"], (meta.parent / response["file"]).read_bytes(), response["kind"]
        )
        with llmnb.record(path):
            live = asked(llmnb.wrap(plain, cache="all"), body, beta=beta)
        responses().settle()
        with llmnb.replay(path):
            assert asked(llmnb.wrap(plain), body, beta=beta) == live
        assert len(simulator.requests) == 1
        simulator.stop()
        assert asked(llmnb.wrap(plain, cache="all"), body, beta=beta) == live
    assert list(llmnb.calls()["source"]) == ["cache", "replay", "live"]


NOT_CACHED = {
    "/v1/messages/count_tokens": "it is free, and a model's tokenizer may change",
    "/v1/models": "it is free, and what there is changes",
    "/v1/messages/batches": "it begins a job: told from disk, none would have begun",
    "/v1/messages": "it is an error, and the next try may succeed",
}
"""Why the cache keeps nothing of the other five, by what they asked."""

OTHERS = [meta for meta in METAS if meta not in ANSWERS]


@pytest.mark.parametrize("meta", OTHERS, ids=lambda path: path.name[:3])
def test_what_is_no_answer_passes_the_cache_by(meta: Path, tmp_path: Path) -> None:
    """Recorded and replayed through a client with the cache, to the byte; kept is nothing, so it is asked each time."""
    told = json.loads(meta.read_text())
    request, response = told["request"], told["response"]
    assert request["path"].partition("?")[0] in NOT_CACHED
    body, path = (meta.parent / response["file"]).read_bytes(), tmp_path / "a.jsonl"
    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain:
        simulator.replay(response["status"], response["headers"], body, response["kind"], times=4)
        client = llmnb.wrap(plain, cache="all")
        with llmnb.record(path):
            first = seen(client, request)
        with llmnb.replay(path):
            assert seen(client, request) == first
        assert len(simulator.requests) == 2  # asked in two ways
        seen(client, request)
        assert len(simulator.requests) == 4
        responses().settle()
        assert list(responses().backend.names()) == []


def test_each_of_the_five_others_has_its_reason() -> None:
    """Two counts, a list of models, a batch, a refused request."""
    if not FOLDER:
        pytest.skip("set LLMNB_TEST_RECORDINGS to a folder of recorded responses to run this")
    routes = [json.loads(meta.read_text())["request"]["path"].partition("?")[0] for meta in OTHERS]
    assert (len(ANSWERS), len(routes), set(routes)) == (35, 5, set(NOT_CACHED))
