"""An answer that broke off is finished: one reply, two rows, and a chat that remembers the whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import llmnb
from llmnb.asking.resuming import GO_ON
from llmnb.errors import IncompleteReply, InvalidRequest
from llmnb.simulator import Answer, Fault, Simulator

FIRST = "one two three four five six"
CUT = Answer(text=FIRST, deltas=6, fault=Fault("truncate", after_events=3))
STREAMED = 60_000


def broken(asked: Any) -> IncompleteReply:
    """The error of an answer that breaks off."""
    with pytest.raises(IncompleteReply) as caught:
        asked("Count to six")
    return caught.value


def rows() -> list[dict[str, Any]]:
    """The calls on the books, oldest first."""
    return llmnb.calls().to_dict("records")[::-1]


def test_the_parts_are_one_reply(sim: Simulator) -> None:
    """A new model is shown its text and asked to go on; text, tokens and dollars are those of both calls."""
    sim.script(CUT, "AND THE REST")
    error = broken(llmnb.LLM(max_tokens=STREAMED))
    reply = error.resume()
    assert reply.text == error.partial + "AND THE REST"
    sent = sim.requests[-1].body["messages"]
    assert sent[1:] == [{"role": "assistant", "content": error.partial}, {"role": "user", "content": GO_ON}]
    first, second = rows()
    assert (first["status"], second["status"]) == ("truncated", "ok")
    assert second["parent_uid"] == first["uid"]
    assert reply.usage.output_tokens == first["output_tokens"] + second["output_tokens"]
    assert reply.cost.nanousd == first["cost_nanousd"] + second["cost_nanousd"]
    assert llmnb.last().text == reply.text


async def test_a_model_that_takes_prefill_continues_by_itself(sim: Simulator) -> None:
    """Up to 4.5 the text so far is the beginning of the answer, without the space at its end, which the API refuses."""
    sim.script(CUT, " and on")
    with pytest.raises(IncompleteReply) as caught:
        await llmnb.LLM("claude-haiku-4-5", max_tokens=STREAMED).aask("Count to six")
    reply = await caught.value.aresume()
    assert sim.requests[-1].body["messages"][1:] == [{"role": "assistant", "content": caught.value.partial.rstrip()}]
    assert reply.text == caught.value.partial.rstrip() + " and on"


def test_it_may_break_off_again(sim: Simulator) -> None:
    """Then the error has the text of both parts, and goes on from there; the rows hang on the first."""
    sim.script(CUT, CUT, "END")
    first = broken(llmnb.LLM(max_tokens=STREAMED))
    with pytest.raises(IncompleteReply) as caught:
        first.resume()
    assert caught.value.partial == first.partial * 2
    assert caught.value.resume().text == first.partial * 2 + "END"
    assert len(sim.requests[-1].body["messages"]) == 3
    uids = [row["uid"] for row in rows()]
    assert [row["parent_uid"] for row in rows()[1:]] == uids[:1] * 2


def test_a_chat_remembers_the_whole(sim: Simulator) -> None:
    """As the turn's answer, without the request to go on; and not when it has gone on meanwhile."""
    chat = llmnb.LLM(max_tokens=STREAMED).chat()
    sim.script(CUT, "END", CUT, "other")
    error = broken(chat)
    assert chat.messages == []
    reply = error.resume()
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[1]["content"] == [{"type": "text", "text": reply.text}]
    late = broken(chat)
    chat("something else")
    with pytest.raises(InvalidRequest, match="gone on"):
        late.resume()
    assert chat.cost_usd == sum(map(int, llmnb.calls()["cost_nanousd"])) / llmnb.records.NANO


def test_half_a_document_is_of_no_use(sim: Simulator) -> None:
    """Structured output is asked for anew, and so is an answer that had no text yet."""
    sim.script(Answer(text='{"a": 1}', deltas=4, fault=Fault("drop", after_events=2)), '{"a": 1}')
    shape = {"format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}}
    error = broken(llmnb.LLM(max_tokens=STREAMED, output_config=shape))
    assert error.partial
    assert error.resume().text == '{"a": 1}'
    assert len(sim.requests[-1].body["messages"]) == 1


def test_a_copy_of_the_error_cannot_go_on(sim: Simulator) -> None:
    """It came from another process, without the client; it still has the text."""
    sim.script(CUT)
    error = pickle.loads(pickle.dumps(broken(llmnb.LLM(max_tokens=STREAMED))))
    assert FIRST.startswith(copy.copy(error).partial)
    with pytest.raises(InvalidRequest, match="ask the question again"):
        error.resume()
