"""Asks the real API, for those who have a key: `pytest -m live`. Spends well under $0.05."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

import anthropic
import pytest

import llmnb

MODEL = "claude-haiku-5-5"

pytestmark = pytest.mark.live

# taken before any fixture clears the environment
SDK_VARIABLES = {name: value for name, value in os.environ.items() if name.startswith("ANTHROPIC_")}


@pytest.fixture(autouse=True)
def key(llmnb_home: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The key and address of the person who runs this."""
    if "ANTHROPIC_API_KEY" not in SDK_VARIABLES:
        pytest.skip("needs ANTHROPIC_API_KEY")
    for name, value in SDK_VARIABLES.items():
        monkeypatch.setenv(name, value)
    yield
    spent = llmnb.usage(by=[])["cost_usd"][0]
    assert spent < 0.01


def test_reply_and_ledger_row_agree() -> None:
    """The row holds the usage of the reply, which is the API's, and a price is known for the model that served."""
    reply = llmnb.LLM(MODEL, max_tokens=50, display="none").ask("Say hello in one word.")
    row = llmnb.calls().iloc[0]
    assert row["input_tokens"] == reply.usage.input_tokens == reply.message.usage.input_tokens > 0
    assert row["output_tokens"] == reply.usage.output_tokens == reply.message.usage.output_tokens > 0
    assert row["status"] == "ok"
    assert row["request_id"] == reply.request_id
    assert reply.cost_usd == Decimal(int(row["cost_nanousd"])) / 10**9 > 0


def test_a_stream_is_booked_like_the_sdk_counts_it() -> None:
    """A streamed call through a wrapped client: the ledger has what the SDK's final message says."""
    client = llmnb.wrap(anthropic.Anthropic())
    question: anthropic.types.MessageParam = {"role": "user", "content": "Count from one to five."}
    with client.messages.stream(model=MODEL, max_tokens=50, messages=[question]) as stream:
        final = stream.get_final_message()
    row = llmnb.calls().iloc[0]
    assert (row["input_tokens"], row["output_tokens"]) == (final.usage.input_tokens, final.usage.output_tokens)
    assert (row["stream"], row["status"], row["model"]) == (True, "ok", final.model)


def test_a_stream_closed_early_is_booked_as_estimated() -> None:
    """Leaving after the first piece of text keeps the input count that the API reported, and marks the output."""
    stream = llmnb.LLM(MODEL, max_tokens=200, display="none").stream("Count from one to fifty.")
    next(event for event in stream if isinstance(event, llmnb.Text))
    stream.close()
    row = llmnb.calls().iloc[0]
    assert row["status"] == "cancelled"
    assert row["estimated"]
    assert row["input_tokens"] > 0


def test_an_unknown_model_is_the_sdks_own_error() -> None:
    """Errors of the API pass through unchanged, and leave a row that cost nothing."""
    with pytest.raises(anthropic.NotFoundError):
        llmnb.wrap(anthropic.Anthropic()).messages.create(
            model="claude-that-never-was", max_tokens=5, messages=[{"role": "user", "content": "Hi"}]
        )
    row = llmnb.calls().iloc[0]
    assert (row["status"], row["error_type"]) == ("error", "not_found_error")
    llmnb.LLM(MODEL, max_tokens=5, display="none").ask("Hi")  # so that something was spent, as the fixture expects
