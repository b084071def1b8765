"""What llmnb does when llmnb itself fails: the user's call goes on, and one warning says why."""

from __future__ import annotations

import threading
import warnings


class LlmnbWarning(UserWarning):
    """Something inside llmnb failed or had to be worked around; the call itself was not harmed."""


_said: set[str] = set()
_lock = threading.Lock()


def warn_once(topic: str, message: str) -> None:
    """Warns about a topic, the first time in this process only."""
    with _lock:
        if topic in _said:
            return
        _said.add(topic)
    warnings.warn(message, LlmnbWarning, stacklevel=3)


def quietly(doing: str, error: BaseException) -> None:
    """Says once that `doing` failed inside llmnb, and that the call goes on without it."""
    try:
        warn_once(
            f"{doing}: {type(error).__name__}",
            f"llmnb failed while {doing} ({type(error).__name__}: {error}); your call goes on, "
            "but its ledger row may lack something. `llmnb doctor` checks the set-up.",
        )
    except LlmnbWarning:  # the user turned warnings into errors; a call is still not the place for one
        return


def forget_warnings() -> None:
    """Lets every warning be said again, as in a fresh process; for tests."""
    with _lock:
        _said.clear()
