"""The innermost part: says in the words of chat completions what is asked, once nothing more changes in it.

It is a part, and not a matter of the transport, so that what cannot be asked is refused with llmnb's own error: the SDK
takes whatever a transport raises for a broken connection, and tries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from anthropic import APIRequest

from llmnb.messages import wire
from llmnb.messages.prompt_outline import prompt_bytes
from llmnb.middleware.flow import Flow, Part
from llmnb.middleware.ledger import is_billable
from llmnb.providers.known import Endpoint
from llmnb.providers.request import MARK, chat_request


class TranslationPart(Part):
    """Translates the requests for one endpoint. `account` is a fingerprint of the key that they are sent with."""

    is_innermost = True

    def __init__(self, endpoint: Endpoint, account: str = "") -> None:
        self.endpoint = endpoint
        self.account = account

    def concerns(self, request: APIRequest) -> bool:
        return is_billable(request)

    def flow(self, request: APIRequest) -> Flow:
        body = cast("dict[str, Any]", request.json)
        asked = chat_request(body, self.endpoint)
        asked[MARK] = {
            "estimated_input": wire.estimated_tokens(prompt_bytes(body)),
            "headers": _headers(request.headers),
        }
        # `request.copy()` would copy a prompt that may be long
        return (
            yield APIRequest(
                options=request.options.model_copy(update={"json_data": asked}),
                cast_to=request.cast_to,
                stream=request.stream,
                stream_cls=request.stream_cls,
                retries_taken=request.retries_taken,
            )
        )


def _headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers given with the call. Those of the client stay behind: they are for another server."""
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str) and not name.lower().startswith(("anthropic-", "x-stainless-", "idempotency-"))
    }
