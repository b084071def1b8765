"""`last()`: the latest answer of this kernel, also when its view was lost or it was cut off."""

from __future__ import annotations

from llmnb.errors import InvalidRequest
from llmnb.reply import Reply

_latest: Reply | None = None


def last() -> Reply:
    """The `Reply` that ended last in this kernel, however it was asked for.

    It brings back what a closed or reloaded tab missed. An answer that was stopped or broke off is here, too, as far as
    it came: `reply.status` says how it ended. A call that ended before its first token leaves the reply before it.

    Raises:
        InvalidRequest: nothing was answered in this kernel.
    """
    if _latest is None:
        raise InvalidRequest('there is no last answer: nothing was answered in this kernel yet; llm("…") asks')
    return _latest


def remember(reply: Reply | None) -> None:
    """`reply` ended now; None (nothing came) changes nothing."""
    global _latest
    if reply is not None:
        _latest = reply


def forget() -> None:
    """Nothing was answered yet."""
    global _latest
    _latest = None
