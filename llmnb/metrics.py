"""`llmnb.metrics`: counts every call for Prometheus, `pip install 'llmnb[metrics]'`.

    llmnb.metrics.serve(9464)        # http://127.0.0.1:9464/metrics
    llmnb.metrics.register()         # or into prometheus_client's own registry, for an endpoint that you have

All carry the labels `provider`, `model` (the one that answered) and `project`:

    llmnb_requests_total{source}            calls that have ended, by where the answer came from: live, cache, replay
    llmnb_errors_total{error_type}          those of them that failed, were cut off or cancelled
    llmnb_retries_total                     attempts beyond the first
    llmnb_tokens_total{type}                input (uncached), cache_read, cache_write_5m, cache_write_1h,
                                            cache_write_unsplit, output: disjoint, so that they may be added
    llmnb_cost_usd_total                    dollars, of all that has a price
    llmnb_unpriced_requests_total           calls of which a part has no price, and is missing from the dollars
    llmnb_cache_saved_usd_total             what answers from the response cache would have cost
    llmnb_request_duration_seconds          histogram of live calls that ended well
    llmnb_time_to_first_token_seconds       histogram of their first token, of streams

They count this process, from `register` on; the ledger has everything. Where prometheus_client is told to keep its
values in files (PROMETHEUS_MULTIPROC_DIR, set before it is imported), `serve` gives those of all processes that
share the folder.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from llmnb import hearing
from llmnb.errors import InvalidRequest, MissingExtra
from llmnb.records import Call

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PORT = 9464
"""OpenTelemetry's for its Prometheus exporter; 9090 is Prometheus itself."""

# OpenTelemetry's bucket boundaries for gen_ai.client.operation.duration and gen_ai.server.time_to_first_token
# (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), and longer, for long answers
_DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
_FIRST_TOKENS_S = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
_TOKENS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_unsplit", "output")
_LABELS = ("provider", "model", "project")


class Meters:
    """The counters and histograms in one registry; `hear` counts a call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"llmnb_{name}", what, (*_LABELS, *labels), registry=registry)

        self.registry = registry
        self._heard: deque[Sequence[Call]] = deque()
        self._counting = Lock()
        self._requests = counter("requests", "Calls that have ended", "source")
        self._errors = counter("errors", "Calls that failed, were cut off or cancelled", "error_type")
        self._retries = counter("retries", "Attempts beyond the first")
        self._tokens = counter("tokens", "Tokens that were billed, in disjoint classes", "type")
        self._cost = counter("cost_usd", "Dollars, of all that has a price")
        self._unpriced = counter("unpriced_requests", "Calls of which a part has no price")
        self._saved = counter("cache_saved_usd", "Dollars that answers from the response cache would have cost")
        self._duration = Histogram(
            "llmnb_request_duration_seconds",
            "Live calls, to their end",
            _LABELS,
            buckets=_DURATIONS_S,
            registry=registry,
        )
        self._first_token = Histogram(
            "llmnb_time_to_first_token_seconds", "Streams, to the first token", _LABELS, buckets=_FIRST_TOKENS_S,
            registry=registry,
        )  # fmt: skip
        self._all: tuple[Any, ...] = (
            self._requests, self._errors, self._retries, self._tokens, self._cost, self._unpriced, self._saved,
            self._duration, self._first_token,
        )  # fmt: skip

    def hear(self, rows: Sequence[Call]) -> None:
        """Counts a call that has ended.

        The client's locks are not reentrant, and a finalizer may end a stream while its thread holds one of them: what
        comes while somebody counts is counted by them.
        """
        self._heard.append(rows)
        while self._heard and self._counting.acquire(blocking=False):
            try:
                while self._heard:
                    self._count(self._heard.popleft())
            finally:
                self._counting.release()

    def _count(self, rows: Sequence[Call]) -> None:
        call = rows[0]
        labels = _labels(call)
        self._requests.labels(*labels, call.source).inc()
        if call.status != "ok":
            self._errors.labels(*labels, call.error_type or call.status).inc()
        if call.attempts > 1:
            self._retries.labels(*labels).inc(call.attempts - 1)
        if call.source != "live":
            self._saved.labels(*labels).inc((call.saved_nanousd or 0) / 1e9)
            return
        for row in rows:
            self._count_usage(row)
        if any(row.cost_nanousd is None for row in rows):
            self._unpriced.labels(*labels).inc()
        if call.status == "ok" and call.latency_ms is not None:
            self._duration.labels(*labels).observe(call.latency_ms / 1000)
            if call.ttft_ms is not None:
                self._first_token.labels(*labels).observe(call.ttft_ms / 1000)

    def _count_usage(self, row: Call) -> None:
        labels = _labels(row)
        for kind in _TOKENS:
            if tokens := getattr(row, f"{kind}_tokens"):
                self._tokens.labels(*labels, kind).inc(tokens)
        if row.cost_nanousd:
            self._cost.labels(*labels).inc(row.cost_nanousd / 1e9)

    def close(self) -> None:
        """Counts no more, and takes all of it out of the registry."""
        hearing.hearers.remove(self.hear)
        for meter in self._all:
            self.registry.unregister(meter)


def _labels(call: Call) -> tuple[str, str, str]:
    return call.provider, call.model or call.model_requested, call.project or ""


_meters: dict[int, Meters] = {}  # by the registry's id
_lock = Lock()


def register(registry: CollectorRegistry | None = None) -> CollectorRegistry:
    """Counts calls into a registry from now on; again is once.

    Args:
        registry: default: prometheus_client's own, which an endpoint that you have serves already.

    Raises:
        MissingExtra: prometheus_client is not installed.
    """
    target = registry if registry is not None else _prometheus().REGISTRY
    with _lock:
        if id(target) not in _meters:
            _meters[id(target)] = meters = Meters(target)
            hearing.hearers.append(meters.hear)
    return target


def unregister(registry: CollectorRegistry | None = None) -> None:
    """Counts into it no more, and takes the metrics out of it; nothing happens where they are not."""
    target = registry if registry is not None else _prometheus().REGISTRY
    with _lock:
        meters = _meters.pop(id(target), None)
    if meters is not None:
        meters.close()


class Served:
    """A running endpoint; `close()` ends it, and the counting for it."""

    def __init__(self, registry: CollectorRegistry, server: Any, thread: Any, *, owns: bool) -> None:
        self.registry = registry
        self.url = "http://{}:{}/metrics".format(*server.server_address[:2])
        self._server, self._thread, self._owns = server, thread, owns

    def close(self) -> None:
        """No more scrapes."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._owns:
            unregister(self.registry)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<metrics at {self.url}>"


def serve(port: int = PORT, *, host: str = "127.0.0.1", registry: CollectorRegistry | None = None) -> Served:
    """Counts calls from now on, and serves the counts to Prometheus until this process ends.

    Args:
        port: where; 0 takes a free one, see the `url` of what comes back.
        host: the address to listen at; "0.0.0.0" is open to everybody who can reach this machine.
        registry: what to serve; default: one of its own with llmnb's metrics alone.

    Raises:
        InvalidRequest: the port is taken.
        MissingExtra: prometheus_client is not installed.
    """
    prometheus = _prometheus()
    target = registry if registry is not None else prometheus.CollectorRegistry()
    served = _of_all_processes() if registry is None and _MULTIPROCESS in os.environ else target
    try:
        server, thread = prometheus.start_http_server(port, addr=host, registry=served)
    except OSError as error:
        raise InvalidRequest(
            f"metrics cannot be served at {host}:{port}: {error.strerror}. Take another port."
        ) from None
    register(target)
    return Served(target, server, thread, owns=registry is None)


_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


def _of_all_processes() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, multiprocess

    every = CollectorRegistry()
    multiprocess.MultiProcessCollector(every)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return every


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError:
        raise MissingExtra("llmnb.metrics", "metrics") from None
    return prometheus_client
