"""Tab completion of the magics: options, models, chats, displays, variables, and names between double braces.

A matcher of IPython's completion interface, version 2 (IPython 8.6 on). It answers alone where it knows what is wanted;
for the file after `--image`, and in the body of a cell, IPython's own matchers go on.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterable
from typing import Any, cast

from IPython.core import completer as ipython_completer

from llmnb import display
from llmnb.chat import chat_names
from llmnb.magics import options as magic_options
from llmnb.messages import models
from llmnb.providers.known import BY_PREFIX
from llmnb.templates import Template

_MAGIC = re.compile(r"\s*(%?%llm|%llm_model|%llm_cost)\s")
_WORD = re.compile(r"\S*$")
_BRACES = re.compile(r"\{\{[ \t]*(\w*)$")


class Completer:
    """The matcher of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        completion = ipython_completer.SimpleCompletion
        mark: Any = cast("Any", ipython_completer).context_matcher(identifier="llmnb.magics.extension", priority=100)

        def matcher(context: Any) -> dict[str, Any]:
            fragment, words = self.complete(context.full_text, context.cursor_line, context.cursor_position)
            found = [completion(text=word, type="llmnb") for word in words if word.startswith(fragment)]
            # jedi and the others would take an option for an expression
            return {"completions": found, "matched_fragment": fragment, "ordered": True, "suppress": bool(found)}

        self._matcher: Any = mark(matcher)

    def install(self) -> None:
        """From now on the shell asks here, too."""
        self._shell.Completer.custom_matchers.append(self._matcher)

    def remove(self) -> None:
        """The shell does not ask any more."""
        if self._matcher in self._shell.Completer.custom_matchers:
            self._shell.Completer.custom_matchers.remove(self._matcher)

    def complete(self, text: str, line_number: int, column: int) -> tuple[str, list[str]]:
        """What is being typed at the cursor, and what it could become."""
        lines = text.split("\n")
        before = lines[line_number][:column] if line_number < len(lines) else ""
        if magic := _MAGIC.match(before):
            return self._on_magic_line(magic[1], before[magic.end() :])
        if text.lstrip().startswith("%%llm") and (found := _BRACES.search(before)):
            return found[1], self._variables()
        return "", []

    def _on_magic_line(self, magic: str, typed: str) -> tuple[str, list[str]]:
        found = _WORD.search(typed)
        word = found[0] if found else ""
        before = typed[: len(typed) - len(word)].split()
        if magic == "%llm_model":
            return word, [] if before else _models()
        if magic == "%llm_cost":
            return word, []
        option, equals, value = word.partition("=")
        if equals and option.startswith("--"):
            return _last(option, value), self._values(option)
        if before and (action := self._options().get(before[-1])) and action.nargs != 0:
            return _last(before[-1], word), self._values(before[-1])
        return word, sorted(name for name in self._options() if name.startswith("--"))

    def _options(self) -> dict[str, Any]:
        return magic_options.llm_parser().options()

    def _values(self, option: str) -> list[str]:
        wanted = self._options().get(option)
        kinds: dict[str, Iterable[str]] = {
            "model": _models(),
            "chat": chat_names(),
            "display": display.NAMES,
            "effort": magic_options.EFFORTS,
            "system": self._variables(str),
            "output": self._variables(),
            "schema": [name for name in self._variables(type) if _is_schema(self._shell.user_ns[name])],
            "template": self._variables(Template),
            "tools": [name for name in self._variables() if _is_tool(self._shell.user_ns[name])],
        }
        return list(kinds.get(wanted.dest, ())) if wanted is not None else []

    def _variables(self, kind: type = object) -> list[str]:
        return variables(self._shell, kind)


def variables(shell: Any, kind: type = object) -> list[str]:
    """The names that a person has given to something in a shell, without those that IPython brings along."""
    brought = shell.user_ns_hidden
    return sorted(
        name
        for name, value in shell.user_ns.items()
        if not name.startswith("_") and brought.get(name, _NOT_THERE) is not value and isinstance(value, kind)
    )


def _last(option: str, word: str) -> str:
    """What is being typed of a value: of names with commas between them the last."""
    return word.rpartition(",")[2] if option == "--tools" else word


def _is_tool(value: Any) -> bool:
    """Whether a model could call it: a function, or a tool of the SDK."""
    return inspect.isroutine(value) or (hasattr(value, "to_dict") and hasattr(value, "call"))


def _is_schema(kind: Any) -> bool:
    """Whether a class says what a value looks like: a Pydantic model, dataclass, TypedDict or enum."""
    return (
        hasattr(kind, "model_json_schema")
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__required_keys__")
        or issubclass(kind, enum.Enum)
    )


_NOT_THERE = object()


def _models() -> list[str]:
    """The names of Claude's models, and the prefixes of others."""
    return [*models.known_names(), *(f"{prefix}:" for prefix in BY_PREFIX)]
