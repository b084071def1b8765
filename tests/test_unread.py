"""An answer of which the SDK's message is made when somebody wants it."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import anthropic
import pytest

import llmnb
from llmnb import unread
from llmnb.simulator import Answer, Simulator

QUESTION: Any = {"model": "claude-sonnet-5-5", "max_tokens": 60, "messages": [{"role": "user", "content": "Hi"}]}


def test_the_message_is_the_sdks(sim: Simulator) -> None:
    """With all its fields, types and ids; made once."""
    with sim.client() as client:
        raw = client.messages.with_raw_response.create(**QUESTION)
        found, theirs = unread.of(raw), raw.parse()
    assert found is not None
    ours = found.message()
    assert ours == theirs
    assert ours.model_dump() == theirs.model_dump()
    assert [type(block) for block in ours.content] == [type(block) for block in theirs.content]
    assert (ours._request_id, ours._workspace_id) == (theirs._request_id, theirs._workspace_id)
    assert (found.text, found.model, found.stop_reason) == (theirs.content[0].text, theirs.model, theirs.stop_reason)
    reply = llmnb.LLM(display="none").ask("Hi")
    assert reply.message is reply.message


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_reply_has_what_it_had(sim: Simulator, monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    """Text, model, tokens and cost before the message is made, and after."""
    monkeypatch.delitem(sys.modules, unread.RECORDS_SPANS, raising=False)  # another test may have loaded it
    llm = llmnb.LLM(display="none", cache=False)
    reply = await llm.aask("Say one") if asynchronous else llm.ask("Say one")
    before = (reply.text, reply.model, reply.stop_reason, reply.usage, reply.cost_usd)
    assert isinstance(reply._message, unread.Unread)
    message = reply.message
    assert isinstance(message, anthropic.types.Message)
    assert before == (reply.text, reply.model, reply.stop_reason, reply.usage, reply.cost_usd)
    assert pickle.loads(pickle.dumps(reply)).text == before[0]


def test_a_client_that_validates_validates(sim: Simulator) -> None:
    """What it was asked to check is checked before anybody has the answer."""
    with sim.client(_strict_response_validation=True) as client:
        assert not unread.is_enough(client)


def test_what_is_no_message_is_told_as_ever(sim: Simulator) -> None:
    """A gateway may answer anything with a status of 200."""
    with sim.client() as client:
        raw = client.models.with_raw_response.list()
        assert unread.of(raw) is None
    assert unread.of(object()) is None
    sim.rule(Answer("", stop_reason="refusal"))
    assert llmnb.LLM(display="none").ask("Hi").refused
