"""Structured output: whatever the schema asks for, the instance satisfies it, as jsonschema judges."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
import jsonschema
import pytest
from anthropic import transform_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmnb.simulator.schema import UnsatisfiableError, described_bounds, instance_of
from llmnb.simulator.schema_text import Words

from .asking import ask, text_of


def check(schema: dict[str, Any], seed: str = "s", prompt: str = "") -> Any:
    """An instance that jsonschema accepts, formats included."""
    value = instance_of(schema, seed=seed, words=Words(prompt))
    validator = jsonschema.Draft202012Validator
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(value)
    return value


FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "uri", "uuid", "ipv4", "ipv6"]
PATTERNS = [
    r"^[A-Z]{2}\d{4}$",
    r"^(red|green|blue)$",
    r"^\+?\d{3}-\d{2,5}$",
    r"^[^@\s]+@[a-z]+\.com$",
    r"a+b*c?",
    r"^\w{3}$",
]


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str) -> None:
    """Strings of every supported format."""
    for seed in "abc":
        check({"type": "string", "format": kind}, seed)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern: str) -> None:
    """Strings of simple patterns."""
    for seed in "abcdef":
        value = check({"type": "string", "pattern": pattern}, seed)
        assert re.search(pattern, value)


def test_references_recursion_and_combinations() -> None:
    """$ref and $defs, a tree that must end, allOf, anyOf with null, const and enum."""
    schema: dict[str, Any] = {
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                },
                "required": ["name", "children", "next"],
                "additionalProperties": False,
            },
            "Level": {"enum": ["low", "high"]},
        },
        "allOf": [
            {"type": "object", "properties": {"root": {"$ref": "#/$defs/Node"}}, "required": ["root"]},
            {
                "properties": {"level": {"$ref": "#/$defs/Level"}, "kind": {"const": "tree"}},
                "required": ["level", "kind"],
            },
        ],
    }
    for seed in "abcdef":
        value = check(schema, seed)
        assert value["kind"] == "tree"


def test_exactly_one_alternative_of_a_one_of_holds() -> None:
    """oneOf is satisfied by one alternative only, also where they overlap."""
    small, large = {"type": "integer", "minimum": 0, "maximum": 60}, {"type": "integer", "minimum": 50, "maximum": 99}
    cats = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": small}, "required": ["kind", "lives"]}
    dogs = {
        "type": "object",
        "properties": {"kind": {"const": "dog"}, "name": {"type": "string"}},
        "required": ["kind"],
    }
    for at in range(40):
        check({"oneOf": [small, large]}, str(at))
        check({"oneOf": [cats, dogs]}, str(at))
    with pytest.raises(UnsatisfiableError):
        instance_of({"oneOf": [{"const": 1}, {"const": 1}]}, seed="s")


def test_an_endless_recursion_is_unsatisfiable_and_not_a_crash() -> None:
    """A schema that requires itself for ever has no instance."""
    schema: dict[str, Any] = {
        "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}
    }
    with pytest.raises(UnsatisfiableError):
        instance_of(schema | {"$ref": "#/$defs/A"}, seed="s")
    with pytest.raises(UnsatisfiableError):
        instance_of({"type": "array", "items": {"enum": [1]}, "minItems": 2, "uniqueItems": True}, seed="s")


def test_bounds_that_the_sdk_moved_into_the_description_are_read() -> None:
    """`{minimum: 1, maximum: 3}` at the end of a description counts as keywords do."""
    schema = {"type": "integer", "description": "Stars\n\n{minimum: 1, maximum: 3}"}
    assert described_bounds(schema) == {"minimum": 1, "maximum": 3}
    assert {instance_of(schema, seed=str(at)) for at in range(40)} == {1, 2, 3}
    assert described_bounds({"description": "A set {a, b}"}) == {}


def test_a_described_pattern_may_have_braces() -> None:
    """What the SDK writes for a pattern with a repeat, or beside a default that is an object, is read whole."""
    for pattern in (r"^\d{5}$", r"^[A-Z]{2}, ?\d{1,3}$", "5"):
        schema = transform_schema({"type": "string", "pattern": pattern, "description": "A code {old}", "default": {}})
        assert described_bounds(schema)["pattern"] == pattern
        assert re.search(pattern, instance_of(schema, seed="s"))


def test_optional_properties_stop_at_the_most() -> None:
    """`maxProperties` leaves optional properties out, never required ones."""
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in "abc"},
        "required": ["c"],
        "maxProperties": 2,
    }
    assert set(check(schema, "s")) == {"a", "c"}


def test_the_prompt_colours_the_values() -> None:
    """Names, numbers, quotes and enum members of the prompt are used where they fit."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "mood": {"enum": ["sad", "happy"]},
        },
        "required": ["name", "age", "mood"],
    }
    assert check(schema, prompt="Ann is 30 and happy") == {"name": "Ann", "age": 30, "mood": "happy"}


def numbers() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of numbers with bounds that leave room."""
    low = st.integers(-1000, 1000)
    bounded = st.builds(
        lambda a, w, kind: {"type": kind, "minimum": a, "maximum": a + w},
        low,
        st.integers(0, 50),
        st.sampled_from(["integer", "number"]),
    )
    exclusive = st.builds(
        lambda a, w: {"type": "integer", "exclusiveMinimum": a, "exclusiveMaximum": a + w + 2}, low, st.integers(0, 50)
    )
    stepped = st.builds(
        lambda a, step: {"type": "integer", "minimum": a, "maximum": a + 2 * step, "multipleOf": step},
        low,
        st.integers(1, 30),
    )
    open_ended = st.builds(
        lambda key, a: {"type": "number", key: a},
        st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
        low,
    )
    return st.one_of(bounded, exclusive, stepped, open_ended)


def strings() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of strings: lengths, formats, enums, patterns."""
    lengths = st.builds(
        lambda a, w: {"type": "string", "minLength": a, "maxLength": a + w}, st.integers(0, 60), st.integers(0, 20)
    )
    return st.one_of(
        lengths,
        st.builds(lambda a: {"type": "string", "minLength": a}, st.integers(0, 90)),
        st.sampled_from([{"type": "string", "format": kind} for kind in FORMATS]),
        st.sampled_from([{"type": "string", "pattern": pattern} for pattern in PATTERNS]),
        st.lists(st.text(max_size=5), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    )


def nested(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects, arrays and alternatives of schemas."""
    names = st.sampled_from(["name", "city", "email", "items", "score", "user_id", "summary", "x"])
    objects = st.dictionaries(names, children, max_size=4).map(
        lambda props: {"type": "object", "properties": props, "required": sorted(props), "additionalProperties": False}
    )
    optional = st.dictionaries(names, children, max_size=3).map(lambda props: {"type": "object", "properties": props})
    arrays = st.builds(
        lambda item, a, w: {"type": "array", "items": item, "minItems": a, "maxItems": a + w},
        children,
        st.integers(0, 4),
        st.integers(0, 3),
    )
    tuples = st.lists(children, min_size=1, max_size=3).map(
        lambda parts: {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    )
    choices = st.builds(
        lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "allOf"]), st.lists(children, min_size=1, max_size=1)
    )
    either = st.lists(children, min_size=2, max_size=3).map(lambda parts: {"anyOf": [*parts, {"type": "null"}]})
    return st.one_of(objects, optional, arrays, tuples, choices, either)


SCALARS = st.one_of(
    numbers(),
    strings(),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"const": [1, {"a": None}]}, {"type": ["string", "null"]}, {}]
    ),
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.recursive(SCALARS, nested, max_leaves=8),
    st.integers(0, 99),
    st.sampled_from(["", 'Ann, 30, in Oslo: "why" 4.5?']),
)
def test_every_instance_satisfies_its_schema(schema: dict[str, Any], seed: int, prompt: str) -> None:
    """For schemas of every supported keyword, jsonschema accepts what comes out, and the same seed repeats it."""
    value = check(schema, str(seed), prompt)
    assert value == instance_of(schema, seed=str(seed), words=Words(prompt))
    json.dumps(value)


def test_structured_output_over_the_wire(client: anthropic.Anthropic) -> None:
    """output_config.format answers JSON that satisfies the schema."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "when": {"type": "string", "format": "date"},
            "scores": {"type": "array", "items": {"type": "number"}, "minItems": 1},
            "kind": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
        },
        "required": ["title", "when", "scores", "kind"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        **ask("Score it", output_config={"format": {"type": "json_schema", "schema": schema}})
    )
    jsonschema.validate(json.loads(text_of(message)), schema)


ENDLESS = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}


@pytest.mark.parametrize("schema", [ENDLESS, {"type": "string", "pattern": "("}, {"enum": []}])
def test_a_schema_without_an_instance_is_refused(client: anthropic.Anthropic, schema: dict[str, Any]) -> None:
    """No answer could satisfy it, so there is none: the request is the mistake, and not the simulator."""
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format\.schema: "):
        client.messages.create(**ask("Go", output_config={"format": {"type": "json_schema", "schema": schema}}))
