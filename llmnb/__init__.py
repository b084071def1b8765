"""llmnb: Claude and compatible models in a notebook, with the books kept.

Names are imported on first use (PEP 562), so that `import llmnb` is immediate.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmnb import cache as cache
    from llmnb import metrics as metrics
    from llmnb.asking.recent import last as last
    from llmnb.budgeting import budgets as budgets
    from llmnb.budgeting import remove_budget as remove_budget
    from llmnb.budgeting import set_budget as set_budget
    from llmnb.cassette import record as record
    from llmnb.cassette import replay as replay
    from llmnb.chat import Chat as Chat
    from llmnb.client import wrap as wrap
    from llmnb.display.meter import meter as meter
    from llmnb.display.usage_table import show_usage as show_usage
    from llmnb.errors import BudgetExceeded as BudgetExceeded
    from llmnb.errors import CassetteError as CassetteError
    from llmnb.errors import ContextFull as ContextFull
    from llmnb.errors import ExtractionFailed as ExtractionFailed
    from llmnb.errors import IncompleteReply as IncompleteReply
    from llmnb.errors import InvalidRequest as InvalidRequest
    from llmnb.errors import LlmnbError as LlmnbError
    from llmnb.errors import MissingExtra as MissingExtra
    from llmnb.errors import MissingKey as MissingKey
    from llmnb.errors import ReplayMiss as ReplayMiss
    from llmnb.errors import SettingsError as SettingsError
    from llmnb.errors import StoreError as StoreError
    from llmnb.errors import StoreReadOnly as StoreReadOnly
    from llmnb.errors import ToolLoopLimit as ToolLoopLimit
    from llmnb.errors import UnknownModel as UnknownModel
    from llmnb.errors import UnknownPrice as UnknownPrice
    from llmnb.estimate import Estimate as Estimate
    from llmnb.events import Done as Done
    from llmnb.events import Partial as Partial
    from llmnb.events import Text as Text
    from llmnb.events import Thinking as Thinking
    from llmnb.events import ToolCall as ToolCall
    from llmnb.events import ToolResult as ToolResult
    from llmnb.jobs.batches.saved import batches as batches
    from llmnb.jobs.batches.saved import get_batch as get_batch
    from llmnb.jobs.comparing import Comparison as Comparison
    from llmnb.jobs.comparing import acompare as acompare
    from llmnb.jobs.comparing import compare as compare
    from llmnb.jobs.estimate import MapEstimate as MapEstimate
    from llmnb.jobs.saved import get_run as get_run
    from llmnb.jobs.saved import runs as runs
    from llmnb.ledger import calls as calls
    from llmnb.ledger import usage as usage
    from llmnb.llm import LLM as LLM
    from llmnb.records import Cost as Cost
    from llmnb.records import Usage as Usage
    from llmnb.reply import Reply as Reply
    from llmnb.routing import Router as Router
    from llmnb.templates import Template as Template
    from llmnb.trouble import BudgetWarning as BudgetWarning

_ROOMS = ("cache", "metrics")
"""Modules that are public as such."""

_HOME = {
    "LLM": "llm",
    "Chat": "chat",
    "Reply": "reply",
    "Router": "routing",
    "Template": "templates",
    "last": "asking.recent",
    "Comparison": "jobs.comparing",
    "acompare": "jobs.comparing",
    "compare": "jobs.comparing",
    "wrap": "client",
    "record": "cassette",
    "replay": "cassette",
    "usage": "ledger",
    "calls": "ledger",
    "MapEstimate": "jobs.estimate",
    "batches": "jobs.batches.saved",
    "get_batch": "jobs.batches.saved",
    "get_run": "jobs.saved",
    "runs": "jobs.saved",
    "Cost": "records",
    "Done": "events",
    "Estimate": "estimate",
    "Partial": "events",
    "Text": "events",
    "Thinking": "events",
    "ToolCall": "events",
    "ToolResult": "events",
    "Usage": "records",
    "CassetteError": "errors",
    "ContextFull": "errors",
    "budgets": "budgeting",
    "meter": "display.meter",
    "show_usage": "display.usage_table",
    "remove_budget": "budgeting",
    "set_budget": "budgeting",
    "BudgetWarning": "trouble",
    "BudgetExceeded": "errors",
    "ExtractionFailed": "errors",
    "IncompleteReply": "errors",
    "InvalidRequest": "errors",
    "LlmnbError": "errors",
    "MissingExtra": "errors",
    "MissingKey": "errors",
    "ReplayMiss": "errors",
    "SettingsError": "errors",
    "StoreError": "errors",
    "StoreReadOnly": "errors",
    "ToolLoopLimit": "errors",
    "UnknownModel": "errors",
    "UnknownPrice": "errors",
}

__all__ = sorted([*_HOME, *_ROOMS, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"llmnb.{name}")
    try:
        module = importlib.import_module(f"llmnb.{_HOME[name]}")
    except KeyError:
        raise AttributeError(f"module 'llmnb' has no attribute {name!r}") from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext llmnb` calls."""
    importlib.import_module("llmnb.magics.extension").load(shell)


def unload_ipython_extension(shell: object) -> None:
    """What `%unload_ext llmnb` calls."""
    importlib.import_module("llmnb.magics.extension").unload(shell)
