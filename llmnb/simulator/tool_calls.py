"""When the simulated model calls tools, which, and with what input: by the words that prompt and tool share."""

from __future__ import annotations

import random
import re
from typing import Any

from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text, content_blocks, text_of
from llmnb.simulator.schema import UnsatisfiableError, instance_of, tool_schemas
from llmnb.simulator.schema_text import Words

MAX_PARALLEL_CALLS = 4
_WORD = re.compile(r"[a-z]{3,}")
_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "that",
        "this",
        "from",
        "into",
        "are",
        "you",
        "your",
        "what",
        "which",
        "when",
        "where",
        "who",
        "how",
        "why",
        "can",
        "could",
        "should",
        "would",
        "will",
        "please",
        "give",
        "get",
        "show",
        "tell",
        "use",
        "tool",
        "tools",
        "function",
        "call",
        "returns",
        "return",
        "one",
        "all",
        "any",
        "not",
        "but",
        "has",
        "have",
        "given",
        "input",
        "string",
        "number",
        "value",
        "about",
        "today",
        "now",
        "current",
        "its",
        "it's",
        "was",
        "were",
        "does",
        "did",
        "let",
        "lets",
        "there",
        "their",
        "then",
        "than",
        "also",
    ]
)
RELATED = {
    "umbrella": "weather", "rain": "weather", "forecast": "weather", "sunny": "weather", "temperature": "weather",
    "stock": "price", "cost": "price", "ticker": "price", "multiply": "calculator", "sum": "calculator",
    "divide": "calculator", "plus": "calculator", "times": "calculator", "square": "root", "clock": "time",
    "timezone": "time", "appointment": "calendar", "meeting": "calendar", "mail": "email", "rows": "sql",
    "table": "sql", "database": "sql", "file": "read", "colour": "color",
}  # fmt: skip


def planned_calls(body: Json, prompt: str, seed: str) -> list[tuple[str, Any]]:
    """The calls the simulated model makes on this turn as (name, input), or none when it answers in text."""
    choice = as_object(body.get("tool_choice"))
    tools = tool_schemas(body)
    if not tools or choice.get("type") == "none":
        return []
    words = Words(prompt)
    if choice.get("type") == "tool":
        tools = [tool for tool in tools if tool[0] == choice.get("name")]
        return [_call(name, schema, seed, words) for name, schema in tools[:1]]
    forced = choice.get("type") == "any"
    if _answers_results(body) and not forced:
        return []
    fitting = [tool for tool in tools if _fits(tool, body, prompt)]
    if forced and not fitting:
        fitting = tools[:1]
    calls = [call for name, schema in fitting for call in _calls(name, schema, seed, words)]
    limit = 1 if choice.get("disable_parallel_tool_use") else MAX_PARALLEL_CALLS
    return calls[:limit]


def _answers_results(body: Json) -> bool:
    """Whether the last message brings tool results, so that it is the turn to answer."""
    messages = as_objects(body.get("messages"))
    last = content_blocks(messages[-1].get("content")) if messages else []
    return any(block.get("type") == "tool_result" for block in last)


def _fits(tool: tuple[str, Json], body: Json, prompt: str) -> bool:
    """Whether the prompt names the tool, or shares a word that matters with its name, description or parameters."""
    name, schema = tool
    if re.search(rf"\b{re.escape(name)}\b", prompt):
        return True
    definition = next(tool for tool in as_objects(body.get("tools")) if tool.get("name") == name)
    described = f"{name.replace('_', ' ')} {as_text(definition.get('description'))}"
    described += " ".join(as_object(schema.get("properties")))
    return bool(_stems(prompt) & _stems(described))


def _stems(text: str) -> set[str]:
    """Words that matter, cut to the stem, with what they stand for."""
    words = set(_WORD.findall(text.lower().replace("_", " "))) - _COMMON
    words |= {RELATED[word] for word in words if word in RELATED}
    return {word[:-1] if word.endswith("s") and len(word) > 4 else word for word in words}


def _calls(name: str, schema: Json, seed: str, words: Words) -> list[tuple[str, Any]]:
    """One call, or one for each proper name when the tool takes a single place or name and the prompt has several."""
    required = [as_text(item) for item in as_list(schema.get("required"))]
    names = words.proper_names
    if len(required) == 1 and len(names) > 1 and _takes_name(schema, required[0]):
        return [_call(name, schema, seed, Words(one)) for one in names[:MAX_PARALLEL_CALLS]]
    return [_call(name, schema, seed, words)]


def _takes_name(schema: Json, parameter: str) -> bool:
    part = as_object(as_object(schema.get("properties")).get(parameter))
    return part.get("type") == "string" and not {"enum", "format", "pattern", "const"} & set(part)


def _call(name: str, schema: Json, seed: str, words: Words) -> tuple[str, Any]:
    try:
        return name, instance_of(schema, seed=f"{seed}:{name}", words=words)
    except UnsatisfiableError:
        return name, {}


def results_of(body: Json) -> list[tuple[str, str, bool]]:
    """The tool results in the last message, as (tool name, text, whether it is an error)."""
    messages = as_objects(body.get("messages"))
    if not messages:
        return []
    names = {
        as_text(block.get("id")): as_text(block.get("name"))
        for message in messages
        for block in content_blocks(message.get("content"))
        if block.get("type") == "tool_use"
    }
    return [
        (
            names.get(as_text(block.get("tool_use_id")), "tool"),
            text_of(block.get("content")) or "(no text)",
            bool(block.get("is_error")),
        )
        for block in content_blocks(messages[-1].get("content"))
        if block.get("type") == "tool_result"
    ]


def web_search_tool(body: Json) -> Json | None:
    """The web search tool of the request, when there is one."""
    tools = as_objects(body.get("tools"))
    return next((tool for tool in tools if as_text(tool.get("type")).startswith("web_search_")), None)


def wants_search(prompt: str) -> bool:
    """Whether a prompt asks for something on the web."""
    return bool(re.search(r"\b(search|latest|news|today|current|web|look up)\b", prompt, re.IGNORECASE))


def search_blocks(prompt: str, dice: random.Random) -> list[Json]:
    """One web search and its results, about the prompt."""
    call = f"srvtoolu_sim{dice.getrandbits(64):016x}"
    result: Json = {
        "type": "web_search_result",
        "title": f"Simulated result about {prompt.strip()[:60]}",
        "url": "https://example.org/simulated",
        "encrypted_content": "c2ltdWxhdGVk",
        "page_age": None,
    }
    return [
        {"type": "server_tool_use", "id": call, "name": "web_search", "input": {"query": prompt.strip()[:120]}},
        {"type": "web_search_tool_result", "tool_use_id": call, "content": [result]},
    ]
