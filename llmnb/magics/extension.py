"""The magics of IPython and Jupyter: `%%llm`, `%llm`, `%llm_model` and `%llm_cost`. `%load_ext llmnb` brings them."""

from __future__ import annotations

import difflib
import os
import re
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class

from llmnb import templates
from llmnb.chat import Chat, named_chat
from llmnb.errors import InvalidRequest, MissingKey, SettingsError, UnknownModel
from llmnb.llm import LLM
from llmnb.magics import options as magic_options
from llmnb.magics.completion import Completer, variables
from llmnb.messages import models
from llmnb.providers.known import split

if TYPE_CHECKING:
    from llmnb.magics.spending import Spending

_KEPT_STARTS = 10_000
_BODY = "body"
_LIST = re.compile(r"list\[\s*(\w+)\s*\]")
_REFUSALS = (InvalidRequest, MissingKey, SettingsError, UnknownModel)
"""Errors of a person's own making, found before anything was sent: a line says all, a traceback nothing."""


@magics_class
class LLMMagics(Magics):
    """`%%llm`, `%llm_model` and `%llm_cost`."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.cell_starts_us: deque[int] = deque(maxlen=_KEPT_STARTS)

    @line_cell_magic
    def llm(self, line: str, cell: str | None = None) -> Any:
        options = magic_options.llm_parser().read(line)
        with _in_one_line():
            _check_name(options.output)
            asked = self._options(options)
            prompt = self._prompt(options, cell)
            answer = self._answer(options, prompt, asked)
        if options.output:
            self._namespace()[options.output] = answer
        return answer

    @line_magic
    def llm_model(self, line: str) -> str:
        name = magic_options.model_parser().read(line).model
        with _in_one_line():
            if name is not None:
                LLM(models.check_name(name))  # a name that no provider can have is refused before it is set
                os.environ["LLMNB_MODEL"] = name
                if split(name)[0] is None:
                    _say(models.hint(name))
            return LLM().model

    @line_magic
    def llm_cost(self, line: str) -> Spending:
        magic_options.cost_parser().read(line)
        from llmnb.magics.spending import spending

        with _in_one_line():
            return spending(self.cell_starts_us)

    llm.__doc__ = magic_options.llm_parser().help()
    llm_model.__doc__ = magic_options.model_parser().help()
    llm_cost.__doc__ = magic_options.cost_parser().help()

    def cell_begins(self, info: object) -> None:
        """A cell begins now; so `%llm_cost` can tell what the last one spent."""
        self.cell_starts_us.append(time.time_ns() // 1000)

    def _namespace(self) -> dict[str, Any]:
        return cast("Any", self).shell.user_ns

    def _answer(self, options: Namespace, prompt: Any, asked: dict[str, Any]) -> Any:
        into = self._type(options, prompt)
        if into is None:
            asker = _chat(options, asked) if options.chat is not None else LLM()
            return asker.ask(prompt, **asked)
        if options.chat is not None:
            raise InvalidRequest(
                "--chat goes on with Replies, and a schema gives values: leave one out. Nothing was sent."
            )
        return LLM().extract(prompt, into, **asked)

    def _type(self, options: Namespace, prompt: Any) -> Any:
        """The type that --schema names, or that the template wants; None for a Reply."""
        names = [part.schema for part in _parts(prompt) if isinstance(part, templates.Rendered)]
        name = options.schema or (names[0] if names else None)
        if not isinstance(name, str):
            return name
        found = _LIST.fullmatch(name)
        item = self._variable(found[1] if found else name, f"--schema {name}")
        return list[item] if found else item

    def _prompt(self, options: Namespace, cell: str | None) -> Any:
        text = None if cell is None else self._text(options, cell)
        if options.template is not None:
            text = self._from_template(options.template, text)
        elif text is None:
            raise InvalidRequest(
                "%llm wants --template FILE; the prompt stands in the cell below %%llm. Nothing was sent."
            )
        return [*map(Path, options.image), text] if options.image else text

    def _text(self, options: Namespace, cell: str) -> str:
        text = cell.rstrip("\n")  # IPython ends every body with one, a terminal with as many as it takes to run it
        return text if options.raw else templates.fill(text, self._namespace(), offered=variables(self.shell))

    def _from_template(self, name: str, body: str | None) -> templates.Rendered:
        known = self._namespace()
        given = known.get(name)
        template = given if isinstance(given, templates.Template) else templates.Template.load(name)
        has_body = body is not None and bool(body.strip())
        if has_body and _BODY not in template.fields:
            raise InvalidRequest(
                f"the template {name} has no {{{{ {_BODY} }}}} for the text of the cell. Write one into it, or ask "
                f"with %llm --template {name}. Nothing was sent."
            )
        values = {**known, _BODY: body} if has_body else known
        return template.render_from(values, variables(self.shell), "variable")

    def _options(self, options: Namespace) -> dict[str, Any]:
        given = {
            name: getattr(options, name)
            for name in ("model", "max_tokens", "max_turns", "effort", "display", "project", "tag")
        }
        if options.fresh:
            given["fresh"] = True
        if options.approve:
            given["approve"] = True
        if options.tools is not None:
            given["tools"] = self._tools(options.tools)
        if options.system is not None:
            given["system"] = self._variable(options.system, f"--system {options.system}")
        return {name: value for name, value in given.items() if value is not None}

    def _tools(self, names: str) -> list[Any]:
        """The functions behind names with commas between them; a variable may hold a list of them."""
        found: list[Any] = []
        for name in filter(None, map(str.strip, names.split(","))):
            value = self._variable(name, f"--tools {names}")
            found += value if isinstance(value, (list, tuple)) else [value]
        return found

    def _variable(self, name: str, wanted: str) -> Any:
        values = self._namespace()
        if name not in values:
            near = difflib.get_close_matches(name, variables(self.shell), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidRequest(f"{wanted}: there is no variable {name!r}.{hint} Nothing was sent.")
        return values[name]


def _chat(options: Namespace, asked: dict[str, Any]) -> Chat:
    """The kernel's chat of that name, which goes on with its own LLM, or a new one."""
    chat = named_chat(options.chat) or LLM().chat(name=options.chat)
    if isinstance(asked.get("system"), str):
        chat.system = asked["system"]  # from here on
    return chat


def _parts(prompt: Any) -> list[Any]:
    return cast("list[Any]", prompt) if isinstance(prompt, list) else [prompt]


def _check_name(name: str | None) -> None:
    if name is not None and not name.isidentifier():
        raise InvalidRequest(f"-o {name}: that is no name of a variable. Nothing was sent.")


@contextmanager
def _in_one_line() -> Generator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise UsageError(str(error)) from None


def _say(text: str | None) -> None:
    if text:
        sys.stderr.write(text + "\n")


# The extension --------------------------------------------------------------------------------------------------------

_loaded: dict[int, tuple[LLMMagics, Completer]] = {}  # by the shell's id


def load(shell: Any) -> None:
    """Brings the magics and their completion into a shell; again is once."""
    if id(shell) in _loaded:
        return
    magics = LLMMagics(shell)
    completer = Completer(shell)
    shell.register_magics(magics)
    shell.events.register("pre_run_cell", magics.cell_begins)
    completer.install()
    _loaded[id(shell)] = magics, completer


def unload(shell: Any) -> None:
    """Takes them away."""
    magics, completer = _loaded.pop(id(shell), (None, None))
    if magics is None or completer is None:
        return
    shell.events.unregister("pre_run_cell", magics.cell_begins)
    completer.remove()
    for kind, names in magics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
