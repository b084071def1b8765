"""tiktoken's vocabulary, when it is on disk; the only importer of tiktoken.

tiktoken downloads a vocabulary the first time it is used, without a time limit, and so a count could hang. Here nothing
is downloaded but by `fetch`, when a user asks for it: a file that is not there, or not the one it should be, means that
texts are estimated by their characters instead.

Claude's own vocabulary is not public. cl100k_base is near enough that one factor a generation is left (see `text`).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmnb.errors import LlmnbError
from llmnb.settings import load as load_settings

if TYPE_CHECKING:
    import tiktoken

_TIMEOUT_S = 30.0
_LONGEST_TEXT = 100_000
"""Characters counted at once: a long run without a space takes tiktoken quadratic time."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-pair vocabulary that tiktoken can read: where it comes from, its SHA-256, and how text is cut for it."""

    name: str
    url: str
    sha256: str
    pattern: str


CL100K_BASE = Vocabulary(
    "cl100k_base",
    "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
)
"""From tiktoken 0.14 (`tiktoken_ext.openai_public`)."""


def folders() -> list[Path]:
    """Where a vocabulary may lie: tiktoken's own cache, and the folder `fetch` writes to."""
    asked = next(
        (os.environ[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if name in os.environ), None
    )
    theirs = Path(asked) if asked else Path(tempfile.gettempdir()) / "data-gym-cache"
    return [theirs, load_settings().home / "vocabulary"] if asked != "" else [load_settings().home / "vocabulary"]


def path_in(folder: Path, vocabulary: Vocabulary) -> Path:
    """The file of a vocabulary, named as tiktoken names it."""
    return folder / hashlib.sha1(vocabulary.url.encode(), usedforsecurity=False).hexdigest()


def on_disk(vocabulary: Vocabulary = CL100K_BASE) -> Path | None:
    """The file of the vocabulary, or None when it is not here; its content is looked at when it is loaded."""
    return next((path for folder in folders() if (path := path_in(folder, vocabulary)).is_file()), None)


# Counting -------------------------------------------------------------------------------------------------------------

_loaded: dict[str, Callable[[str], float] | None] = {}
_lock = threading.Lock()


def loaded(vocabulary: Vocabulary = CL100K_BASE) -> Callable[[str], float] | None:
    """Counts with the vocabulary where this process has it in memory already; loads nothing."""
    return _loaded.get(vocabulary.sha256)


def load(vocabulary: Vocabulary = CL100K_BASE) -> Callable[[str], float] | None:
    """Counts the tokens of a text with the vocabulary, or None when it is not on disk.

    Reading it takes about half a second, once a process. A damaged file is the same as none.
    """
    with _lock:
        if _loaded.get(vocabulary.sha256) is None:
            _loaded[vocabulary.sha256] = _read(vocabulary)
        return _loaded[vocabulary.sha256]


def forget() -> None:
    """Drops what is in memory, as in a fresh process; for tests."""
    _loaded.clear()


def _read(vocabulary: Vocabulary) -> Callable[[str], float] | None:
    path = on_disk(vocabulary)
    if path is None:
        return None
    try:
        data = path.read_bytes()
        return _counter(_encoding(vocabulary, data)) if _is_sound(data, vocabulary) else None
    except (OSError, ValueError, NotBase64, ImportError):
        return None


def _encoding(vocabulary: Vocabulary, data: bytes) -> tiktoken.Encoding:
    import tiktoken

    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines() if line)}
    return tiktoken.Encoding(vocabulary.name, pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})


def _counter(encoding: tiktoken.Encoding) -> Callable[[str], float]:
    def count(text: str) -> float:
        pieces = (text[at : at + _LONGEST_TEXT] for at in range(0, len(text), _LONGEST_TEXT))
        return float(sum(len(encoding.encode_ordinary(piece)) for piece in pieces))

    return count


def _is_sound(data: bytes, vocabulary: Vocabulary) -> bool:
    return hashlib.sha256(data).hexdigest() == vocabulary.sha256


# Fetching -------------------------------------------------------------------------------------------------------------


def fetch(vocabulary: Vocabulary = CL100K_BASE, *, again: bool = False) -> Path:
    """Downloads the vocabulary into the folder of llmnb, unless a sound one is on disk; the path of the file.

    Raises:
        LlmnbError: it cannot be had, or what came is not it; nothing was kept.
    """
    path = on_disk(vocabulary)
    if path is not None and not again:
        with suppress(OSError):
            if _is_sound(path.read_bytes(), vocabulary):
                return path
    data = _downloaded(vocabulary.url)
    if not _is_sound(data, vocabulary):
        raise LlmnbError(
            f"what {vocabulary.url} sent is not {vocabulary.name} (its SHA-256 is another); nothing was kept. "
            "Try again, or go on without: texts are then estimated by their characters."
        )
    kept = _keep(data, path_in(load_settings().home / "vocabulary", vocabulary))
    _loaded.pop(vocabulary.sha256, None)
    return kept


def _downloaded(url: str) -> bytes:
    import httpx2

    try:
        answer = httpx2.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
        answer.raise_for_status()
        return answer.content
    except httpx2.HTTPError as error:
        raise LlmnbError(
            f"the vocabulary cannot be fetched from {url} ({error or type(error).__name__}): check the network and try "
            "again, or go on without: texts are then estimated by their characters."
        ) from error


def _keep(data: bytes, path: Path) -> Path:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise LlmnbError(f"the vocabulary cannot be written to {path} ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path
