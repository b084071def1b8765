"""Tokens of a text without any vocabulary: counts of character classes, weighted.

The weights were fitted (non-negative least squares on the relative error) to what cl100k_base makes of 6,500 pieces of
300 to 3,000 characters: English, Python, Markdown, JSON and CSV, and manual pages and translations in 20 languages. On
those the mean error is 5 % in English, 6 % in code and Markdown, 4 % in JSON, 2 % in CSV and 2 to 19 % in the other
languages, where bytes/4 is off by 14, 13, 25, 54 and 8 to 52 %. One factor then brings the count to a generation of
Claude's own tokenisers, which are not public.
"""

from __future__ import annotations

from llmnb.messages import models

TO_FIRST_TOKENISER = 1.05
"""Claude's tokens for each of cl100k_base up to version 4.6: 1.00 in the recorded prompts that are mostly text, 1.09 in
the nine recorded answers that are."""
TO_SECOND_TOKENISER = 1.30
"""From version 4.7 on the same text is about 30 % more tokens (the API's documentation, "Token counting")."""
SECOND_TOKENISER_SINCE = (4, 7)


def generation_factor(model: str) -> float:
    """How many tokens of `model` there are for each of cl100k_base; a name without a version is taken for a new one."""
    version = models.facts(model).version
    if version is None or version >= SECOND_TOKENISER_SINCE:
        return TO_FIRST_TOKENISER * TO_SECOND_TOKENISER
    return TO_FIRST_TOKENISER


def heuristic_tokens(text: str) -> float:
    """Tokens of cl100k_base in a text, estimated from its characters; 0 for an empty one."""
    if not text:
        return 0.0
    data = text.encode("utf-8", "replace")
    classes = data.translate(_CLASSES)
    counts = [len(data.translate(_WORDS).split()), *(classes.count(pattern) for pattern in _PATTERNS)]
    plain = sum(map(float.__mul__, _PLAIN, map(float, counts)))
    if len(data) == len(text):
        return max(plain, 1.0)
    scripts = [classes.count(script) for script, _ in _SCRIPTS]
    # a little of another script says that the language is another: its words are cut finer
    share = min(1.0, 25 * sum(scripts) / (sum(scripts) + counts[1] + 1))
    other = sum(map(float.__mul__, _OTHER, map(float, counts)))
    marked = sum(weight * count for (_, weight), count in zip(_SCRIPTS, scripts, strict=True))
    return max(plain * (1 - share) + other * share + marked, 1.0)


def _class_of(byte: int) -> str:
    char = chr(byte)
    if byte < 0x80:
        kinds = (("a", char.islower()), ("A", char.isupper()), ("0", char.isdigit()), ("n", char == "\n"))
        return next((kind for kind, is_it in kinds if is_it), " " if char.isspace() else ".")
    return next(kind for kind, last in _LEADS if byte <= last)


# the last leading byte in UTF-8 of: nothing (inside a character), Latin, Greek, Cyrillic, Hebrew and Arabic, Indic and
# Thai, punctuation and symbols, kana, Han, Hangul, Han again, all beyond (emoji)
_LEADS = (
    ("c", 0xBF), ("l", 0xCD), ("g", 0xCF), ("r", 0xD4), ("h", 0xDF), ("d", 0xE1), ("s", 0xE2), ("j", 0xE3),
    ("z", 0xE9), ("k", 0xED), ("z", 0xEF), ("e", 0xFF),
)  # fmt: skip
_CLASSES = "".join(map(_class_of, range(256))).encode()
_WORDS = bytes(byte if chr(kind) in "aAlgrhc" else 32 for byte, kind in enumerate(_CLASSES))

# letters, capitals inside words, capitals, digits, punctuation after a digit, punctuation, after a letter, after a
# space, line ends, spaces; before them stand the words
_PATTERNS = (b"a", b"aA", b"A", b"0", b"0.", b".", b"a.", b" .", b"n", b" ")
_PLAIN = (0.979, 0.019, 1.677, 0.224, 0.481, 1.032, 0.083, 0.504, 1.341, 0.527, 0.015)
_OTHER = (0.0, 0.243, 0.0, 0.276, 1.064, 0.0, 0.429, 0.0, 0.0, 1.703, 0.169)
_SCRIPTS = (
    (b"l", 1.327), (b"g", 1.008), (b"r", 0.439), (b"h", 0.856), (b"d", 1.064), (b"s", 1.0), (b"j", 0.924),
    (b"z", 0.835), (b"k", 0.971), (b"e", 2.8),
)  # fmt: skip
