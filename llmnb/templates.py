"""Templates of prompts: `{{ name }}` is replaced by a value, everything else is left exactly as it is.

A name may go on with attributes and literal indexes: `{{ row["title"] }}`, `{{ paper.year }}`, `{{ rows[0] }}`. There
are no calls, no operators and no filters: what stands between double braces in any other form is text and stays.
Single braces, `%`, `$` and quotes mean nothing here.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmnb.errors import InvalidRequest

_STRING = r"'[^'\\\n{}]*'|\"[^\"\\\n{}]*\""
_FIELD = re.compile(rf"\{{\{{[ \t]*(?P<name>[^\W\d]\w*)(?P<path>(?:\.[^\W\d]\w*|\[(?:-?\d+|{_STRING})\])*)[ \t]*\}}\}}")
_STEP = re.compile(rf"\.(?P<attribute>\w+)|\[(?P<index>-?\d+|{_STRING})\]")


def fill(template: str, values: Mapping[str, Any], offered: Iterable[str] | None = None) -> str:
    """The template with its fields replaced: a str as it is, anything else as `str()` gives it.

    What a value brings is not looked at again. `offered` are the names to suggest where one is missing; default: all.

    Raises:
        InvalidRequest: a name, attribute or index is missing; all missing names are told, with the nearest there is.
    """
    missing = [name for name in names(template) if name not in values]
    if missing:
        mine = [known for known in (values if offered is None else offered) if not known.startswith("_")]
        raise InvalidRequest(f"{' '.join(_no_variable(name, mine) for name in missing)} Nothing was sent.")
    return _FIELD.sub(lambda found: _value(found, values), template)


def names(template: str) -> list[str]:
    """The names that a template needs, in their order, each once."""
    found = (match["name"] for match in _FIELD.finditer(template))
    return list(dict.fromkeys(name for name in found if not keyword.iskeyword(name)))


def _value(found: re.Match[str], values: Mapping[str, Any]) -> str:
    if keyword.iskeyword(found["name"]):
        return found[0]
    value, so_far = values[found["name"]], found["name"]
    for step in _STEP.finditer(found["path"]):
        value = _step(value, step, so_far)
        so_far += step[0]
    return value if isinstance(value, str) else str(value)


def _step(value: Any, step: re.Match[str], so_far: str) -> Any:
    try:
        if step["attribute"] is not None:
            return getattr(value, step["attribute"])
        return value[ast.literal_eval(step["index"])]
    except (AttributeError, LookupError, TypeError):
        near = difflib.get_close_matches(_wanted(step), _there(value, step), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidRequest(
            f"{{{{ {so_far}{step[0]} }}}}: {so_far} is a {type(value).__name__} without {_wanted(step)!r}.{hint} "
            "Nothing was sent."
        ) from None


def _wanted(step: re.Match[str]) -> str:
    return step["attribute"] or step["index"].strip("\"'")


def _there(value: Any, step: re.Match[str]) -> list[str]:
    if step["attribute"] is not None:
        return dir(value)
    keys: object = value.keys() if hasattr(value, "keys") else ()
    return [str(key) for key in cast("Iterable[object]", keys)] if isinstance(keys, Iterable) else []


def _no_variable(name: str, mine: list[str]) -> str:
    near = difflib.get_close_matches(name, mine, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{{{{ {name} }}}}: there is no variable {name!r}.{hint}"
