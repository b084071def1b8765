"""Recorded responses of the real API, served over HTTP to the real SDK: the ledger holds what was billed.

The recordings are in the folder named by LLMNB_TEST_RECORDINGS and are no part of the project; without them these tests
skip, and tests/messages/test_wire.py holds the same shapes written from the API's documentation. The expected counts
were read off the recorded bodies and the costs multiplied by hand, in nano-dollars per token of the published prices.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb.testing import serve_simulator

# the SDK warns of the old models that were recorded
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

# nano-dollars per token: $1 per million tokens is 1,000 of them
HAIKU_4_5 = (1_000, 5_000)
SONNET_4 = (3_000, 15_000)
SONNET_4_LONG = (6_000, 22_500)  # Sonnet 4.5 above 200,000 input tokens
OPUS = (5_000, 25_000)
WEB_SEARCH = 10_000_000  # $10 per thousand


@dataclass(frozen=True)
class Billed:
    """What one recording must leave in the ledger."""

    model: str
    price: tuple[int, int]
    input: int
    output: int
    more: dict[str, int] = field(default_factory=dict)
    extra_nanousd: int = 0
    estimated: bool = False

    @property
    def nanousd(self) -> int:
        return self.input * self.price[0] + self.output * self.price[1] + self.extra_nanousd


HAIKU, SONNET45, SONNET40 = "claude-haiku-4-5-20251001", "claude-sonnet-4-5-20250929", "claude-sonnet-4-20250514"

BILLED = {
    "001": Billed("claude-opus-4-6", OPUS, 14, 5),
    "002": Billed("claude-opus-4-6", OPUS, 31, 30),
    "003": Billed("claude-opus-4-6", OPUS, 14, 5),
    "005": Billed("claude-opus-5", OPUS, 13, 44, {"thinking_tokens": 33}),
    "006": Billed(HAIKU, HAIKU_4_5, 423, 202),
    "007": Billed(HAIKU, HAIKU_4_5, 771, 77),
    "008": Billed(SONNET40, SONNET_4, 43, 282),
    "009": Billed(SONNET45, SONNET_4, 92, 196),
    "010": Billed(SONNET45, SONNET_4, 168, 232),
    "011": Billed(SONNET45, SONNET_4, 92, 189),
    # cache reads at a tenth of the input price, 5-minute writes at five quarters of it
    "012": Billed(SONNET45, SONNET_4, 3, 406, {"cache_read_tokens": 1111}, 1111 * 300),
    "013": Billed(
        SONNET45,
        SONNET_4,
        3,
        33,
        {"cache_read_tokens": 1111, "cache_write_5m_tokens": 418},
        1111 * 300 + 418 * 3_750,
    ),
    # input corrected by message_delta: 2,293 at the start
    "019": Billed("claude-sonnet-4-6", SONNET_4, 4714, 304),
    "021": Billed(SONNET40, SONNET_4, 22397, 637, {"web_search_requests": 2}, 2 * WEB_SEARCH),
    "023": Billed("claude-sonnet-4-6", SONNET_4, 136, 16),
    "036": Billed("claude-sonnet-4-6", SONNET_4, 181, 8),  # its compaction is a row of its own, below
    "037": Billed(
        SONNET45,
        SONNET_4_LONG,
        404500,
        943,
        {"thinking_tokens": 261, "web_search_requests": 10},
        10 * WEB_SEARCH,
    ),
    "038": Billed(
        SONNET45, SONNET_4_LONG, 482529, 1310, {"thinking_tokens": 0, "web_search_requests": 5}, 5 * WEB_SEARCH
    ),
    "043": Billed(HAIKU, HAIKU_4_5, 26, 5),
    "044": Billed(HAIKU, HAIKU_4_5, 26, 5),
    "046": Billed(HAIKU, HAIKU_4_5, 208, 12),
    "047": Billed(HAIKU, HAIKU_4_5, 18, 4),
    "049": Billed(HAIKU, HAIKU_4_5, 608, 94),
    "050": Billed(HAIKU, HAIKU_4_5, 766, 13),
    # writes that only message_delta reports, without their TTL: priced as 5-minute ones, and marked estimated
    "051": Billed(
        HAIKU,
        HAIKU_4_5,
        2254,
        112,
        {"cache_write_unsplit_tokens": 17269, "web_search_requests": 1},
        17269 * 1_250 + WEB_SEARCH,
        estimated=True,
    ),
    "057": Billed(HAIKU, HAIKU_4_5, 543, 40),
    "059": Billed(SONNET45, SONNET_4, 46, 84),
    "061": Billed("claude-opus-4-6", OPUS, 231, 118),
    "062": Billed(HAIKU, HAIKU_4_5, 542, 62),
    "063": Billed(HAIKU, HAIKU_4_5, 678, 82),
    "064": Billed(SONNET45, SONNET_4, 83, 9),
    "072": Billed(HAIKU, HAIKU_4_5, 595, 32),
    "075": Billed(HAIKU, HAIKU_4_5, 595, 32),
    "078": Billed(HAIKU, HAIKU_4_5, 712, 39),
    "080": Billed("claude-opus-5", OPUS, 30, 16, {"thinking_tokens": 16}),
}
REFUSED = {"018": "invalid_request_error"}

TOKEN_COLUMNS = [
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
    "output_tokens",
    "web_search_requests",
    "web_fetch_requests",
]


@pytest.fixture(scope="module")
def recordings() -> dict[str, Path]:
    """The recordings of /v1/messages by their number."""
    folder = os.environ.get("LLMNB_TEST_RECORDINGS")
    if not folder:
        pytest.skip("set LLMNB_TEST_RECORDINGS to a folder of recorded responses to run this")
    metas = {path.name[:3]: path for path in sorted(Path(folder).glob("*.meta.json"))}
    return {number: path for number, path in metas.items() if _path_of(path) == "/v1/messages"}


def _path_of(meta: Path) -> str:
    return json.loads(meta.read_text())["request"]["path"].partition("?")[0]


def test_every_recording_of_a_message_is_held_against_the_books(recordings: dict[str, Path]) -> None:
    """None of the 36 is left out of the table above."""
    assert sorted(recordings) == sorted([*BILLED, *REFUSED])


Ask = Callable[[anthropic.Anthropic, str, dict[str, Any]], None]


def ask_as_recorded(client: anthropic.Anthropic, path: str, body: dict[str, Any]) -> None:
    """The recorded request, through the SDK method that sends such a one."""
    beta = "beta=true" in path
    # sampling parameters and others that the SDK no longer knows travel in extra_body, as users send them
    known = ("model", "max_tokens", "messages", "stream")
    parameters = {name: body[name] for name in known if name in body}
    parameters["extra_body"] = {name: value for name, value in body.items() if name not in known}
    messages = client.beta.messages if beta else client.messages
    answer = messages.create(**parameters, timeout=30)  # a timeout of its own also lets max_tokens be what it was
    if parameters.get("stream"):
        for _ in answer:
            pass


@pytest.mark.parametrize("number", sorted(BILLED))
def test_a_recorded_answer_is_on_the_books_to_the_last_token(recordings: dict[str, Path], number: str) -> None:
    """Token classes, model and cost equal what the body says and the price list asks."""
    meta = json.loads(recordings[number].read_text())
    response, expected = meta["response"], BILLED[number]
    body = (recordings[number].parent / response["file"]).read_bytes()
    with serve_simulator() as simulator:
        simulator.replay(response["status"], response["headers"], body, response["kind"])
        with simulator.client(max_retries=0) as client:
            ask_as_recorded(llmnb.wrap(client), meta["request"]["path"], meta["request"]["body"])
    [row] = llmnb.calls().to_dict("records")
    counts = dict.fromkeys(TOKEN_COLUMNS, 0) | {"input_tokens": expected.input, "output_tokens": expected.output}
    counts |= {name: value for name, value in expected.more.items() if name in counts}
    assert {name: row[name] for name in TOKEN_COLUMNS} == counts
    assert (row["model"], row["status"], row["attempts"]) == (expected.model, "ok", 1)
    assert row["model_requested"] == meta["request"]["body"]["model"]
    assert row["cost_nanousd"] == expected.nanousd
    assert bool(row["estimated"]) is expected.estimated
    if "thinking_tokens" in expected.more:
        assert row["thinking_tokens"] == expected.more["thinking_tokens"]


def test_a_compaction_is_a_row_of_its_own(recordings: dict[str, Path]) -> None:
    """Recording 036: 100 + 55,096 cached + 83 tokens that the top-level usage leaves out."""
    meta = json.loads(recordings["036"].read_text())
    body = (recordings["036"].parent / meta["response"]["file"]).read_bytes()
    with serve_simulator() as simulator:
        simulator.replay(200, meta["response"]["headers"], body, "sse")
        with simulator.client() as client:
            ask_as_recorded(llmnb.wrap(client), meta["request"]["path"], meta["request"]["body"])
    rows = llmnb.calls(children=True)
    child = rows[~rows["is_call"]].iloc[0]
    parent = rows[rows["is_call"]].iloc[0]
    assert child["parent_uid"] == parent["uid"]
    assert (child["model"], child["tag"]) == ("claude-sonnet-4-6", "compaction")
    assert (child["input_tokens"], child["cache_read_tokens"], child["output_tokens"]) == (100, 55096, 83)
    assert child["cost_nanousd"] == 100 * 3_000 + 55096 * 300 + 83 * 15_000
    total = llmnb.usage(by=[])
    assert total["calls"][0] == 1
    assert total["cost_nanousd"][0] == (181 * 3_000 + 8 * 15_000) + (100 * 3_000 + 55096 * 300 + 83 * 15_000)


@pytest.mark.parametrize("number", sorted(REFUSED))
def test_a_recorded_refusal_is_a_row_that_cost_nothing(recordings: dict[str, Path], number: str) -> None:
    """An HTTP error has its name on the row, no tokens, and a cost of exactly 0."""
    meta = json.loads(recordings[number].read_text())
    body = (recordings[number].parent / meta["response"]["file"]).read_bytes()
    with serve_simulator() as simulator:
        simulator.replay(meta["response"]["status"], meta["response"]["headers"], body)
        with simulator.client() as client, pytest.raises(anthropic.BadRequestError):
            ask_as_recorded(llmnb.wrap(client), meta["request"]["path"], meta["request"]["body"])
    [row] = llmnb.calls().to_dict("records")
    assert (row["status"], row["error_type"], row["cost_nanousd"]) == ("error", REFUSED[number], 0)
