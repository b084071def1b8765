"""JSON schemas as OpenAI's `strict` takes them: every object closed, every field of it required, and few keywords.

(https://platform.openai.com/docs/guides/structured-outputs, "Supported schemas".)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

Json = dict[str, Any]

_REFUSED = (
    "allOf", "default", "dependentRequired", "dependentSchemas", "else", "if", "not", "oneOf", "patternProperties",
    "prefixItems", "then",
)  # fmt: skip
_BY_NAME = ("properties", "$defs")


def is_strict(schema: Json) -> bool:
    """Whether a schema is as `strict` demands."""
    if any(name in schema for name in _REFUSED) or ("$ref" in schema and len(schema) > 1):
        return False
    if schema.get("type") == "object" or "properties" in schema:
        required, fields = set(schema.get("required") or ()), set(_dict(schema.get("properties")))
        if required != fields or schema.get("additionalProperties") is not False:
            return False
    return all(map(is_strict, _inner(schema)))


def all_required(schema: Json) -> Json:
    """The schema with every field required, and null allowed for those that were not: what null stands for is absent.

    Values of an enum get the type that they have, which others take for granted.
    """
    made: Json = {
        name: {key: all_required(_dict(inner)) for key, inner in _dict(part).items()} if name in _BY_NAME else part
        for name, part in schema.items()
    }
    if isinstance(made.get("items"), dict):
        made["items"] = all_required(_dict(made["items"]))
    if isinstance(made.get("anyOf"), list):
        made["anyOf"] = [all_required(_dict(part)) for part in made["anyOf"]]
    if "enum" in made and "type" not in made and (kinds := _kinds(made["enum"])):
        made["type"] = kinds[0] if len(kinds) == 1 else kinds
    if isinstance(made.get("properties"), dict) and made.get("additionalProperties") is False:
        required = made.get("required") or ()
        made["properties"] = {
            name: part if name in required else _or_null(part) for name, part in made["properties"].items()
        }
        made["required"] = list(made["properties"])
    return made


def _or_null(schema: Json) -> Json:
    if any(_dict(part).get("type") == "null" for part in schema.get("anyOf") or ()):
        return schema
    about = {"description": schema["description"]} if "description" in schema else {}
    inner = {name: part for name, part in schema.items() if name != "description"}
    return {"anyOf": [inner, {"type": "null"}], **about}


def _inner(schema: Json) -> Iterator[Json]:
    for name in _BY_NAME:
        yield from map(_dict, _dict(schema.get(name)).values())
    parts: list[object] = [schema.get("items"), *(schema.get("anyOf") or ())]
    yield from (cast(Json, part) for part in parts if isinstance(part, dict))


_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _kinds(values: list[Any]) -> list[str]:
    kinds = [_KINDS.get(cast("type[Any]", type(value))) for value in values]
    return [] if None in kinds else list(dict.fromkeys(cast("list[str]", kinds)))


def _dict(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}
