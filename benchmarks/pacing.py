"""500 calls on an account of 50 requests and 40,000 tokens a minute: their time against the ideal, and the 429s.

The simulator enforces the limits, and it and pacing read one clock, 60 times as fast as the wall's. Beside it the same
calls without pacing, where the SDK's retries are all there is, each of which the client takes to be refused at last
after `RETRIES`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmnb.simulator import Clock

CALLS = 500
SCALE = 60.0
RETRIES = 5
REQUESTS, INPUT, OUTPUT = 50, 40_000, 8_000
LONG = "The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 90
MOST = 1.15
MOST_REFUSED = 0.01


def run() -> list[dict[str, object]]:
    """The measurements."""
    paced, unpaced = measured("on"), measured("off")
    return [
        _row("500 calls, paced, time ÷ ideal", paced["ratio"], "×", MOST),
        _row("429s of all requests, paced", paced["refused"], "", MOST_REFUSED),
        _row("calls that failed, paced", paced["failed"], "", 0),
        _row("500 calls without pacing, time ÷ ideal", unpaced["ratio"], "×", None),
        _row("429s of all requests without pacing", unpaced["refused"], "", None),
        _row("calls that failed without pacing", unpaced["failed"], "", None),
    ]


def measured(pacing: str, calls: int = CALLS, scale: float = SCALE) -> dict[str, float]:
    """`calls` mixed calls, all at once: `ratio` to the ideal time, share `refused`, number `failed`."""
    from llmnb.pacing import pacer
    from llmnb.settings import load
    from llmnb.simulator import Clock, Limits, Simulator

    clock = Clock(scale=scale)
    limits = Limits(REQUESTS, INPUT, OUTPUT, enforce=True)
    with (
        tempfile.TemporaryDirectory() as home,
        Simulator(clock=clock, limits=limits, first_token_s=1.0, tokens_per_second=100) as sim,
    ):
        os.environ.update(sim.environ())
        os.environ.update(LLMNB_HOME=home, LLMNB_PACING=pacing, LLMNB_DISPLAY="none", LLMNB_CACHE="off")
        pacer(load()).clock = clock
        failed, minutes = asyncio.run(_ask(clock, calls))
        refused = sum(seen.status == 429 for seen in sim.requests)
        billed = sim.billed()
        # a full minute is there at the beginning; the rest comes as it is allowed
        shares = ((calls, REQUESTS), (billed.input_tokens, INPUT), (billed.output_tokens, OUTPUT))
        ideal = max((amount - limit) / limit for amount, limit in shares)
        return {
            "ratio": minutes / ideal,
            "refused": refused / len(sim.requests),
            "failed": float(failed),
            "minutes": minutes,
            "ideal": ideal,
        }


async def _ask(clock: Clock, calls: int) -> tuple[int, float]:
    import anthropic

    import llmnb

    # one in five is long
    prompts = [f"{number}: {LONG if number % 5 == 0 else 'say something short'}" for number in range(calls)]
    async with anthropic.AsyncAnthropic(max_retries=RETRIES) as client:
        llm = llmnb.LLM("claude-sonnet-5-5", client=client, cache=False, max_tokens=200, prompt_cache=None)
        await llm.aask("hello", model="claude-haiku-5-5")  # imports and connections are not what is measured
        began = clock.now()
        answers = await asyncio.gather(*(llm.aask(prompt) for prompt in prompts), return_exceptions=True)
        return sum(isinstance(answer, BaseException) for answer in answers), (clock.now() - began) / 60


def _row(name: str, value: float, unit: str, target: float | None) -> dict[str, object]:
    return {"name": name, "value": value, "unit": unit, "target": target, "ok": target is None or value <= target}
