"""Message threads and tool loops from the response cache, turn by turn: with the API, without, and forgotten by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmnb
from llmnb.cache.responses import responses
from llmnb.keys import turn_of
from llmnb.simulator import Simulator

from .conftest import QUESTION, rows
from .test_cache import asked
from .test_every_use import weather

THREAD: dict[str, Any] = {"model": QUESTION["model"], "max_tokens": 300, "system": "Be brief."}
BETAS = ["message-threads-2026-08-12"]


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped client with the cache."""
    with simulator.client(max_retries=0) as plain:
        yield llmnb.wrap(plain, cache=True)


def talk(client: anthropic.Anthropic, *questions: str, streamed: bool = False) -> list[str]:
    """The answers of a conversation on a thread, one turn after the other."""
    thread = client.beta.messages.thread(**THREAD)
    answers: list[str] = []
    for question in questions:
        message: Any = {"role": "user", "content": question}
        if streamed:
            with thread.stream(message) as stream:
                answers.append(stream.get_final_message().content[0].to_json())
        else:
            answers.append(thread.send(message).content[0].to_json())
    return answers


def another_kernel() -> None:
    """Everything is on disk, and nothing in memory."""
    responses().settle()
    responses().threads._ends.clear()


def sources() -> list[str]:
    """Where the answers came from, without refused attempts."""
    return [row["source"] for row in rows() if row["status"] == "ok"]


@pytest.mark.parametrize("streamed", [False, True], ids=["send", "stream"])
def test_a_thread_that_took_another_way_is_answered_offline(
    simulator: Simulator, client: anthropic.Anthropic, streamed: bool
) -> None:
    """The API forgets; the way that parts from the first one is paid once, and then each way comes without a server."""
    first = talk(client, "One?", "Two?", streamed=streamed)
    simulator.forget_threads()
    another_kernel()
    other = talk(client, "One?", "Other?", "More?", streamed=streamed)
    assert sources() == ["live", "live", "cache", "live", "live"]
    assert other[0] == first[0]
    another_kernel()
    simulator.stop()
    assert talk(client, "One?", "Other?", "More?", streamed=streamed) == other
    assert talk(client, "One?", "Two?", streamed=streamed) == first
    assert sources()[5:] == ["cache"] * 5
    assert [row["status"] for row in rows()[-5:]] == ["ok"] * 5


def test_on_a_miss_the_whole_conversation_is_sent(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """By the SDK's helper, when the API says that it has forgotten; once, and then it is known."""
    talk(client, "One?", "Two?")
    simulator.forget_threads()
    talk(client, "One?", "Two?", "Three?")
    refused, whole = simulator.requests[-2:]
    assert refused.body is not None
    assert whole.body is not None
    assert refused.body["thread"]["type"] == "continue"
    assert whole.body["thread"] == {"type": "create"}
    assert [message["role"] for message in whole.body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    count = asked(simulator)
    talk(client, "One?", "Two?", "Three?")
    assert asked(simulator) == count


def test_streamed_turns_and_others_share_their_answers(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Whichever way the thread went the first time."""
    first = talk(client, "One?", "Two?", streamed=True)
    another_kernel()
    assert talk(client, "One?", "Two?") == first
    assert asked(simulator) == 2


def test_the_same_words_after_another_answer_are_another_question(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """What was said before counts, answers too."""
    simulator.script("Yes.", "Because.", "No.", "So what.")
    assert talk(client, "One?", "Why?")[1] == talk(client, "One?", "Why?")[1]
    assert asked(simulator) == 2
    thread = client.beta.messages.thread(**THREAD, messages=[{"role": "user", "content": "Zero?"}])
    thread.send()
    assert thread.send({"role": "user", "content": "Why?"}).content[0].to_dict()["text"] == "So what."


def test_a_tool_loop_that_took_another_way(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The tool says something else this time: that turn is asked, and both runs come again without a server."""
    said = "Sunny."

    @anthropic.beta_tool
    def forecast(city: str) -> str:
        """Tomorrow's weather in a city.

        Args:
            city: its name.
        """
        return f"{said} {city}"

    def run() -> list[str]:
        question: Any = {**QUESTION, "messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}
        return [message.to_json() for message in client.beta.messages.tool_runner(**question, tools=[forecast])]

    first = run()
    said = "Rain."
    simulator.forget_threads()
    another_kernel()
    second = run()
    assert second[0] == first[0]
    assert sources() == ["live", "live", "cache", "live"]
    another_kernel()
    simulator.stop()
    assert run() == second
    said = "Sunny."
    assert run() == first


def test_turns_by_hand(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A later kernel that only has the id of an answer goes on from it, also without a server."""
    question: Any = {**QUESTION, "betas": BETAS}
    first = client.beta.messages.create(**question, thread={"type": "create"})
    thread: Any = {"type": "continue", "previous_message_id": first.id}
    second = client.beta.messages.create(**question, thread=thread)
    another_kernel()
    simulator.stop()
    assert client.beta.messages.create(**question, thread=thread).to_dict() == second.to_dict()


def test_a_thread_that_nothing_is_known_of(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """It was begun without the cache; what continues it is kept by the id it names."""
    question: Any = {**QUESTION, "betas": BETAS}
    with simulator.client() as plain:
        first = plain.beta.messages.create(**question, thread={"type": "create"})
    thread: Any = {"type": "continue", "previous_message_id": first.id}
    second = client.beta.messages.create(**question, thread=thread)
    another_kernel()
    assert client.beta.messages.create(**question, thread=thread).id == second.id
    assert asked(simulator) == 2


def test_a_thread_of_the_runner_with_nothing_new(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The plain tool loop of the SDK's own, run twice in two kernels."""
    question: Any = {**QUESTION, "messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}
    first = [message.id for message in client.beta.messages.tool_runner(**question, tools=[weather])]
    another_kernel()
    simulator.stop()
    assert [message.id for message in client.beta.messages.tool_runner(**question, tools=[weather])] == first


# The names of turns ---------------------------------------------------------------------------------------------------

_MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}))
_ANSWERS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}), max_size=2)


@given(_MESSAGES, _ANSWERS, _MESSAGES, st.text())
def test_a_turn_has_one_name_whoever_holds_the_conversation(
    before: list[Any], answer: list[Any], after: list[Any], system: str
) -> None:
    """Continued by the API, or sent whole; another word anywhere gives another name."""
    begun = turn_of({"model": "m", "thread": {"type": "create"}, "system": system, "messages": before})
    continued = turn_of(
        {"model": "m", "thread": {"type": "continue", "previous_message_id": "msg_1"}, "messages": after},
        begun.answered(answer),
    )
    whole = {"model": "m", "thread": {"type": "create"}, "system": system}
    said = [*before, {"role": "assistant", "content": answer}, *after]
    assert turn_of({**whole, "messages": said}) == continued
    assert turn_of({**whole, "messages": [*said, {"role": "user", "content": "x"}]}).canonical != continued.canonical
    assert turn_of({**whole, "system": f"{system}.", "messages": said}).canonical != continued.canonical
    assert turn_of({**whole, "messages": said, "max_tokens": 5}).canonical != continued.canonical
