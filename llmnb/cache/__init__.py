"""The response cache: what was asked before is answered from disk, and costs nothing.

`LLM` and `Chat` use it by themselves, `wrap` with `cache=True`. From here it can be looked into, cleared, written into
a cassette and filled from one; `llmnb cache` is the same in a shell.

    llmnb.cache.stats()                        # how many answers, how much room, where
    llmnb.cache.entries(model="…")             # a DataFrame, newest first
    llmnb.cache.show("3fa9")                   # one answer with its question
    llmnb.cache.clear(older="30d")
    llmnb.cache.export("thesis.cassette.jsonl")
    llmnb.cache.import_("thesis.cassette.jsonl")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmnb.cache.browse import Entry, Shown, Stats, clear, show, stats
    from llmnb.cache.table import entries
    from llmnb.cassette.from_cache import export
    from llmnb.cassette.into_cache import Imported, import_

_HOME = {
    "Entry": "cache.browse",
    "Imported": "cassette.into_cache",
    "Shown": "cache.browse",
    "Stats": "cache.browse",
    "clear": "cache.browse",
    "entries": "cache.table",
    "export": "cassette.from_cache",
    "import_": "cassette.into_cache",
    "show": "cache.browse",
    "stats": "cache.browse",
}

__all__ = ["Entry", "Imported", "Shown", "Stats", "clear", "entries", "export", "import_", "show", "stats"]


def __getattr__(name: str) -> object:
    # what a call needs of this room is imported by every call, and what is looked at from outside is not
    try:
        module = importlib.import_module(f"llmnb.{_HOME[name]}")
    except KeyError:
        raise AttributeError(f"module 'llmnb.cache' has no attribute {name!r}") from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
