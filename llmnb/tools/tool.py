"""`Tool`: what the model is told of a function, how its arguments are checked, and how it is called.

Plain functions are read from their type hints and their docstring, whose parser (docstring_parser: Google, NumPy,
Sphinx and Epydoc style) is the one that the SDK's own tools use. Tools of the SDK (`@beta_tool`, its MCP helpers) bring
their definition along.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast, get_args, get_origin

from llmnb.asking.shape import Shape, portable
from llmnb.errors import InvalidRequest

Json = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HINT = (
    "a tool is a function with type hints and a docstring, a tool of the SDK (@beta_tool, mcp_tool), or the dict of a "
    "tool that runs on the API's side"
)


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `definition` is what the API is sent; `call` takes the arguments as the model gave them.

    `shape` checks these first, where it is known; `values` makes of what it gives what `call` takes. `is_async` tells
    that `call` gives an awaitable. `in_worker` that it must run in a thread that the event loop knows (the SDK's sync
    MCP tools call back into it). `code` changes when the function's own code does.
    """

    name: str
    definition: Json
    call: Callable[[Any], Any]
    shape: Shape | None = None
    is_async: bool = False
    in_worker: bool = False
    is_mcp: bool = False
    code: str = ""

    def checked(self, given: object) -> Any:
        """The arguments, as `call` takes them.

        Raises:
            Misfit: they do not fit the function.
        """
        return given if self.shape is None else self.shape.take(given)


def tool_of(given: object) -> Tool:
    """The tool that a function or a tool of the SDK is.

    Raises:
        InvalidRequest: it is none, or the model could not be told how to call it.
    """
    if hasattr(given, "to_dict") and hasattr(given, "call"):
        return _of_the_sdk(given)
    if isinstance(given, type) or not callable(given) or not _named(given):
        raise InvalidRequest(f"{_HINT}, not {given!r}. Nothing was sent.")
    return _of_function(given)


def _named(function: object) -> str:
    if isinstance(function, functools.partial):
        return _named(cast("functools.partial[Any]", function).func)
    return getattr(function, "__name__", "") or type(function).__name__


# Functions ------------------------------------------------------------------------------------------------------------


def _of_function(function: Callable[..., Any]) -> Tool:
    name = _named(function)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"a tool's name is of letters, digits, - and _, at most 64, not {name!r}: give it one with def, or with "
            "@anthropic.beta_tool(name=…). Nothing was sent."
        )
    documented = _Documented.of(function)
    signature = _Signature(function, name, documented.parameters)
    definition = {"name": name, "description": documented.text, "input_schema": signature.shape.schema}
    return Tool(
        name,
        definition,
        signature.call,
        signature.shape,
        is_async=_is_async(function),
        code=fingerprint(function),
    )


def _is_async(function: object) -> bool:
    if isinstance(function, functools.partial):
        return _is_async(cast("functools.partial[Any]", function).func)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


@dataclass(frozen=True, slots=True)
class _Documented:
    """What a docstring says: of the function, and of each parameter."""

    text: str
    parameters: dict[str, str]

    @classmethod
    def of(cls, function: object) -> _Documented:
        import docstring_parser

        while isinstance(function, functools.partial):
            function = cast("functools.partial[Any]", function).func
        own = inspect.getdoc(function) if hasattr(function, "__name__") else inspect.getdoc(type(function))
        said = docstring_parser.parse(own or "")
        returns = said.returns.description if said.returns is not None else None
        parts = [said.short_description, said.long_description, f"Returns: {returns}" if returns else None]
        described = {one.arg_name: one.description for one in said.params if one.description}
        return cls("\n\n".join(part for part in parts if part), described)


class _Signature:
    """A function's parameters as a shape, and the way back from a value of that shape to a call."""

    def __init__(self, function: Callable[..., Any], name: str, described: Mapping[str, str]) -> None:
        self._function = function
        self._name = name
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = _hints(function)
        except (ValueError, TypeError, NameError) as error:
            raise self._refused(f"its parameters cannot be read ({error})") from None
        self._takes_more = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
            raise self._refused("a model names every argument, and *args have no names: take a list")
        self._parameters = [one for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        self.shape = self._shape(hints, described)

    def call(self, values: Any) -> Any:
        """Calls the function with checked values; what was not given is left to its own defaults."""
        given = values.model_fields_set
        places = [(one, f"p{at}") for at, one in enumerate(self._parameters)]
        by_place = [getattr(values, field) for one, field in places if one.kind is inspect.Parameter.POSITIONAL_ONLY]
        named = {
            one.name: getattr(values, field)
            for one, field in places
            if one.kind is not inspect.Parameter.POSITIONAL_ONLY and field in given
        }
        return self._function(*by_place, **named, **(values.model_extra or {}))

    def _shape(self, hints: Mapping[str, Any], described: Mapping[str, str]) -> Shape:
        import warnings

        from pydantic import ConfigDict, TypeAdapter, create_model
        from pydantic.errors import PydanticUserError
        from pydantic_core import SchemaError

        fields = {f"p{at}": self._field(one, hints, described) for at, one in enumerate(self._parameters)}
        config = ConfigDict(extra="allow" if self._takes_more else "forbid", use_attribute_docstrings=False)
        try:
            model = create_model(self._name, __config__=config, **cast("Any", fields))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a default that JSON cannot say is left out, which is right
                schema = untitled(model.model_json_schema(by_alias=True))
            adapter: TypeAdapter[Any] = TypeAdapter(model)
        except (PydanticUserError, SchemaError, NameError, TypeError) as error:
            why = str(error).splitlines()[0]
            raise self._refused(f"no JSON schema can be made of its parameters: {why}") from None
        schema.setdefault("properties", {})
        schema.pop("description", None)
        return Shape(self._name, adapter, schema, None, wrapped=False)

    def _field(self, one: inspect.Parameter, hints: Mapping[str, Any], described: Mapping[str, str]) -> tuple[Any, Any]:
        from pydantic import Field

        hint = hints.get(one.name, Any)
        about = described.get(one.name) or _note(hint)
        more = {"description": about} if about else {}
        default: Any = ... if one.default is inspect.Parameter.empty else one.default
        return hint, Field(default, alias=one.name, **cast("Any", more))

    def _refused(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name}() cannot be a tool: {why}. Nothing was sent.")


def _hints(function: Any) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    if not isinstance(function, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        function = type(function).__call__
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: portable(hint) for name, hint in hints.items()}


def _note(hint: Any) -> str | None:
    """What `Annotated[str, "the city's name"]` says."""
    if get_origin(hint) is not Annotated:
        return None
    return next((note for note in get_args(hint)[1:] if isinstance(note, str)), None)


def untitled(schema: Any) -> Any:
    """A JSON schema without the titles that Pydantic makes of names: they say nothing, and cost tokens."""
    if isinstance(schema, list):
        return [untitled(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("Json", schema)
    return {key: _part(key, part) for key, part in parts.items() if not (key == "title" and isinstance(part, str))}


def _part(key: str, part: Any) -> Any:
    if key in ("default", "const", "enum", "examples"):
        return part
    if key in ("properties", "$defs") and isinstance(part, dict):  # whose keys are names
        return {name: untitled(inner) for name, inner in cast("Json", part).items()}
    return untitled(part)


def fingerprint(function: object) -> str:
    """A hash of a function's own code: the same in every process, and another one once it was edited."""
    from hashlib import blake2b

    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    code = getattr(inspect.unwrap(cast("Any", function)), "__code__", None)
    if code is None and (own := getattr(type(function), "__call__", None)) is not None:  # noqa: B004
        code = getattr(own, "__code__", None)
    told = type(function).__qualname__ if code is None else _code(code)
    return blake2b(told.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _code(code: types.CodeType) -> str:
    return "|".join(
        [code.co_code.hex(), *map(repr, (code.co_names, code.co_varnames)), *map(_constant, code.co_consts)]
    )


def _constant(value: object) -> str:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, cast("frozenset[object]", value))))
    return repr(value)


# Tools of the SDK -----------------------------------------------------------------------------------------------------


def _of_the_sdk(given: Any) -> Tool:
    definition: Json = dict(given.to_dict())
    function = getattr(given, "func", None)
    is_mcp = getattr(given, "_stainless_helper", "") == "mcp_tool"
    call = given.call
    is_async = inspect.iscoroutinefunction(call)
    return Tool(
        str(given.name),
        definition,
        call,
        is_async=is_async,
        in_worker=is_mcp and not is_async,
        is_mcp=is_mcp,
        code="" if function is None or is_mcp else fingerprint(function),
    )


def as_list(value: object) -> list[Any]:
    """The tools of `tools=`: one, or several."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, (list, tuple)) else [value]
