"""Whether a value satisfies a schema: as much of JSON Schema as tells the alternatives of a `oneOf` apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from llmnb.simulator.json_value import Json, as_list, as_object, as_text

Resolve = Callable[[Json], Json]


def accepts(schema: Any, value: Any, resolve: Resolve) -> bool:
    """Whether the value satisfies the schema; `resolve` follows its references and merges its `allOf`."""
    if isinstance(schema, bool):
        return schema
    found = resolve(as_object(schema))
    if "const" in found and found["const"] != value:
        return False
    if "enum" in found and value not in as_list(found["enum"]):
        return False
    kinds = found.get("type")
    wanted = as_list(kinds) if isinstance(kinds, list) else [kinds] if kinds else []
    if wanted and not kind_of(value) & {as_text(kind) for kind in wanted}:
        return False
    return _combined(found, value, resolve) and _shaped(found, value, resolve)


def _combined(schema: Json, value: Any, resolve: Resolve) -> bool:
    any_of, one_of = as_list(schema.get("anyOf")), as_list(schema.get("oneOf"))
    if any_of and not any(accepts(part, value, resolve) for part in any_of):
        return False
    return not one_of or sum(accepts(part, value, resolve) for part in one_of) == 1


def _shaped(schema: Json, value: Any, resolve: Resolve) -> bool:
    if isinstance(value, dict):
        return _object_fits(schema, as_object(value), resolve)
    if isinstance(value, list):
        return _array_fits(schema, as_list(value), resolve)
    if isinstance(value, str):
        return _string_fits(schema, value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_fits(schema, value)
    return True


def _object_fits(schema: Json, value: Json, resolve: Resolve) -> bool:
    properties = as_object(schema.get("properties"))
    if any(name not in value for name in as_list(schema.get("required"))):
        return False
    extra = schema.get("additionalProperties", True)
    return all(accepts(properties.get(name, extra), item, resolve) for name, item in value.items())


def _array_fits(schema: Json, value: list[Any], resolve: Resolve) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    prefix, items = as_list(schema.get("prefixItems")), schema.get("items", True)
    parts = [*prefix, *[items] * (len(value) - len(prefix))]
    return all(accepts(part, item, resolve) for part, item in zip(parts, value, strict=False))


def _string_fits(schema: Json, value: str) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    pattern = as_text(schema.get("pattern"))
    return not pattern or re.search(pattern, value) is not None


def _number_fits(schema: Json, value: float) -> bool:
    step = schema.get("multipleOf")
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and (not step or float(value / step).is_integer())
    )


def kind_of(value: Any) -> set[str]:
    """The JSON schema types a value has."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    if isinstance(value, float):
        return {"number", "integer"} if value.is_integer() else {"number"}
    if value is None:
        return {"null"}
    return {"string"} if isinstance(value, str) else {"array"} if isinstance(value, list) else {"object"}
