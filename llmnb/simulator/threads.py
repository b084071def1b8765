"""Message threads: conversations that the server holds, so that a turn sends only what is new.

A `create` keeps the conversation under the response's id; a `continue` takes it up again, once for each response.
Errors carry the `error_code` that the SDK's thread helper acts on (`anthropic.lib.threads`).

A breakpoint in `messages` counts for the turn that sent it and is not held; one on system or tools is held with them. A
request of a thread may set three, since the API keeps the fourth for itself (its refusal of a fourth says so).
"""

from __future__ import annotations

from dataclasses import dataclass

from llmnb.simulator.api_error import ApiError, invalid, not_found
from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text
from llmnb.simulator.message_rules import breakpoints
from llmnb.simulator.prompt import without_control

BETA = "message-threads-2026-08-12"
CREATE_ONLY = ("system", "tools")
UNSUPPORTED = ("context_management", "fallbacks")
MAX_BREAKPOINTS = 3


@dataclass(slots=True)
class _Thread:
    model: str
    messages: list[Json]
    kept: Json
    continued: bool = False
    in_flight: bool = False


class Threads:
    """Every thread of the server, by key and the id of its last response."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Thread] = {}

    def forget(self) -> None:
        """Lose every thread, as a server may."""
        self._held.clear()

    def whole(self, body: Json, key: str, betas: str) -> Json:
        """The request with the conversation that the server holds put back in; without `thread`, the request itself."""
        thread = as_object(body.get("thread"))
        if not thread:
            return body
        if BETA not in betas:
            raise invalid("thread: Extra inputs are not permitted")
        self._check_supported(body)
        rest = {name: value for name, value in body.items() if name != "thread"}
        if thread.get("type") == "create":
            return rest
        if thread.get("type") != "continue":
            raise invalid(
                "thread: Input tag found using 'type' does not match any of the expected tags: 'create', 'continue'"
            )
        held = self._continued(body, key, as_text(thread.get("previous_message_id")))
        held.in_flight = True
        return rest | held.kept | {"messages": [*held.messages, *as_list(body.get("messages"))]}

    def _check_supported(self, body: Json) -> None:
        named = [name for name in UNSUPPORTED if body.get(name)]
        if named:
            details: Json = {"error_code": "thread_unsupported_request", "unsupported": named}
            raise invalid(f"thread: Threads do not support {', '.join(named)}.", details)
        found = len(breakpoints(body))
        if found > MAX_BREAKPOINTS:
            raise invalid(
                f"thread: a maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided when `thread` is "
                f"set. Found {found}.",
                {"error_code": "thread_unsupported_request", "unsupported": ["cache_control"]},
            )

    def _continued(self, body: Json, key: str, previous_id: str) -> _Thread:
        held = self._held.get((key, previous_id))
        if held is None:
            raise not_found(
                f"thread: no usable Thread state was found for {previous_id}.", {"error_code": "thread_not_found"}
            )
        if held.continued:
            raise invalid(
                f"thread: {previous_id} has already been continued.", {"error_code": "thread_already_continued"}
            )
        if held.in_flight:
            raise invalid(
                f"thread: {previous_id} is being continued by another request.",
                {"error_code": "thread_continue_in_flight"},
            )
        repeated = [name for name in CREATE_ONLY if name in body]
        if repeated:
            raise invalid(f"{repeated[0]}: cannot be sent when continuing a Thread.")
        if held.model != body.get("model"):
            raise _mismatch("model")
        return held

    def keep(self, body: Json, whole: Json, key: str, message_id: str, content: list[Json]) -> None:
        """Hold the conversation, with the reply at its end, under the reply's id."""
        self.release(body, key, answered=True)
        if not as_object(body.get("thread")):
            return
        reply: Json = {"role": "assistant", "content": content}
        messages = [*map(_unmarked, as_objects(whole.get("messages"))), *([reply] if content else [])]
        kept = {name: whole[name] for name in CREATE_ONLY if name in whole}
        self._held[key, message_id] = _Thread(as_text(whole.get("model")), messages, kept)

    def release(self, body: Json, key: str, *, answered: bool = False) -> None:
        """The turn that continued a thread is over; unanswered, it may be tried again."""
        previous_id = as_text(as_object(body.get("thread")).get("previous_message_id"))
        held = self._held.get((key, previous_id))
        if held is not None:
            held.in_flight = False
            held.continued = held.continued or answered


def _unmarked(message: Json) -> Json:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return message | {"content": [without_control(block) for block in as_objects(message.get("content"))]}


def _mismatch(name: str) -> ApiError:
    return invalid(
        f"thread: `{name}` differs from the value stored with the Thread.",
        {"error_code": "thread_fingerprint_mismatch"},
    )
