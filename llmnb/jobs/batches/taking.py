"""What a line of a batch's results makes of its row: an answer, a failure, or a row to be sent once more."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmnb.asking.extraction import Extraction
from llmnb.asking.figures import figures
from llmnb.cache.responses import Arrived, responses
from llmnb.errors import ExtractionFailed, LlmnbError
from llmnb.jobs.asking import Outcome, billed
from llmnb.jobs.batches.manifest import Entry, body_of
from llmnb.ledger.answered import rows_of
from llmnb.messages import wire
from llmnb.pricing import cost_of_call
from llmnb.records import Caching, Call, Rows, Usage, made
from llmnb.reply import Reply
from llmnb.settings import Settings
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from llmnb.asking.question import Question
    from llmnb.asking.shape import Shape

_TRANSIENT = ("api_error", "overloaded_error", "rate_limit_error", "timeout_error")
"""Errors of the API's side, which another try may not meet (its documentation, "Errors")."""
_WHY = {
    "expired": "the batch came to its end, after 24 hours, before this request was processed",
    "canceled": "the batch was cancelled before this request was processed",
}


class RequestFailed(LlmnbError):  # noqa: N818 - it says what happened
    """A request of a batch was not answered; nothing was billed for it."""


@dataclass
class Trial:
    """What came of a row so far: answers that did not fit, what its calls cost, and how often it was sent in vain."""

    replies: list[Reply] = field(default_factory=list[Reply])
    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    in_vain: int = 0

    def heard(self, call: Call) -> None:
        """One more call was made for it."""
        self.calls[call.uid] = call


class Taking:
    """Makes outcomes of the results of one run's batches; `question` is one that stands for those of its rows."""

    def __init__(self, question: Question, shape: Shape | None, retries: int, settings: Settings) -> None:
        self._question, self._shape, self._retries, self._settings = question, shape, retries, settings
        self._caches = settings.cache != "off" and question.plan.ledger["caching"].use is not False
        self.trials: dict[bytes, Trial] = {}
        """Of rows that are not done with their first answer."""

    def outcome(self, entry: Entry, result: dict[str, Any], rows: tuple[Call, ...], again: int) -> Outcome | None:
        """What became of a row; None when it is to be sent once more, up to `again` times where it failed."""
        if result.get("type") == "succeeded":
            return self._answered(entry, result["message"], rows)
        kind = str(result.get("type"))
        error = wire.error_of(result.get("error")) or kind
        if kind == "expired" or error in _TRANSIENT:
            trial = self.trial(entry.key)
            trial.in_vain += 1
            if trial.in_vain <= again:
                return None
        why = _WHY.get(kind) or _message(result.get("error"))
        facts = {"error": f"{error}: {why}", "source": "batch"}
        return Outcome(facts | billed(self._calls(entry.key, rows)), RequestFailed(facts["error"]))

    async def next_question(self, key: bytes, question: Question) -> Question | Outcome:
        """What is to be asked for a row that began with this question, or what became of it.

        Answers of the response cache are taken, and asked for; each is a row of the ledger, as on the live path.
        """
        trial, shape = self.trials.get(key), self._shape
        extraction = None if shape is None else Extraction(question, shape, self._retries)
        replies = [] if trial is None else list(trial.replies)
        while True:
            asking = question if extraction is None else extraction.question
            if replies:
                reply = replies.pop(0)
            elif self._is_kept(asking):
                trial = self.trial(key)
                reply = await replace(asking, on_call=trial.heard).aask()
                trial.replies.append(reply)
            else:
                return asking
            value: dict[str, Any] = {"text": reply.text}
            error: ExtractionFailed | None = None
            try:
                if extraction is not None and shape is not None:
                    if not extraction.heard(reply):
                        continue
                    value = {"value": shape.plain(extraction.value)}
            except ExtractionFailed as failed:
                error, value = failed, {}
            return Outcome(said(reply, reply.source, error, **value) | billed(self.trials.pop(key).calls), error)

    def _is_kept(self, question: Question) -> bool:
        from llmnb.asking.kept import kept_answer

        return self._caches and kept_answer(question, body_of(question), self._settings) is not None

    def trial(self, key: bytes) -> Trial:
        """What came of a row so far."""
        if key not in self.trials:
            self.trials[key] = Trial()
        return self.trials[key]

    def _calls(self, key: bytes, rows: tuple[Call, ...]) -> dict[str, Call]:
        trial = self.trials.get(key)
        return {**({} if trial is None else trial.calls), **{row.uid: row for row in rows}}

    def _answered(self, entry: Entry, message: dict[str, Any], rows: tuple[Call, ...]) -> Outcome | None:
        from anthropic.types import Message

        rows = rows or self._worked_out(message)
        self._keep(entry, message)
        made = Message.construct(**message)
        reply = Reply.of(made, partial(figures, made, self._question.plan.model, Rows(rows) if rows else None, None))
        calls = self._calls(entry.key, rows)
        if self._shape is None:
            return Outcome(said(reply, "batch", text=reply.text) | billed(calls))
        attempts = len(self.trials[entry.key].replies) if entry.key in self.trials else 0
        extraction = Extraction(self._question, self._shape, max(0, self._retries - attempts), attempts)
        try:
            if not extraction.heard(reply):  # the model is to be told what is wrong
                trial = self.trial(entry.key)
                trial.replies.append(reply)
                trial.calls = calls
                return None
        except ExtractionFailed as error:
            return Outcome(said(reply, "batch", error) | billed(calls), error)
        return Outcome(said(reply, "batch", value=self._shape.plain(extraction.value)) | billed(calls))

    def _worked_out(self, message: dict[str, Any]) -> tuple[Call, ...]:
        """The rows of an answer that the books could not make any of: what it cost counts against the run's budget."""
        plan, access = self._question.plan, self._question.access
        asked = {"ts": time.time_ns() // 1000, "provider": access.provider, "model_requested": plan.model}
        known: dict[str, Any] = {"uid": str(message.get("id")), **asked, "service_tier": "batch"}
        try:
            outcome = wire.read_message(message, plan.model)
            return rows_of(known, "ok", outcome.usage or Usage(estimated=True), self._settings.prices, outcome=outcome)
        except Exception as trouble:
            quietly("working out what an answer of a batch cost", trouble, but="its cost is not known")
            return (made(Call, {**known, "status": "ok", "estimated": True}),)

    def _keep(self, entry: Entry, message: dict[str, Any]) -> None:
        """Puts the answer where the same question, asked in whatever way, finds it."""
        if entry.cache_key is None:
            return
        caching: Caching = self._question.plan.ledger["caching"]
        try:
            cache = responses(self._settings)
            cache.keep(
                Arrived(
                    key=entry.cache_key,
                    model_requested=self._question.plan.model,
                    provider=self._question.access.provider,
                    request=entry.asked.encode,
                    body=json.dumps(message).encode,
                    created_us=cache.now_us(),
                    ttl_s=caching.ttl_s,
                )
            )
        except Exception as trouble:
            quietly("keeping an answer of a batch", trouble, but="the same question is asked again")


def said(reply: Reply, source: str, error: ExtractionFailed | None = None, **value: Any) -> dict[str, Any]:
    """What is kept of an answer, as of one that came live: its `text`, its `value`, or why there is none."""
    facts: dict[str, Any] = {"model": reply.model, "stop_reason": reply.stop_reason, "source": source, **value}
    if error is not None:
        return facts | {"error": f"{type(error).__name__}: {error}", "text": error.text}
    return facts | ({"error": "the model refused to answer"} if reply.refused else {})


def half_nanousd(rows: tuple[Call, ...], settings: Settings) -> int:
    """What the rows would have cost more as ordinary calls, as far as their prices are known."""
    found = 0
    for row in rows:
        full = cost_of_call(replace(row, service_tier="standard"), settings.prices).nanousd
        if full is not None and row.cost_nanousd is not None:
            found += full - row.cost_nanousd
    return found


def _message(error: Any) -> str:
    envelope: dict[str, Any] = error or {}
    told: dict[str, Any] = envelope.get("error") or {}
    return str(told.get("message") or "the API says no more")
