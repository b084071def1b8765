"""The magics of IPython and Jupyter: `%%llm`, `%llm_model` and `%llm_cost`. `%load_ext llmnb` brings them."""

from __future__ import annotations

import difflib
import os
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from llmnb import templates
from llmnb.chat import Chat, named_chat
from llmnb.errors import InvalidRequest, MissingKey, SettingsError, UnknownModel
from llmnb.llm import LLM
from llmnb.magics import options as magic_options
from llmnb.magics.completion import Completer, variables
from llmnb.messages import models

if TYPE_CHECKING:
    from llmnb.magics.spending import Spending
    from llmnb.reply import Reply

_KEPT_STARTS = 10_000
_REFUSALS = (InvalidRequest, MissingKey, SettingsError, UnknownModel)
"""Errors of a person's own making, found before anything was sent: a line says all, a traceback nothing."""


@magics_class
class LLMMagics(Magics):
    """`%%llm`, `%llm_model` and `%llm_cost`."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.cell_starts_us: deque[int] = deque(maxlen=_KEPT_STARTS)

    @cell_magic
    def llm(self, line: str, cell: str) -> Reply:
        options = magic_options.llm_parser().read(line)
        with _in_one_line():
            _check_name(options.output)
            asked = self._options(options)
            prompt = self._prompt(options, cell)
            asker = _chat(options, asked) if options.chat is not None else LLM()
            reply = asker.ask(prompt, **asked)
        if options.output:
            self._namespace()[options.output] = reply
        return reply

    @line_magic
    def llm_model(self, line: str) -> str:
        name = magic_options.model_parser().read(line).model
        with _in_one_line():
            if name is not None:
                os.environ["LLMNB_MODEL"] = models.check_name(name)
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

    def _prompt(self, options: Namespace, cell: str) -> Any:
        text = cell.rstrip("\n")  # IPython ends every body with one, a terminal with as many as it takes to run it
        if not options.raw:
            text = templates.fill(text, self._namespace(), offered=variables(self.shell))
        return [*map(Path, options.image), text] if options.image else text

    def _options(self, options: Namespace) -> dict[str, Any]:
        given = {
            name: getattr(options, name) for name in ("model", "max_tokens", "effort", "display", "project", "tag")
        }
        if options.fresh:
            given["fresh"] = True
        if options.system is not None:
            given["system"] = self._variable(options.system)
        return {name: value for name, value in given.items() if value is not None}

    def _variable(self, name: str) -> Any:
        values = self._namespace()
        if name not in values:
            near = difflib.get_close_matches(name, variables(self.shell), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidRequest(f"--system {name}: there is no variable {name!r}.{hint} Nothing was sent.")
        return values[name]


def _chat(options: Namespace, asked: dict[str, Any]) -> Chat:
    """The kernel's chat of that name, which goes on with its own LLM, or a new one."""
    chat = named_chat(options.chat) or LLM().chat(name=options.chat)
    if isinstance(asked.get("system"), str):
        chat.system = asked["system"]  # from here on
    return chat


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
