"""Cassettes: requests and their responses in a readable file, to run again later, offline and without a key.

`llmnb.record` writes one, `llmnb.replay` answers from it. The file is JSON Lines: a header with the version of the
format, then for each interaction its request on one line and its response on the next; a response that was streamed is
followed by one line per event, with the time it came in milliseconds.

    {"format": "llmnb.cassette", "version": 1}
    {"number": 1, "request": {"method": "POST", "url": "/v1/messages", …, "body": {…}}}
    {"response": {"status": 200, "at_ms": 412, "headers": {…}, "events": 9}}
    {"at_ms": 412, "event": "message_start", "data": {…}}
    …

Requests are told without secrets, with their keys in alphabetical order, and with a digest in place of the content of
images and documents. Responses stand as they came, to the byte, but decompressed, and without secrets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmnb.cassette.from_cache import export
    from llmnb.cassette.interaction import Cut, Failure, Interaction, Request, Response
    from llmnb.cassette.nearest import Difference
    from llmnb.cassette.session import Cassette, record, replay
    from llmnb.cassette.tape import Tape, read
    from llmnb.cassette.telling import write

_HOME = {
    "Cassette": "session",
    "Cut": "interaction",
    "Difference": "nearest",
    "Failure": "interaction",
    "Interaction": "interaction",
    "Request": "interaction",
    "Response": "interaction",
    "Tape": "tape",
    "export": "from_cache",
    "read": "tape",
    "record": "session",
    "replay": "session",
    "write": "telling",
}

__all__ = [
    "Cassette",
    "Cut",
    "Difference",
    "Failure",
    "Interaction",
    "Request",
    "Response",
    "Tape",
    "export",
    "read",
    "record",
    "replay",
    "write",
]


def __getattr__(name: str) -> object:
    # every call asks `scope` whether a cassette is in force, and needs nothing else of this room for it
    try:
        module = importlib.import_module(f"llmnb.cassette.{_HOME[name]}")
    except KeyError:
        raise AttributeError(f"module 'llmnb.cassette' has no attribute {name!r}") from None
    value = getattr(module, name)
    globals()[name] = value
    return value
