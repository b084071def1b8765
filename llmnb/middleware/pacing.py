"""The pacing part: holds a call back while an account's limits are near (see `llmnb.pacing`).

It stands innermost, so that every attempt is paced, and nothing waits that a cache answers or a budget refuses. Where
limits are far, or unknown, it is not there but for one call in many, whose answer it looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
from anthropic import APIRequest

from llmnb.events import Throttled
from llmnb.middleware.answering import http_of
from llmnb.middleware.entry import UNDER_WAY, Entry
from llmnb.middleware.flow import Flow, Part, Pause
from llmnb.pacing import Account, Need, Pacer
from llmnb.pacing.account import GOES
from llmnb.pacing.allowance import KINDS
from llmnb.records import Call, CallContext, current_context
from llmnb.trouble import quietly

_HEADER = b"anthropic-ratelimit-"
_LIMITED = 429
_BUT = "it is not held back"
_TOLD_FROM_S = 0.5
"""A wait that is shorter is over before anybody has read of it."""


class PacingPart(Part):
    """Keeps the calls of one client inside the limits of its account. `scope` is what limits are kept apart by."""

    def __init__(self, pacer: Pacer, scope: str) -> None:
        self._pacer = pacer
        self._scope = scope

    def look(self, model: str) -> None:
        """Begins with what other processes know of a model's limits; waits for the store that they share."""
        self._pacer.account(self._scope, model).look(self._pacer.clock.now())

    def held(self, model: str) -> tuple[int, str]:
        """How many calls of a model are held back in this process, and for what."""
        return self._pacer.account(self._scope, model).held()

    def concerns(self, request: APIRequest) -> bool:
        entry = UNDER_WAY.get()
        if entry is None:
            return False
        try:
            account = self._pacer.known.get((self._scope, entry.model_requested)) or self._account(entry)
            if account.is_near or request.retries_taken:
                return True
            return account.is_due(entry.prompt_bytes, self._pacer.clock.now())
        except Exception as trouble:
            quietly("looking for rate limits", trouble, _BUT)
            return False

    def flow(self, request: APIRequest) -> Flow:
        entry = UNDER_WAY.get()
        assert entry is not None
        account = self._account(entry)
        uid = ""
        if account.is_near:
            uid = f"{entry.facts['uid']}:{entry.attempts}"
            asked: Any = request.json
            yield from self._admission(account, uid, entry, int(asked.get("max_tokens") or 0))
        else:
            account.goes()
        http: httpx2.Response | None = None
        try:
            response = yield request
            http = http_of(response)
        finally:
            try:
                self._answered(account, uid, request, http)
            except Exception as trouble:
                quietly("learning rate limits", trouble, _BUT)
        return response

    def _account(self, entry: Entry) -> Account:
        return self._pacer.account(self._scope, entry.model_requested)

    def _admission(self, account: Account, uid: str, entry: Entry, max_tokens: int) -> Flow:
        clock, context = self._pacer.clock, current_context()
        lane = context.run_id or context.chat or ""
        need = account.need(entry.estimated_input_tokens, max_tokens)
        began, is_told = clock.now(), False
        try:
            while True:
                try:
                    wait_s = account.ask(uid, lane, need, clock.now())
                except Exception as trouble:
                    quietly("pacing a call", trouble, _BUT)
                    break
                if wait_s <= 0:
                    break
                entry.waits()
                context.tell_held(is_held=True)
                is_told = is_told or wait_s >= _TOLD_FROM_S or clock.now() - began >= _TOLD_FROM_S
                if is_told:
                    _tell(context, account.throttled(uid))
                yield Pause(clock.real_s(wait_s))
        finally:
            account.give_up(uid)
            context.tell_held(is_held=False)
        if is_told:
            _tell(context, GOES)
        entry.goes()
        entry.on_row = self._when_ended(account, uid, entry.estimated_input_tokens, entry.on_row)

    def _when_ended(
        self, account: Account, uid: str, estimated: int, then: Callable[..., None] | None
    ) -> Callable[[Call, tuple[Call, ...], str | None], None]:
        """Tells the account what a call took; that it is told once is seen to there."""

        def ended(call: Call, children: tuple[Call, ...], message_id: str | None) -> None:
            try:
                usage = call.usage  # what is read from the prompt cache does not count
                total = usage.total_input_tokens + usage.output_tokens
                used = Need(1.0, usage.input_tokens + usage.cache_write_tokens, usage.output_tokens, total)
                is_ok = call.status == "ok"
                account.ended(uid, used, estimated, self._pacer.clock.now(), is_ok=is_ok)
            except Exception as trouble:
                quietly("pacing a call", trouble, _BUT)
            if then is not None:
                then(call, children, message_id)

        return ended

    def _answered(self, account: Account, uid: str, request: APIRequest, http: httpx2.Response | None) -> None:
        told = None if http is None else told_in(http.headers)
        now = self._pacer.clock.now()
        refused = http is not None and http.status_code == _LIMITED
        asked_s = retry_after_s(http.headers) if http is not None and refused else None
        if not uid:
            account.seen(told, now)
        if http is not None and (uid or refused):
            account.answered(
                uid,
                told or {},
                now,
                is_whole=not request.stream,
                refused=refused,
                retry_after_s=None if asked_s is None else min(asked_s, self._pacer.longest_retry_wait_s),
            )


def _tell(context: CallContext, wait: Throttled) -> None:
    if context.on_wait is not None:
        try:
            context.on_wait(wait)
        except Exception as trouble:
            quietly("telling that a call is held back", trouble, but="it waits all the same")


def told_in(headers: httpx2.Headers) -> dict[str, tuple[float, float]]:
    """What the API says is allowed and left, by kind."""
    values: dict[str, float] = {}
    for name, value in headers.raw:
        name = name.lower()
        if name.startswith(_HEADER):
            try:
                values[name[len(_HEADER) :].decode()] = float(value)
            except ValueError:  # a time
                continue
    return {
        kind: (values[f"{kind}-limit"], values[f"{kind}-remaining"])
        for kind in KINDS
        if values.get(f"{kind}-limit", 0) > 0 and f"{kind}-remaining" in values
    }


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """How long the API asks to wait, where it says so in seconds."""
    for name, unit_s in (("retry-after", 1.0), ("retry-after-ms", 0.001)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return None
