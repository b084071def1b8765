"""Templates of prompts: `{{ name }}` is replaced by a value, everything else is left exactly as it is.

A name may go on with attributes and literal indexes: `{{ row["title"] }}`, `{{ paper.year }}`, `{{ rows[0] }}`. They
are looked up by Jinja2's sandbox, which reads data, and neither what is private nor what leads to code. There are no
calls, operators or filters: what stands between double braces in any other form is text and stays. So do single braces,
`{% %}`, `{# #}`, `%`, `$`, quotes and line ends: prompts are full of JSON, LaTeX and code, of which Jinja2's own reader
would take a part for itself. Therefore fields are found here, and only what they lead to is looked up there.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import keyword
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, cast

from llmnb.errors import InvalidRequest
from llmnb.plain_numbers import whole

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

    from llmnb.asking.params import Effort
    from llmnb.durations import Duration
    from llmnb.prompt_cache import Mode
    from llmnb.records import CacheUse

_STRING = r"'[^'\\\n{}]*'|\"[^\"\\\n{}]*\""
_FIELD = re.compile(rf"\{{\{{[ \t]*(?P<name>[^\W\d]\w*)(?P<path>(?:\.[^\W\d]\w*|\[(?:-?\d+|{_STRING})\])*)[ \t]*\}}\}}")
_STEP = re.compile(rf"\.(?P<attribute>\w+)|\[(?P<index>-?\d+|{_STRING})\]")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_HASH_CHARS = 10


class TemplateOptions(TypedDict, total=False):
    """What a template can say of how it is asked: settings of `LLM`, but none that lead elsewhere or hold secrets."""

    model: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    thinking: bool | Mapping[str, Any] | None
    effort: Effort | None
    stop_sequences: str | list[str] | None
    prompt_cache: Mode | None
    service_tier: str | None
    project: str | None
    tag: str | None
    cache: CacheUse | None
    sample: int | None
    ttl: Duration | None


OPTIONS = tuple(TemplateOptions.__annotations__)
_FRONT_KEYS = ("name", "version", "schema", *OPTIONS)


class Template:
    """A prompt with fields, and how it is asked: `llm(summarise.render(text=paper))`.

    The text may begin with YAML front matter between two lines of `---`:

        ---
        model: claude-haiku-5-5
        system: You write for {{ reader }}.
        version: 2
        schema: {type: object, properties: {summary: {type: string}}, required: [summary]}
        ---
        Summarise: {{ text }}

    Settings of a call win over those of the template, and these over those of the `LLM`. The ledger's column `template`
    gets `label`, so that `llmnb.usage(by=["template"])` tells what each version cost.

    Args:
        text: the prompt; `{{ name }}` is replaced, in the system prompt, too, and nothing else.
        name: what the ledger calls it; default: the front matter's, or the file's name without its ending.
        version: of the prompt; default: the front matter's, or a hash of all it says.
        schema: what `llm.extract(template.render(…))` gives: a type as for `extract`, or a JSON schema as a dict. In
            front matter: a JSON schema, or the name of a type for `%%llm`.
        **options: model, system, max_tokens, thinking and other settings of `LLM`; they win over the front matter's.

    Raises:
        InvalidRequest: the front matter is no YAML, or says something that does not exist.
    """

    def __init__(
        self,
        text: str,
        *,
        name: str | None = None,
        version: str | int | None = None,
        schema: Any = None,
        **options: Unpack[TemplateOptions],
    ) -> None:
        front, self.text = _front_matter(text)
        given = {"name": name, "version": version, "schema": schema, **options}
        said: dict[str, Any] = {**front, **{key: value for key, value in given.items() if value is not None}}
        _check_keys(said)
        self.name = _label_part(said.pop("name", None), "name")
        self._version = _label_part(said.pop("version", None), "version")
        self.schema: Any = said.pop("schema", None)
        self.options: dict[str, Any] = said
        if not isinstance(said.get("system", ""), str):
            raise InvalidRequest(f"the system prompt of a template is a text, not {type(said['system']).__name__}")

    @classmethod
    def load(cls, path: str | PathLike[str], *, name: str | None = None, **options: Any) -> Template:
        """The template in a file (UTF-8); its last line end is not part of the prompt.

        Raises:
            InvalidRequest: the file is missing, no text, or its front matter is wrong.
        """
        file = Path(path).expanduser()
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InvalidRequest(
                f"the template {str(path)!r} cannot be read: {error.strerror}. Nothing was sent."
            ) from None
        except UnicodeDecodeError:
            raise InvalidRequest(f"the template {str(path)!r} is no text in UTF-8. Nothing was sent.") from None
        template = cls(text.removesuffix("\n").removesuffix("\r"), name=name, **options)
        template.name = template.name or file.stem
        return template

    @cached_property
    def version(self) -> str:
        """The version given, or a hash of text, settings and schema."""
        return self._version or self._hash()

    @property
    def label(self) -> str:
        """Name and version as the ledger has them: `summarise@2`; without a name, the version alone."""
        return f"{self.name}@{self.version}" if self.name else self.version

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names it needs, in their order, those of the system prompt last."""
        return tuple(dict.fromkeys(names(self.text) + names(self.options.get("system", ""))))

    @property
    def beginning(self) -> str:
        """What stands before its first field: every prompt that comes of it begins so."""
        return cast("str", _parts(self.text)[0])

    def render(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> Rendered:
        """The prompt with these values, ready to be asked: a str that knows its template.

        Args:
            values: values by name, such as a row; names that no field has are passed over.
            **named: values by name; each must be one of a field.

        Raises:
            InvalidRequest: a value is missing, or one has no field; with the nearest name there is.
        """
        fields = self.fields
        for name in named:
            if name not in fields:
                has = f"Its fields: {', '.join(fields)}." if fields else "It has no fields."
                raise InvalidRequest(
                    f"the template has no {{{{ {name} }}}}.{_near(name, fields)} {has} Nothing was sent."
                )
        return self.render_from({**(values or {}), **named})

    def render_from(
        self, values: Mapping[str, Any], offered: Iterable[str] | None = None, what: str = "value"
    ) -> Rendered:
        """As `render`, from names that somebody else chose: those of a notebook (`what`: variable), of a row (column).

        `offered` are the names to suggest where one is missing; default: all.
        """
        _check_there(self.fields, values, offered, what)
        options = dict(self.options)
        if "system" in options:
            options["system"] = _filled(options["system"], values)
        return Rendered(_filled(self.text, values), self.label, options, self.schema)

    def check(self, names: Iterable[str], what: str = "value", *, whole: str = "") -> None:
        """Refuses a template whose fields are not all among these names, or looked up by one of them in `whole`.

        Raises:
            InvalidRequest: tells each missing name, and the nearest there is.
        """
        there = dict.fromkeys(names)
        fields = [name for name in self.fields if name != whole or name in there]
        looked_up = [] if whole in there else self._looked_up(whole)
        _check_there(dict.fromkeys([*fields, *looked_up]), there, None, what)

    def _looked_up(self, whole: str) -> list[str]:
        """`title` where it says {{ row["title"] }} or {{ row.title }}, of `row`."""
        parts = [*_parts(self.text), *_parts(self.options.get("system", ""))]
        steps = [part.steps[0] for part in parts if isinstance(part, _Field) and part.name == whole and part.steps]
        return [_wanted(step) for step in steps]

    def _hash(self) -> str:
        schema: object = self.schema
        if not isinstance(schema, (dict, str)):
            schema = getattr(schema, "__qualname__", None)
        said = json.dumps([self.text, self.options, schema], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:_HASH_CHARS]

    def __repr__(self) -> str:
        return f"<Template {self.label}: {', '.join(self.fields) or 'no fields'}>"


class Rendered(str):
    """A prompt that came of a template: the text, the template's label, its settings, and its schema."""

    __slots__ = ("label", "options", "schema")

    def __new__(cls, text: str, label: str, options: dict[str, Any], schema: Any) -> Rendered:
        made = super().__new__(cls, text)
        made.label, made.options, made.schema = label, options, schema
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.label, self.options, self.schema


def opened(prompt: Any, options: Mapping[str, Any], *, typed: bool = False) -> tuple[Any, Mapping[str, Any]]:
    """A prompt, and these options of its call with those of the template it came of, if it did.

    Args:
        prompt: what was asked with; a template without fields needs no `render`.
        options: what the call says; it wins.
        typed: whether the call gives a value of a type; a template with a schema wants that.

    Raises:
        InvalidRequest: a value is missing, or the template has a schema and the call gives no value.
    """
    if isinstance(prompt, Template):
        prompt = prompt.render()
    found = _rendered(prompt)
    if found is None:
        return prompt, options
    if found.schema is not None and not typed:
        raise InvalidRequest("this template has a schema, whose value llm.extract(…) and llm.stream(…) give")
    together: dict[str, Any] = {**found.options, "template": found.label}
    together.update(options)
    return prompt, together


def wanted(prompt: object, into: Any) -> Any:
    """The type to ask for: the one that was given, else the schema of the prompt's template, else None.

    Raises:
        InvalidRequest: the template tells a type by its name only.
    """
    if into is not None:
        return into
    found = prompt if isinstance(prompt, Template) else _rendered(prompt)
    schema = None if found is None else found.schema
    if isinstance(schema, str):
        raise InvalidRequest(
            f"the template wants {schema!r}: give the type, llm.extract(…, {schema}). Nothing was sent."
        )
    return schema


def _rendered(prompt: object) -> Rendered | None:
    if isinstance(prompt, Rendered):
        return prompt
    if not isinstance(prompt, (list, tuple)):
        return None
    found = [part for part in cast("Iterable[object]", prompt) if isinstance(part, Rendered)]
    if len(found) > 1:
        raise InvalidRequest("a prompt can come of one template, not of several: put their texts into one")
    return found[0] if found else None


# Front matter ---------------------------------------------------------------------------------------------------------


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    """What stands before the prompt, and the prompt; text between two rules that is no YAML of keys is the prompt's."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    import yaml

    try:
        said: Any = yaml.safe_load(found["yaml"])
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise InvalidRequest(f"the template's front matter is no YAML: {why}. {_NOT_MEANT} Nothing was sent.") from None
    if said is None:
        return {}, text[found.end() :]
    return (cast("dict[str, Any]", said), text[found.end() :]) if isinstance(said, dict) else ({}, text)


_NOT_MEANT = "If these lines are part of the prompt, begin it with an empty one."


def _check_keys(said: Mapping[Any, Any]) -> None:
    for key in said:
        if key not in _FRONT_KEYS:
            raise InvalidRequest(
                f"a template cannot say {key!r}.{_near(str(key), _FRONT_KEYS)} Known: {', '.join(sorted(_FRONT_KEYS))}."
                f" {_NOT_MEANT} Nothing was sent."
            )


def _label_part(value: Any, what: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):  # 1.10 in YAML is 1.1
        raise InvalidRequest(f'the {what} of a template is a text: put it in quotes, {what}: "{value}"')
    if (not isinstance(value, str) and whole(value) is None) or not str(value).strip():
        raise InvalidRequest(f"the {what} of a template is a text, not {value!r}")
    return str(value).strip()


# Filling in -----------------------------------------------------------------------------------------------------------


def fill(template: str, values: Mapping[str, Any], offered: Iterable[str] | None = None) -> str:
    """The template with its fields replaced: a str as it is, anything else as `str()` gives it.

    What a value brings is not looked at again. `offered` are the names to suggest where one is missing; default: all.

    Raises:
        InvalidRequest: a name, attribute or index is missing; all missing names are told, with the nearest there is.
    """
    _check_there(names(template), values, offered, "variable")
    return _filled(template, values)


def names(template: str) -> list[str]:
    """The names that a template needs, in their order, each once."""
    found = (match["name"] for match in _FIELD.finditer(template))
    return list(dict.fromkeys(name for name in found if not keyword.iskeyword(name)))


def _check_there(wanted: Iterable[str], values: Mapping[str, Any], offered: Iterable[str] | None, what: str) -> None:
    missing = [name for name in wanted if name not in values]
    if missing:
        mine = [str(known) for known in (values if offered is None else offered) if not str(known).startswith("_")]
        there = ", ".join(mine[:_MOST_NAMED]) + (", …" if len(mine) > _MOST_NAMED else "")
        others = f" There is {there}." if what == "column" and mine else ""
        hints = {name: _near(name, mine) or others for name in missing}
        told = " ".join(f"{{{{ {name} }}}}: there is no {what} {name!r}.{hint}" for name, hint in hints.items())
        raise InvalidRequest(f"{told} Nothing was sent.")


_MOST_NAMED = 12


class _Field(NamedTuple):
    name: str
    steps: tuple[re.Match[str], ...]
    """From the value to what is put in."""


@lru_cache(16)
def _parts(template: str) -> tuple[str | _Field, ...]:
    """What a template is made of: a run fills in the same for each of its rows."""
    parts, at = list[str | _Field](), 0
    for found in _FIELD.finditer(template):
        if not keyword.iskeyword(found["name"]):
            parts += template[at : found.start()], _Field(found["name"], tuple(_STEP.finditer(found["path"])))
            at = found.end()
    return (*parts, template[at:])


def _filled(template: str, values: Mapping[str, Any]) -> str:
    return "".join([part if isinstance(part, str) else _value(part, values) for part in _parts(template)])


def _value(field: _Field, values: Mapping[str, Any]) -> str:
    value, so_far = values[field.name], field.name
    for step in field.steps:
        value = _step(value, step, so_far)
        so_far += step[0]
    return value if isinstance(value, str) else str(value)


@cache
def _sandbox() -> SandboxedEnvironment:
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment()


def _step(value: Any, step: re.Match[str], so_far: str) -> Any:
    from jinja2 import Undefined

    sandbox, name = _sandbox(), step["attribute"]
    if name is not None:
        next_value = sandbox.getattr(value, name)
    else:
        next_value = sandbox.getitem(value, ast.literal_eval(step["index"]))
    if inspect.ismodule(value):
        raise InvalidRequest(
            f"{{{{ {so_far}{step[0]} }}}}: {so_far} is a module, and templates hold values only. Nothing was sent."
        )
    if not isinstance(next_value, Undefined) and not inspect.isroutine(next_value):
        return next_value
    wanted = _wanted(step)
    field = f"{{{{ {so_far}{step[0]} }}}}"
    if inspect.isroutine(next_value):
        raise InvalidRequest(f"{field} is a method, and templates hold values only. Nothing was sent.")
    if wanted.startswith("_"):
        raise InvalidRequest(f"{field}: templates do not read what is private. Nothing was sent.")
    raise InvalidRequest(
        f"{field}: {so_far} is a {type(value).__name__} without {wanted!r}.{_near(wanted, _there(value, name))} "
        "Nothing was sent."
    )


def _wanted(step: re.Match[str]) -> str:
    return step["attribute"] or step["index"].strip("\"'")


def _there(value: Any, attribute: str | None) -> list[str]:
    keys: object = value.keys() if hasattr(value, "keys") else ()
    there = [str(key) for key in cast("Iterable[object]", keys)] if isinstance(keys, Iterable) else []
    if attribute is not None:
        kind = cast("Any", type(value))
        there += [name for name in dir(value) if not inspect.isroutine(getattr(kind, name, None))]
    return [name for name in there if not name.startswith("_")]


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
