"""A long run on a bad day: one row in so many meets a fault, and afterwards frame, books and bill agree."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd
import pytest

import llmnb
from llmnb.simulator import Answer, BillingRecord, Clock, Fault, Simulator
from llmnb.simulator.answer import SeenRequest
from llmnb.testing import serve_simulator

STREAMED = 60_000
"""max_tokens from which on the SDK demands a stream."""
ALWAYS = 99

RETRIED = [
    Fault("rate_limited", retry_after_ms=1),
    Fault("overloaded", retry_after_ms=1),
    Fault("server_error", retry_after_ms=1),
    Fault("error_event", after_events=0),
    Fault("error_event", after_events=-1, error_type="api_error"),
]
"""Another attempt is made, and the first one costs nothing."""
REFUSED = [Fault("status", status=400, times=ALWAYS), Fault("overloaded", retry_after_ms=1, times=ALWAYS)]
"""The row fails, and costs nothing."""
HARMLESS = [Fault(kind, seconds=5) for kind in ("slow_headers", "stall", "split_utf8", "unknown_events", "gzip")]
HARMLESS.append(Fault("json_for_sse"))
DROP = Fault("drop")
LOST = [Fault("reset_before_headers"), Fault("close_before_headers"), DROP]
"""Nobody can know what the attempt is billed: the books estimate it."""
BROKEN = [Fault("truncate"), Fault("error_event"), Fault("bad_utf8"), Fault("bad_json")]
"""A stream that ends in the middle: the row fails at some cost. An answer in one piece does not notice."""
FAULTS = [*RETRIED, *REFUSED, *HARMLESS, *LOST, *BROKEN]


def row_of(request: SeenRequest) -> int:
    """The row that asks."""
    return int(request.prompt.split()[1])


class BadDay:
    """A run in which one row in `one_in` meets a fault, each fault in turn."""

    def __init__(self, sim: Simulator, one_in: int, *, streamed: bool) -> None:
        self._sim, self._one_in, self._streamed = sim, one_in, streamed
        sim.rule(self._answer)

    def fault(self, row: int) -> Fault | None:
        """What the row meets."""
        return FAULTS[row // self._one_in % len(FAULTS)] if row % self._one_in == self._one_in - 1 else None

    def _answer(self, request: SeenRequest) -> Answer | None:
        if not request.is_message:
            return None
        row = row_of(request)
        fault = self.fault(row)
        strikes = fault is not None and request.attempt < (fault.times or 1)
        return Answer(text=_said(row), delta_tokens=2, fault=fault if strikes else None)

    def run(self, rows: int) -> str:
        """Holds frame, books and bill of so many rows against each other; a line that says what was held."""
        llm = llmnb.LLM(cache=False, max_tokens=STREAMED if self._streamed else 500)
        got = llm.map(pd.DataFrame({"n": range(rows)}), "Row {{ n }}", concurrency=64)
        self._sim.settle()
        calls = llmnb.calls(where={"run_id": got.run_id})
        assert len(got) == len(calls) == rows
        for name in ("input_tokens", "output_tokens"):
            assert got[name].sum() == calls[name].sum()
        self._check_rows(got.to_dict("records"))
        return self._check_books(calls)

    def _check_rows(self, rows: list[dict[str, Any]]) -> None:
        billed = self._billed_rows()
        for row in rows:
            n, fault = row["n"], self.fault(row["n"])
            cost, bill = round(row["cost_usd"] * 1e9), sum(record.price_nanousd or 0 for record in billed[n])
            is_broken = self._streamed and (fault in BROKEN or fault == DROP)
            if fault in REFUSED or is_broken:
                assert row["error"], (n, fault)
                assert pd.isna(row["text"]), (n, fault)
            else:
                assert pd.isna(row["error"]), (n, fault, row["error"])
                assert row["text"] == _said(n), (n, fault)
            if is_broken:
                assert cost > 0, (n, fault)
            elif fault in LOST:
                assert cost >= bill > 0, (n, fault)
            else:
                assert cost == bill, (n, fault)

    def _billed_rows(self) -> dict[int, list[BillingRecord]]:
        asked = {seen.request_id: row_of(seen) for seen in self._sim.requests if seen.is_message}
        billed = defaultdict[int, list[BillingRecord]](list)
        for record in self._sim.billing:
            billed[asked[record.request_id]].append(record)
        return billed

    def _check_books(self, calls: pd.DataFrame) -> str:
        """To the token, but for the calls that are marked as estimated."""
        billed = {record.request_id: record for record in self._sim.billing if record.status == 200}
        estimated = 0
        for row in calls.to_dict("records"):
            record = billed.get(row["request_id"])
            tokens = row["input_tokens"], row["output_tokens"]
            if record is None:
                assert (row["status"], row["estimated"], row["cost_nanousd"]) == ("error", False, 0)
            elif not row["estimated"]:
                assert tokens == (record.input_tokens, record.output_tokens)
                assert row["cost_nanousd"] == record.price_nanousd
            elif row["status"] == "ok":  # and an attempt was lost before
                assert tokens[0] > record.input_tokens
                assert tokens[1] == record.output_tokens
            else:
                assert tokens[0] == record.input_tokens
                assert 0 < tokens[1] <= 2 * record.output_tokens + 5
            estimated += row["estimated"]
        assert estimated <= (len(calls) // self._one_in) * len([*LOST, *BROKEN]) / len(FAULTS) + 1
        books, bill = calls["cost_nanousd"].sum(), self._sim.billed().price_nanousd
        return f"{len(calls):,} calls, {estimated} estimated; books ${books / 1e9:.6f}, bill ${bill / 1e9:.6f}"


def _said(row: int) -> str:
    """Words enough for a fault to strike in the middle of them."""
    return f"row {row} sjø " * (1 + row % 3)


@pytest.mark.parametrize("streamed", [False, True], ids=["in one piece", "streamed"])
@pytest.mark.parametrize(
    ("rows", "one_in"), [(100, 5), pytest.param(20_000, 20, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_books_and_bill_agree_after_a_bad_day(
    rows: int, one_in: int, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row has its answer or its error, and what is not marked as estimated agrees to the token."""
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)  # after a lost connection it is the SDK's
    monkeypatch.setenv("LLMNB_LONGEST_RETRY_WAIT_S", "0.001")
    with serve_simulator(clock=Clock.jumping(), environ=True) as sim:
        print(BadDay(sim, one_in, streamed=streamed).run(rows))
        assert sim.crashes == []
