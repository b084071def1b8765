"""What the response cache asks of a place to keep bytes in, and which place the settings name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from llmnb.settings import Settings


@dataclass(frozen=True, slots=True)
class Item:
    """Bytes under a name, to be kept for `ttl_s` seconds, or for ever."""

    name: str
    data: bytes
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """How much is kept: items, bytes, and the bytes that may be kept before the least recently used goes.

    `limit_bytes` is None where the server has limits of its own.
    """

    items: int
    bytes: int
    limit_bytes: int | None


ITEMS_TOGETHER = 16
"""How many items are made, and given to the place, at once: few enough to be in the processor's cache still."""
BYTES_TOGETHER = 16 * 2**20


def together(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items some at a time, `ITEMS_TOGETHER` or of `BYTES_TOGETHER`."""
    group: list[Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += len(item.data)
        if len(group) == ITEMS_TOGETHER or size > BYTES_TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


class Pickled(ValueError):  # noqa: N818 - it says what was found
    """An entry is no bytes: somebody else wrote it, perhaps to be unpickled."""


class Backend(Protocol):
    """A place to keep bytes in. Every method may be called from any thread, and raises what its library raises.

    What it gives back may be damaged: whoever reads checks it.
    """

    @property
    def where(self) -> str:
        """The place, for reading; without a password."""
        ...

    def get(self, name: str) -> bytes | None:
        """The bytes under a name; None when there are none, or they have expired."""
        ...

    def peek(self, names: Sequence[str], length: int) -> list[bytes | None]:
        """The first `length` bytes under each name, expired or not; None where there are none."""
        ...

    def put(self, items: Iterable[Item]) -> None:
        """Keeps items, each in place of what was under its name. They may be made while they are asked for."""
        ...

    def delete(self, names: Iterable[str]) -> int:
        """Forgets what is under these names; how many there were."""
        ...

    def touch(self, names: Iterable[str]) -> None:
        """Notes that what is under these names was used just now."""
        ...

    def names(self) -> Iterator[str]:
        """All names, in no order."""
        ...

    def size(self) -> Size:
        """How much is kept."""
        ...

    def claim(self, name: str) -> bool:
        """Takes the name for this process; False while another process has it. It is freed when its holder dies."""
        ...

    def renew(self, names: Iterable[str]) -> None:
        """Says that this process still holds these names; to be called every `RENEW_S` seconds."""
        ...

    def release(self, names: Iterable[str]) -> None:
        """Frees names that were claimed."""
        ...

    def close(self) -> None:
        """Lets go of files and connections; the next use opens them again."""
        ...


RENEW_S = 3.0
"""How often claims are renewed."""


def open_backend(settings: Settings) -> Backend:
    """The backend of the settings; nothing is opened before its first use.

    Raises:
        MissingExtra: the settings name Redis, and its client is not installed.
    """
    if settings.cache_url is None:
        module: Any = import_module("llmnb.cache.disk")
        return module.DiskBackend(settings.cache_folder, settings.cache_limit)
    module = import_module("llmnb.cache.redis")
    return module.RedisBackend(settings.cache_url)
