"""What the pages show of the recorded answers of the real API, held against the bills worked out by hand.

The recordings are in the folder named by LLMNB_TEST_RECORDINGS; without it this skips. The bills are those of
tests/test_recordings.py: counts read off the bodies, times the nano-dollars of the published prices.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import anthropic
import pytest
from conftest import Show
from shown import exact_of, figures_of

import llmnb
from llmnb.testing import serve_simulator
from tests.test_recordings import BILLED, REFUSED, ask_as_recorded, recordings  # noqa: F401 - a fixture

# the SDK warns of the old models that were recorded
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

COMPACTION = 100 * 3_000 + 55_096 * 300 + 83 * 15_000
"""Recording 036: billed beside its answer."""
SAVED = (
    1_111 * (3_000 - 300)  # 012: read
    + 1_111 * (3_000 - 300) - 418 * (3_750 - 3_000)  # 013: read, and written for five minutes
    + 55_096 * (3_000 - 300)  # 036: read by its compaction
    - 17_269 * (1_250 - 1_000)  # 051: written, for how long is not known
)  # fmt: skip


@pytest.fixture
def asked(recordings: dict[str, Path]) -> None:  # noqa: F811
    """All recorded messages, asked through a wrapped client into one ledger."""
    with serve_simulator() as simulator, simulator.client(max_retries=0) as client:
        wrapped = llmnb.wrap(client)
        for path in recordings.values():
            meta = json.loads(path.read_text())
            response = meta["response"]
            body = (path.parent / response["file"]).read_bytes()
            simulator.replay(response["status"], response["headers"], body, response["kind"])
            with suppress(anthropic.BadRequestError):
                ask_as_recorded(wrapped, meta["request"]["path"], meta["request"]["body"])


@pytest.mark.usefixtures("asked")
def test_the_pages_show_the_bills(show: Show) -> None:
    """Spend, calls, tokens, errors, savings and each model's cost are the sums of the bills, to the nano-dollar."""
    overview = show()
    spent = sum(bill.nanousd for bill in BILLED.values()) + COMPACTION
    assert exact_of(overview)["Spend"] == f"Exactly ${spent // 10**9}.{spent % 10**9:09}."
    assert figures_of(overview)["Calls"] == str(len(BILLED) + len(REFUSED)) == "36"
    cached = ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_unsplit_tokens")
    tokens = sum(bill.input + bill.output + sum(bill.more.get(name, 0) for name in cached) for bill in BILLED.values())
    assert exact_of(overview)["Tokens"].startswith(f"Exactly {tokens + 100 + 55_096 + 83:,}:")
    assert exact_of(overview)["Error rate"] == "1 of 36 calls failed."
    assert exact_of(overview)["Net savings"].startswith(f"Exactly $0.{SAVED:09},")

    by_model: dict[str, int] = defaultdict(int, {"claude-sonnet-4-6": COMPACTION})
    for bill in BILLED.values():
        by_model[bill.model] += bill.nanousd
    rows = show("models").dataframe[0].value.set_index("model")["cost"].dropna()
    assert {name: cost for name, cost in rows.items() if cost} == by_model
    assert exact_of(show("caching"))["Prompt cache"].startswith(f"Exactly $0.{SAVED:09}:")
    ended = show("errors").dataframe[0].value
    assert ["error", "invalid_request_error", 1, 0] in ended[["kind", "type", "calls", "cost"]].values.tolist()

    calls = llmnb.calls().set_index("uid")
    long = calls[calls["web_search_requests"] == 10].index.item()  # recording 037: above 200,000 tokens
    lines = show("calls", call=long).dataframe[1].value
    assert lines[["What", "Count", "Rate", "Dollars"]].fillna(0).values.tolist() == [
        ["input", 404_500, "$6 a million", "$2.427000000"],
        ["output", 943, "$22.5 a million", "$0.021217500"],
        ["web searches", 10, "$10 a thousand", "$0.100000000"],
        ["on the books", 0, "", "$2.548217500"],
    ]
