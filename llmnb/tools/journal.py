"""Results of tools that have run, by the id of their call: so that a loop that begins again runs none of them twice.

An answer from the response cache has the ids it had when it came. So a cell that is run again, in a kernel that was
restarted in the middle of a loop, gets the same calls, and here the results of those that had finished. They are kept
beside the answers, in the same place and as long, and `llmnb cache clear` forgets them, too.

A result stands for the id, the name, the arguments and the code of the function: one that was edited runs again. What
raised an error, ran out of time or was not approved has not finished, and is not kept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, cast

from llmnb.cache.backends import Item
from llmnb.cache.responses import ResponseCache, responses
from llmnb.events import ToolCall
from llmnb.records import Caching
from llmnb.settings import Settings
from llmnb.tools.results import Content
from llmnb.tools.tool import Tool
from llmnb.trouble import quietly

_FORMAT = 1


class Journal:
    """The results that are kept in the place of the settings. Never raises: what cannot be kept is run again."""

    def __init__(self, cache: ResponseCache, caching: Caching, *, rerun: bool) -> None:
        self._cache = cache
        self._ttl_s = caching.ttl_s
        self._rerun = rerun

    def settle(self) -> None:
        """Has the answers so far written: a result is found again only with the answer that asked for it."""
        self._cache.settle()

    def find(self, call: ToolCall, tool: Tool) -> Content | None:
        """What the tool gave for this call before, or None."""
        from pydantic_core import from_json

        if self._rerun:
            return None
        try:
            data = self._cache.backend.get(_name(call, tool))
            kept: Any = None if data is None else from_json(data)
            if not isinstance(kept, dict) or cast("dict[str, Any]", kept).get("format") != _FORMAT:
                return None
            return cast("Content", kept["content"])
        except Exception as trouble:
            quietly("looking up the result of a tool", trouble, "the tool runs again")
            return None

    def keep(self, call: ToolCall, tool: Tool, content: Content) -> None:
        """Keeps what the tool gave; written when this returns."""
        from pydantic_core import to_json

        try:
            data = to_json({"format": _FORMAT, "tool": tool.name, "content": content})
            self._cache.backend.put([Item(_name(call, tool), data, self._ttl_s)])
        except Exception as trouble:
            quietly("keeping the result of a tool", trouble, "the tool would run again if its cell did")


def journal_of(caching: Caching, settings: Settings, *, rerun: bool) -> Journal | None:
    """The journal of a call; None where answers are not kept, and no id comes again."""
    if caching.use is False or settings.cache == "off":
        return None
    return Journal(responses(settings), caching, rerun=rerun)


def _name(call: ToolCall, tool: Tool) -> str:
    from pydantic_core import to_json

    told = to_json([call.id, tool.name, tool.code, call.input], fallback=str)
    return f"{blake2b(told, digest_size=16).hexdigest()}/tool"
