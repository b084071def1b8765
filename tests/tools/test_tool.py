"""A function as a tool: what the model is told of it, and which arguments reach it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import anthropic
import pandas as pd
import pytest
from pydantic import BaseModel, Field

from llmnb.asking.shape import Misfit
from llmnb.errors import InvalidRequest
from llmnb.tools.results import MAX_CHARS, NOTHING, content_of_result, text_of_result
from llmnb.tools.tool import Tool, fingerprint, tool_of

from .. import processes


def google(city: str, days: int = 1) -> str:
    """The weather.

    With wind.

    Args:
        city: where to look
        days: how far ahead

    Returns:
        a sentence
    """
    return f"{city} {days}"


def numpy(city: str, days: int = 1) -> str:
    """The weather.

    With wind.

    Parameters
    ----------
    city : str
        where to look
    days : int
        how far ahead

    Returns
    -------
    str
        a sentence
    """
    return f"{city} {days}"


def sphinx(city: str, days: int = 1) -> str:
    """The weather.

    With wind.

    :param city: where to look
    :param days: how far ahead
    :returns: a sentence
    """
    return f"{city} {days}"


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_reads_docstrings_of_every_style(function: Callable[..., str]) -> None:
    """Google, NumPy and Sphinx docstrings tell the model the same, hints give the types, and no title costs tokens."""
    told = tool_of(function).definition
    assert told["description"] == "The weather.\n\nWith wind.\n\nReturns: a sentence"
    assert told["input_schema"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where to look"},
            "days": {"type": "integer", "default": 1, "description": "how far ahead"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


class Place(BaseModel):
    """A model with a field called title."""

    title: str


def rich(
    place: Place,
    colour: Colour,
    day: datetime.date | None = None,
    *,
    schema: Literal["a", "b"] = "a",
    many: Annotated[list[int], Field(max_length=2), "at most two"] = [],  # noqa: B006
) -> tuple[Any, ...]:
    """Takes what Pydantic knows."""
    return place, colour, day, schema, many


def run(tool: Tool, given: object) -> Any:
    return tool.call(tool.checked(given))


def test_arguments_come_as_the_function_wants_them() -> None:
    """JSON becomes models, enums, dates; close misses are put right; names that Pydantic uses itself are no trouble."""
    tool = tool_of(rich)
    assert tool.definition["input_schema"]["properties"]["many"]["description"] == "at most two"
    assert "title" in tool.definition["input_schema"]["$defs"]["Place"]["properties"]
    given = {"place": {"title": "Oslo"}, "colour": "red", "day": "2026-11-26", "schema": "b", "many": ["1", 2]}
    assert run(tool, given) == (Place(title="Oslo"), Colour.RED, datetime.date(2026, 11, 26), "b", [1, 2])
    assert run(tool_of(google), {"city": "Oslo"}) == "Oslo 1"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "city: Field required"),
        ({"city": "Oslo", "days": "soon"}, "days: Input should be a valid integer"),
        ({"city": "Oslo", "dys": 3}, "dys: Extra inputs are not permitted"),
        ("Oslo", "the value: "),
    ],
)
def test_wrong_arguments_are_told_by_name(given: object, told: str) -> None:
    """What does not fit is refused before the function runs, in words that name the argument."""
    with pytest.raises(Misfit, match=told):
        tool_of(google).checked(given)


class Shop:
    """Something with a method."""

    def __init__(self) -> None:
        self.sold: list[str] = []

    def sell(self, what: str, /, amount: int = 1, **more: Any) -> str:
        """Sells."""
        self.sold.append(f"{amount} {what} {sorted(more.items())}")
        return "sold"

    def __call__(self, what: str) -> str:
        """Sells one."""
        return self.sell(what)


def test_methods_partials_and_callable_objects_are_functions_too() -> None:
    """`self` is no argument, positional-only ones and **more arrive, and a partial needs what is left."""
    shop = Shop()
    assert run(tool_of(shop.sell), {"what": "tea", "amount": 2, "wrapped": True}) == "sold"
    assert shop.sold == ["2 tea [('wrapped', True)]"]
    assert tool_of(shop).name == "Shop"
    half = tool_of(functools.partial(google, days=3))
    assert half.name == "google"
    assert run(half, {"city": "Rome"}) == "Rome 3"


def takes_many(*cities: str) -> str:
    """No model can name these."""
    return ""


def takes_frame(frame: pd.DataFrame) -> str:
    """JSON has no data frames."""
    return ""


def unknown_hint(city: Nowhere) -> str:  # type: ignore[name-defined] # noqa: F821
    """The hint means nothing."""
    return ""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (takes_many, "take a list"),
        (takes_frame, "no JSON schema"),
        (unknown_hint, "cannot be read"),
        (lambda city: city, "give it one with def"),
        (5, "a tool is a function"),
        (Shop, "a tool is a function"),
    ],
    ids=["args", "frame", "hint", "lambda", "number", "class"],
)
def test_what_cannot_be_a_tool_is_refused(given: Any, told: str) -> None:
    """It is said why, and what to give, before anything is sent."""
    with pytest.raises(InvalidRequest, match=told):
        tool_of(given)


def test_tools_of_the_sdk_bring_their_own_definition() -> None:
    """@beta_tool and its async twin are sent as the SDK would, and called through it."""
    made = anthropic.beta_tool(name="look", description="Looks.")(google)
    tool = tool_of(made)
    assert (tool.name, tool.definition, tool.is_async) == ("look", made.to_dict(), False)
    assert run(tool, {"city": "Oslo"}) == "Oslo 1"

    @anthropic.beta_async_tool
    async def later(city: str) -> str:
        """Waits."""
        return city

    assert tool_of(later).is_async


def test_the_code_of_a_function_has_a_name_that_lasts() -> None:
    """The fingerprint is the same in another process, whatever hashes are there, and another one after an edit."""
    source = "def f(x):\n    return x in {'a', 'b', 'c'} and [y for y in 'q']\n"
    spaces: list[dict[str, Any]] = [{}, {}]
    for space, text in zip(spaces, (source, source.replace("'c'", "'d'")), strict=True):
        exec(text, space)
    told = f"from llmnb.tools.tool import fingerprint\nexec({source!r})\nprint(fingerprint(f))"
    elsewhere = processes.run(["-c", told], check=True).stdout.strip()
    assert fingerprint(spaces[0]["f"]) == elsewhere
    assert fingerprint(spaces[1]["f"]) != elsewhere


# What a tool gives ----------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: float


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("as it is", "as it is"),
        (None, NOTHING),
        ("", NOTHING),
        ({"a": [1, 2.5, None]}, '{"a":[1,2.5,null]}'),
        (Point(1.5), '{"x":1.5}'),
        ([Point(1)], '[{"x":1}]'),
        (Place(title="x"), '{"title":"x"}'),
        (Colour.RED, '"red"'),
        (float("nan"), "NaN"),
        (pd.Series([1, 2]).to_numpy(), "[1,2]"),
        (pd.DataFrame({"a": [1]}), ",a\n0,1\n"),
        ({"type": "text", "text": "a block"}, [{"type": "text", "text": "a block"}]),
    ],
    ids=str,
)
def test_results_as_the_api_takes_them(value: Any, content: Any) -> None:
    """Texts stay, frames become CSV, all else JSON; a content block is sent as one."""
    assert content_of_result(value) == content


def test_pictures_are_sent_as_pictures(tmp_path: Path) -> None:
    """Bytes and files of an image become image blocks, whose text for people says what they are."""
    (tmp_path / "plot.png").write_bytes(PNG)
    for value in (PNG, tmp_path / "plot.png", [PNG]):
        content = content_of_result(value)
        assert [block["type"] for block in content if isinstance(block, dict)] == ["image"]
        assert text_of_result(content) == "[image]"


def test_what_would_cost_much_at_every_turn_is_cut() -> None:
    """A long text is cut, and the model is told how long it was."""
    content = content_of_result("x" * (MAX_CHARS + 5))
    assert isinstance(content, str)
    assert content.endswith(f"[cut here: these are the first {MAX_CHARS:,} of {MAX_CHARS + 5:,} characters]")
