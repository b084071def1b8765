"""Posts what is to be known of budgets to the address the user gave, from a thread of its own.

No call waits for it, and none fails with it: what cannot be delivered is said once.
"""

from __future__ import annotations

import _thread
import atexit
import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llmnb.trouble import LlmnbWarning, warn_once

TIMEOUT_S = 10.0
_PATIENCE_S = 3.0
"""How long the interpreter's end waits for posts under way."""

_failures: list[str] = []
_under_way: deque[None] = deque()  # one for each post; appending and popping are atomic


def post(url: str, facts: Mapping[str, Any]) -> None:
    """Posts the facts as JSON, later; says here what went wrong with earlier ones."""
    complain()
    _under_way.append(None)
    try:
        _thread.start_new_thread(_post, (url, dict(facts)))
    except RuntimeError:  # the interpreter is ending
        _under_way.pop()


def complain() -> None:
    """Says, once, what could not be delivered."""
    if _failures:
        failure = _failures.pop()
        _failures.clear()
        with suppress(LlmnbWarning):
            warn_once("webhook", f"a budget's webhook cannot be reached ({failure}): check LLMNB_BUDGET_WEBHOOK.")


def wait(timeout_s: float = _PATIENCE_S) -> bool:
    """Until nothing is under way any more; whether that came in time."""
    deadline = time.monotonic() + timeout_s
    while _under_way and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _under_way


def _post(url: str, facts: dict[str, Any]) -> None:
    try:
        import httpx2

        httpx2.post(url, json=facts, timeout=TIMEOUT_S).raise_for_status()
    except Exception as error:
        _failures.append(f"{type(error).__name__}: {error}")
    finally:
        with suppress(IndexError):  # forgotten in a forked child
            _under_way.pop()


atexit.register(wait)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_under_way.clear)  # these posts are the parent's
