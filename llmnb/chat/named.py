"""The chats of a kernel that have a name: opened, continued and found by it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmnb.client import label
from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from llmnb.chat.conversation import Chat
    from llmnb.llm import LLM

_named: dict[str, Chat] = {}
_lock = threading.Lock()


def open_chat(llm: LLM, *, name: str | None = None, system: str | None = None, **more: Any) -> Chat:
    """A new chat, or the kernel's chat of that name, which goes on with `llm` and all that is given."""
    from llmnb.chat.conversation import Chat

    name = None if name is None else label(name, "the name of a chat")
    with _lock:
        chat = _named.get(name) if name is not None else None
        if chat is not None:
            chat.llm = llm
            chat.system = chat.system if system is None else system
            chat.tools = more.get("tools", chat.tools)
            chat.guard = replace(chat.guard, **{name: value for name, value in more.items() if name != "tools"})
            return chat
        chat = Chat(llm, name=name, system=system, **more)
        if name is not None:
            _named[name] = chat
        return chat


def named_chat(name: str) -> Chat | None:
    """The kernel's chat of that name, or None."""
    return _named.get(name)


def chat_names() -> list[str]:
    """The names of the kernel's chats."""
    return sorted(_named)


def check_free(name: str | None) -> None:
    """Refuses a name that a chat of this kernel has already."""
    if name is not None and name in _named:
        raise InvalidRequest(f"there is a chat called {name!r} already; give the fork another name")


def registered(chat: Chat) -> Chat:
    """The chat, to be found by its name if it has one; it takes the place of the one that had it."""
    if chat.name is not None:
        with _lock:
            _named[chat.name] = chat
    return chat
