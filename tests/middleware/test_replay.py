"""Record and replay, through every use of the SDK: what was recorded comes again, and nothing reaches the network."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import anthropic
import httpx2
import pytest

import llmnb
from llmnb.cassette import Failure, Interaction, Request, Response, read, write
from llmnb.cassette.body import Event
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

from .conftest import QUESTION, row, rows
from .test_every_use import BILLABLE, FREE, TOOL, WEATHER, City


class Network:
    """Counts who tries to connect, and lets nobody."""

    def __init__(self) -> None:
        self.tried = 0

    def refuse(self, *_: object, **__: object) -> NoReturn:
        self.tried += 1
        raise AssertionError("the network was tried")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """No connection can be made and no name looked up; at the end, nobody tried."""
    network = Network()
    for owner, name in (
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "create_connection"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(owner, name, network.refuse)
    yield network
    assert network.tried == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the cassette of a test is."""
    return tmp_path / "test.cassette.jsonl"


def keyless() -> anthropic.Anthropic:
    """A wrapped client without a key, as a reviewer has it."""
    return llmnb.wrap(anthropic.Anthropic())


def block_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no connection can be made."""
    monkeypatch.setattr(socket.socket, "connect", Network().refuse)
    monkeypatch.setattr(socket, "getaddrinfo", Network().refuse)


def recorded(path: Path, use: Callable[[anthropic.Anthropic], Any], **options: Any) -> Any:
    """What a use gives while it is recorded, and the cassette of it."""
    with serve_simulator() as simulator, simulator.client() as plain:
        client = llmnb.wrap(plain)  # made before the cassette is opened
        with llmnb.record(path, **options):
            result = use(client)
        assert simulator.crashes == []
        return result


# Every use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [*BILLABLE, *FREE], ids=lambda use: use.__name__)
def test_every_use_of_the_sdk_comes_again_as_it_was(
    path: Path, use: Callable[[anthropic.Anthropic], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal objects, without a key and with the network gone; each recorded answer was used."""
    first = recorded(path, use)
    block_network(monkeypatch)
    with llmnb.replay(path) as cassette:
        assert repr(use(keyless())) == repr(first)
    assert cassette.unused == ()
    assert cassette.replayed == len(cassette.interactions)


async def test_the_async_client_does_the_same(
    path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages, streams, parse, the tool runner and raw responses of AsyncAnthropic."""

    @anthropic.beta_async_tool
    async def weather(city: str) -> str:
        """Today's weather in a city."""
        return f"Sunny in {city}."

    async def use(client: anthropic.AsyncAnthropic) -> list[Any]:
        seen: list[Any] = [(await client.messages.create(**QUESTION)).model_dump()]
        seen += [event.model_dump() async for event in await client.messages.create(**QUESTION, stream=True)]
        async with client.messages.stream(**QUESTION) as stream:
            seen += [text async for text in stream.text_stream]
        seen.append((await client.messages.parse(**QUESTION, output_format=City)).parsed_output)
        seen += [turn.model_dump() async for turn in client.beta.messages.tool_runner(**WEATHER, tools=[weather])]
        async with client.messages.with_streaming_response.create(**QUESTION) as response:
            seen.append(await response.json())
        seen.append(await client.messages.count_tokens(model="claude-sonnet-5-5", messages=QUESTION["messages"]))
        seen += [model.id async for model in client.models.list()]
        return seen

    async with simulator.async_client() as plain:
        with llmnb.record(path):
            first = await use(llmnb.wrap(plain))
    block_network(monkeypatch)
    with llmnb.replay(path) as cassette:
        assert await use(llmnb.wrap(anthropic.AsyncAnthropic())) == first
    assert cassette.unused == ()


def test_a_thread_of_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread sends only what is new and the id of the answer before: the replayed ids lead through it."""

    def use(client: anthropic.Anthropic) -> list[Any]:
        thread = client.beta.messages.thread(model="claude-sonnet-5-5", max_tokens=200)
        turns = [thread.send({"role": "user", "content": text}).model_dump() for text in ("Hi", "And now?", "Bye")]
        return [*turns, thread.previous_message_id]

    first = recorded(path, use)
    threads = [one.request.body.get("thread") for one in read(path).interactions]
    assert len({json.dumps(thread) for thread in threads}) == 3
    block_network(monkeypatch)
    with llmnb.replay(path):
        assert use(keyless()) == first


def test_a_batch_and_its_results(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polling a batch until it ends, and its results as lines of JSON."""
    with serve_simulator(batch_seconds=0.05) as simulator, simulator.client() as plain:

        def use(client: anthropic.Anthropic) -> list[Any]:
            batch = client.messages.batches.create(requests=[{"custom_id": "a", "params": QUESTION}])
            seen = [batch.model_dump()]
            while batch.processing_status != "ended":
                batch = client.messages.batches.retrieve(batch.id)
                seen.append(batch.model_dump())
            return [*seen, [result.model_dump() for result in client.messages.batches.results(batch.id)]]

        with llmnb.record(path):
            first = use(llmnb.wrap(plain))
    block_network(monkeypatch)
    with llmnb.replay(path, repeat=False) as cassette:
        assert use(keyless()) == first
    assert cassette.unused == ()


async def test_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload is told by its digest, and another content is another request; a download comes again to the byte."""
    content = bytes(range(256)) * 10
    about = {"id": "file_1", "type": "file", "filename": "a.bin", "size_bytes": 5, "created_at": "2026-01-01T00:00:00Z"}

    def use(client: anthropic.Anthropic, data: bytes) -> list[Any]:
        uploaded = client.beta.files.upload(file=("a.bin", data, "application/octet-stream"))
        with client.beta.files.with_streaming_response.download("file_1") as streaming:
            streamed = streaming.read()
        downloaded = client.beta.files.download("file_1")
        return [uploaded.model_dump(), type(downloaded).__name__, downloaded.read(), streamed]

    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
        simulator.replay(200, {"content-type": "application/json"}, json.dumps(about).encode())
        simulator.replay(200, {"content-type": "application/octet-stream"}, content, times=2)
        first = use(llmnb.wrap(plain), b"secret plans")
    assert first[1:] == ["BinaryAPIResponse", content, content]
    assert [one.request.body["files"][0]["bytes"] for one in read(path).interactions[:1]] == [len(b"secret plans")]
    block_network(monkeypatch)
    with llmnb.replay(path):
        assert use(keyless(), b"secret plans") == first
        client = llmnb.wrap(anthropic.AsyncAnthropic())
        downloaded = await client.beta.files.download("file_1")
        assert type(downloaded).__name__ == "AsyncBinaryAPIResponse"
        assert await downloaded.read() == content
        with pytest.raises(llmnb.ReplayMiss, match="sha256"):
            use(keyless(), b"other plans")


# The form an answer has -----------------------------------------------------------------------------------------------


def test_a_recorded_stream_answers_a_plain_call_and_the_other_way_round(path: Path) -> None:
    """In JupyterLab answers are streamed, in a headless run they are not: one cassette serves both."""
    with serve_simulator() as simulator, simulator.client() as plain:
        client = llmnb.wrap(plain)
        other = {**QUESTION, "max_tokens": 400}
        with llmnb.record(path):
            with client.messages.stream(**QUESTION) as stream:
                streamed = stream.get_final_message()
            whole = client.messages.create(**other)
    with llmnb.replay(path):
        assert keyless().messages.create(**QUESTION).model_dump() == streamed.model_dump()
        with keyless().messages.stream(**other) as stream:
            assert stream.get_final_message().model_dump() == whole.model_dump()


def test_a_broken_stream_is_no_message(path: Path) -> None:
    """Half an answer is never given as a whole one."""
    with serve_simulator() as simulator, simulator.client() as plain:
        simulator.fail("truncate")
        with llmnb.record(path):
            list(llmnb.wrap(plain).messages.create(**QUESTION, stream=True))
    with llmnb.replay(path), pytest.raises(llmnb.ReplayMiss, match="no whole message"):
        keyless().messages.create(**QUESTION)


def test_compressed_answers_are_readable_in_the_file(path: Path) -> None:
    """The body is recorded decoded, and comes out the same."""
    with serve_simulator() as simulator, simulator.client() as plain:
        simulator.fail("gzip", times=None)
        with llmnb.record(path):
            first = llmnb.wrap(plain).messages.create(**QUESTION)
            events = list(llmnb.wrap(plain).messages.create(**QUESTION, stream=True))
    assert first.content[0].text.splitlines()[0] in path.read_text()
    assert "content-encoding" not in path.read_text()
    with llmnb.replay(path):
        assert keyless().messages.create(**QUESTION) == first
        assert list(keyless().messages.create(**QUESTION, stream=True)) == events


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_retries_are_replayed_without_their_waits(path: Path) -> None:
    """A 529 and a 429 that asks for half a minute, then an answer: three attempts again, in an instant."""

    def use(simulator: Simulator, client: anthropic.Anthropic) -> anthropic.types.Message:
        simulator.fail("overloaded", retry_after_ms=1)
        simulator.fail("rate_limited", retry_after_ms=1)
        return client.messages.create(**QUESTION)

    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
        first = use(simulator, llmnb.wrap(plain))
    text = path.read_text().replace('"retry-after-ms": "1"', '"retry-after": "30"')
    path.write_text(text)
    began = time.monotonic()
    with llmnb.replay(path):
        assert keyless().messages.create(**QUESTION) == first
    assert time.monotonic() - began < 5
    assert [(written["source"], written["attempts"]) for written in rows()] == [("live", 3), ("replay", 3)]


def test_an_error_is_the_same_error(path: Path) -> None:
    """Status, body, request id and type; after as many attempts as were made."""

    def use(client: anthropic.Anthropic) -> list[Any]:
        seen: list[Any] = []
        for question in (QUESTION, {**QUESTION, "stream": True}):
            with pytest.raises(anthropic.APIStatusError) as caught:
                client.messages.create(**question)
            error = caught.value
            seen += [type(error), error.status_code, error.body, error.request_id, str(error)]
        return seen

    with serve_simulator() as simulator, simulator.client(max_retries=1) as plain, llmnb.record(path):
        simulator.fail("status", status=400, error_type="invalid_request_error", message="no")
        simulator.fail("server_error", times=2, retry_after_ms=1)
        first = use(llmnb.wrap(plain))
    assert len(read(path).interactions) == 3
    with llmnb.replay(path) as cassette:
        assert use(llmnb.wrap(anthropic.Anthropic(max_retries=1))) == first
    assert cassette.unused == ()


@pytest.mark.parametrize("fault", ["truncate", "reset", "drop", "error_event", "bad_json"])
def test_a_stream_that_broke_breaks_again(path: Path, fault: str) -> None:
    """The same events, then the same end: an error of the same type, or silence."""

    def use(client: anthropic.Anthropic) -> tuple[list[Any], Any]:
        seen: list[Any] = []
        try:
            seen.extend(event.model_dump() for event in client.messages.create(**QUESTION, stream=True))
        except Exception as error:
            return seen, (type(error), str(error))
        return seen, None

    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain, llmnb.record(path):
        simulator.fail(fault, after_events=3)
        first = use(llmnb.wrap(plain))
    assert first[0]
    with llmnb.replay(path):
        assert use(keyless()) == first
    live, again = rows()
    assert (again["status"], again["error_type"]) == (live["status"], live["error_type"])
    assert again["cost_nanousd"] == 0


def test_no_connection_is_no_connection_again(path: Path) -> None:
    """A failure of the network is the SDK's error of the same type, and of a retry nothing is lost."""
    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain, llmnb.record(path):
        simulator.fail("reset_before_headers")
        with pytest.raises(anthropic.APIConnectionError):
            llmnb.wrap(plain).messages.create(**QUESTION)
        simulator.fail("slow_headers", seconds=5)
        with pytest.raises(anthropic.APITimeoutError):
            llmnb.wrap(plain.with_options(timeout=0.2)).messages.create(**QUESTION)
    assert [type(one.outcome) for one in read(path).interactions] == [Failure, Failure]
    with llmnb.replay(path):
        client = llmnb.wrap(anthropic.Anthropic(max_retries=0))
        with pytest.raises(anthropic.APIConnectionError) as caught:
            client.messages.create(**QUESTION)
        assert not isinstance(caught.value, anthropic.APITimeoutError)
        with pytest.raises(anthropic.APITimeoutError):
            client.messages.create(**QUESTION)
    assert [written["cost_nanousd"] for written in rows()[2:]] == [0, 0]


def test_a_failure_that_was_retried_is_not_waited_for(path: Path) -> None:
    """The SDK waits half a second and more after a lost connection; a replay does not, and counts the attempts."""
    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
        simulator.fail("reset_before_headers")
        first = llmnb.wrap(plain).messages.create(**QUESTION)
    waited = rows()[0]["wait_ms"]
    with llmnb.replay(path) as cassette:
        assert keyless().messages.create(**QUESTION) == first
    assert cassette.unused == ()
    live, again = rows()
    assert (again["attempts"], again["status"], again["error_type"]) == (2, "ok", None)
    assert again["wait_ms"] < waited / 2
    assert live["attempts"] == 2


def test_a_stream_that_its_reader_left(path: Path) -> None:
    """A replay goes as far as the reader went; beyond, it says that nobody knows."""

    def first_events(client: anthropic.Anthropic, count: int) -> list[Any]:
        with client.messages.create(**QUESTION, stream=True) as stream:
            return [next(stream).model_dump() for _ in range(count)]

    with serve_simulator(tokens_per_second=200) as simulator, simulator.client() as plain, llmnb.record(path):
        first = first_events(llmnb.wrap(plain), 4)
    with llmnb.replay(path):
        assert first_events(keyless(), 4) == first
        with pytest.raises(llmnb.ReplayMiss, match="closed here by its reader"):
            list(keyless().messages.create(**QUESTION, stream=True))


# In order -------------------------------------------------------------------------------------------------------------


def ask(client: anthropic.Anthropic, text: str = "Say something", **options: Any) -> str:
    message = client.messages.create(
        model="claude-sonnet-5-5", max_tokens=50, messages=[{"role": "user", "content": text}], **options
    )
    return message.content[0].text


def three_answers(path: Path) -> None:
    """A cassette in which one question has three answers."""
    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
        simulator.script("one", "two", "three")
        assert [ask(llmnb.wrap(plain)) for _ in range(3)] == ["one", "two", "three"]


def test_one_question_with_several_answers(path: Path) -> None:
    """They come in their order, and the last one from then on."""
    three_answers(path)
    with llmnb.replay(path):
        assert [ask(keyless()) for _ in range(5)] == ["one", "two", "three", "three", "three"]


def test_asked_once_too_often(path: Path) -> None:
    """With repeat=False each answer is given once."""
    three_answers(path)
    with llmnb.replay(path, repeat=False) as cassette:
        for _ in range(3):
            ask(keyless())
        with pytest.raises(llmnb.ReplayMiss, match="recorded 3 times, and is asked again"):
            ask(keyless())
    assert cassette.replayed == 3


def test_threads_at_once(path: Path) -> None:
    """Eight threads record and replay, each through a client of its own: each question has its answer, once."""
    texts = [f"Question {number}" for number in range(40)]

    def each_in_threads(client: Callable[[], anthropic.Anthropic]) -> dict[str, str]:
        answers: dict[str, str] = {}

        def work(mine: list[str]) -> None:
            for text in mine:
                answers[text] = ask(client(), text)

        threads = [threading.Thread(target=work, args=(texts[start::8],)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    with serve_simulator() as simulator, simulator.client() as plain:
        simulator.rule(lambda request: f"Answer to {request.body['messages'][0]['content']}")
        with llmnb.record(path):
            first = each_in_threads(lambda: llmnb.wrap(plain))
    assert first == {text: f"Answer to {text}" for text in texts}
    assert sorted(one.number for one in read(path).interactions) == list(range(1, 41))
    with llmnb.replay(path, repeat=False) as cassette:
        assert each_in_threads(keyless) == first
    assert cassette.unused == ()


# Where a cassette holds -----------------------------------------------------------------------------------------------


def test_after_the_block_calls_go_out_again(path: Path) -> None:
    """What a client does is as before; what was recorded stays."""
    with serve_simulator() as simulator, simulator.client() as plain:
        client = llmnb.wrap(plain)
        with llmnb.record(path) as cassette:
            ask(client)
        ask(client)
        with llmnb.replay(path):
            ask(client)
        ask(client)
        assert len(simulator.requests) == 3
    assert cassette.recorded == 1
    assert not cassette.is_open


def test_the_innermost_holds(path: Path, tmp_path: Path) -> None:
    """A replay inside of a recording answers, and is not recorded; then the recording goes on."""
    three_answers(path)
    outer = tmp_path / "outer.jsonl"
    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(outer):
        client = llmnb.wrap(plain)
        ask(client, "first")
        with llmnb.replay(path):
            assert ask(client) == "one"
        ask(client, "second")
    assert [one.request.body["messages"][0]["content"] for one in read(outer).interactions] == ["first", "second"]


async def test_each_task_has_the_cassette_of_its_own_block(tmp_path: Path) -> None:
    """Two tasks replay two cassettes at once, and so do the threads that they start with their context."""
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, answer in zip(paths, ("from a", "from b"), strict=True):
        with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
            simulator.script(answer)
            ask(llmnb.wrap(plain))
    entered = asyncio.Barrier(2)

    async def task(path: Path) -> list[str]:
        client = llmnb.wrap(anthropic.AsyncAnthropic())
        with llmnb.replay(path):
            await entered.wait()
            message = await client.messages.create(
                model="claude-sonnet-5-5", max_tokens=50, messages=[{"role": "user", "content": "Say something"}]
            )
            inside = await asyncio.to_thread(ask, keyless())
            await entered.wait()
            return [message.content[0].text, inside]

    assert await asyncio.gather(*map(task, paths)) == [["from a", "from a"], ["from b", "from b"]]


def test_a_thread_without_a_context_is_held_too(path: Path, no_network: Network) -> None:
    """A plain thread started inside the block is answered from the cassette: nothing reaches the network."""
    write(path, [answered("Say something", "from the cassette")])
    seen: list[str] = []
    with llmnb.replay(path):
        thread = threading.Thread(target=lambda: seen.append(ask(keyless())))
        thread.start()
        thread.join()
    assert seen == ["from the cassette"]


def test_without_with_it_holds_until_the_next_one(path: Path, tmp_path: Path, no_network: Network) -> None:
    """As at the top of a notebook: in every thread, until it is stopped or another is opened that way."""
    other = tmp_path / "other.jsonl"
    write(path, [answered("Say something", "from the first")])
    write(other, [answered("Say something", "from the second")])
    first = llmnb.replay(path)
    try:
        assert ask(keyless()) == "from the first"
        with llmnb.replay(other):
            assert ask(keyless()) == "from the second"
        assert ask(keyless()) == "from the first"
        second = llmnb.replay(other)
        assert ask(keyless()) == "from the second"
        assert not first.is_open
        second.stop()
        assert "stopped" in repr(second)
    finally:
        first.stop()
    with pytest.raises(llmnb.InvalidRequest, match="was stopped"), first:
        pass
    with pytest.raises(TypeError, match="authentication"):  # nothing holds: the SDK finds no key
        ask(keyless())


# Modes ----------------------------------------------------------------------------------------------------------------


def answered(text: str, answer: str, **more: Any) -> Interaction:
    """An interaction written by hand: a question, and a message that answers it."""
    body = {"model": "claude-sonnet-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": answer}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }  # fmt: skip
    response = Response(200, {"content-type": "application/json"}, 3, json.dumps(message).encode())
    return Interaction(**{"number": 1, "request": Request("POST", "/v1/messages", body), "outcome": response, **more})


def test_auto_records_once_and_replays_from_then_on(path: Path) -> None:
    """The first run asks, the second does not; what is missing then is a miss."""
    with serve_simulator() as simulator, simulator.client() as plain:
        for _ in range(2):
            with llmnb.replay(path, mode="auto"):
                ask(llmnb.wrap(plain))
        assert len(simulator.requests) == 1
        with llmnb.replay(path, mode="auto"), pytest.raises(llmnb.ReplayMiss):
            ask(llmnb.wrap(plain), "Something else")
        assert len(simulator.requests) == 1


def test_new_adds_what_is_missing(path: Path) -> None:
    """What was recorded is replayed, the rest is asked and added, in one file with one order."""
    write(path, [answered("known", "from the cassette")])
    with serve_simulator() as simulator, simulator.client() as plain, llmnb.replay(path, mode="new") as cassette:
        client = llmnb.wrap(plain)
        assert ask(client, "known") == "from the cassette"
        assert ask(client, "new") != "from the cassette"
        assert (cassette.replayed, cassette.recorded, len(simulator.requests)) == (1, 1, 1)
    assert [one.number for one in read(path).interactions] == [1, 2]
    with llmnb.replay(path):
        ask(keyless(), "new")


def test_new_asks_again_what_only_failed(path: Path) -> None:
    """A recorded failure is no answer to keep: it is asked again, and the new answer stands in its place."""
    with serve_simulator() as simulator, simulator.client(max_retries=0) as plain:
        client = llmnb.wrap(plain)
        simulator.fail("server_error")
        with llmnb.record(path), pytest.raises(anthropic.InternalServerError):
            ask(client)
        with llmnb.replay(path, mode="new"):
            answer = ask(client)
    with llmnb.replay(path) as cassette:
        assert ask(keyless()) == answer
    assert cassette.unused == ()


def test_record_begins_anew_when_the_first_answer_is_there(path: Path) -> None:
    """A run that fails before it asks anything leaves the old cassette as it was."""
    write(path, [answered("old", "old")])
    with llmnb.record(path):
        pass
    assert len(read(path).interactions) == 1
    with serve_simulator() as simulator, simulator.client() as plain, llmnb.record(path):
        ask(llmnb.wrap(plain), "new")
    assert [one.request.body["messages"][0]["content"] for one in read(path).interactions] == ["new"]


# A miss ---------------------------------------------------------------------------------------------------------------


def test_a_miss_tells_the_nearest_and_how_it_differs(path: Path, no_network: Network) -> None:
    """Field by field, as text and as data; the books have a row of it that cost nothing."""
    write(path, [answered("Is 7 prime?", "Yes.", number=1), answered("Name a river.", "Oder.", number=2)])
    with llmnb.replay(path), pytest.raises(LookupError) as caught:
        ask(keyless(), "Name a river!", system="Be brief.")
    miss = caught.value
    assert isinstance(miss, llmnb.ReplayMiss)
    assert miss.path == str(path)
    assert miss.nearest.number == 2
    assert miss.request.body["system"] == "Be brief."
    assert [(each.field, each.recorded, each.asked) for each in miss.differences] == [
        ("messages[0].content", "Name a river.", "Name a river!"),
        ("system", None, "Be brief."),
    ]
    assert str(miss).splitlines()[1:3] == [
        "  messages[0].content: recorded 'Name a river.', asked 'Name a river!'",
        '  system: only asked, "Be brief."',
    ]
    assert (row()["status"], row()["error_type"], row()["source"]) == ("error", "ReplayMiss", "replay")
    assert row()["cost_nanousd"] == 0


def test_an_empty_cassette_says_so(path: Path, no_network: Network) -> None:
    """Nothing is near to nothing."""
    write(path, [])
    with llmnb.replay(path), pytest.raises(llmnb.ReplayMiss, match="It is empty"):
        ask(keyless())


# What it costs --------------------------------------------------------------------------------------------------------


def test_a_replay_is_a_row_that_cost_nothing_and_tells_what_it_saved(path: Path, no_network: Network) -> None:
    """10 tokens at $2 and 5 at $10 per million: 70,000 nano-dollars, as a message and as a stream; none is billed."""
    write(path, [answered("Say something", "Hi.")])
    with llmnb.replay(path):
        ask(keyless())
        list(keyless().messages.create(**streamed("Say something")))
    for written in rows():
        assert (written["source"], written["status"]) == ("replay", "ok")
        assert (written["cost_nanousd"], written["saved_usd"]) == (0, pytest.approx(70_000e-9))
        assert (written["input_tokens"], written["output_tokens"]) == (0, 0)
    assert {one["stream"] for one in rows()} == {True, False}


def streamed(text: str) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": text}], "stream": True
    }  # fmt: skip


# At what pace ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_at_its_recorded_pace(path: Path, asynchronous: bool, no_network: Network) -> None:
    """Events come when they came; at once by default."""
    kinds = ["message_start", "content_block_start", "message_stop"]
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    payloads = [{"type": "message_start", "message": {"id": "m", "usage": {}}}, block, {"type": "message_stop"}]
    events = tuple(
        Event(at_ms, f"event: {kind}\ndata: {json.dumps(payload)}\n\n".encode())
        for at_ms, kind, payload in zip((40, 40, 160), kinds, payloads, strict=True)
    )
    response = Response(200, {"content-type": "text/event-stream"}, 40, events=events)
    request = Request("POST", "/v1/messages", streamed("Say something"))
    write(path, [Interaction(1, request, response)])
    first, _, last = await _times(path, "recorded", asynchronous=asynchronous)
    assert first >= 0.04
    assert last - first >= 0.115
    first, _, last = await _times(path, "at once", asynchronous=asynchronous)
    assert last - first < 0.1


async def _times(path: Path, pace: Any, *, asynchronous: bool) -> list[float]:
    with llmnb.replay(path, pace=pace):
        if asynchronous:
            client = llmnb.wrap(anthropic.AsyncAnthropic())
            began = time.monotonic()
            stream = await client.messages.create(**streamed("Say something"))
            seen = [time.monotonic() - began async for _ in stream]
        else:
            sync = keyless()
            began = time.monotonic()
            seen = [time.monotonic() - began for _ in sync.messages.create(**streamed("Say something"))]
        return seen


# Secrets --------------------------------------------------------------------------------------------------------------

KEY = "sk-ant-api03-Zx81_secret-key"


def test_the_key_is_in_no_cassette(path: Path) -> None:
    """Sent as a header, echoed by a server in an error, in a header and in a stream, and pasted into a prompt."""
    with serve_simulator(valid_keys=[KEY]) as simulator, simulator.client() as plain, llmnb.record(path):
        client = llmnb.wrap(plain)
        simulator.script(f"Your key is {KEY}, and it works.", times=2)
        ask(client, f"I use {KEY}", extra_headers={"x-tenant-password": "correct-horse", "cookie": "a=session-0123"})
        list(client.messages.create(**streamed("What is my key?")))
        simulator.fail("status", status=401, message=f"invalid key {KEY}")
        with pytest.raises(anthropic.AuthenticationError):
            ask(client)
    text = path.read_text()
    assert "[redacted]" in text
    assert KEY not in text
    assert "secret-key" not in "".join(text.split('"'))
    assert "correct-horse" not in text
    assert "session-0123" not in text
    with llmnb.replay(path):
        assert ask(keyless(), f"I use {KEY}") == "Your key is [redacted], and it works."


def test_fields_that_the_user_names_are_in_no_cassette_and_do_not_hinder_a_replay(path: Path) -> None:
    """Another patient's id finds the same answer: what is not written is not compared."""

    def use(client: anthropic.Anthropic, patient: str) -> str:
        looked_up = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"patient_id": patient}}
        history: list[Any] = [
            {"role": "user", "content": "Look the patient up."},
            {"role": "assistant", "content": [looked_up]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Well."}]},
        ]
        question = {**QUESTION, "messages": history, "tools": [TOOL], "metadata": {"user_id": patient}}
        return client.messages.create(**question).content[0].text

    with serve_simulator() as simulator, simulator.client() as plain:
        simulator.rule("Hello.")
        with llmnb.record(path, redact=["patient_id", "user_id"]):
            use(llmnb.wrap(plain), "patient-0815")
    assert "patient-0815" not in path.read_text()
    with llmnb.replay(path, redact=["patient_id", "user_id"]):
        assert use(keyless(), "patient-4711") == "Hello."


def test_a_redacted_prompt_is_found_by_one_who_does_not_know_the_secret(path: Path, no_network: Network) -> None:
    """The author's environment named a secret that was in a prompt; the reviewer's does not."""
    write(path, [answered("Log in with [redacted] at once", "Done.")])
    with llmnb.replay(path):
        assert ask(keyless(), "Log in with hunter2-hunter2 at once") == "Done."
        with pytest.raises(llmnb.ReplayMiss):
            ask(keyless(), "Log in with hunter2-hunter2 tomorrow")


def test_no_cassette_changes_nothing(simulator: Simulator) -> None:
    """Without a cassette in force the part is not in the way of a call."""
    with simulator.client() as plain:
        message = llmnb.wrap(plain).messages.create(**QUESTION)
    assert message.content
    assert isinstance(httpx2.__version__, str)
    assert rows()[0]["source"] == "live"
