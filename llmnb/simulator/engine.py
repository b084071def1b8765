"""The Messages engine: a request in, a turn with its usage out, and a billing record when it is over.

HTTP knows nothing of it and batches use it as well. Everything that one request leaves behind (cache entries, threads,
rate limits, the bill) is written here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from hashlib import blake2b

from llmnb.simulator import tokenizer
from llmnb.simulator.answer import Answer
from llmnb.simulator.api_error import ApiError, invalid
from llmnb.simulator.billing import BillingRecord, bill, canonical
from llmnb.simulator.catalog import Model
from llmnb.simulator.chat.models import ChatModel
from llmnb.simulator.chat.prefix_cache import PrefixCache
from llmnb.simulator.chat.request import read_request, refused
from llmnb.simulator.clock import Clock
from llmnb.simulator.composer import Composed, compose
from llmnb.simulator.diagnostics import Diagnostics, fingerprint
from llmnb.simulator.json_value import Json, as_object, as_objects, as_text
from llmnb.simulator.limits import Limits, RateLimiter
from llmnb.simulator.prompt import Prompt, read_prompt
from llmnb.simulator.prompt_cache import CacheUse, PromptCache
from llmnb.simulator.threads import Threads
from llmnb.simulator.turn import Turn
from llmnb.simulator.validation import validate, validate_count

INPUT_USAGE = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what cache entries and limits are kept apart by, and what the request's headers opt in to."""

    key: str
    scope: str
    betas: str = ""
    beta: bool = False


@dataclass(slots=True)
class Prepared:
    """A request that will be answered: its turn, and what the bill needs."""

    turn: Turn
    body: Json
    caller: Caller
    record: BillingRecord
    usage: Json


@dataclass(frozen=True, slots=True)
class Outcome:
    """How sending a reply ended: `tokens` that were generated, `any_content` whether a first delta was."""

    complete: bool
    aborted: bool
    tokens: int
    any_content: bool
    bytes_sent: int


class Ids:
    """Identifiers in the API's style: the same sequence for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def new(self, prefix: str) -> str:
        """The next id with a prefix such as `msg_` or `req_`."""
        self._count += 1
        return f"{prefix}01{blake2b(f'{self._seed}:{self._count}'.encode(), digest_size=11).hexdigest()}"


class Engine:
    """State and rules of the simulated Messages API."""

    def __init__(self, seed: int, clock: Clock, limits: Limits) -> None:
        self.seed = seed
        self.clock = clock
        self.ids = Ids(seed)
        self.cache = PromptCache()
        self.prefixes = PrefixCache()
        self.threads = Threads()
        self.limiter = RateLimiter(limits, clock.scale)
        self.diagnostics = Diagnostics()
        self.billing: list[BillingRecord] = []

    def count(self, body: Json) -> Json:
        """The answer of count_tokens."""
        validate_count(body)
        return {"input_tokens": tokenizer.count_request(body)}

    def prepare(
        self, body: Json, caller: Caller, answer: Answer, request_id: str, *, batch: tuple[str, str] | None = None
    ) -> Prepared:
        """Validate, read the cache and write the reply; ApiError when the request is refused."""
        whole = self.threads.whole(body, caller.key, caller.betas)
        try:
            return self._prepare(body, whole, caller, answer, request_id, batch)
        except ApiError:
            self.threads.release(body, caller.key)
            raise

    def _prepare(
        self, body: Json, whole: Json, caller: Caller, answer: Answer, request_id: str, batch: tuple[str, str] | None
    ) -> Prepared:
        model = validate(whole, beta=caller.beta)
        prompt = read_prompt(whole, caller.scope)
        room = model.max_input_tokens - prompt.tokens
        if room < 0:
            raise invalid(f"prompt is too long: {prompt.tokens} tokens > {model.max_input_tokens} maximum")
        now = self.clock.now()
        if batch is None:
            self.limiter.check(caller.key, prompt.tokens, now)
        composed = compose(whole, model, answer, self.seed, room)
        use = self.cache.use(prompt, model.cache_minimum_tokens, now)
        turn = self._turn(whole, model, answer, composed, use, batched=batch is not None)
        turn.diagnostics = self._diagnose(whole, prompt, use, turn.id)
        self.threads.keep(body, whole, caller.key, turn.id, turn.blocks)
        if batch is None:
            self.limiter.take(caller.key, use.uncached_tokens + use.write_tokens, turn.output_tokens, now)
        return Prepared(turn, body, caller, self._record(whole, turn, request_id, batch), turn.usage)

    def prepare_chat(self, body: Json, model: ChatModel, caller: Caller, answer: Answer, request_id: str) -> Prepared:
        """The same for a request of the chat completions wire, whose cache works by itself and has no threads."""
        asked = read_request(body, model)
        prompt = read_prompt(asked, caller.scope)
        room = model.max_input_tokens - prompt.tokens
        if room < 0:
            limit = f"This model's maximum context length is {model.max_input_tokens} tokens."
            raise refused(f"{limit} Your messages hold {prompt.tokens}.", "messages", "context_length_exceeded")
        now = self.clock.now()
        self.limiter.check(caller.key, prompt.tokens, now)
        composed = compose(asked, model.asked, answer, self.seed, room)
        scope = f"{caller.scope}:{model.id}"
        use = CacheUse(prompt.tokens) if model.is_local else self.prefixes.use(prompt, scope, now, model)
        turn = self._turn(asked, model.asked, answer, composed, use, batched=False)
        turn.id = self.ids.new("chatcmpl-")
        self.limiter.take(caller.key, use.uncached_tokens + use.write_tokens, turn.output_tokens, now)
        record = self._record({**asked, "stream": body.get("stream")}, turn, request_id, None)
        return Prepared(turn, body, caller, record, turn.usage)

    def _turn(
        self, body: Json, model: Model, answer: Answer, composed: Composed, use: CacheUse, *, batched: bool
    ) -> Turn:
        usage = input_usage(use)
        tier = "batch" if batched else "standard"
        served: Json = {"service_tier": tier, "inference_geo": body.get("inference_geo") or "global"}
        if body.get("speed"):
            served["speed"] = body["speed"]
        noise = 0 if body["max_tokens"] == 0 else random.Random(composed.seed).randint(1, 8)
        scripted = dict(answer.usage)
        start = usage | {"output_tokens": noise} | served
        start |= {name: scripted[name] for name in INPUT_USAGE if name in scripted}
        final = usage | {"output_tokens": composed.output_tokens} | _details(composed) | served | scripted
        return Turn(
            id=self.ids.new("msg_"),
            model=answer.model or model.id,
            blocks=composed.blocks,
            stop_reason=composed.stop_reason,
            stop_sequence=composed.stop_sequence,
            stop_details=composed.stop_details,
            usage=final,
            start_usage=start | dict(answer.start_usage),
            output_tokens=int(final["output_tokens"]),
            extra=dict(answer.extra),
        )

    def _diagnose(self, body: Json, prompt: Prompt, use: CacheUse, message_id: str) -> Json | None:
        if not isinstance(body.get("diagnostics"), dict):
            return None
        current = fingerprint(body, prompt, use.read_tokens + use.write_tokens)
        self.diagnostics.remember(message_id, current)
        previous = as_object(body["diagnostics"]).get("previous_message_id")
        return self.diagnostics.compare(previous, current) if isinstance(previous, str) else None

    def _record(self, body: Json, turn: Turn, request_id: str, batch: tuple[str, str] | None) -> BillingRecord:
        return BillingRecord(
            request_id=request_id,
            message_id=turn.id,
            ts=self.clock.now(),
            model=canonical(turn.model),
            model_requested=as_text(body.get("model")),
            status=200,
            stream=bool(body.get("stream")),
            stop_reason=turn.stop_reason,
            service_tier=as_text(turn.usage.get("service_tier")) or "standard",
            speed=as_text(body.get("speed")) or "standard",
            batch_id=batch[0] if batch else None,
            custom_id=batch[1] if batch else None,
        )


def input_usage(use: CacheUse) -> Json:
    """The input side of a usage object."""
    return {
        "input_tokens": use.uncached_tokens,
        "cache_creation_input_tokens": use.write_tokens,
        "cache_read_input_tokens": use.read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": use.write_5m_tokens,
            "ephemeral_1h_input_tokens": use.write_1h_tokens,
        },
    }


def _details(composed: Composed) -> Json:
    """The parts of the output side that are only there when they say something."""
    details: Json = {}
    if composed.thinking_tokens is not None:
        details["output_tokens_details"] = {"thinking_tokens": composed.thinking_tokens}
    if composed.web_search_requests:
        details["server_tool_use"] = {"web_search_requests": composed.web_search_requests, "web_fetch_requests": 0}
    return details


def settled(
    record: BillingRecord, turn: Turn, outcome: Outcome, bytes_received: int, *, bills_refusals: bool = False
) -> BillingRecord:
    """The record of a reply whose sending is over; `bills_refusals` has those without output cost their input, too."""
    base = replace(
        record,
        aborted=outcome.aborted,
        complete=outcome.complete,
        bytes_received=bytes_received,
        bytes_sent=outcome.bytes_sent,
    )
    refused_empty = turn.stop_reason == "refusal" and not turn.blocks and not bills_refusals
    broken_early = not outcome.complete and not outcome.aborted and not outcome.any_content
    if refused_empty or broken_early:
        return base
    split = {"cache_creation": turn.start_usage.get("cache_creation")}
    usage = split | turn.usage
    return bill(base, usage if outcome.complete else _so_far(usage, outcome.tokens))


def _so_far(usage: Json, tokens: int) -> Json:
    """The usage of a reply that ended early: the input, and the output that had been generated."""
    partial = usage | {"output_tokens": tokens}
    thinking = as_object(usage.get("output_tokens_details")).get("thinking_tokens")
    if thinking is not None:
        partial["output_tokens_details"] = {"thinking_tokens": min(thinking, tokens)}
    compacted = [item for item in as_objects(usage.get("iterations")) if item.get("type") == "compaction"]
    return partial | {"iterations": compacted}
