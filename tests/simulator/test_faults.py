"""Every fault, as the real SDK meets it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from llmnb.simulator import Answer, Clock, Fault, Simulator
from llmnb.simulator.fault import KINDS, parse_fault

from .asking import ask, text_of

TEXT = "Grüße aus Tromsø – 日本語 🎉 " * 5


def deltas(client: anthropic.Anthropic) -> Iterator[str]:
    """The text deltas of a streamed call."""
    for event in client.messages.create(**ask(), stream=True):
        if event.type == "content_block_delta":
            yield event.delta.text


def collect(client: anthropic.Anthropic, into: list[str]) -> None:
    """Read a streamed call, keeping what came before it broke."""
    for text in deltas(client):
        into.append(text)  # noqa: PERF402 - extend() would lose what came before the error


@pytest.mark.parametrize(
    ("kind", "error", "status", "name"),
    [
        ("rate_limited", anthropic.RateLimitError, 429, "rate_limit_error"),
        ("overloaded", anthropic.APIStatusError, 529, "overloaded_error"),
        ("server_error", anthropic.InternalServerError, 500, "api_error"),
    ],
)
def test_status_faults_come_as_the_sdks_errors(sim, client, kind, error, status, name) -> None:
    """429, 529 and 500 have the API's envelope and a request id."""
    sim.fail(kind)
    with pytest.raises(error) as caught:
        client.messages.create(**ask())
    assert caught.value.status_code == status
    assert caught.value.type == name
    assert caught.value.request_id.startswith("req_")
    assert client.messages.create(**ask()).stop_reason == "end_turn"


def test_any_status_can_be_asked_for(sim: Simulator, client: anthropic.Anthropic) -> None:
    """`status` takes a status, an error type and a message."""
    sim.fail("status", status=402, error_type="billing_error", message="Your credit balance is too low.")
    with pytest.raises(anthropic.PaymentRequiredError, match="credit balance"):
        client.messages.create(**ask())


def test_retries_follow_retry_after_and_succeed(sim: Simulator) -> None:
    """Two failures with a retry-after are retried by the SDK, and each attempt is on record."""
    sim.fail("rate_limited", times=2, retry_after_ms=1)
    with sim.client() as client:
        assert client.messages.create(**ask("Say hi")).stop_reason == "end_turn"
    assert [seen.status for seen in sim.requests] == [429, 429, 200]
    assert [seen.attempt for seen in sim.requests] == [0, 1, 2]


def test_retry_after_headers_are_sent(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Seconds, milliseconds and x-should-retry arrive as given."""
    sim.fail("rate_limited", retry_after_s=7, should_retry=False)
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**ask())
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("7", "false")


def test_a_fault_header_with_times_lets_the_retry_through(sim: Simulator) -> None:
    """`times=1` in the header fails the first attempt only."""
    with sim.client() as client:
        header = {"x-simulator-fault": "overloaded; times=1; retry_after_ms=1"}
        assert client.messages.create(**ask("Say hi"), extra_headers=header).stop_reason == "end_turn"
    assert [seen.status for seen in sim.requests] == [529, 200]


def test_faults_by_probability_follow_the_seed(clock: Clock) -> None:
    """The same seed fails the same requests."""
    runs: list[list[int | None]] = []
    for _ in range(2):
        with Simulator(seed=3, clock=clock) as sim, sim.client(max_retries=0) as client:
            sim.fail("overloaded", probability=0.5)
            for _ in range(12):
                with contextlib.suppress(anthropic.APIStatusError):
                    client.messages.create(**ask("Say hi"))
            runs.append([seen.status for seen in sim.requests])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 529}


def test_faults_can_be_matched_and_on_any_route(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A fault for one prompt leaves the others alone; with any_route it strikes models too."""
    sim.fail("overloaded", match="red")
    assert client.messages.create(**ask("blue")).stop_reason == "end_turn"
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(**ask("red"))
    sim.fail("server_error", any_route=True)
    with pytest.raises(anthropic.InternalServerError):
        client.models.list()


@pytest.mark.parametrize("kind", ["reset_before_headers", "close_before_headers"])
def test_no_reply_at_all_is_a_connection_error(sim: Simulator, client: anthropic.Anthropic, kind: str) -> None:
    """A connection dropped before the headers is the SDK's connection error, and costs nothing."""
    sim.fail(kind)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**ask())
    assert sim.billed().price_nanousd == 0


def test_slow_headers_pass_on_the_clock(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """Late headers still bring the answer."""
    before = clock.now()
    sim.fail("slow_headers", seconds=30)
    assert client.messages.create(**ask("Say hi")).stop_reason == "end_turn"
    assert clock.now() - before == pytest.approx(30)


def test_headers_that_never_come_time_out_and_the_server_sees_the_client_leave() -> None:
    """A client that gives up before the headers is written down with the time it left."""
    with Simulator(clock=Clock.frozen()) as sim, sim.client(max_retries=0, timeout=0.05) as client:
        sim.fail("slow_headers", seconds=3600)
        with pytest.raises(anthropic.APITimeoutError):
            client.messages.create(**ask())
        sim.settle()
        assert sim.requests[0].disconnected_at is not None
        assert [record.status for record in sim.billing] == [0]


def test_reset_and_drop_break_the_stream_after_some_deltas(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A reset or an early close inside a chunk is a transport error, once text has been shown."""
    for kind in ("reset", "drop"):
        sim.fail(kind, after_events=4)
        seen: list[str] = []
        with pytest.raises((httpx2.TransportError, anthropic.APIConnectionError)):
            collect(client, seen)
        assert len(seen) <= 4
    assert not any(record.complete for record in sim.billing)


def test_a_reset_of_a_plain_body_is_a_connection_error(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Half a JSON body is no answer."""
    sim.fail("drop")
    with pytest.raises((httpx2.TransportError, anthropic.APIConnectionError)):
        client.messages.create(**ask())


def test_a_truncated_stream_ends_without_an_error(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A clean end without message_stop goes unnoticed by the SDK: the trap that llmnb has to catch."""
    sim.fail("truncate", after_events=2)
    kinds = [event.type for event in client.messages.create(**ask(), stream=True)]
    assert kinds.count("content_block_delta") == 2
    assert "message_stop" not in kinds
    assert sim.billing[-1].complete is False
    assert sim.billing[-1].output_tokens == 6


@pytest.mark.parametrize("after", [-1, 0, 3])
def test_an_error_event_before_and_after_content(sim: Simulator, client: anthropic.Anthropic, after: int) -> None:
    """An error inside the stream is a status error with status 200; before any content nothing is billed."""
    sim.fail("error_event", after_events=after)
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        collect(client, seen)
    assert caught.value.status_code == 200
    assert "overloaded_error" in str(caught.value.body)
    assert len(seen) == max(0, after)
    assert (sim.billing[-1].price_nanousd == 0) == (after <= 0)


def test_bad_json_is_a_decode_error(sim: Simulator, client: anthropic.Anthropic) -> None:
    """An event that is no JSON raises ValueError in the SDK."""
    sim.fail("bad_json")
    with pytest.raises(ValueError, match=r".+"):
        list(deltas(client))


def test_invalid_utf8_is_a_decode_error(sim: Simulator, client: anthropic.Anthropic) -> None:
    """An event with bytes that are no UTF-8 raises in the SDK."""
    sim.fail("bad_utf8")
    with pytest.raises(ValueError, match=r".+"):
        list(deltas(client))


def test_bytes_split_inside_characters_join_up_again(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Correct data in nasty chunks is the correct text."""
    sim.script(Answer(text=TEXT, fault=Fault("split_utf8")), Answer(text=TEXT, chunk_bytes=1))
    assert "".join(deltas(client)) == TEXT
    assert "".join(deltas(client)) == TEXT


def test_split_utf8_really_cuts_inside_characters(sim: Simulator) -> None:
    """Some chunk on the wire is no UTF-8 by itself."""
    sim.script(Answer(text=TEXT, fault=Fault("split_utf8")))
    with httpx2.stream("POST", f"{sim.url}/v1/messages", json=ask(stream=True), headers={"x-api-key": "k"}) as reply:
        pieces = list(reply.iter_raw())

    def valid(piece: bytes) -> bool:
        try:
            return bool(piece.decode()) or True
        except UnicodeDecodeError:
            return False

    assert not all(valid(piece) for piece in pieces)
    assert "日" in b"".join(pieces).decode()


def test_json_where_sse_was_asked_for_yields_no_events(sim: Simulator, client: anthropic.Anthropic) -> None:
    """The SDK makes no event and no error of plain JSON: another trap."""
    sim.fail("json_for_sse")
    assert list(client.messages.create(**ask(), stream=True)) == []
    assert sim.billing[-1].output_tokens > 0


@pytest.mark.parametrize("kind", ["comments", "unknown_events", "slow_body"])
def test_harmless_oddities_change_nothing(sim: Simulator, client: anthropic.Anthropic, kind: str) -> None:
    """Comments, unknown events and slowness leave the text as it is."""
    plain = text_of(client.messages.create(**ask()))
    sim.fail(kind)
    assert "".join(deltas(client)) == plain


def test_unknown_blocks_are_passed_on(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A block type from the future arrives beside the known ones."""
    sim.fail("unknown_blocks")
    with client.messages.stream(**ask("Say hi")) as stream:
        types = [block.type for block in stream.get_final_message().content]
    assert types == ["text", "future_block"]


def test_gzip_of_json_and_of_streams(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Compressed bodies are decoded by the client, and say so in their headers."""
    plain = text_of(client.messages.create(**ask()))
    sim.fail("gzip", times=2)
    raw = client.messages.with_raw_response.create(**ask())
    assert raw.headers["content-encoding"] == "gzip"
    assert text_of(raw.parse()) == plain
    assert "".join(deltas(client)) == plain


def test_a_stall_lasts_until_the_client_leaves_and_the_leaving_is_seen_at_once() -> None:
    """A silent client that hangs up mid-stream is noticed while the server waits, and billed for what was made."""
    with Simulator(clock=Clock.frozen()) as sim, sim.client(max_retries=0) as client:
        sim.script(Answer(text="word " * 100, fault=Fault("stall", after_events=5)))
        with client.messages.create(**ask(), stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    break
        sim.settle()
        record = sim.billing[-1]
        assert sim.requests[-1].disconnected_at is not None
        assert (record.aborted, record.complete) == (True, False)
        assert 0 < record.output_tokens < 100
        assert record.input_tokens > 0


def test_a_stall_ends_when_the_clock_moves() -> None:
    """A stall of a minute is over once the clock has moved a minute."""
    clock = Clock.frozen()
    with Simulator(clock=clock) as sim, sim.client(max_retries=0) as client:
        sim.fail("stall", seconds=60, after_events=2)
        stream = client.messages.create(**ask("Say hi"), stream=True)
        iterator = iter(stream)
        while next(iterator).type != "content_block_delta":
            pass

        def advance() -> None:
            while not clock.waits:
                time.sleep(0.001)
            clock.advance(61)

        threading.Thread(target=advance).start()
        assert [event.type for event in iterator][-1] == "message_stop"


def test_a_body_that_stalled_goes_on(sim: Simulator, client: anthropic.Anthropic) -> None:
    """After a pause in the middle the second half of a JSON body comes, too, and the reply is billed in full."""
    sim.fail("stall", seconds=60)
    before = sim.clock.now()
    message = client.messages.create(**ask())
    assert sim.clock.now() - before >= 60
    record = sim.billing[-1]
    assert (record.complete, record.aborted) == (True, False)
    assert record.output_tokens == message.usage.output_tokens > 0


def test_a_stalled_body_times_out_on_any_clock(sim: Simulator) -> None:
    """Half a JSON body and then nothing: the client gives up, and the server writes it down."""
    sim.fail("stall")
    with sim.client(max_retries=0, timeout=0.05) as client, pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**ask())
    sim.settle()
    assert sim.requests[-1].disconnected_at is not None


def test_a_reply_function_that_raises_is_a_500_and_kept(clock: Clock) -> None:
    """A bug in a script answers instead of hanging, and its traceback is in `crashes`."""

    def broken(request: object) -> str:
        raise ZeroDivisionError("in the script")

    with Simulator(clock=clock) as sim, sim.client(max_retries=0) as client:
        sim.script(broken)
        with pytest.raises(anthropic.InternalServerError, match="crashes"):
            client.messages.create(**ask())
        assert "ZeroDivisionError: in the script" in sim.crashes[0]


def test_every_fault_is_named_and_misspelled_ones_are_refused(sim: Simulator) -> None:
    """An unknown fault or parameter says what there is."""
    with pytest.raises(ValueError, match="overloaded"):
        sim.fail("overlaoded")
    with pytest.raises(ValueError, match="after_events"):
        parse_fault("stall; after=3")
    assert parse_fault("status; status=404; should_retry=false") == Fault("status", status=404, should_retry=False)
    assert all(Fault(kind).kind == kind for kind in KINDS)
