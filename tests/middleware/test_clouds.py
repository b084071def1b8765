"""The SDK's cloud clients on the books: their paths, and the binary frames of classic Bedrock.

A gateway on loopback turns what the clouds speak into the Messages API, which the simulator answers and bills.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import anthropic
import pytest

import llmnb
from llmnb.simulator import Simulator

from .conftest import QUESTION, row

MODEL = re.compile(r"/(?:model/(?P<aws>[^/]+)/invoke|.*/models/(?P<google>[^:/]+):)")


def frame(event: bytes) -> bytes:
    """One event as AWS frames it (its event stream encoding): lengths, headers, payload, checksums."""
    payload = json.dumps({"bytes": base64.b64encode(event).decode()}).encode()
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in ((":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event"))
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))


class Gateway(ThreadingHTTPServer):
    """Speaks to cloud clients, asks the simulator; `keep` is how many events of a stream it hands on."""

    daemon_threads = True

    def __init__(self, simulator: Simulator) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.simulator = simulator
        self.keep: int | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request of a cloud client."""

    server: Gateway

    def do_POST(self) -> None:
        """Hand the request on, and its answer back."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        found = MODEL.match(self.path)
        asked = (found["google"] or unquote(found["aws"])) if found else body["model"]
        body["model"] = asked.split(".")[-1].removesuffix("-v1:0").split("@")[0]
        for name in ("anthropic_version", "anthropic_beta"):
            body.pop(name, None)
        frames = "with-response-stream" in self.path
        status, kind, answer = self._ask({**body, "stream": True} if frames else body)
        events = re.findall(rb"data: (.*)\n", answer) if frames else []
        if frames:
            kind, answer = "application/vnd.amazon.eventstream", b"".join(map(frame, events[: self.server.keep]))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-amzn-requestid" if found and found["aws"] else "request-id", "req_cloud")
        self.end_headers()
        self.wfile.write(answer)

    def _ask(self, body: dict[str, Any]) -> tuple[int, str, bytes]:
        place = urlsplit(self.server.simulator.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port)
        headers = {"x-api-key": self.server.simulator.api_key, "anthropic-version": "2023-06-01"}
        connection.request("POST", "/v1/messages", json.dumps(body), {**headers, "content-type": "application/json"})
        response = connection.getresponse()
        answer = response.status, str(response.getheader("content-type")), response.read()
        connection.close()
        return answer

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway(simulator: Simulator) -> Iterator[Gateway]:
    """A running gateway to the simulator."""
    running = Gateway(simulator)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


Make = Callable[[str], Any]
CLOUDS: dict[str, tuple[Make, Make, str, str]] = {
    "vertex": (
        lambda url: anthropic.AnthropicVertex(base_url=url, region="global", project_id="p", access_token="t"),
        lambda url: anthropic.AsyncAnthropicVertex(base_url=url, region="global", project_id="p", access_token="t"),
        "claude-sonnet-5-5@20260901",
        "gcp.vertex_ai",
    ),
    "foundry": (
        lambda url: anthropic.AnthropicFoundry(base_url=url, api_key="k"),
        lambda url: anthropic.AsyncAnthropicFoundry(base_url=url, api_key="k"),
        "claude-sonnet-5-5",
        "azure.ai.inference",
    ),
    "aws": (
        lambda url: anthropic.AnthropicAWS(base_url=url, api_key="k", aws_region="eu-north-1", workspace_id="w"),
        lambda url: anthropic.AsyncAnthropicAWS(base_url=url, api_key="k", aws_region="eu-north-1", workspace_id="w"),
        "claude-sonnet-5-5",
        "anthropic",
    ),
    "mantle": (
        lambda url: anthropic.AnthropicBedrockMantle(base_url=url, api_key="k", aws_region="eu-north-1"),
        lambda url: anthropic.AsyncAnthropicBedrockMantle(base_url=url, api_key="k", aws_region="eu-north-1"),
        "anthropic.claude-sonnet-5-5",
        "aws.bedrock",
    ),
    "bedrock": (
        lambda url: anthropic.AnthropicBedrock(base_url=url, api_key="k", aws_region="us-east-1"),
        lambda url: anthropic.AsyncAnthropicBedrock(base_url=url, api_key="k", aws_region="us-east-1"),
        "global.anthropic.claude-sonnet-5-5-v1:0",
        "aws.bedrock",
    ),
}
cloud = pytest.mark.parametrize("name", CLOUDS)
streaming = pytest.mark.parametrize("stream", [False, True])


def needs_frames(name: str, stream: bool) -> None:
    """The SDK reads Bedrock's frames with botocore, which cannot be installed beside every pandas."""
    if name == "bedrock" and stream:
        pytest.importorskip(
            "botocore", reason="binary frames of Bedrock need botocore: pip install 'anthropic[bedrock]'"
        )


def held_against_the_bill(simulator: Simulator, name: str) -> None:
    """The one row: of the right provider, with the tokens that were billed, priced as that provider prices them."""
    simulator.settle()
    [billed] = simulator.billing
    written = row()
    assert (written["status"], written["provider"]) == ("ok", CLOUDS[name][3])
    assert written["model_requested"] == CLOUDS[name][2]
    assert (written["input_tokens"], written["output_tokens"]) == (billed.input_tokens, billed.output_tokens)
    worldwide = 2_000 * billed.input_tokens + 10_000 * billed.output_tokens
    # a Bedrock id without "global." is a regional endpoint, which costs a tenth more
    assert written["cost_nanousd"] == (worldwide * 11 // 10 if name == "mantle" else worldwide)
    assert written["request_id"] == "req_cloud"


@cloud
@streaming
def test_a_cloud_call_is_a_row(gateway: Gateway, simulator: Simulator, name: str, stream: bool) -> None:
    """Each cloud's path is a billable one, and its answer is read to the last token."""
    needs_frames(name, stream)
    with CLOUDS[name][0](gateway.url) as plain:
        answer = llmnb.wrap(plain).messages.create(**{**QUESTION, "model": CLOUDS[name][2]}, stream=stream)
        if stream:
            assert [event.type for event in answer][-1] == "message_stop"
    held_against_the_bill(simulator, name)


@cloud
@streaming
async def test_an_async_cloud_call_is_a_row(gateway: Gateway, simulator: Simulator, name: str, stream: bool) -> None:
    """The async twin."""
    needs_frames(name, stream)
    async with CLOUDS[name][1](gateway.url) as plain:
        answer = await llmnb.wrap(plain).messages.create(**{**QUESTION, "model": CLOUDS[name][2]}, stream=stream)
        if stream:
            assert [event.type async for event in answer][-1] == "message_stop"
    held_against_the_bill(simulator, name)


@cloud
def test_an_estimate_finds_a_clouds_answer_in_the_cache(gateway: Gateway, simulator: Simulator, name: str) -> None:
    """What was asked through a cloud before costs nothing, and is not confused with what the API itself said."""
    make, _, model, _ = CLOUDS[name]
    with make(gateway.url) as plain, simulator.client() as direct:
        llm = llmnb.LLM(model, client=plain, display="none")
        before = llm.estimate("Hi")
        reply = llm.ask("Hi")
        found = llm.estimate("Hi")
        assert llmnb.LLM(model, client=direct, display="none").estimate("Hi").kept is None
    assert before.kept is None
    assert found.kept is not None
    assert found.kept.output_tokens == reply.usage.output_tokens
    assert found.cost_most_usd == 0
    assert len(simulator.requests) == 1


def test_frames_that_stop_are_a_truncated_answer(gateway: Gateway) -> None:
    """A Bedrock stream that ends before message_stop keeps its input and an estimated output."""
    needs_frames("bedrock", True)
    gateway.keep = 6
    make, _, model, _ = CLOUDS["bedrock"]
    with make(gateway.url) as plain:
        list(llmnb.wrap(plain).messages.create(**{**QUESTION, "model": model}, stream=True))
    written = row()
    assert (written["status"], written["estimated"]) == ("truncated", True)
    assert written["input_tokens"] > 0


def test_an_llm_asks_through_a_cloud(gateway: Gateway, simulator: Simulator) -> None:
    """`LLM(client=…)` takes a cloud's client, and the reply agrees with the books."""
    with CLOUDS["vertex"][0](gateway.url) as plain:
        reply = llmnb.LLM("claude-sonnet-5-5@20260901", client=plain)("Explain WAL.")
    assert reply.cost.nanousd == row()["cost_nanousd"]
    held_against_the_bill(simulator, "vertex")
