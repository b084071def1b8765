"""What is known of a call when it is sent, as the line that is noted of it.

Nearly all of it is what the calls before and after it say, too (`Origin`): who asks, from where, and which model. So
it is put together, and made JSON, once for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_json = json.JSONEncoder(default=str, separators=(",", ":")).encode
_OWN = 3  # uid, ts, input_tokens


class Origin:
    """The fields of a row that many calls have in common; those without a value are left out."""

    __slots__ = ("fields", "line")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        self.line = _json(self.fields)[:-1] + ("," if self.fields else "")


def encode_beginning(call: Mapping[str, Any], origin: Origin | None = None) -> bytes:
    """The line of a call of which these fields are known, among them those of its origin."""
    if origin is None or len(call) != len(origin.fields) + _OWN:
        return encode_fields(call)
    return f'{origin.line}"uid":"{call["uid"]}","ts":{call["ts"]},"input_tokens":{call["input_tokens"]}}}'.encode()


def encode_fields(call: Mapping[str, Any]) -> bytes:
    """The same of any fields."""
    return _json(call).encode()
