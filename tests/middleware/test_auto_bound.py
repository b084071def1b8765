"""What prompt_cache="auto" may lose: over notebooks of every kind, by the simulator's bill, never more than it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmnb
from llmnb.middleware import placement as room
from llmnb.middleware.balance import PROMPTS_AT_STAKE, SHARE_AT_STAKE, Balance, Stake, saved_tokens
from llmnb.middleware.sightings import Sightings
from llmnb.pricing import CachePrices
from llmnb.prompt_cache import Gaps
from llmnb.records import Usage, calling
from llmnb.simulator import Clock, Simulator
from llmnb.testing import serve_simulator

GUIDE = "Write plainly, and say what you measured. " * 120
SONNET = CachePrices(read=0.05, write_5m=1.25, write_1h=2.0)
ESTIMATE = 1.25
"""Prompts are counted before they are sent, and the simulator's count differs by up to a quarter."""


class Told:
    """A history of earlier kernels that says the same of everything."""

    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps

    def gaps(self, *_: Any, **__: Any) -> Gaps:
        return self._gaps

    def begin(self) -> None:
        """It is there."""


class Notebook:
    """One kernel's calls, with the time between them, and what they cost against no caching."""

    def __init__(self, sim: Simulator, clock: Clock, client: anthropic.Anthropic) -> None:
        self.sim, self.clock, self.client = sim, clock, client
        self.chats: dict[int, list[dict[str, Any]]] = {}
        self.usages: list[Usage] = []
        self.bound_tokens = 0

    def run(self, gap_s: float, kind: str, number: int) -> None:
        self.clock.advance(gap_s)
        if kind == "chat":
            messages = self.chats.setdefault(number, [])
            messages += [{"role": "user", "content": f"{number}, {len(messages)}: {GUIDE}"}]
            with calling(chat=f"c{number}"):
                reply = self.create(messages=messages)
            messages += [{"role": "assistant", "content": reply.content[0].to_dict()["text"]}]
        else:  # a question behind a guide that others share, or with a guide of its own
            guide = f"{number}: {GUIDE}" if kind == "question" else f"once, {len(self.usages)}: {GUIDE}"
            self.create(system=guide, messages=[{"role": "user", "content": f"Question {len(self.usages)}?"}])

    def create(self, **body: Any) -> anthropic.types.Message:
        with calling(on_marked=self.marked):
            message = self.client.messages.create(model="claude-sonnet-5-5", max_tokens=20, **body)
        usage = message.usage
        writes = usage.cache_creation
        assert writes is not None
        self.usages.append(
            Usage(
                usage.input_tokens,
                usage.cache_read_input_tokens or 0,
                writes.ephemeral_5m_input_tokens,
                writes.ephemeral_1h_input_tokens,
            )
        )
        assert self.lost_tokens <= self.stated_tokens
        return message

    def marked(self, marks: Any) -> None:
        self.bound_tokens = max(self.bound_tokens, marks.bound_tokens or 0)

    @property
    def lost_tokens(self) -> float:
        """What the bill is higher for caching, in tokens at the price of plain input."""
        return -sum(saved_tokens(usage, SONNET) for usage in self.usages)

    @property
    def stated_tokens(self) -> float:
        """What the docstring of `LLM` says it may be."""
        sizes = [usage.total_input_tokens for usage in self.usages]
        return PROMPTS_AT_STAKE * max(sizes) * ESTIMATE + SHARE_AT_STAKE * sum(sizes)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Simulator, Clock, anthropic.Anthropic]]:
    """One server for all examples: each has prompts of its own to itself, as the cache is cleared before it."""
    clock = Clock.jumping(1_795_000_000.0)
    with serve_simulator(clock=clock) as sim, sim.client() as plain:
        sim.rule("Yes.")
        yield sim, clock, plain
        assert sim.crashes == []


def notebook(served: tuple[Simulator, Clock, anthropic.Anthropic], patch: pytest.MonkeyPatch, told: Gaps) -> Notebook:
    """A kernel that has seen nothing yet, on a ledger that tells this."""
    sim, clock, plain = served
    sim.clear_prompt_cache()
    patch.setattr(room, "sightings", Sightings(clock.now))
    patch.setattr(room, "history", lambda path: Told(told))
    return Notebook(sim, clock, llmnb.wrap(plain, prompt_cache="auto"))


GAPS = st.sampled_from([1, 20, 200, 290, 310, 900, 3_500, 3_700, 9_000])
CALLS = st.tuples(GAPS, st.sampled_from(["chat", "question", "once"]), st.integers(0, 2))
HISTORIES = st.sampled_from([Gaps(), Gaps(60), Gaps(0, 60), Gaps(20, 20, 20), Gaps(0, 0, 60)])


def _holds(served: Any, calls: list[tuple[int, str, int]], told: Gaps) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kernel = notebook(served, patch, told)
        for call in calls:
            kernel.run(*call)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CALLS, min_size=4, max_size=14), HISTORIES)
def test_it_holds(served: Any, calls: list[tuple[int, str, int]], told: Gaps) -> None:
    """After every call of a notebook that comes and goes as it likes, whatever earlier kernels did."""
    _holds(served, calls, told)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CALLS, min_size=10, max_size=60), HISTORIES)
def test_it_holds_for_long(served: Any, calls: list[tuple[int, str, int]], told: Gaps) -> None:
    """The same, over days."""
    _holds(served, calls, told)


@pytest.mark.parametrize("told", [Gaps(60), Gaps(0, 60)], ids=["5m", "1h"])
@pytest.mark.parametrize("kind", ["chat", "once"])
def test_a_history_that_is_wrong_every_time(served: Any, told: Gaps, kind: str) -> None:
    """Earlier kernels read everything again, this one nothing: it stops, and what was lost is less than was said."""
    with pytest.MonkeyPatch.context() as patch:
        kernel = notebook(served, patch, told)
        for number in range(30):
            kernel.run(60, kind, number)
        largest = max(usage.total_input_tokens for usage in kernel.usages)
        assert 0 < kernel.lost_tokens < 1.25 * largest
        assert sum(usage.cache_write_tokens for usage in kernel.usages[-10:]) == 0


def test_habits_that_change_are_paid_for_once(served: Any) -> None:
    """Prompts that were read until the entry was written, and never from then on: the worst that can be asked."""
    with pytest.MonkeyPatch.context() as patch:
        kernel = notebook(served, patch, Gaps())
        for number in range(40):
            kernel.run(1, "question", number // 2)
            gap = 4_000 if kernel.usages[-1].cache_write_tokens else 1
            kernel.clock.advance(gap)


def test_a_notebook_as_people_write_them_saves(served: Any) -> None:
    """Caution does not cost what caching is for: a loop behind a guide, and a chat, mostly read."""
    with pytest.MonkeyPatch.context() as patch:
        kernel = notebook(served, patch, Gaps())
        for _ in range(8):
            kernel.run(5, "question", 0)
        for _ in range(5):
            kernel.run(100, "chat", 0)
        total = sum(usage.total_input_tokens for usage in kernel.usages)
        assert kernel.lost_tokens < -0.5 * total


# The account ----------------------------------------------------------------------------------------------------------


def test_stakes_of_requests_under_way_count_as_lost() -> None:
    """A hundred at once are no way around the bound; one that failed gives its stake back, one that read earns."""
    balance = Balance()
    stakes = [balance.stake(250, 1_000) for _ in range(100)]
    taken = [stake for stake in stakes if stake is not None]
    assert len(taken) == 6  # of 1.5 x 1,000
    assert balance.saved_tokens == -1_500
    balance.give_back(taken[0])
    assert balance.saved_tokens == -1_250
    balance.settle(taken[1], Usage(0, cache_read_tokens=1_000), SONNET)
    assert balance.saved_tokens == pytest.approx(-1_000 + 950)
    balance.settle(taken[2], Usage(0, cache_read_tokens=1_000), SONNET, only_losses=True)
    assert balance.saved_tokens == pytest.approx(-1_000 + 950 + 250)


def test_what_was_wasted_is_forgotten_in_time() -> None:
    """A twentieth of all that was read may be lost besides."""
    balance = Balance()
    for _ in range(6):
        stake = balance.stake(250, 1_000)
        assert stake is not None
        balance.settle(stake, Usage(0, cache_write_5m_tokens=1_000), SONNET)
    assert balance.stake(250, 1_000) == Stake(250, 1_800)  # 6,000 tokens were read by then: 300 more
    assert balance.stake(250, 1_000) is None
    balance.settle(Stake(0, 0), Usage(5_000), SONNET)
    assert balance.stake(250, 1_000) is not None
