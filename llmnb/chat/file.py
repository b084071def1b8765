"""A saved conversation: one JSON file, versioned, written whole or not at all, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from llmnb.errors import InvalidRequest
from llmnb.records import Usage

FORMAT = "llmnb.chat"
VERSION = 2
"""2: turns of more than two messages, with the definitions of their tools, and what is sent of them."""

SAVED_OPTIONS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "thinking",
    "effort",
    "stop_sequences",
    "project",
    "tag",
    "service_tier",
    "speed",
    "inference_geo",
    "output_config",
    "cache_control",
    "prompt_cache",
    "log_content",
)
"""Settings that are saved, and the only ones that are read back: a file cannot bring headers or a client."""


@dataclass(frozen=True, slots=True)
class SavedChat:
    """What a file holds: turn i is of `models[i]`, and `lengths[i]` messages long.

    `definitions` are those of the tools that were given last; the first `left_out` turns are not sent any more, but
    `summary`, messages about them. `router` are the arguments of the `Router` that `model` is the first of.
    """

    name: str | None
    model: str
    system: str | list[Any] | None
    options: dict[str, Any]
    messages: list[dict[str, Any]]
    models: list[str]
    usage: Usage
    cost_nanousd: int | None
    unpriced_calls: int
    lengths: list[int]
    definitions: list[Any] = field(default_factory=list[Any])
    left_out: int = 0
    summary: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    router: dict[str, Any] | None = None


def write(path: Path, chat: SavedChat) -> Path:
    """Writes the file in one step, with mode 0600; returns its absolute path."""
    content = {"format": FORMAT, "version": VERSION, **asdict(chat)}
    try:
        text = json.dumps(content, ensure_ascii=False, indent=1, default=_unwritable)
    except ValueError as error:
        raise InvalidRequest(f"this chat cannot be saved: {error}") from None
    return write_text(path, text)


def write_text(path: Path, text: str) -> Path:
    """Writes a text in one step, with mode 0600; returns its absolute path."""
    path = path.absolute()
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _unwritable(value: object) -> Any:
    raise ValueError(f"a content block holds a {type(value).__name__}, which JSON cannot; give files as Path or bytes")


def read(path: Path) -> SavedChat:
    """Reads a file that `write` wrote.

    Raises:
        InvalidRequest: it is something else, damaged, or of a newer version.
        OSError: it cannot be read.
    """
    try:
        content: Any = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{path} is damaged or no saved chat: it holds no JSON") from None
    if not isinstance(content, dict) or cast("dict[str, Any]", content).get("format") != FORMAT:
        raise InvalidRequest(f"{path} is no saved chat; chat.save(path) writes one")
    data = cast("dict[str, Any]", content)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InvalidRequest(
            f"{path} was written by a newer llmnb (chat version {version}; this one reads up to {VERSION}): "
            "pip install -U llmnb"
        )
    try:
        return _saved(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{path} is damaged: {error}") from None


def _saved(data: dict[str, Any]) -> SavedChat:
    models = [str(model) for model in _a(list, data, "models")]
    lengths = [int(length) for length in data.get("lengths", [2] * len(models))]
    messages = _turns(_a(list, data, "messages"), models, lengths)
    summary: list[Any] = data.get("summary", [])
    options = {key: value for key, value in _a(dict, data, "options").items() if key in SAVED_OPTIONS}
    known = {one.name for one in fields(Usage)}
    usage = {key: value for key, value in _a(dict, data, "usage").items() if key in known}
    return SavedChat(
        name=_a((str, type(None)), data, "name"),
        model=_a(str, data, "model"),
        system=_a((str, list, type(None)), data, "system"),
        options=options,
        messages=messages,
        models=models,
        usage=Usage(**usage),
        cost_nanousd=_a((int, type(None)), data, "cost_nanousd"),
        unpriced_calls=_a(int, data, "unpriced_calls"),
        lengths=lengths,
        definitions=[_mapping(tool) for tool in data.get("definitions", [])],
        left_out=min(max(0, int(data.get("left_out", 0))), len(models)),
        router=_a((dict, type(None)), {"router": None, **data}, "router"),
        summary=[_message(at, message, ("user", "assistant")[at % 2]) for at, message in enumerate(summary)],
    )


def _turns(messages: list[Any], models: list[str], lengths: list[int]) -> list[dict[str, Any]]:
    """The messages, of which each turn begins with the user's and ends with the assistant's."""
    if len(lengths) != len(models) or sum(lengths) != len(messages) or any(length < 2 for length in lengths):
        raise ValueError(f"{len(messages)} messages, but {len(models)} answers")
    found: list[dict[str, Any]] = []
    for length in lengths:
        turn = messages[len(found) : len(found) + length]
        roles = ["user", *(_role(message) for message in turn[1:-1]), "assistant"]
        for message, role in zip(turn, roles, strict=True):
            found.append(_message(len(found), message, role))
    return found


def _role(message: Any) -> str:
    return "assistant" if _mapping(message).get("role") == "assistant" else "user"


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where an object should be")
    return cast("dict[str, Any]", value)


def _a(kind: type | tuple[type, ...], data: dict[str, Any], key: str) -> Any:
    value = data[key]
    if not isinstance(value, kind):
        raise ValueError(f"{key!r} is a {type(value).__name__}")
    return value


def _message(index: int, message: Any, role: str) -> dict[str, Any]:
    if not isinstance(message, dict) or cast("dict[str, Any]", message).get("role") != role:
        raise ValueError(f"message {index} is not by the {role}")
    content: Any = cast("dict[str, Any]", message).get("content")
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    spoken = isinstance(content, str) and role == "user"
    if not content or not (spoken or blocks):
        raise ValueError(f"message {index} has no content")
    for block in blocks:
        if not isinstance(block, dict) or not isinstance(cast("dict[str, Any]", block).get("type"), str):
            raise ValueError(f"message {index} holds something that is no content block")
    return cast("dict[str, Any]", message)
