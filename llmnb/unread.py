"""An answer as it came, of which the SDK's message is made when somebody wants it.

To make one takes longer than all else that is done about an answer that came in one piece; who asks thousands of
questions mostly wants their text.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from anthropic.types import Message

Json = dict[str, Any]
RECORDS_SPANS = "opentelemetry.sdk.trace"
"""The module that is loaded where somebody may record the SDK's spans, which say of the message what it is."""


class Unread:
    """An answer that is all there, with the part of `Message` that is mostly looked at."""

    __slots__ = ("_data", "_ids", "model", "stop_reason", "text")

    def __init__(self, data: Json, request_id: str | None = None, workspace_id: str | None = None) -> None:
        self._data = data
        self._ids = request_id, workspace_id
        self.text: str = "".join([block["text"] for block in data["content"] if block["type"] == "text"])
        self.model: str = data["model"]
        self.stop_reason: str | None = data["stop_reason"]

    @property
    def usage(self) -> Any:
        """What the SDK's message has under that name."""
        return self.message().usage

    def message(self) -> Message:
        """The message, as the SDK would have made it."""
        from anthropic.types import Message

        message: Any = Message.construct(**self._data)
        message._request_id, message._workspace_id = self._ids
        return message


def is_enough(client: Any) -> bool:
    """Whether nobody but the caller looks at what a client makes of an answer: no recorded span, no validation."""
    return RECORDS_SPANS not in sys.modules and not getattr(client, "_strict_response_validation", False)


def of(response: Any) -> Unread | None:
    """The answer in the SDK's raw response; None where it takes the SDK to say what it is."""
    import jiter

    http = getattr(response, "http_response", None)
    if http is None or not http.headers.get("content-type", "").partition(";")[0].lower().endswith("json"):
        return None
    try:
        data = jiter.from_json(http.content)
        if data["type"] != "message" or not isinstance(data["usage"], dict):
            return None
        return Unread(cast("Json", data), http.headers.get("request-id"), http.headers.get("anthropic-workspace-id"))
    except (ValueError, TypeError, KeyError):
        return None
