"""A saved conversation: one JSON file, versioned, written whole or not at all, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from llmnb.errors import InvalidRequest
from llmnb.records import Usage

FORMAT = "llmnb.chat"
VERSION = 1

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
    """What a file holds: `models[i]` answered `messages[2 * i]`."""

    name: str | None
    model: str
    system: str | list[Any] | None
    options: dict[str, Any]
    messages: list[dict[str, Any]]
    models: list[str]
    usage: Usage
    cost_nanousd: int | None
    unpriced_calls: int


def write(path: Path, chat: SavedChat) -> Path:
    """Writes the file in one step, with mode 0600; returns its absolute path."""
    content = {"format": FORMAT, "version": VERSION, **asdict(chat)}
    try:
        text = json.dumps(content, ensure_ascii=False, indent=1, default=_unwritable)
    except ValueError as error:
        raise InvalidRequest(f"this chat cannot be saved: {error}") from None
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
    messages = [_message(index, message) for index, message in enumerate(_a(list, data, "messages"))]
    models = [str(model) for model in _a(list, data, "models")]
    if len(messages) != 2 * len(models):
        raise ValueError(f"{len(messages)} messages, but {len(models)} answers")
    options = {key: value for key, value in _a(dict, data, "options").items() if key in SAVED_OPTIONS}
    known = {field.name for field in fields(Usage)}
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
    )


def _a(kind: type | tuple[type, ...], data: dict[str, Any], key: str) -> Any:
    value = data[key]
    if not isinstance(value, kind):
        raise ValueError(f"{key!r} is a {type(value).__name__}")
    return value


def _message(index: int, message: Any) -> dict[str, Any]:
    role = ("user", "assistant")[index % 2]
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
