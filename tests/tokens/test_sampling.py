"""Which calls are counted when they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmnb.tokens import Counter
from llmnb.tokens.sampling import FIRST, MOST_CHARS, THEN_ONE_OF, counted_offline, is_sampled, start_over

MODEL = "claude-sonnet-5-5"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """As in a process that has sent nothing."""
    start_over()
    yield
    start_over()


def body(content: Any = "Explain write-ahead logging.", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def test_the_first_calls_are_counted_then_a_share() -> None:
    """Enough to learn from soon, and hardly any work later; each model has a turn of its own."""
    counted = [is_sampled(MODEL) for _ in range(FIRST + 10 * THEN_ONE_OF)]
    assert counted[:FIRST] == [True] * FIRST
    assert sum(counted[FIRST:]) == 10
    assert is_sampled("claude-haiku-5-5")


def test_the_count_is_that_of_an_estimate() -> None:
    """What is stored is what the offline counter says."""
    assert counted_offline(body(), 30) == (round(Counter(MODEL).request(body()).tokens), "characters")


@pytest.mark.parametrize(
    ("request_body", "chars"),
    [
        (body(), MOST_CHARS + 1),
        (body(thread={"previous_message_id": "msg_1"}), 30),
        (body([{"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}]), 30),
    ],
    ids=["long", "thread", "pdf"],
)
def test_what_cannot_be_counted_well_is_not(request_body: dict[str, Any], chars: int) -> None:
    """Long prompts, threads and files would teach something wrong, or take too long."""
    assert counted_offline(request_body, chars) is None
