"""A password and its hash: what the dashboard asks for when it can be reached from other machines.

scrypt with the parameters that RFC 7914 and OWASP's password storage guide give for interactive use (n = 2^14, r = 8,
p = 5): about a quarter of a second and 16 MB a try.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

PREFIX = "scrypt$"
"""How a hash begins; anything else is a password as it is."""
SHORTEST = 12
"""Characters; a password that a network can try must not be guessed."""
_N, _R, _P = 2**14, 8, 5


def hashed(password: str) -> str:
    """The hash of a password, with a salt of its own: fit for a file that others may read."""
    salt = secrets.token_bytes(16)
    return f"{PREFIX}{_N}${_R}${_P}${salt.hex()}${_digest(password, salt, _N, _R, _P).hex()}"


def is_right(password: str, stored: str) -> bool:
    """Whether it is the password that `stored` is, or is the hash of; takes as long whatever is wrong with it."""
    if not stored.startswith(PREFIX):
        # of equal length, whatever was given: the comparison must not tell how long the password is
        given, wanted = (hashlib.sha256(text.encode()).digest() for text in (password, stored))
        return hmac.compare_digest(given, wanted)
    n, r, p, salt, wanted = parts(stored)
    return hmac.compare_digest(_digest(password, salt, n, r, p), wanted)


def parts(stored: str) -> tuple[int, int, int, bytes, bytes]:
    """The parameters, salt and digest of a hash.

    Raises:
        ValueError: it is none.
    """
    n, r, p, salt, digest = stored.removeprefix(PREFIX).split("$")
    return int(n), int(r), int(p), bytes.fromhex(salt), bytes.fromhex(digest)


def _digest(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=32, maxmem=128 * n * r * 2)
