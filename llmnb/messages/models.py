"""What each model family takes and refuses, so that a call which cannot work is refused before it is sent.

A table by version, not by name: a model that comes out tomorrow is judged by its generation, and a name that cannot be
read gets defaults that are safe everywhere. Facts: the API's models overview and its migration guides (sampling is gone
from 4.7 on, prefill from 4.6 on, thinking budgets from 4.7 on, thinking cannot be switched off on Fable, Mythos,
Opus 5.5 and Sonnet 5.5), its page on prompt caching, and the installed SDK's own constants where it has them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, get_args

from llmnb.errors import UnknownModel

DEFAULT_MAX_TOKENS = 8_192
"""max_tokens where neither the call nor a setting says one and the model allows as many."""

Version: TypeAlias = tuple[int, int]

_FAMILY_FIRST = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_VERSION_FIRST = re.compile(r"claude-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)(?:-(?P<family>[a-z]+))?")
_UNVERSIONED = {"claude-mythos-preview": ("mythos", (4, 8))}

# (from this version on, highest max_tokens without a beta header), newest first
_OUTPUT_LIMITS: tuple[tuple[Version, int], ...] = (
    ((4, 6), 128_000),
    ((4, 2), 64_000),
    ((3, 7), 64_000),
    ((3, 5), 8_192),
    ((0, 0), 4_096),
)
_OPUS_4_LIMIT = 32_000

# (from this version on, shortest prefix the prompt cache takes, in tokens), newest first
_CACHE_MINIMUMS: dict[str, tuple[tuple[Version, int], ...]] = {
    "opus": (((5, 0), 512), ((4, 8), 1_024), ((4, 7), 2_048), ((4, 5), 4_096), ((0, 0), 1_024)),
    "sonnet": (((5, 5), 512), ((0, 0), 1_024)),
    "haiku": (((5, 5), 512), ((4, 5), 4_096), ((0, 0), 2_048)),
    "fable": (((5, 0), 512),),
    "mythos": (((5, 0), 512), ((0, 0), 2_048)),
}
"""The API's documentation, "Prompt caching", section "Minimum cacheable prompt length", as of October 2026."""
NEWEST_CACHE_MINIMUM = 512
"""What every model of the newest generation has, and so what one that comes out tomorrow is taken to have."""
HIGHEST_CACHE_MINIMUM = 4_096
"""For names that say nothing: no model has a higher one."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model. `family` and `version` are None when its name says neither.

    `max_output_tokens` is the highest `max_tokens` it takes (None: unknown), `cache_minimum_tokens` the shortest prefix
    its prompt cache takes (the highest minimum of any model where its own is unknown). The other facts are True when
    nothing is known, so that only what is certain to fail is refused early.
    """

    name: str
    family: str | None = None
    version: Version | None = None
    max_output_tokens: int | None = None
    takes_sampling: bool = True
    takes_prefill: bool = True
    takes_thinking_budget: bool = True
    takes_adaptive_thinking: bool = True
    thinking_can_be_off: bool = True
    takes_output_format: bool = True
    cache_minimum_tokens: int = HIGHEST_CACHE_MINIMUM

    @property
    def default_max_tokens(self) -> int:
        """The `max_tokens` sent when nobody says one: the model's limit, at most 8,192."""
        return min(self.max_output_tokens or DEFAULT_MAX_TOKENS, DEFAULT_MAX_TOKENS)


@lru_cache(maxsize=256)
def facts(model: str) -> ModelFacts:
    """What is known of `model`, in any provider's spelling (`us.anthropic.claude-…-v1:0`, `claude-…@20250514`)."""
    family, version = _read(model)
    if version is None:
        return ModelFacts(model, family)
    return ModelFacts(
        model,
        family,
        version,
        max_output_tokens=_output_limit(family, version),
        takes_sampling=version <= (4, 6),
        takes_prefill=version < (4, 6),
        takes_thinking_budget=(3, 7) <= version <= (4, 6),
        takes_adaptive_thinking=version >= (4, 6),
        thinking_can_be_off=not (family in ("fable", "mythos") or (version >= (5, 5) and family in ("opus", "sonnet"))),
        takes_output_format=version >= ((4, 1) if family == "opus" else (4, 5)),
        cache_minimum_tokens=_cache_minimum(family, version),
    )


def _read(model: str) -> tuple[str | None, Version | None]:
    name = model.lower()
    for known, (family, version) in _UNVERSIONED.items():
        if known in name:
            return family, version
    found = _FAMILY_FIRST.search(name) or _VERSION_FIRST.search(name)
    if found is None:
        return None, None
    return found["family"], (int(found["major"]), int(found["minor"] or 0))


def _output_limit(family: str | None, version: Version) -> int:
    if family == "opus" and (4, 0) <= version <= (4, 1):
        return _OPUS_4_LIMIT
    if version[0] == 4 and version < (4, 2):
        return 64_000
    return next(limit for since, limit in _OUTPUT_LIMITS if version >= since)


def _cache_minimum(family: str | None, version: Version) -> int:
    known = _CACHE_MINIMUMS.get(family or "", ())
    unknown = NEWEST_CACHE_MINIMUM if version >= (5, 5) else HIGHEST_CACHE_MINIMUM
    return next((minimum for since, minimum in known if version >= since), unknown)


@lru_cache(maxsize=256)
def nonstreaming_limit(model: str) -> int:
    """The highest `max_tokens` the SDK sends without streaming; above it, it asks for a stream.

    From the SDK: it expects 128,000 tokens to take an hour, refuses to wait more than ten minutes, and knows lower
    limits for some models (`anthropic._constants.MODEL_NONSTREAMING_TOKENS`).
    """
    by_time = 128_000 * 10 // 60
    try:
        from anthropic._constants import MODEL_NONSTREAMING_TOKENS
    except ImportError:  # the constant is private; the time limit alone is right for every current model
        return by_time
    return min(by_time, MODEL_NONSTREAMING_TOKENS.get(model, by_time))


@lru_cache(maxsize=1)
def known_names() -> tuple[str, ...]:
    """The model names the installed SDK lists, newest first."""
    from anthropic.types import ModelParam

    literal = next((member for member in get_args(ModelParam) if get_args(member)), None)
    return tuple(str(name) for name in get_args(literal))


def nearest(model: str, count: int = 3) -> tuple[str, ...]:
    """Known model names that look like `model`, best first; empty when it is known or nothing is near."""
    names = known_names()
    if model in names:
        return ()
    wanted = model.lower().strip().replace("_", "-").replace(".", "-").replace(" ", "-")
    if not wanted.startswith("claude"):
        wanted = f"claude-{wanted}"
    return tuple(difflib.get_close_matches(wanted, names, n=count, cutoff=0.7))


def check_name(model: object) -> str:
    """`model` when it can be a model's name.

    Raises:
        TypeError: it is no string.
        UnknownModel: it is empty or holds spaces, which no provider's names do.
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a name such as 'claude-sonnet-5-5', not {type(model).__name__}")
    if not model.strip() or any(letter.isspace() for letter in model):
        raise UnknownModel(model, nearest(model) if model.strip() else ())
    return model


def hint(model: str) -> str | None:
    """A sentence for whoever got a 404 for `model`, or None when the name is one the SDK knows."""
    names = known_names()
    if model in names:
        return None
    near = nearest(model)
    if near:
        return f"llmnb: no model is called {model!r}. Did you mean {' or '.join(map(repr, near))}?"
    return f"llmnb: no model is called {model!r}. Current ones: {', '.join(names[:5])}."
