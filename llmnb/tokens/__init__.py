"""How many tokens something is, before it is sent: without network, and without waiting for anything.

`text` estimates a text, `media` images and PDFs, `blocks` what a request is made of. `vocabulary` counts texts better
where tiktoken's vocabulary is on disk, `calibration` learns from what was billed, `sampling` chooses the calls for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from llmnb.tokens import vocabulary
from llmnb.tokens.blocks import Count as Count
from llmnb.tokens.blocks import Counter as Counter
from llmnb.tokens.sampling import CHARACTERS

__all__ = ["Count", "Counter", "count_block", "count_text", "count_tool", "offline_counter"]


def offline_counter(model: str) -> tuple[Counter, str]:
    """The best way to count for a model without network, and its name: `cl100k_base` or `characters`.

    The first use in a process reads the vocabulary, which takes about half a second, if it is on disk.
    """
    words = vocabulary.load()
    if words is None:
        return Counter(model), CHARACTERS
    return Counter(model, words), vocabulary.CL100K_BASE.name


def count_text(text: str, model: str) -> int:
    """Tokens of a text on `model`, estimated offline and rounded up; 0 for an empty one."""
    return ceil(Counter(model).text(text).tokens)


def count_block(block: Mapping[str, Any], model: str) -> int:
    """Tokens of a content block (text, image, document, tool use and result, …), estimated offline and rounded up."""
    return ceil(Counter(model).block(block).tokens)


def count_tool(tool: Mapping[str, Any], model: str) -> int:
    """Tokens of a tool's definition, estimated offline and rounded up, without the prompt that all tools share."""
    return ceil(Counter(model).tool(tool).tokens)
