"""`Toolbox`: the tools of one question, and how its loop may go on: turns, dollars, time, and who is asked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, cast

from llmnb import durations
from llmnb.errors import InvalidRequest
from llmnb.plain_numbers import count
from llmnb.tools.tool import Json, Tool, tool_of

MAX_TURNS = 10
"""How many answers a loop may take where nobody says."""
TOOL_TIMEOUT_S = 120.0
"""How long one tool may take where nobody says."""

OPTIONS = ("tools", "tool_choice", "max_turns", "budget_usd", "time_limit", "tool_timeout", "approve", "rerun_tools")

_RUN_HERE = ("custom", "bash_", "text_editor_", "computer_", "memory_", "browser_")
"""Types of tools that the API leaves to be run by the caller."""
_CHOICES = ("auto", "any", "none")


@dataclass(frozen=True, slots=True)
class Toolbox:
    """`definitions` are what the API is sent, `tools` those of them that run here, by name.

    `approve` is None, True (ask a person) or a function that decides. `limit_nanousd` and `time_limit_s` end the whole
    loop, `tool_timeout_s` one call. With `rerun` a result that is kept is not used. `final` names a tool that is never
    run: its call is the answer.
    """

    definitions: tuple[Json, ...]
    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])
    choice: Json | None = None
    max_turns: int = MAX_TURNS
    limit_nanousd: int | None = None
    time_limit_s: float | None = None
    tool_timeout_s: float | None = TOOL_TIMEOUT_S
    approve: Any = None
    rerun: bool = False
    final: str | None = None

    def check_ready(self, *, blocking: bool) -> None:
        """Refuses what could be counted and cached, but not asked.

        Raises:
            InvalidRequest: a tool is the bare definition of a function, or lives in an event loop that a call which
                blocks would hold up.
        """
        for definition in self.definitions:
            name = str(definition.get("name"))
            kind = str(definition.get("type") or "custom")
            if kind.startswith(_RUN_HERE) and name not in self.tools and name != self.final:
                raise InvalidRequest(
                    f"the tool {name!r} is a definition without a function to run: give the function itself, or a tool "
                    "of the SDK such as @anthropic.beta_tool. Nothing was sent."
                )
        if blocking and _in_a_loop() and any(tool.is_mcp for tool in self.tools.values()):
            raise InvalidRequest(
                "these MCP tools live in the event loop that a blocking call holds up, so none would ever answer: use "
                "await llm.aask(…), or async for … in llm.astream(…). Nothing was sent."
            )


def toolbox(options: Mapping[str, Any]) -> Toolbox | None:
    """The toolbox of a call's options; None without tools.

    Raises:
        InvalidRequest: a tool is none, two have one name, or an option is impossible.
    """
    given = options.get("tools")
    listed = list(cast("Sequence[Any]", given)) if isinstance(given, (list, tuple)) else [given]
    if given is None or not listed:
        _check_without_tools(options)
        return None
    definitions: list[Json] = []
    tools: dict[str, Tool] = {}
    for one in listed:
        if isinstance(one, Mapping):
            definitions.append(dict(cast("Mapping[str, Any]", one)))
            continue
        tool = _known(one)
        if tool.name in tools:
            raise InvalidRequest(f"two tools are called {tool.name!r}: the model could not tell them apart")
        tools[tool.name] = tool
        definitions.append(tool.definition)
    names = [str(definition["name"]) for definition in definitions if "name" in definition]
    return Toolbox(
        tuple(definitions),
        tools,
        choice=_choice(options.get("tool_choice"), names),
        max_turns=_max_turns(options.get("max_turns")),
        limit_nanousd=ceiling_nanousd(options.get("budget_usd")),
        time_limit_s=_seconds(options, "time_limit", None),
        tool_timeout_s=_seconds(options, "tool_timeout", TOOL_TIMEOUT_S),
        approve=_approve(options.get("approve")),
        rerun=bool(options.get("rerun_tools")),
    )


def _known(given: Any) -> Tool:
    try:
        return _remembered(given)
    except TypeError:  # what cannot be hashed cannot be remembered
        return tool_of(given)


_remembered = lru_cache(maxsize=256)(tool_of)
"""To read a signature takes a millisecond, and a loop over a data frame asks thousands of times."""


def _in_a_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Options --------------------------------------------------------------------------------------------------------------


def _check_without_tools(options: Mapping[str, Any]) -> None:
    """A ceiling that nothing is held to would be a surprise; what an LLM or chat has set for all calls is none."""
    if options.get("tool_choice") not in (None, "none", "auto"):
        raise InvalidRequest("tool_choice needs tools=[…] to choose from. Nothing was sent.")


def _choice(asked: Any, names: list[str]) -> Json | None:
    if asked is None:
        return None
    if isinstance(asked, Mapping):
        return dict(cast("Mapping[str, Any]", asked))
    if asked in _CHOICES:
        return {"type": asked}
    if asked in names:
        return {"type": "tool", "name": asked}
    near = difflib.get_close_matches(str(asked), [*names, *_CHOICES], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InvalidRequest(f"tool_choice must be auto, any, none or the name of a tool, not {asked!r}.{hint}")


def _max_turns(asked: Any) -> int:
    return MAX_TURNS if asked is None else count(asked, "max_turns")


def ceiling_nanousd(asked: Any) -> int | None:
    """Dollars as nano-dollars.

    Raises:
        InvalidRequest: these are no dollars.
    """
    if asked is None:
        return None
    try:
        usd = Decimal(str(asked))
    except InvalidOperation:
        usd = Decimal(0)
    if isinstance(asked, bool) or not usd.is_finite() or usd <= 0:
        raise InvalidRequest(f"budget_usd must be dollars above 0, not {asked!r}")
    return int(usd * 1_000_000_000)


def _seconds(options: Mapping[str, Any], name: str, otherwise: float | None) -> float | None:
    asked = options.get(name)
    return otherwise if asked is None else durations.seconds(asked, name)


def _approve(asked: Any) -> Any:
    if asked is None or asked is False:
        return None
    if asked is True:
        return True
    if not callable(asked):
        raise InvalidRequest("approve must be True (ask me) or a function of the ToolCall that gives True or False")
    try:
        inspect.signature(asked).bind(object())
    except TypeError:
        raise InvalidRequest(
            "the function of approve= takes one argument, the ToolCall: approve=lambda call: …"
        ) from None
    except ValueError:  # a builtin tells nothing of itself
        pass
    return cast("Callable[[Any], Any]", asked)
