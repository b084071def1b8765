"""Strings and numbers for schema instances: by format, by pattern, by bounds, and by what the property is called."""

from __future__ import annotations

import importlib
import math
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmnb.simulator.json_value import Json, as_text

NAMES = ("Ada Lovelace", "Grace Hopper", "Emmy Noether", "Katherine Johnson", "Alan Turing", "Rosalind Franklin")
CITIES = ("Oslo", "Lisbon", "Kyoto", "Nairobi", "Quito", "Tallinn")
NOUNS = ("anchor", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor")
_PROPER = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)*", re.UNICODE)
_ANY_PROPER = re.compile(r"\b[A-Z][a-zA-Z'-]{2,}(?:\s+[A-Z][a-zA-Z'-]+)*")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]|\d)")
_QUOTED = re.compile(r"[\"“']([^\"“”']{1,80})[\"”']")
_OPENERS = frozenset(
    [
        "what",
        "which",
        "who",
        "when",
        "where",
        "why",
        "how",
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
        "should",
        "would",
        "will",
        "please",
        "tell",
        "give",
        "show",
        "find",
        "explain",
        "describe",
        "use",
        "the",
        "and",
        "for",
        "from",
        "with",
        "write",
        "list",
        "make",
        "create",
        "extract",
        "return",
        "get",
        "call",
        "compute",
        "look",
        "umbrella",
        "check",
        "summarise",
        "summarize",
        "simulated",
    ]
)


@dataclass(frozen=True, slots=True)
class Words:
    """The prompt, as a source of values: its proper names, numbers and quoted parts."""

    prompt: str = ""

    @property
    def proper_names(self) -> list[str]:
        """Capitalised words that are not the usual first word of a sentence."""
        found = _PROPER.findall(self.prompt) or _ANY_PROPER.findall(self.prompt)
        names = list(dict.fromkeys(name for name in found if name.lower() not in _OPENERS))
        return [name for name in names if not name.isupper()] or names  # acronyms only for want of a name

    @property
    def numbers(self) -> list[float]:
        """Numbers in the order they are named."""
        return [float(number) for number in _NUMBER.findall(self.prompt)]

    @property
    def quoted(self) -> list[str]:
        """What stands in quotation marks."""
        return _QUOTED.findall(self.prompt)

    def mention(self, word: str) -> bool:
        """Whether the prompt names the word."""
        return bool(word) and re.search(rf"\b{re.escape(word)}\b", self.prompt, re.IGNORECASE) is not None

    def noun(self, dice: random.Random) -> str:
        """A word without meaning."""
        return dice.choice(NOUNS)


def number_between(schema: Json, name: str, dice: random.Random, words: Words, *, whole: bool) -> int | float:
    """A number within the bounds; one that the prompt names, when it fits."""
    step = schema.get("multipleOf")
    low, high = _bounds(schema, whole)
    for named in words.numbers:
        value = int(named) if whole and named.is_integer() else named
        if low <= value <= high and not (whole and isinstance(value, float)) and not step and name:
            return value
    if step:
        return _multiple(low, high, step, dice, whole)
    if whole:
        return dice.randint(math.ceil(low), math.floor(high))
    value = round(dice.uniform(low, high), 2)
    return value if low <= value <= high else (low + high) / 2


def _bounds(schema: Json, whole: bool) -> tuple[float, float]:
    """Closed bounds; where only one is given, the other lies 100 away."""
    gap = 1 if whole else 1e-6
    lows = [float(schema["minimum"])] if "minimum" in schema else []
    highs = [float(schema["maximum"])] if "maximum" in schema else []
    if "exclusiveMinimum" in schema:
        bound = float(schema["exclusiveMinimum"])
        lows.append(math.floor(bound) + 1 if whole else bound + gap)
    if "exclusiveMaximum" in schema:
        bound = float(schema["exclusiveMaximum"])
        highs.append(math.ceil(bound) - 1 if whole else bound - gap)
    low = max(lows) if lows else min(1.0, *highs) if len(highs) > 1 else (min(1.0, highs[0] - 100) if highs else 1.0)
    if highs and not lows and highs[0] >= 1:
        low = 1.0
    return low, min(highs) if highs else low + 99


def _multiple(low: float, high: float, step: float, dice: random.Random, whole: bool) -> int | float:
    first, last = math.ceil(low / step), math.floor(high / step)
    if first > last:
        first = last = 0
    candidates = [dice.randint(first, last) for _ in range(20)] + list(range(first, min(last, first + 50) + 1))
    for factor in candidates:
        value = factor * step
        if not whole or float(value).is_integer():
            return int(value) if whole or float(value).is_integer() else value
    return int(first * step)


def string_for(schema: Json, name: str, dice: random.Random, words: Words) -> str:
    """A string of the schema's format or pattern, or one that suits the property's name, within the length bounds."""
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    pattern, kind = as_text(schema.get("pattern")), as_text(schema.get("format"))
    if pattern:
        return matching(pattern, dice, least, int(most) if most is not None else None)
    if kind in _FORMATS:
        return _FORMATS[kind](dice)
    text = _suitable(name.lower(), dice, words)
    if len(text) < least:
        text += " " + "simulated " * (least // 10 + 1)
        text = text[: max(least, len(text.rstrip()))].ljust(least, ".") if most is None else text.ljust(least, ".")
    return text if most is None else text[: int(most)].ljust(least, ".")


def _suitable(name: str, dice: random.Random, words: Words) -> str:
    """A value that a property of this name could have."""
    if any(part in name for part in ("city", "location", "place", "town", "country")):
        return dice.choice(words.proper_names or list(CITIES))
    if name.endswith("name") or name in ("author", "person", "user", "customer", "title") or "entity" in name:
        return dice.choice(words.proper_names or list(NAMES))
    if "email" in name:
        return _email(dice)
    if any(part in name for part in ("query", "question", "search", "prompt")):
        return words.prompt.strip()[:200] or "simulated query"
    if name in ("unit", "units"):
        return "celsius"
    if "id" in re.split(r"[_\W]", name):
        return dice.choice(words.quoted or [f"sim-{dice.randrange(10_000):04d}"])
    if words.quoted:
        return dice.choice(words.quoted)
    if any(part in name for part in ("summary", "description", "reason", "explanation", "text", "bio", "comment")):
        return f"Simulated {name.replace('_', ' ')}: {words.prompt.strip()[:80] or 'no question was asked'}"
    return dice.choice(words.proper_names or [f"simulated {name.replace('_', ' ').strip() or dice.choice(NOUNS)}"])


def _email(dice: random.Random) -> str:
    return dice.choice(NAMES).lower().replace(" ", ".") + "@example.org"


def _date(dice: random.Random) -> str:
    return f"{dice.randint(2020, 2026)}-{dice.randint(1, 12):02d}-{dice.randint(1, 28):02d}"


def _time(dice: random.Random) -> str:
    return f"{dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}Z"


def _host(dice: random.Random) -> str:
    return f"{dice.choice(NOUNS)}.example.org"


_FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda dice: f"{_date(dice)}T{_time(dice)}",
    "duration": lambda dice: f"PT{dice.randint(1, 90)}M",
    "email": _email,
    "idn-email": _email,
    "hostname": _host,
    "uri": lambda dice: f"https://{_host(dice)}/{dice.choice(NOUNS)}",
    "uri-reference": lambda dice: f"/{dice.choice(NOUNS)}",
    "uuid": lambda dice: str(uuid.UUID(int=dice.getrandbits(128), version=4)),
    "ipv4": lambda dice: f"192.0.2.{dice.randint(1, 254)}",
    "ipv6": lambda dice: f"2001:db8::{dice.randint(1, 9999):x}",
}


# -- patterns ------------------------------------------------------------------------------------------------------

_CLASSES = {
    "CATEGORY_DIGIT": "0123456789",
    "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": "abcdefghij",
    "CATEGORY_NOT_WORD": "-",
    "CATEGORY_NOT_SPACE": "abcdefghijklmnopqrstuvwxyz",
}
_PRINTABLE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ ./:"


def matching(pattern: str, dice: random.Random, least: int = 0, most: int | None = None) -> str:
    """A string that a simple pattern matches: literals, classes, groups, alternatives and repeats."""
    parsed = importlib.import_module("re._parser").parse(pattern)
    text = ""
    for extra in (0, 1, 2, 4, 8, 16, 32):
        text = _written(parsed, dice, extra)
        fits = least <= len(text) and (most is None or len(text) <= most)
        if fits and re.search(pattern, text):
            return text
    return text


def _written(parsed: Any, dice: random.Random, extra: int) -> str:
    return "".join(_token(str(kind), value, dice, extra) for kind, value in parsed)


def _token(kind: str, value: Any, dice: random.Random, extra: int) -> str:
    match kind:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return "b" if chr(value) == "a" else "a"
        case "ANY":
            return dice.choice(NOUNS)[0]
        case "IN":
            return dice.choice(_class_members(value))
        case "BRANCH":
            return _written(dice.choice(value[1]), dice, extra)
        case "SUBPATTERN":
            return _written(value[-1], dice, extra)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, part = value
            times = min(int(most), int(least) + extra) if int(most) < 10_000 else int(least) + extra
            return "".join(_written(part, dice, extra) for _ in range(times))
        case _:
            return ""


def _class_members(parts: Any) -> str:
    members, negated = "", False
    for kind, value in parts:
        match str(kind):
            case "NEGATE":
                negated = True
            case "LITERAL":
                members += chr(value)
            case "RANGE":
                members += "".join(chr(code) for code in range(value[0], min(value[1], value[0] + 60) + 1))
            case "CATEGORY":
                members += _CLASSES.get(str(value), "a")
            case _:
                pass
    if negated:
        return "".join(character for character in _PRINTABLE if character not in members) or "x"
    return members or "x"
