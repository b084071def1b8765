"""An instance that satisfies a JSON schema, chosen by seed: what a model bound to structured output would answer.

References, combinations, enums, bounds, formats and simple patterns are honoured; recursion ends as early as the schema
lets it. The SDK moves bounds that the API does not take into the description, as `{minimum: 1, maximum: 10}`: they are
read from there, as a model would.
"""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any, cast

from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text
from llmnb.simulator.schema_check import accepts, kind_of
from llmnb.simulator.schema_text import Words, number_between, string_for

MAX_DEPTH = 6
HINT = re.compile(r"(?:.*\n\n|\A)\{([A-Za-z$]\w*: .*)\}\s*\Z", re.DOTALL)
HINTED = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "format",
    ]
)
_COMBINERS = ("anyOf", "oneOf")


class UnsatisfiableError(ValueError):
    """No instance was found for a schema."""


def instance_of(schema: Json, *, seed: str, words: Words | None = None) -> Any:
    """An instance of the schema, the same for the same seed; `words` colour its strings and numbers.

    Raises:
        UnsatisfiableError: none was found, or the schema is no schema.
    """
    try:
        return _Builder(schema, random.Random(seed), words or Words()).build(schema, "", 0)
    except RecursionError:
        raise UnsatisfiableError("the schema requires itself without end") from None
    except re.error as error:
        raise UnsatisfiableError(f"the pattern {error.pattern!r} is no regular expression: {error}") from None


class _Builder:
    def __init__(self, root: Json, dice: random.Random, words: Words) -> None:
        self._root = root
        self._dice = dice
        self._words = words

    def build(self, schema: Any, name: str, depth: int) -> Any:
        """An instance of one (sub)schema; `name` is the property it is for."""
        if schema is False:
            raise UnsatisfiableError("the schema false has no instance")
        found = self.resolved(as_object(schema))
        if "const" in found:
            return found["const"]
        if "enum" in found:
            return self._one_of_the_enum(found)
        for combiner in _COMBINERS:
            if found.get(combiner):
                return self._variant(found, combiner, name, depth)
        return self._typed(found, name, depth)

    def resolved(self, schema: Json) -> Json:
        """The schema with its references followed, its `allOf` merged and the hints of its description read."""
        hops = 0
        while "$ref" in schema and hops < 32:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = merged(self._target(as_text(schema["$ref"])), rest)
            hops += 1
        for part in as_list(schema.get("allOf")):
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            schema = merged(rest, self.resolved(as_object(part)))
        return described_bounds(schema) | schema

    def _target(self, reference: str) -> Json:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/"):
            if step:
                key = step.replace("~1", "/").replace("~0", "~")
                found = as_list(found)[int(key)] if isinstance(found, list) else as_object(found).get(key, {})
        return as_object(found)

    def _one_of_the_enum(self, schema: Json) -> Any:
        kinds = _kinds(schema)
        allowed = [value for value in as_list(schema["enum"]) if not kinds or kind_of(value) & set(kinds)]
        if not allowed:
            raise UnsatisfiableError("no value of the enum has the type")
        named = [value for value in allowed if isinstance(value, str) and self._words.mention(value)]
        return self._dice.choice(named or allowed)

    def _variant(self, schema: Json, combiner: str, name: str, depth: int) -> Any:
        """One of the alternatives; deep down, the one that ends the recursion soonest."""
        rest = {key: value for key, value in schema.items() if key != combiner}
        variants = as_list(schema[combiner])
        order = (
            sorted(variants, key=lambda part: self._weight(part)) if depth >= MAX_DEPTH else self._shuffled(variants)
        )
        for part in order:
            for _ in range(1 if combiner == "anyOf" else 5):
                value = self._alternative(merged(rest, self.resolved(as_object(part))), part, name, depth)
                if value is not _LEFT_OUT and (combiner == "anyOf" or self._only_one_accepts(variants, value)):
                    return value
        raise UnsatisfiableError(f"no alternative of {combiner} has an instance")

    def _alternative(self, schema: Json, part: Any, name: str, depth: int) -> Any:
        """An instance of one alternative, or `_LEFT_OUT` when it has none."""
        try:
            return _LEFT_OUT if part is False else self.build(schema, name, depth + 1)
        except (UnsatisfiableError, RecursionError):
            return _LEFT_OUT

    def _only_one_accepts(self, variants: list[Any], value: Any) -> bool:
        return sum(accepts(part, value, self.resolved) for part in variants) == 1

    def _shuffled(self, variants: list[Any]) -> list[Any]:
        """Null last: an answer that says something is nicer to look at."""
        order = self._dice.sample(variants, len(variants))
        return sorted(order, key=lambda part: as_object(part).get("type") == "null")

    def _weight(self, part: Any) -> int:
        kind = as_object(part).get("type")
        if kind in ("object", "array") or "$ref" in as_object(part):
            return 2
        return 0 if kind == "null" else 1

    def _typed(self, schema: Json, name: str, depth: int) -> Any:
        kinds = _kinds(schema) or _implied(schema)
        kind = min(kinds, key=lambda k: (k == "null") != (depth >= MAX_DEPTH)) if len(kinds) > 1 else kinds[0]
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number":
                return number_between(schema, name, self._dice, self._words, whole=kind == "integer")
            case "boolean":
                return self._dice.random() < 0.7
            case "null":
                return None
            case _:
                return string_for(schema, name, self._dice, self._words)

    def _object(self, schema: Json, depth: int) -> Json:
        properties = as_object(schema.get("properties"))
        required = [as_text(name) for name in as_list(schema.get("required"))]
        room = schema.get("maxProperties", math.inf) - len(required)
        built: Json = {}
        for name in dict.fromkeys([*properties, *required]):
            if name in required:
                part = properties.get(name, schema.get("additionalProperties", True))
                built[name] = self.build(part, name, depth + 1)
            elif depth < MAX_DEPTH // 2 and properties.get(name) is not False and room > 0:
                room -= 1
                self._try_optional(built, name, properties[name], depth)
        self._fill(built, schema, depth)
        return built

    def _try_optional(self, built: Json, name: str, part: Any, depth: int) -> None:
        try:
            built[name] = self.build(part, name, depth + 1)
        except (UnsatisfiableError, RecursionError):
            built.pop(name, None)

    def _fill(self, built: Json, schema: Json, depth: int) -> None:
        """Further properties up to `minProperties`."""
        extra = schema.get("additionalProperties", True)
        while len(built) < int(schema.get("minProperties", 0)):
            if extra is False:
                raise UnsatisfiableError("minProperties asks for more than the schema allows")
            name = f"{self._words.noun(self._dice)}_{len(built) + 1}"
            built[name] = self.build({"type": "string"} if extra is True else extra, name, depth + 1)

    def _array(self, schema: Json, name: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", max(least, 3)))
        wanted = least if depth >= MAX_DEPTH else max(least, min(most, self._dice.randint(2, 3)))
        prefix = as_list(schema.get("prefixItems"))
        items = schema.get("items", True)
        singular = name[:-1] if name.endswith("s") else name
        built: list[Any] = []
        for _ in range(wanted * 20):
            if len(built) >= wanted:
                break
            part = prefix[len(built)] if len(built) < len(prefix) else items
            if part is False:
                break
            value = self._item(part, singular, depth, len(built) >= least)
            if value is _LEFT_OUT:
                break
            if not schema.get("uniqueItems") or value not in built:
                built.append(value)
        if len(built) < least:
            raise UnsatisfiableError("not enough different items")
        return built

    def _item(self, part: Any, name: str, depth: int, optional: bool) -> Any:
        try:
            return self.build(part, name, depth + 1)
        except (UnsatisfiableError, RecursionError):
            if optional:
                return _LEFT_OUT
            raise


_LEFT_OUT = object()


def merged(first: Json, second: Json) -> Json:
    """One schema that asks for what both ask for."""
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        if old is None:
            result[key] = value
        elif key == "properties":
            both = as_object(old)
            result[key] = both | {n: merged(as_object(both.get(n)), as_object(p)) for n, p in as_object(value).items()}
        elif key == "required":
            result[key] = list(dict.fromkeys([*as_list(old), *as_list(value)]))
        elif key == "enum":
            result[key] = [item for item in as_list(old) if item in as_list(value)]
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            result[key] = max(old, value)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            result[key] = min(old, value)
        elif key == "allOf":
            result[key] = [*as_list(old), *as_list(value)]
        else:
            result[key] = value
    return result


def described_bounds(schema: Json) -> Json:
    """Keywords that the SDK wrote into the description's last braces, as in `{minimum: 1, maximum: 10}`."""
    match = HINT.match(as_text(schema.get("description")))
    if match is None:
        return {}
    found: Json = {}
    for part in re.split(r", (?=[A-Za-z]+: )", match[1]):
        key, _, text = part.partition(": ")
        if key in HINTED:
            found[key] = text if key in ("pattern", "format") else _python_value(text)
    return found


def _python_value(text: str) -> Any:
    """A value as Python prints it: numbers and booleans are read, anything else is a string."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except ValueError:
        return text


def _kinds(schema: Json) -> list[str]:
    kind = schema.get("type")
    return [as_text(item) for item in as_list(kind)] if isinstance(kind, list) else [cast(str, kind)] if kind else []


def _implied(schema: Json) -> list[str]:
    """The type that a schema without one talks about."""
    if "properties" in schema or "required" in schema or "minProperties" in schema:
        return ["object"]
    if "items" in schema or "prefixItems" in schema or "minItems" in schema:
        return ["array"]
    if any(key in schema for key in ("minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum")):
        return ["number"]
    return ["string"]


def tool_schemas(body: Json) -> list[tuple[str, Json]]:
    """Name and input schema of each tool the client runs."""
    tools = as_objects(body.get("tools"))
    return [
        (as_text(tool.get("name")), as_object(tool.get("input_schema")))
        for tool in tools
        if isinstance(tool.get("input_schema"), dict)
    ]
