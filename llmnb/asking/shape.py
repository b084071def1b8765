"""`Shape`: the type an answer is wanted in, as the JSON schema that the API is sent, and the way back to a value."""

from __future__ import annotations

import copy
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_VALUE = "value"
"""What a value that is no object is wrapped under: the API's schemas, and those of tools, are of objects."""
_SHOWN_ERRORS = 12


class Misfit(Exception):  # noqa: N818 - it says what happened
    """A text that is no value of the shape; `errors` says where and why, a line each."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        self.errors = errors
        super().__init__("; ".join(errors))


@dataclass(frozen=True, slots=True)
class Shape:
    """A type, ready to be asked for.

    `name` is one that a tool may have, `schema` the type's own JSON schema, of an object (a list, a union or a plain
    value stands under "value" in it), and `strict` what the API's structured output takes of it: None where the type
    holds what that cannot express (recursion, dictionaries with free keys, values of any kind). `item_fields` are the
    names of the fields of a list's items, where these are objects of one type.
    """

    name: str
    adapter: Adapter
    schema: dict[str, Any]
    strict: dict[str, Any] | None
    wrapped: bool
    item_fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, into: Any) -> Shape:
        """The shape of a Pydantic model, dataclass, TypedDict, enum, list, union, or anything else Pydantic knows.

        A JSON schema as a dict is one, too; values of it are plain dicts, lists, texts and numbers.

        Raises:
            InvalidRequest: there is no JSON schema of it, or it is none.
        """
        if into is None:
            raise InvalidRequest(f"no type to extract. {_GIVE} Nothing was sent.")
        if isinstance(into, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
            raise InvalidRequest(f"{_called(into)} is a function, and no type to extract. {_GIVE} Nothing was sent.")
        if isinstance(into, Mapping):
            return _shape_of_schema(cast("Mapping[str, Any]", into))
        try:
            return _shape(into)
        except TypeError:  # what cannot be hashed cannot be remembered
            return _shape.__wrapped__(into)

    def read(self, text: str) -> Any:
        """The value that the JSON text says.

        Raises:
            Misfit: it is no JSON, or no value of this shape.
        """
        from pydantic_core import from_json

        try:
            said = from_json(_unfenced(text))
        except ValueError as error:
            raise Misfit((f"no JSON: {error}",)) from None
        return self.take(said)

    def take(self, said: Any) -> Any:
        """The value that parsed JSON says.

        Raises:
            Misfit: it is no value of this shape.
        """
        from pydantic import ValidationError
        from pydantic_core import to_json

        if self.wrapped:
            if not isinstance(said, dict) or _VALUE not in said:
                raise Misfit((f'no object with the field "{_VALUE}"',))
            said = cast("dict[str, Any]", said)[_VALUE]
        try:
            # as JSON: "2026-11-26" is a date there, and an enum is told by its value
            return self.adapter.validate_json(to_json(said))
        except ValidationError as error:
            nulls = [one["loc"] for one in error.errors(include_url=False) if one["input"] is None]
            if (less := _without(said, nulls)) is not None:
                with suppress(ValidationError):
                    return self.adapter.validate_json(to_json(less))
            raise Misfit(_told(error)) from None

    def plain(self, value: Any) -> Any:
        """A value of this shape as plain JSON values."""
        dump = getattr(self.adapter, "dump_python", None)
        value = list(cast("list[Any]", value)) if isinstance(value, list) else value
        return value if dump is None else dump(value, mode="json", by_alias=True)

    def again(self, plain: Any) -> Any:
        """The value that `plain` gave."""
        from pydantic_core import to_json

        return self.adapter.validate_json(to_json(plain))

    def so_far(self, text: str) -> Any:
        """What the beginning of a JSON text says, as plain JSON values; None while it says nothing."""
        from pydantic_core import from_json

        try:
            said: Any = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return None
        if self.wrapped:
            return cast("dict[str, Any]", said).get(_VALUE) if isinstance(said, dict) else None
        return said


@lru_cache(maxsize=256)
def _shape(into: Any) -> Shape:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError
    from pydantic_core import SchemaError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(portable(into))
        schema = adapter.json_schema()
    except (PydanticUserError, SchemaError, AttributeError, NameError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise InvalidRequest(
            f"no JSON schema can be made of {_called(into)}: {why} {_GIVE} Nothing was sent."
        ) from None
    return _made(_name(into), adapter, schema)


def portable(hint: Any) -> Any:
    """The type with each `typing.TypedDict` in it as the one that Pydantic reads on every Python.

    Before Python 3.12 it refuses those of `typing`, which know nothing of the fields they inherit.
    """
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return _twin_of(hint)
    arguments: tuple[Any, ...] = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) in (typing.Literal, typing.Annotated):
        return hint
    changed = tuple(map(portable, arguments))
    if all(one is other for one, other in zip(arguments, changed, strict=True)):
        return hint
    if isinstance(hint, types.UnionType):
        return typing.Union[changed]  # noqa: UP007 - of as many as there are
    return hint.copy_with(changed) if hasattr(hint, "copy_with") else typing.get_origin(hint)[changed]


def _twin_of(typed: Any) -> Any:
    from typing import NotRequired, Required

    from typing_extensions import TypedDict

    hints = typing.get_type_hints(typed, include_extras=True)
    asked: dict[bool, Any] = {True: Required, False: NotRequired}
    fields: dict[str, Any] = {}
    for name, told in hints.items():
        kind = portable(told.__args__[0] if typing.get_origin(told) in (Required, NotRequired) else told)
        fields[name] = asked[name in typed.__required_keys__][kind]
    made: Any = TypedDict(typed.__name__, fields)  # pyright: ignore[reportArgumentType]
    made.__doc__, made.__module__, made.__qualname__ = typed.__doc__, typed.__module__, typed.__qualname__
    return made


_GIVE = "Give a Pydantic model, a dataclass, a TypedDict, an enum, a list or union of these, or a JSON schema."


class Adapter(Protocol):
    """Makes values of JSON: Pydantic's, or the one of a JSON schema."""

    def validate_json(self, data: bytes, /) -> Any:
        """The value that the JSON says; raises Pydantic's ValidationError, or Misfit."""
        ...


def _made(name: str, adapter: Adapter, schema: dict[str, Any]) -> Shape:
    defs: dict[str, Any] = schema.get("$defs", {})
    fields = _item_fields(schema, defs)
    wrapped = schema.get("type") != "object"
    if wrapped:
        schema = _under_value(schema)
    return Shape(name, adapter, schema, _strict(schema), wrapped, fields)


def _shape_of_schema(schema: Mapping[str, Any]) -> Shape:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    said = dict(schema)
    try:
        Draft202012Validator.check_schema(said)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the schema"
        raise InvalidRequest(f"this is no JSON schema: {where}: {error.message}. {_GIVE} Nothing was sent.") from None
    if not _has_kind(said):
        raise InvalidRequest(f'this JSON schema says no "type". {_GIVE} Nothing was sent.')
    title = said.get("title")
    return _made(_tool_name(title) if isinstance(title, str) else "answer", _SchemaAdapter(said), said)


def _without(said: Any, nulls: Iterable[Sequence[int | str]]) -> Any:
    """The value without its nulls at these places: for "absent" models say null, and OpenAI's have to.

    None where there is no null to leave out.
    """
    less, found = copy.deepcopy(said), False
    for *path, last in nulls:
        place: Any = less
        for step in path:
            with suppress(LookupError, TypeError):  # what is not there names a branch of a union, and no place
                place = place[step]
        if isinstance(place, dict) and last in place and place[last] is None:
            del place[last]
            found = True
    return less if found else None


class _SchemaAdapter:
    """Plain JSON values, checked against a JSON schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def validate_json(self, data: bytes, /) -> Any:
        from jsonschema import Draft202012Validator
        from pydantic_core import from_json

        value = from_json(data)
        # typeshed has no word for what an error holds
        wrong: list[Any] = list(Draft202012Validator(self._schema).iter_errors(value))  # pyright: ignore[reportUnknownMemberType]
        less = _without(value, [one.absolute_path for one in wrong if one.instance is None and one.absolute_path])
        if less is not None and Draft202012Validator(self._schema).is_valid(less):  # pyright: ignore[reportUnknownMemberType]
            return less
        if wrong:
            lines = [f"{'.'.join(map(str, one.absolute_path)) or 'the value'}: {one.message}" for one in wrong]
            raise Misfit(_shortened(lines))
        return value


def _under_value(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {key: part for key, part in schema.items() if key != "$defs"}
    outer: dict[str, Any] = {"type": "object", "properties": {_VALUE: inner}, "required": [_VALUE]}
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer


def _item_fields(schema: dict[str, Any], defs: dict[str, Any]) -> tuple[str, ...]:
    items: dict[str, Any] = schema.get("items", {})
    if "$ref" in items:
        items = defs[items["$ref"].rsplit("/", 1)[-1]]
    return tuple(items.get("properties", {}))


def _called(into: Any) -> str:
    return getattr(into, "__name__", None) or repr(into)


def _name(into: Any) -> str:
    return _tool_name(_called(into))


def _tool_name(text: str) -> str:
    """A name that a tool may have: of letters, digits, - and _."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", text).strip("_")[:64] or "answer"


def _strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    if _is_recursive(schema) or not _is_closed(schema):
        return None
    from anthropic import transform_schema

    try:
        return transform_schema(schema)
    except (ValueError, AssertionError):  # the SDK's word for what it cannot transform
        return None


def _is_closed(schema: Any) -> bool:
    """Whether every object in it lists its fields and every value has a type: structured output takes nothing else."""
    if isinstance(schema, list):
        return all(map(_is_closed, cast("list[Any]", schema)))
    if not isinstance(schema, dict):
        return True
    parts = cast("dict[str, Any]", schema)
    if parts.get("type") == "object" and ("properties" not in parts or parts.get("additionalProperties")):
        return False
    if "prefixItems" in parts or "patternProperties" in parts:
        return False
    named = [*parts.get("properties", {}).values(), *parts.get("$defs", {}).values()]
    if any(not _has_kind(part) for part in (*named, *([parts["items"]] if "items" in parts else []))):
        return False
    nested = [parts[key] for key in ("items", "anyOf", "oneOf", "allOf") if key in parts]
    return all(map(_is_closed, (*named, *nested)))


def _has_kind(part: Any) -> bool:
    return isinstance(part, dict) and bool({"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"} & part.keys())


def _is_recursive(schema: dict[str, Any]) -> bool:
    defs: dict[str, Any] = schema.get("$defs", {})

    def reaches(part: Any, above: tuple[str, ...]) -> bool:
        if isinstance(part, list):
            return any(reaches(item, above) for item in cast("list[Any]", part))
        if not isinstance(part, dict):
            return False
        inside = cast("dict[str, Any]", part)
        if isinstance(inside.get("$ref"), str):
            name = inside["$ref"].rsplit("/", 1)[-1]
            return name in above or reaches(defs.get(name), (*above, name))
        return any(reaches(item, above) for key, item in inside.items() if key != "$defs")

    return reaches(schema, ())


def _unfenced(text: str) -> str:
    """The JSON of an answer that put it into a Markdown fence, as models without structured output like to."""
    found = re.fullmatch(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", text, re.DOTALL)
    return found[1] if found else text


def _told(error: ValidationError) -> tuple[str, ...]:
    lines = [
        f"{'.'.join(map(str, one['loc'])) or 'the value'}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return _shortened(lines)


def _shortened(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - _SHOWN_ERRORS
    return (*lines[:_SHOWN_ERRORS], f"and {more} more") if more > 0 else tuple(lines)
