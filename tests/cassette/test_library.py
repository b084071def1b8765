"""Which recorded answer a request gets, and what is told when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from llmnb.cassette import Difference, Failure, Interaction, Request, Response
from llmnb.cassette.library import NOWHERE, Library, Place
from llmnb.cassette.nearest import differences, nearest_to

OK = Response(200, {}, 0, b"{}")


def request(text: str = "Hi", **more: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return Request("POST", "/v1/messages", {**body, **more.pop("body", {})}, **more)


def recorded(number: int, text: str = "Hi", outcome: Any = OK, **more: Any) -> Interaction:
    return Interaction(number, request(text, **more.pop("request", {})), outcome, **more)


def numbers(library: Library, *asked: Request, place: Place = NOWHERE) -> list[int | None]:
    """The numbers of what is found for each request in turn."""
    found = [library.find(one, place) for one in asked]
    return [None if one is None else one.number for one in found]


def test_the_order_is_that_of_asking_and_not_of_the_file() -> None:
    """A long answer ends, and is written, after a short one that was asked later."""
    assert numbers(Library([recorded(2), recorded(1)]), request(), request()) == [1, 2]


@pytest.mark.parametrize("field", ["stream", "metadata", "diagnostics", "cache_control"])
def test_what_no_answer_depends_on_is_not_compared(field: str) -> None:
    """The fields that the cache's key leaves out, for the same reasons."""
    library = Library([recorded(1)])
    assert numbers(library, request(body={field: {"any": "thing"}})) == [1]


@pytest.mark.parametrize(
    "other",
    [
        request("Ho"),
        request(body={"max_tokens": 5}),
        request(headers={"anthropic-beta": "b"}),
        Request("POST", "/v1/messages?beta=true", request().body),
        Request("GET", "/v1/messages", request().body),
    ],
)
def test_everything_else_is(other: Request) -> None:
    """Body, betas, query and method."""
    library = Library([recorded(1)])
    assert library.find(other) is None
    assert list(differences(request(), other))


def test_the_address_is_a_preference_only() -> None:
    """A reviewer may have no gateway; two providers asked the same are told apart all the same."""
    ours = recorded(1, request={"base_url": "https://gateway.example"})
    theirs = recorded(2, request={"base_url": "https://other.example"})
    library = Library([ours, theirs])
    assert numbers(library, theirs.request, ours.request, theirs.request) == [2, 1, 2]
    assert numbers(library, request(base_url="http://127.0.0.1"), request(base_url="http://127.0.0.1")) == [1, 2]


def test_a_cell_that_was_run_again_stands_for_its_earlier_run() -> None:
    """The author stopped an answer, ran the cell again and kept the second: so does the reviewer."""
    library = Library([recorded(1, cell="a", run=1), recorded(2, cell="a", run=2)])
    assert numbers(library, request()) == [2]
    assert library.unused == ()


def test_an_earlier_run_is_used_where_only_it_asked() -> None:
    """A chat's first turn, asked in the first run only: better an answer that was replaced than none."""
    library = Library([recorded(1, "first", cell="a", run=1), recorded(2, "second", cell="a", run=2)])
    assert numbers(library, request("first"), request("second")) == [1, 2]


def test_each_cell_has_its_own_answers_at_each_run() -> None:
    """Two cells ask the same; run in any order and run again, each has what it had."""
    library = Library([recorded(1, cell="a", run=1), recorded(2, cell="a", run=1), recorded(3, cell="b", run=2)])
    assert numbers(library, request(), place=Place("b", 1)) == [3]
    assert numbers(library, request(), request(), place=Place("a", 2)) == [1, 2]
    assert numbers(library, request(), request(), place=Place("a", 3)) == [1, 2]
    assert numbers(library, request(), request(), place=Place("new", 4)) == [1, 2]  # a cell that was not recorded
    assert numbers(library, request(), request()) == [3, 3]  # and nowhere: on from there


def test_what_was_asked_again_stands_for_all_before_it() -> None:
    """Only the last time counts, with all its attempts."""
    failed = Failure("APITimeoutError", "")
    library = Library(
        [
            recorded(1, outcome=failed),
            recorded(2, outcome=failed, instead=True),
            recorded(3, outcome=failed, instead=True),
            recorded(4),
        ]
    )
    assert numbers(library, request(), request(), request()) == [3, 4, 4]
    assert library.unused == ()


def test_only_whole_answers() -> None:
    """Failures, errors and broken streams are not given when whole ones are wanted."""
    broken = Response(200, {}, 0, events=())
    library = Library([recorded(1, outcome=Response(529, {}, 0)), recorded(2), recorded(3, outcome=Failure("", ""))],
        only_whole=True)  # fmt: skip
    assert numbers(library, request(), request()) == [2, 2]
    assert Library([recorded(1, outcome=Response(500, {}, 0))], only_whole=True).find(request()) is None
    assert broken.is_whole  # no message was begun: another kind of stream


# The nearest ----------------------------------------------------------------------------------------------------------


def test_the_nearest_is_the_one_with_the_least_to_change() -> None:
    """A prompt with one word changed is nearer than another prompt, and nearer than another model with more."""
    tape = [
        recorded(1, "Describe a river in one sentence."),
        recorded(2, "Describe a lake in two sentences."),
        recorded(3, "Describe a lake in one sentence.", request={"body": {"model": "n", "max_tokens": 7, "top": 1}}),
        Interaction(4, Request("POST", "/v1/messages/count_tokens", request().body), OK),
    ]
    found = nearest_to(request("Describe a lake in one sentence."), tape)
    assert found is not None
    assert found[0].number == 1
    assert nearest_to(request(), []) is None


def test_a_long_text_is_told_from_where_it_parts() -> None:
    """Not all of a long prompt, but the place, with a little of what stands around it."""
    long = "word " * 1000
    [difference] = differences(request(f"{long}in 2024 we {long}"), request(f"{long}in 2025 we {long}"))
    assert str(difference) == (
        "messages[0].content: from character 5007 on, recorded …'rd word word word in 2024 we word word word word '…, "
        "asked …'rd word word word in 2025 we word word word word '…"
    )


def test_a_message_that_was_put_in_does_not_make_all_after_it_differ() -> None:
    """Items are paired by what they are, and not by their number."""
    texts = [{"role": "user", "content": str(number)} for number in range(5)]
    more = [*texts[:2], {"role": "user", "content": "put in"}, *texts[2:]]
    found = list(differences(request(body={"messages": texts}), request(body={"messages": more})))
    assert found == [Difference("messages[2]", asked=more[2], only="asked")]
    found = list(differences(request(body={"messages": more}), request(body={"messages": texts})))
    assert found == [Difference("messages[2]", recorded=more[2], only="recorded")]


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (Difference("max_tokens", 5, 6), "max_tokens: recorded 5, asked 6"),
        (Difference("tools", recorded=[1], only="recorded"), "tools: only recorded, [1]"),
        (Difference("system", asked="x" * 99, only="asked"), f'system: only asked, "{"x" * 58}…'),
        (Difference("system", None, {"a": 1}), 'system: recorded null, asked {"a": 1}'),
    ],
)
def test_a_difference_is_one_line(difference: Difference, told: str) -> None:
    """Both values where they are short."""
    assert str(difference) == told
