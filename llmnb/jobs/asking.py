"""One row of a run: what it asks, the key by which it is known, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from llmnb.asking.content import content_of
from llmnb.asking.extraction import Extraction
from llmnb.errors import ExtractionFailed
from llmnb.records import Call
from llmnb.templates import Rendered, opened

if TYPE_CHECKING:
    from llmnb.asking.params import Plan
    from llmnb.asking.question import Question
    from llmnb.asking.shape import Shape
    from llmnb.reply import Reply

KEY_BYTES = 16
_written = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode
_BEGINNING_CHARS = 120


@dataclass(frozen=True)
class Row:
    """What a row asks: its `content`, and its own system prompt where the template's has fields.

    `number` is its place among the rows, from 0.
    """

    key: bytes
    content: Any
    system: str | None = None
    number: int = 0

    @classmethod
    def of(cls, prompt: Any, number: int = 0) -> Row:
        """The row that asks with this prompt.

        Raises:
            InvalidRequest: the prompt is empty, or cannot be sent.
        """
        opened_prompt, _ = opened(prompt, {}, typed=True)
        system = opened_prompt.options.get("system") if isinstance(opened_prompt, Rendered) else None
        content = content_of(opened_prompt)
        return cls(key_of([content, system]), content, system, number)

    @property
    def beginning(self) -> str:
        """The beginning of its text, by which a person knows it again."""
        if isinstance(self.content, str):
            return self.content[:_BEGINNING_CHARS]
        blocks = cast("list[dict[str, Any]]", self.content)
        return " ".join(str(block["text"]) for block in blocks if block.get("type") == "text")[:_BEGINNING_CHARS]

    def plan(self, plan: Plan, shared: object) -> Plan:
        """The plan of the run, for this row; `shared` is the system prompt that the run was begun with."""
        if self.system is None or self.system == shared:
            return plan
        return replace(plan, arguments={**plan.arguments, "system": self.system})


def key_of(said: Any) -> bytes:
    """A digest of plain JSON values, of 16 bytes."""
    told = _written(said)
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


@dataclass
class Outcome:
    """What became of a row: `facts` are what is kept of it, `error` what went wrong."""

    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    error: Exception | None = None

    @classmethod
    def unasked(cls, error: Exception, *, is_free: bool = True) -> Outcome:
        """That of a row that was not asked; or, unless `is_free`, nobody knows how often."""
        facts = {"error": told(error), **billed({})}
        return cls(facts if is_free else {**facts, "cost_nanousd": None, "full_nanousd": None}, error)

    @property
    def state(self) -> str:
        """answered, failed, or free: it failed and cost nothing."""
        if "error" not in self.facts:
            return "answered"
        return "free" if self.facts["cost_nanousd"] == 0 and not self.facts["output_tokens"] else "failed"


async def asked(question: Question, shape: Shape | None, retries: int) -> Outcome:
    """Asks a row; an error is part of the outcome, and only a Stop is raised."""
    calls: dict[str, Call] = {}

    def heard(call: Call) -> None:
        calls[call.uid] = call  # attempts of one call share the uid

    question = replace(question, on_call=heard)
    facts: dict[str, Any] = {}
    error: Exception | None = None
    try:
        reply, said = await _answer(question, shape, retries)
        facts |= said
        facts |= {"model": reply.model, "stop_reason": reply.stop_reason, "source": _source(reply, calls)}
        if reply.refused:
            facts["error"] = "the model refused to answer"
    except Exception as failure:
        error = failure
        facts["error"] = told(failure)
        if isinstance(failure, ExtractionFailed):
            facts["text"] = failure.text
    return Outcome(facts | billed(calls), error)


def told(error: Exception) -> str:
    """An error in a row: the API's own sentence before status and request id, or what any other says of itself."""
    status, request_id = getattr(error, "status_code", None), getattr(error, "request_id", None)
    if (message := message_of(error)) is None or status is None:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {message} (status {status}{f', {request_id}' if request_id else ''})"


def message_of(error: Exception) -> str | None:
    """The sentence in the body of an error of the API; None where there is none."""
    body: Any = getattr(error, "body", None)
    said = cast("Any", body).get("error") if isinstance(body, dict) else None
    message: object = cast("Any", said).get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else None


async def _answer(question: Question, shape: Shape | None, retries: int) -> tuple[Reply, dict[str, Any]]:
    if shape is None:
        reply = await question.aask()
        return reply, {"text": reply.text}
    extraction = Extraction(question, shape, retries)
    reply = await extraction.question.aask()
    while not extraction.heard(reply):
        reply = await extraction.question.aask()
    return reply, {"value": shape.plain(extraction.value)}


def _source(reply: Reply, calls: dict[str, Call]) -> str:
    """Where the answer came from: what its only call says, without working out all other figures of a reply."""
    return next(iter(calls.values())).source if len(calls) == 1 else reply.source


def billed(calls: dict[str, Call]) -> dict[str, Any]:
    """What the calls of a row used and cost, as it is kept with the row."""
    if len(calls) == 1:
        return _billed_once(*calls.values())
    costs = [call.cost_nanousd for call in calls.values()]
    return {
        "cost_nanousd": None if None in costs else sum(cost or 0 for cost in costs),
        "full_nanousd": _full(calls),
        "saved_nanousd": sum(call.saved_nanousd or 0 for call in calls.values() if call.source == "live"),
        "input_tokens": sum(call.usage.total_input_tokens for call in calls.values()),
        "output_tokens": sum(call.output_tokens for call in calls.values()),
        "cache_read_tokens": sum(call.cache_read_tokens for call in calls.values()),
        "latency_ms": sum(_took_ms(call) for call in calls.values()),
        "ttft_ms": next((_ttft_ms(call) for call in calls.values() if call.is_call), None),
    }


def _billed_once(call: Call) -> dict[str, Any]:
    """The same of one call, which is what most rows take."""
    is_live = call.source == "live"
    return {
        "cost_nanousd": call.cost_nanousd,
        "full_nanousd": call.cost_nanousd if is_live else call.saved_nanousd,
        "saved_nanousd": (call.saved_nanousd or 0) if is_live else 0,
        "input_tokens": call.usage.total_input_tokens,
        "output_tokens": call.output_tokens,
        "cache_read_tokens": call.cache_read_tokens,
        "latency_ms": _took_ms(call),
        "ttft_ms": _ttft_ms(call) if call.is_call else None,
    }


def _took_ms(call: Call) -> float:
    """How long the answer took; that the account's limit held the call back before says nothing of the model."""
    return max((call.latency_ms or 0.0) - call.wait_ms, 0.0) if call.is_call else 0.0


def _ttft_ms(call: Call) -> float | None:
    return None if call.ttft_ms is None else max(call.ttft_ms - call.wait_ms, 0.0)


def _full(calls: dict[str, Call]) -> int | None:
    """What it costs where nothing is in the response cache; None where that is not known."""
    costs = [call.cost_nanousd if call.source == "live" else call.saved_nanousd for call in calls.values()]
    return None if None in costs else sum(cost or 0 for cost in costs)
