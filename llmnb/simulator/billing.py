"""What the provider would bill: one frozen record a request, read off the bytes that were sent.

Nothing here is shared with llmnb's own usage or pricing: holding the ledger against these records proves something.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from llmnb.simulator import catalog
from llmnb.simulator.json_value import Json, as_count, as_object, as_objects, as_text
from llmnb.simulator.tariff import Quantity, charge_nanousd

TOKEN_FIELDS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class IterationBill:
    """Tokens of one sampling iteration that the top-level usage does not hold, billed on the model that ran it."""

    type: str
    model: str
    quantity: Quantity
    price_nanousd: int | None


@dataclass(frozen=True, slots=True)
class BillingRecord:
    """One `POST /v1/messages` (or one request of a batch), as the provider's books have it.

    Token classes are disjoint and without `iterations`, which come on top; `thinking_tokens` are inside
    `output_tokens`. `model` is the catalogue's id of the model that served. `aborted`: the client left before the end;
    what was generated until then is billed, even where the client had not read all of it. `complete`: the reply
    was sent to its last byte. `price_nanousd` includes the iterations; None for a model without a price.
    Nothing is billed for errors, for streams that the server broke off before any content, and on the Messages wire for
    refusals without output.
    """

    request_id: str
    message_id: str | None
    ts: float
    model: str
    model_requested: str
    status: int
    stream: bool = False
    stop_reason: str | None = None
    aborted: bool = False
    complete: bool = True
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_search_requests: int = 0
    web_fetch_requests: int = 0
    iterations: tuple[IterationBill, ...] = ()
    service_tier: str = "standard"
    speed: str = "standard"
    batch_id: str | None = None
    custom_id: str | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    price_nanousd: int | None = 0

    @property
    def quantity(self) -> Quantity:
        """The top-level token classes and web searches."""
        return Quantity(
            **{name: getattr(self, name) for name in TOKEN_FIELDS}, web_search_requests=self.web_search_requests
        )


@dataclass(frozen=True, slots=True)
class BilledTotal:
    """Sums over billing records, iterations included; `unpriced` counts records without a price."""

    requests: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_search_requests: int = 0
    price_nanousd: int = 0
    unpriced: int = 0


def total(records: list[BillingRecord]) -> BilledTotal:
    """The sums of some records; those of refused requests count as requests and add nothing."""
    sums = dict.fromkeys((f.name for f in fields(BilledTotal)), 0)
    for record in records:
        for quantity in (record.quantity, *(iteration.quantity for iteration in record.iterations)):
            for name in (*TOKEN_FIELDS, "web_search_requests"):
                sums[name] += getattr(quantity, name)
        sums["requests"] += 1
        sums["thinking_tokens"] += record.thinking_tokens
        sums["price_nanousd"] += record.price_nanousd or 0
        sums["unpriced"] += record.price_nanousd is None
    return BilledTotal(**sums)


def canonical(model: str) -> str:
    """The catalogue's id of a model name, or the name itself when the catalogue does not have it."""
    known = catalog.BY_NAME.get(model)
    return model if known is None else known.id


def quantity_of(usage: Json) -> Quantity:
    """Token classes of a usage object; cache writes that it does not split by TTL are 5-minute ones."""
    split = as_object(usage.get("cache_creation"))
    one_hour = as_count(split.get("ephemeral_1h_input_tokens"))
    five_minutes = as_count(split.get("ephemeral_5m_input_tokens"))
    written = max(as_count(usage.get("cache_creation_input_tokens")), one_hour + five_minutes)
    return Quantity(
        input_tokens=as_count(usage.get("input_tokens")),
        cache_read_tokens=as_count(usage.get("cache_read_input_tokens")),
        cache_write_5m_tokens=written - one_hour,
        cache_write_1h_tokens=one_hour,
        output_tokens=as_count(usage.get("output_tokens")),
        web_search_requests=as_count(as_object(usage.get("server_tool_use")).get("web_search_requests")),
    )


def bill(record: BillingRecord, usage: Json) -> BillingRecord:
    """The record with the quantities and the price of a final usage object filled in."""
    served = _serving_model(usage) or record.model
    batch, fast = record.service_tier == "batch", record.speed == "fast"
    quantity = quantity_of(usage)
    extra = tuple(_iteration_bill(item, served, batch, fast) for item in _separate(usage, served))
    prices = [charge_nanousd(quantity, served, batch=batch, fast=fast), *(item.price_nanousd for item in extra)]
    known = [price for price in prices if price is not None]
    server_tools = as_object(usage.get("server_tool_use"))
    return replace(
        record,
        **{name: getattr(quantity, name) for name in TOKEN_FIELDS},
        model=served,
        iterations=extra,
        thinking_tokens=as_count(as_object(usage.get("output_tokens_details")).get("thinking_tokens")),
        web_search_requests=quantity.web_search_requests,
        web_fetch_requests=as_count(server_tools.get("web_fetch_requests")),
        price_nanousd=sum(known) if len(known) == len(prices) else None,
    )


def _serving_model(usage: Json) -> str | None:
    """The model of the `fallback_message` iteration, whose tokens are the top-level ones."""
    for item in as_objects(usage.get("iterations")):
        if item.get("type") == "fallback_message" and item.get("model"):
            return canonical(as_text(item.get("model")))
    return None


def _separate(usage: Json, served: str) -> list[Json]:
    """Iterations on top of the top-level usage: compaction, advisor, and hops of other models that produced output."""
    found: list[Json] = []
    for item in as_objects(usage.get("iterations")):
        kind, model = item.get("type"), canonical(as_text(item.get("model")))
        declined_elsewhere = kind == "message" and model not in ("", served) and as_count(item.get("output_tokens")) > 0
        if kind in ("compaction", "advisor_message") or declined_elsewhere:
            found.append(item)
    return found


def _iteration_bill(item: Json, served: str, batch: bool, fast: bool) -> IterationBill:
    model = canonical(as_text(item.get("model"))) or served
    quantity = quantity_of(item)
    return IterationBill(
        as_text(item.get("type")), model, quantity, charge_nanousd(quantity, model, batch=batch, fast=fast)
    )
