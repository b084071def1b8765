"""What llmnb does when llmnb itself fails: the user's call goes on, and one warning says why."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress


class LlmnbWarning(UserWarning):
    """Something inside llmnb failed or had to be worked around; the call itself was not harmed."""


class BudgetWarning(UserWarning):
    """Half, four fifths or all of a budget is spent."""


_said: set[str] = set()
_lock = threading.RLock()  # reentrant: a finalizer may warn in the middle of a warning


def warn_once(topic: str, message: str) -> None:
    """Warns about a topic, the first time in this process only."""
    warn_once_of([(topic, message)])


def warn_once_of(troubles: Iterable[tuple[str, str]]) -> None:
    """Warns, in one warning, of all topics that were not warned of in this process.

    A topic without a message is said by the others, and is not warned of later, either.
    """
    with _lock:
        new = {topic: message for topic, message in troubles if topic not in _said}
        _said.update(new)
    if messages := [message for message in new.values() if message]:
        others = [f"{message[:1].upper()}{message[1:]}" for message in messages[1:]]
        warnings.warn(" ".join([messages[0], *others]), LlmnbWarning, stacklevel=4)


_NOT_THE_USERS = ("llmnb", "anthropic", "httpx2", "anyio", "asyncio", "concurrent", "contextlib", "threading")


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns where the user's own code called llmnb, however deep inside it that is found out; never raises."""
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_USERS:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    with suppress(category):  # the user may have turned warnings into errors, and a call is no place for one
        warnings.warn_explicit(
            message, category, frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"), registry
        )


def quietly(doing: str, error: BaseException, but: str = "its ledger row may lack something") -> None:
    """Says once that `doing` failed inside llmnb, and that the call goes on without it, `but` with what loss."""
    try:
        warn_once(
            f"{doing}: {type(error).__name__}",
            f"llmnb failed while {doing} ({type(error).__name__}: {error}); your call goes on, "
            f"but {but}. `llmnb doctor` checks the set-up.",
        )
    except LlmnbWarning:  # the user turned warnings into errors; a call is still not the place for one
        return


def forget_warnings() -> None:
    """Lets every warning be said again, as in a fresh process; for tests."""
    with _lock:
        _said.clear()
