"""An access that looks its client up once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmnb.asking.access import Access


class OneClient:
    """A run keeps the client it began with, and looking it up costs each row."""

    def __init__(self, access: Access, *, on_loop_thread: bool) -> None:
        self._access = access
        self._find = access.on_loop_thread if on_loop_thread else access.here
        self._client: Any = None

    def here(self) -> Any:
        if self._client is None:
            from llmnb.middleware.direct import for_many

            self._client = for_many(self._find())
        return self._client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._access, name)
