"""Whose account a client asks with: what the API tells accounts apart by, with no key that could be read out of it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

_ROUNDS = 20_000
"""Of PBKDF2, some milliseconds: a key of a server of one's own may be a word that could be guessed, and what limits are
kept by is written into a store that a team shares."""


def account_of(client: Any) -> list[object]:
    """The facts that decide which account a client of the anthropic SDK asks with; not to be written as they are.

    One whose requests go to another provider has no key of its own: a part of it says whose account that is.
    """
    facts = [getattr(client, name, None) for name in ("base_url", "api_key", "auth_token", "aws_region", "project_id")]
    theirs = [getattr(part, "account", None) for part in getattr(client, "middleware", ())]
    return [*facts, *filter(None, theirs)]


@lru_cache(maxsize=64)
def fingerprint(*secrets: str | None) -> str:
    """A text that is the same for the same keys and that they cannot be found from, also by trying out likely ones."""
    secret = repr(secrets).encode()
    return hashlib.pbkdf2_hmac("sha256", secret, b"llmnb-account", _ROUNDS, dklen=12).hex()
