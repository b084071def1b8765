"""The default answer: readable Markdown about the question asked, labelled as simulated, the same for the same seed."""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from llmnb.simulator.json_value import Json, as_objects, text_of
from llmnb.simulator.tool_calls import results_of
from llmnb.simulator.topics import TOPICS, Topic

LABEL = "*Simulated answer — no model was asked.*"
SHORT_LABEL = "(Simulated answer — no model was asked.)"

_WORD = re.compile(r"[A-Za-zÀ-ÿ][\wÀ-ÿ'-]*")
_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "give",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "let",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "please",
        "should",
        "so",
        "some",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "up",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "explain",
        "describe",
        "write",
        "show",
        "make",
        "list",
        "about",
        "compare",
        "between",
        "summarise",
        "summarize",
        "short",
        "brief",
        "briefly",
        "sentence",
        "one",
        "word",
        "words",
        "say",
        "hi",
        "hello",
        "hey",
    ]
)
_NAME = re.compile(r"\b(?:my name is|i am called|call me)\s+([A-ZÀ-Þ][\w'-]+)", re.IGNORECASE)
_SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*([-+*/×x])\s*(-?\d+(?:\.\d+)?)")
_BRIEF = re.compile(
    r"\b(one sentence|one word|briefly|in short|short answer|be brief|single sentence)\b", re.IGNORECASE
)
_TECHNICAL = re.compile(r"\b(code|script|program|function|formula|equation|math|maths|mathematics)\b", re.IGNORECASE)
_GREETING = re.compile(r"\s*(hi|hello|hey|good (morning|evening)|say (hi|hello))\b[^?]{0,30}", re.IGNORECASE)
_LANGUAGES = {
    "sql": "sql", "javascript": "javascript", "typescript": "typescript", "rust": "rust", "bash": "bash",
    "shell": "bash", "java": "java", "golang": "go", "haskell": "haskell", "julia": "julia", "python": "python",
}  # fmt: skip
_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "x": operator.mul, "×": operator.mul,
    "/": lambda a, b: a / b,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is about: the prompt, the conversation before it, the system prompt."""

    prompt: str
    earlier: tuple[str, ...] = ()
    system: str = ""
    results: tuple[tuple[str, str, bool], ...] = ()


def question_of(body: Json) -> Question:
    """The question a request asks."""
    messages = as_objects(body.get("messages"))
    users = [text_of(message.get("content")) for message in messages if message.get("role") == "user"]
    prompt = text_of(messages[-1].get("content")) if messages else ""
    earlier = tuple(text for text in users[:-1] if text)
    return Question(
        prompt or (earlier[-1] if earlier else ""), earlier, text_of(body.get("system")), tuple(results_of(body))
    )


def write_answer(question: Question, seed: str) -> str:
    """The answer in Markdown."""
    if question.results:
        return _from_results(question)
    text = question.prompt.strip()
    reply = _remembered(question) or _arithmetic(text) or _greeting(text)
    if reply is not None:
        return f"{reply}\n\n{SHORT_LABEL}"
    words = key_words(text)
    topic = _topic_of(words)
    if _BRIEF.search(text) or not words:
        return f"{_one_line(text, topic, words)} {SHORT_LABEL}"
    parts = [LABEL, *_acknowledged(question), *(_about(topic, text) if topic else _plan(text, words, seed))]
    return "\n\n".join(parts)


def thought(question: Question) -> str:
    """What the simulated model thinks before it answers."""
    words = key_words(question.prompt)[:4]
    about = ", ".join(words) if words else "a short message"
    steps = " The tool results are in, so they come first." if question.results else ""
    return (
        f"(Simulated thinking.) The question is about {about}.{steps} "
        "I will say the main point first, then the steps, and keep it as short as the question allows."
    )


@lru_cache(maxsize=512)
def key_words(text: str) -> list[str]:
    """Words of a question that carry its meaning, in order, each once."""
    found = (word for word in _WORD.findall(text[:4000]) if word.lower() not in _STOP and len(word) > 1)
    return list(dict.fromkeys(found))


def _topic_of(words: list[str]) -> Topic | None:
    lower = {word.lower() for word in words}
    best = max(TOPICS, key=lambda topic: len(topic.words & lower))
    return best if best.words & lower else None


def _from_results(question: Question) -> str:
    lines = [
        f"- `{name}` {'failed' if failed else 'returned'}: {_inline(text)}" for name, text, failed in question.results
    ]
    asked = f" to “{_inline(question.prompt, 80)}”" if question.prompt else ""
    return f"{LABEL}\n\nHere is what the tools said{asked}:\n\n" + "\n".join(lines)


def _remembered(question: Question) -> str | None:
    introduced = _NAME.search(question.prompt)
    if introduced:
        return f"Nice to meet you, **{introduced[1]}**. I will remember your name in this conversation."
    if not re.search(r"\b(my name|who am i)\b", question.prompt, re.IGNORECASE):
        return None
    for text in reversed(question.earlier):
        introduced = _NAME.search(text)
        if introduced:
            return f"Your name is **{introduced[1]}**, you said so earlier."
    return "You have not told me your name in this conversation."


def _arithmetic(text: str) -> str | None:
    match = _SUM.search(text)
    if match is None or len(text) > 60:
        return None
    left, sign, right = float(match[1]), match[2], float(match[3])
    if sign == "/" and right == 0:
        return "Division by zero has no result."
    value = _OPERATORS[sign](left, right)
    return f"{match[1]} {sign} {match[3]} = **{value:.10g}**"


def _greeting(text: str) -> str | None:
    if not _GREETING.fullmatch(text.rstrip("!. ")):
        return None
    return "Hello! Ask me anything, and I will answer with text of the right shape."


def _one_line(text: str, topic: Topic | None, words: list[str]) -> str:
    if topic:
        return topic.idea.split(". ")[0].rstrip(".") + "."
    about = " ".join(words[:5]) or "that"
    return f"In one line: {about} is best looked at one step at a time." if text else "There was nothing to answer."


def _acknowledged(question: Question) -> list[str]:
    lines: list[str] = []
    if question.system:
        lines.append(f"> Following the system prompt: “{_inline(question.system, 90)}”")
    if question.earlier:
        asked = _inline(question.earlier[-1], 60).rstrip(".!")
        lines.append(f"Earlier you asked about *{asked}*; this goes on from there.")
    return lines


def _about(topic: Topic, text: str) -> list[str]:
    parts = [f"## {topic.title}", topic.idea, "### What matters", "\n".join(f"- {point}" for point in topic.points)]
    if len(text) > 25:
        parts += [_table(topic.table), "### In code", f"```{topic.language}\n{topic.code}\n```"]
    parts += ["### In one formula", f"$${topic.math}$$"]
    return parts


def _plan(text: str, words: list[str], seed: str) -> list[str]:
    """An answer about words the simulator knows nothing of: it says how one would go about them."""
    dice = random.Random(f"{seed}:{text}")
    title = " ".join(words[:6])
    first, second = words[0], words[min(1, len(words) - 1)]
    parts = [
        f"## {title[:1].upper()}{title[1:]}",
        _opening(dice, words),
        "### Steps",
        "\n".join(
            f"{at}. {step.format(first=first, second=second)}" for at, step in enumerate(dice.sample(_STEPS, 3), 1)
        ),
    ]
    if len(words) > 2 or len(text) > 30:
        parts.append(
            _table((("Term", "Letters", "Look at"), *((f"`{w}`", str(len(w)), dice.choice(_LOOKS)) for w in words[:4])))
        )
    if len(words) > 4 or _language(words) or _TECHNICAL.search(text):
        parts += [
            "### A sketch",
            _sketch(words),
            f"$$n_{{\\text{{{_plain(first)}}}}} = \\sum_{{i=1}}^{{{len(words)}}} w_i$$",
        ]
    for word in words[4 : 4 + len(text) // 400]:
        parts.append(dice.choice(_MORE).format(word=word, first=first))
    return parts


def _opening(dice: random.Random, words: list[str]) -> str:
    opening = dice.choice(_OPENINGS)  # also of one word, so that what is chosen after it stays what it was
    if len(words) == 1:
        return f"All of it hangs on **{words[0]}**."
    return opening.format(first=words[0], second=words[1], count=len(words))


_OPENINGS = (
    "The question has {count} terms that matter; **{first}** carries most of it, and **{second}** says where to look.",
    "Start from **{first}**: once it is pinned down, **{second}** follows.",
    "**{first}** and **{second}** belong together here, so they are taken in that order.",
)
_STEPS = (
    "Say what **{first}** means in one sentence, with an example.",
    "Write down what is known about *{second}*, and what is only assumed.",
    "Take the smallest case of {first} that still shows the problem.",
    "Change one thing at a time, and watch {second}.",
    "Check the result against a case whose answer is known.",
    "Keep what you measured next to the code that measured it.",
)
_LOOKS = ("definition", "example", "counter-example", "unit", "limit case", "source")
_MORE = (
    "On *{word}*: the same steps apply, starting again from {first}.",
    "As for *{word}*, look for the case where it does not hold.",
    "*{word}* deserves a note of its own: write down where it came from.",
)
_SKETCHES = {
    "sql": "SELECT {first}, COUNT(*) AS n\nFROM {second}\nGROUP BY {first}\nORDER BY n DESC;",
    "bash": "grep -c '{first}' notes.txt | sort",
    "javascript": "const {first} = ['{second}'];\nconsole.log({first}.length);",
    "typescript": "const {first}: string[] = ['{second}'];\nconsole.log({first}.length);",
    "rust": 'fn main() {{\n    let {first} = ["{second}"];\n    println!("{{}}", {first}.len());\n}}',
    "python": "{first} = ['{second}']\nfor item in {first}:\n    print(len(item), item)",
}


def _language(words: list[str]) -> str | None:
    return next((_LANGUAGES[word.lower()] for word in words if word.lower() in _LANGUAGES), None)


def _sketch(words: list[str]) -> str:
    language = _language(words) or "python"
    named = [_plain(word).lower() for word in words if word.lower() not in _LANGUAGES] or ["items"]
    code = _SKETCHES.get(language, _SKETCHES["python"])
    shown = language if language in _SKETCHES else "python"
    return f"```{shown}\n{code.format(first=named[0], second=named[min(1, len(named) - 1)])}\n```"


def _plain(word: str) -> str:
    """A word as an identifier."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", word)
    return cleaned if cleaned[:1].isalpha() else f"x_{cleaned}"


def _table(rows: tuple[tuple[str, ...], ...]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def _inline(text: str, most: int = 300) -> str:
    """A text on one line, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
