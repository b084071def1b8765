"""`extract`: what is asked for, what comes back, and what happens when it does not fit."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import typing
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import llmnb
from llmnb.asking.extraction import Extraction
from llmnb.asking.shape import Misfit, Shape
from llmnb.errors import ExtractionFailed, InvalidRequest
from llmnb.events import ToolCall
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer

OLD, NEW = "claude-sonnet-4-0", "claude-sonnet-5-5"


class Colour(enum.Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """A nested model."""

    street: str
    number: int | None = None


class Person(BaseModel):
    """A person."""

    name: str
    age: int = Field(ge=0, le=150)
    colour: Colour = Colour.RED
    born: datetime.date | None = None
    address: Address | None = None


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: float
    y: float


class Paper(TypedDict):
    """A TypedDict."""

    title: str
    year: int


class Tree(BaseModel):
    """A type that holds itself."""

    name: str
    children: list[Tree] = []


class Scores(BaseModel):
    """A dictionary with free keys."""

    scores: dict[str, float]


@dataclasses.dataclass
class Settings:
    """A dataclass with defaults."""

    size: int = 3
    colours: list[Colour] = dataclasses.field(default_factory=list)


class Loose(typing.TypedDict, total=False):
    """A TypedDict of `typing`, whose fields may be absent."""

    title: typing.Required[str]
    year: int
    points: list[typing.Annotated[Point, "where"]]


class Cat(BaseModel):
    """One half of a union that says which it is."""

    kind: typing.Literal["cat"]
    lives: int


class Dog(BaseModel):
    """The other half."""

    kind: typing.Literal["dog"]
    tricks: list[list[str]]


class Pets(BaseModel):
    """A nested list of a union."""

    pets: list[typing.Annotated[Cat | Dog, Field(discriminator="kind")]]


ANN = {"name": "Ann", "age": 30, "colour": "blue", "born": "1996-02-29", "address": {"street": "Main"}}
ANN_VALUE = Person(
    name="Ann", age=30, colour=Colour.BLUE, born=datetime.date(1996, 2, 29), address=Address(street="Main")
)


def said(*values: Any) -> list[Answer]:
    """Answers that are JSON texts."""
    return [Answer(text=value if isinstance(value, str) else json.dumps(value)) for value in values]


def sent(sim: Simulator) -> list[dict[str, Any]]:
    """The bodies of the requests."""
    return [request.body for request in sim.requests]


# Types ----------------------------------------------------------------------------------------------------------------

LOOSE: Any = {"title": "WAL", "points": [Point(1.0, 2.0)]}
PETS = {"pets": [{"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": [["sit"], []]}]}
TYPES = [
    (Person, ANN, ANN_VALUE),
    (list[Person], {"value": [ANN]}, [ANN_VALUE]),
    (Point, {"x": 1, "y": 2.5}, Point(1.0, 2.5)),
    (list[Point], {"value": [{"x": 0, "y": 0}]}, [Point(0.0, 0.0)]),
    (Paper, {"title": "WAL", "year": 2010}, {"title": "WAL", "year": 2010}),
    (Colour, {"value": "blue"}, Colour.BLUE),
    (Person | Point, {"value": {"x": 1, "y": 2}}, Point(1.0, 2.0)),
    (Person | None, {"value": None}, None),
    (int, {"value": 7}, 7),
    (list[str], {"value": ["a", "b"]}, ["a", "b"]),
    (tuple[int, str], {"value": [1, "a"]}, (1, "a")),
    (Tree, {"value": {"name": "a", "children": [{"name": "b"}]}}, Tree(name="a", children=[Tree(name="b")])),
    (Scores, {"scores": {"ann": 1.5}}, Scores(scores={"ann": 1.5})),
    (Settings, {"size": 4}, Settings(4)),
    (Settings, {"size": None, "colours": ["red"]}, Settings(3, [Colour.RED])),
    (Loose, {"title": "WAL", "year": None, "points": None}, {"title": "WAL"}),
    (list[Loose], {"value": [{"title": "WAL", "points": [{"x": 1, "y": 2}]}]}, [LOOSE]),
    (list[Person], {"value": []}, []),
    (Pets, PETS, Pets(pets=[Cat(kind="cat", lives=9), Dog(kind="dog", tricks=[["sit"], []])])),
    ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"n": 1}, {"n": 1}),
    ({"type": "array", "items": {"type": "string"}}, {"value": ["a"]}, ["a"]),
]


@pytest.mark.parametrize(("into", "answer", "value"), TYPES, ids=lambda one: getattr(one, "__name__", None))
def test_each_type_comes_back_as_itself(sim: Simulator, into: Any, answer: Any, value: Any) -> None:
    """What the model says becomes a value of the type, by structured output or, where that cannot, by a tool."""
    by_tool = Shape.of(into).strict is None
    sim.script(Answer(tool_calls=[(Shape.of(into).name, answer)]) if by_tool else said(answer)[0])
    got = llmnb.LLM(NEW).extract("Who is it?", into)
    assert got == value
    assert isinstance(got, list) == isinstance(value, list)
    (body,) = sent(sim)
    assert ("tools" in body) == by_tool
    assert ("format" in body.get("output_config", {})) != by_tool


@pytest.mark.parametrize("model", [NEW, "openai:gpt-5.2"])
@pytest.mark.parametrize(
    "into",
    [Person, list[Person], Point, Paper, Colour, Person | Point, list[str], Scores, Tree, Settings, list[Loose], Pets],
)
def test_the_simulated_model_fills_every_type(sim: Simulator, into: Any, model: str) -> None:
    """Unscripted, the simulator answers by the very schema it was sent, and that schema is one the API takes."""
    if ":" in model:
        pytest.importorskip("openai")
    llmnb.LLM(model).extract("Ann is 30 and likes blue", into)
    assert set(llmnb.calls()["status"]) == {"ok"}


@pytest.mark.parametrize(("model", "by_tool"), [(OLD, True), ("claude-3-5-haiku-latest", True), (NEW, False)])
def test_a_model_without_structured_output_gets_a_tool(model: str, by_tool: bool) -> None:
    """It came with 4.5; for older models the value is the input of a tool that must be called."""
    question = llmnb.LLM(model)._question([{"role": "user", "content": "Ann"}], {})  # pyright: ignore[reportPrivateUsage]
    arguments = Extraction(question, Shape.of(Person), 0).question.plan.arguments
    assert ("tools" in arguments, "output_config" in arguments) == (by_tool, not by_tool)
    if by_tool:
        assert arguments["tools"][0]["input_schema"] == Person.model_json_schema()
        assert arguments["tool_choice"]["name"] == "Person"


def test_options_reach_the_request(sim: Simulator) -> None:
    """Settings of the call stand beside the schema."""
    sim.script(*said(ANN))
    llmnb.LLM(NEW, project="thesis").extract("Ann", Person, effort="low", max_tokens=99, tag="people")
    (body,) = sent(sim)
    assert (body["output_config"]["effort"], body["max_tokens"]) == ("low", 99)
    assert llmnb.calls()[["project", "tag"]].values.tolist() == [["thesis", "people"]]


def test_a_model_that_thinks_is_not_forced(sim: Simulator) -> None:
    """The API refuses a forced tool while the model thinks, so it is only offered."""
    sim.script(Answer(thinking="Well.", tool_calls=[("Scores", {"scores": {}})]))
    llmnb.LLM(NEW, thinking=True).extract("Scores", Scores)
    assert sent(sim)[0]["tool_choice"] == {"type": "auto"}


@pytest.mark.parametrize(
    "into",
    ["Person", {"type": "thing"}, {"name": "str"}, None, object(), print, lambda: 3],
    ids=["text", "no schema", "no type", "nothing", "object", "function", "lambda"],
)
def test_what_is_no_type_is_refused(sim: Simulator, into: Any) -> None:
    """Nothing is sent for what no schema can be made of, and the sentence says what to give."""
    with pytest.raises(InvalidRequest, match="Give a Pydantic model"):
        llmnb.LLM().extract("Ann", into)
    assert sim.requests == []


def test_retries_must_be_a_number(sim: Simulator) -> None:
    """Nothing is sent for nonsense."""
    with pytest.raises(InvalidRequest, match="whole number"):
        llmnb.LLM().extract("Ann", Person, retries=-1)
    assert sim.requests == []


# Repair ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["Ann is 30.", {"name": "Ann"}, {"name": "Ann", "age": 200}, "[1", ""], ids=str)
def test_what_is_wrong_goes_back(sim: Simulator, wrong: Any) -> None:
    """The model sees its answer and what was wrong with it, and both calls are on the books."""
    sim.script(*said(wrong, ANN))
    assert llmnb.LLM(NEW).extract("Ann is 30", Person) == ANN_VALUE
    first, second = sent(sim)
    assert second["messages"][0] == first["messages"][0]
    if wrong:
        assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
        assert "does not fit" in str(second["messages"][2]["content"])
    assert len(llmnb.calls()) == 2


def test_what_is_wrong_goes_back_to_a_tool_call(sim: Simulator) -> None:
    """A tool call gets an error as its result."""
    wrong, right = {"scores": {"ann": "high"}}, {"scores": {"ann": 1}}
    sim.script(Answer(tool_calls=[("Scores", wrong)]), Answer(tool_calls=[("Scores", right)]))
    assert llmnb.LLM(NEW).extract("Ann is 1", Scores) == Scores(scores={"ann": 1.0})
    result = sent(sim)[1]["messages"][2]["content"][0]
    assert (result["type"], result["is_error"]) == ("tool_result", True)
    assert "scores.ann" in str(result["content"])


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (2, 3)])
def test_it_is_given_up(sim: Simulator, retries: int, calls: int) -> None:
    """After `retries` more attempts the error holds the last answer and what was wrong with it."""
    sim.script(*said(*[{"name": "Ann", "age": 200 + n} for n in range(calls)]))
    with pytest.raises(ExtractionFailed) as caught:
        llmnb.LLM(NEW).extract("Ann is 30", Person, retries=retries)
    assert json.loads(caught.value.text)["age"] == 200 + retries
    assert caught.value.errors[0].startswith("age: ")
    assert (caught.value.attempts, len(llmnb.calls())) == (calls, calls)


def test_a_refusal_is_not_argued_with(sim: Simulator) -> None:
    """One call, and the error says that the model refused."""
    sim.script(Answer(text="No.", refusal=True))
    with pytest.raises(ExtractionFailed, match="refused"):
        llmnb.LLM(NEW).extract("Ann", Person)
    assert len(llmnb.calls()) == 1


def test_an_answer_that_is_cut_off_is_not_asked_again(sim: Simulator) -> None:
    """The same limit would cut it off again: the error says to give more max_tokens."""
    sim.script(Answer(text='{"name": "Ann", "a', stop_reason="max_tokens"))
    with pytest.raises(ExtractionFailed, match="max_tokens"):
        llmnb.LLM(NEW).extract("Ann", Person, max_tokens=5)
    assert len(llmnb.calls()) == 1


def test_asked_again_it_costs_nothing(sim: Simulator) -> None:
    """Every attempt, the failed ones too, comes from the cache the second time."""
    sim.script(*said({"name": "Ann"}, ANN))
    llm = llmnb.LLM(NEW)
    assert llm.extract("Ann is 30", Person) == llm.extract("Ann is 30", Person) == ANN_VALUE
    assert len(sim.requests) == 2
    assert sorted(llmnb.calls()["source"]) == ["cache", "cache", "live", "live"]


async def test_the_async_twin(sim: Simulator) -> None:
    """It repairs, too."""
    sim.script(*said("no", ANN))
    assert await llmnb.LLM(NEW).aextract("Ann is 30", Person) == ANN_VALUE


@given(st.text())
def test_any_text_is_a_value_or_a_misfit(text: str) -> None:
    """Whatever a model writes, reading it ends in a value or in a Misfit with a line to tell."""
    try:
        value = Shape.of(Person).read(text)
    except Misfit as misfit:
        value = misfit.errors
    assert value
    Shape.of(list[Person]).so_far(text)


def test_a_fence_is_no_mistake() -> None:
    """Models without structured output like to put JSON into a code block."""
    assert Shape.of(Person).read(f"```json\n{json.dumps(ANN)}\n```") == ANN_VALUE


# Lists ----------------------------------------------------------------------------------------------------------------


def test_a_list_makes_a_frame(sim: Simulator) -> None:
    """One row an item, one column a field, in the type's order; an empty list has the columns, too."""
    sim.script(*said({"value": [ANN, {"name": "Bob", "age": 5}]}, {"value": []}))
    llm = llmnb.LLM(NEW)
    frame = llm.extract("Ann, Bob", list[Person]).to_frame()
    assert frame.columns.tolist() == list(Person.model_fields)
    assert frame["name"].tolist() == ["Ann", "Bob"]
    assert frame["colour"].tolist() == ["blue", "red"]
    empty = llm.extract("Nobody", list[Person]).to_frame()
    assert (len(empty), empty.columns.tolist()) == (0, list(Person.model_fields))


def test_a_frame_has_the_types_of_its_fields(sim: Simulator) -> None:
    """Numbers are numbers and dates are dates; what may be None stays so."""
    people = [{**ANN, "age": 30}, {"name": "Bob", "age": 5, "born": "2021-01-31"}]
    sim.script(*said({"value": people}))
    frame = llmnb.LLM(NEW).extract("Ann, Bob", list[Person]).to_frame()
    assert pd.api.types.is_integer_dtype(frame["age"])
    assert frame["born"].tolist() == [datetime.date(1996, 2, 29), datetime.date(2021, 1, 31)]
    assert frame["address"].tolist() == [{"street": "Main", "number": None}, None]


def test_a_list_of_plain_values_makes_a_frame(sim: Simulator) -> None:
    """They stand in the column "value"."""
    sim.script(*said({"value": ["a", "b"]}))
    frame = llmnb.LLM(NEW).extract("Letters", list[str]).to_frame()
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"value": ["a", "b"]}))


# Streams --------------------------------------------------------------------------------------------------------------


def test_a_value_grows(sim: Simulator) -> None:
    """Partial values only grow, the last is the whole one, validated, and `Done` ends it."""
    people = {"value": [{"name": f"Person {n}", "age": n} for n in range(40)]}
    sim.script(Answer(text=json.dumps(people), delta_tokens=1))
    *partials, last, done = llmnb.LLM(NEW).stream("Everybody", into=list[Person])
    assert isinstance(done, llmnb.Done)
    assert isinstance(last, llmnb.Partial)
    assert last == llmnb.Partial([Person(**one) for one in people["value"]], is_complete=True)
    lengths = [len(event.value) for event in partials if isinstance(event, llmnb.Partial)]
    assert lengths == sorted(lengths)
    assert len(lengths) > 20
    assert not any(isinstance(event, llmnb.Text) for event in partials)


async def test_a_stream_that_does_not_fit_says_so(sim: Simulator) -> None:
    """What was shown cannot be taken back, so nobody asks again: the error is raised, and the call is on the books."""
    sim.script(*said({"name": "Ann", "age": 200}))
    with pytest.raises(ExtractionFailed, match="age"):
        _ = [event async for event in llmnb.LLM(NEW).astream("Ann", into=Person)]
    assert llmnb.calls()["status"].tolist() == ["ok"]


def test_a_value_grows_in_a_tool_call(sim: Simulator) -> None:
    """Where the value is a tool's input it comes as it is written, too; what is said beside it is no part of it."""
    scores = {"scores": {f"person {n}": n for n in range(40)}}
    sim.script(Answer(text="Here they are.", tool_calls=[("Scores", scores)], delta_tokens=1))
    *partials, last, done = llmnb.LLM(NEW).stream("Scores", into=Scores)
    assert last == llmnb.Partial(Scores(**scores), is_complete=True)
    assert isinstance(done, llmnb.Done)
    lengths = [len(event.value.get("scores", ())) for event in partials if isinstance(event, llmnb.Partial)]
    assert lengths == sorted(lengths)
    assert len(lengths) > 10
    assert {type(event) for event in partials} <= {llmnb.Partial, ToolCall}


@pytest.mark.parametrize("model", [NEW, "openai:gpt-5.2", "openai:gpt-4-turbo", "ollama:llama3.2"])
def test_nested_values_grow_on_every_wire(sim: Simulator, model: str) -> None:
    """Lists in lists, unions and literals come as they are written, by structured output and in a tool's input."""
    if ":" in model:
        pytest.importorskip("openai")
    pets = {"pets": [{"kind": "dog", "tricks": [["sit", f"bark {n}"], ["roll"]]} for n in range(12)] + PETS["pets"]}
    by_tool = model == "openai:gpt-4-turbo"
    answer = {"tool_calls": [("Pets", pets)]} if by_tool else {"text": json.dumps(pets)}
    sim.script(Answer(**answer, delta_tokens=2))
    *partials, last, _ = llmnb.LLM(model).stream("Pets", into=Pets)
    values = [event.value for event in partials if isinstance(event, llmnb.Partial)]
    assert last == llmnb.Partial(Pets.model_validate(pets), is_complete=True)
    lengths = [len(value.get("pets") or ()) for value in values]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 5


def test_tools_come_before_the_value(sim: Simulator) -> None:
    """A value can be found out with tools, also where it is a tool's input itself; what is said before is no part."""

    def who() -> str:
        """Who it is."""
        return "Ann"

    llm = llmnb.LLM(NEW)
    sim.script(Answer(text="Let me see.", tool_calls=[("who", {})]), Answer(text=json.dumps(ANN), delta_tokens=1))
    events = list(llm.stream("Who is it?", into=Person, tools=[who]))
    partials = [event.value for event in events if isinstance(event, llmnb.Partial)]
    assert partials[-1] == ANN_VALUE
    assert len(partials) > 5
    scores = Answer(tool_calls=[("Scores", {"scores": {"Ann": 3}})])
    sim.script(Answer(tool_calls=[("who", {})]), scores)
    assert llm.extract("Scores?", Scores, tools=[who]).scores == {"Ann": 3}
    assert [tool["name"] for tool in sim.requests[-1].body["tools"]] == ["who", "Scores"]


def test_all_attempts_share_the_time(sim: Simulator) -> None:
    """What is left of time_limit= is what the next attempt has."""

    def who() -> str:
        """Who it is."""
        return "Ann"

    now = [100.0]
    question = llmnb.LLM(NEW)._question([], {"tools": [who], "time_limit": 30, "budget_usd": 1})
    extraction = Extraction(question, Shape.of(Person), 2, clock=lambda: now[0])
    sim.script("no JSON")
    reply = llmnb.LLM(NEW)("Who?")
    for passed, left in ((10.0, 20.0), (25.0, 0.0)):
        now[0] += passed
        assert not extraction.heard(reply)
        assert extraction.question.plan.tools is not None
        assert extraction.question.plan.tools.time_limit_s == left


# Display --------------------------------------------------------------------------------------------------------------


def test_json_is_shown_as_code(sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the answer is shown, it is a block of JSON."""
    sim.script(*said(ANN))
    llmnb.LLM(NEW, display="print").extract("Ann", Person)
    shown = capsys.readouterr().out
    assert shown.startswith("```json\n{")
    assert "}\n```" in shown
    sim.script(Answer(text="Let me see.", tool_calls=[("who", {})]), *said(ANN))

    def who() -> str:
        """Who it is."""
        return "Ann"

    llmnb.LLM(NEW, display="print").extract("Who?", Person, tools=[who])
    shown = capsys.readouterr().out
    assert shown.startswith("Let me see.")
    assert shown.count("```") == 2
