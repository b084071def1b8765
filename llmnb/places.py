"""Where a ledger is: the file of one person, or the PostgreSQL database of a team."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SECRETS = ("password", "sslpassword", "passfile")


@dataclass(frozen=True)
class PostgresPlace:
    """A database by its URL; as text it is without the password, so that it can be shown and logged."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        query = [(name, "***" if name in _SECRETS else value) for name, value in parse_qsl(parts.query)]
        shown = f"{user.partition(':')[0]}{at}{host}"
        return urlunsplit((parts.scheme, shown, parts.path, urlencode(query, safe="/*"), ""))

    __repr__ = __str__

    @property
    def password(self) -> str:
        """The password in the URL, to be struck out of what others say; empty without one."""
        return urlsplit(self.url).password or ""

    def exists(self) -> bool:
        """True: whether it is there is found out by connecting to it."""
        return True


Place = Path | PostgresPlace
"""A file of SQLite, or a database of PostgreSQL."""
POSTGRES = ("postgresql://", "postgres://")
SQLITE = "sqlite:///"


def place_of(url: str) -> Place:
    """The place that a URL names: sqlite:/// and an absolute path, or a postgresql:// URL.

    Raises:
        ValueError: it is none of these.
    """
    if url.startswith(POSTGRES):
        return PostgresPlace(url)
    if url.startswith(SQLITE):
        return Path(url.removeprefix(SQLITE)).expanduser().absolute()
    raise ValueError("must start with sqlite:/// and go on with an absolute path, or be a postgresql:// URL")
