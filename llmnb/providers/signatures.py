"""Signatures of thoughts that come with tool calls, and must go back with them to whoever sent them, and nobody else.

They are kept beside the messages, by the call's id: a model of another provider, to which a conversation may go on,
refuses fields it does not know. What is lost with the process has a stand-in (see `request`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

MOST = 4_096
"""So many calls are remembered, the newest ones."""

_known: OrderedDict[str, Any] = OrderedDict()


def remember(uid: str, call: dict[str, Any]) -> None:
    """Keeps what came with the call of this id, if something did."""
    if call.get("extra_content"):
        _known[uid] = call["extra_content"]
        while len(_known) > MOST:
            _known.popitem(last=False)


def of(uid: object) -> Any:
    """What came with the call of this id; None where it is not known."""
    return _known.get(str(uid))
