"""Message threads of which answers are kept: which conversation stands behind the id of an answer.

A turn that continues a thread says only which answer it goes on from. What was said before is remembered as a digest,
in this process and, beside the answer, in the cache: so the turn has the key of the whole conversation, and is found
again when the API has forgotten the thread and the conversation is sent anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from llmnb.cache.stored import StoredAnswer
from llmnb.keys import Turn, turn_of
from llmnb.messages.folding import CannotFold

MOST_REMEMBERED = 4_096


class Threads:
    """The threads that this process knows; `kept` reads what the cache has under a name."""

    def __init__(self, kept: Callable[[str], bytes | None]) -> None:
        self._kept = kept
        self._ends: OrderedDict[str, bytes] = OrderedDict()
        self._coming: deque[tuple[Turn, Callable[[], StoredAnswer | None]]] = deque(maxlen=64)

    def turn(self, body: Mapping[str, Any]) -> Turn | None:
        """The turn that a request is; None when it is of no thread, or of one that nothing is known of."""
        thread = body.get("thread")
        if not isinstance(thread, dict):
            return None
        previous = cast("dict[str, Any]", thread).get("previous_message_id")
        if previous is None:
            return turn_of(body)
        held = self._held(str(previous))
        return None if held is None else turn_of(body, held)

    def coming(self, turn: Turn, answer: Callable[[], StoredAnswer | None]) -> None:
        """An answer to a turn has come; it is looked at when the next turn needs it."""
        self._coming.append((turn, answer))

    def answered(self, turn: Turn, answer: StoredAnswer) -> None:
        """This is the answer to a turn."""
        end = end_of(turn, answer)
        if end is not None:
            self._ends[str(answer.message.get("id"))] = end
            while len(self._ends) > MOST_REMEMBERED:
                self._ends.popitem(last=False)

    def _held(self, message_id: str) -> bytes | None:
        while self._coming:
            turn, look = self._coming.popleft()
            if (answer := look()) is not None:
                self.answered(turn, answer)
        return self._ends.get(message_id) or self._kept(thread_name(message_id))


def end_of(turn: Turn, answer: StoredAnswer) -> bytes | None:
    """The digest of a conversation with this answer at its end; None when no message can be made of it."""
    try:
        return turn.answered(answer.whole_message()["content"])
    except (CannotFold, KeyError):
        return None


def thread_name(message_id: str) -> str:
    """The name under which the cache keeps the digest of the conversation up to an answer."""
    return f"{message_id}/thread"
