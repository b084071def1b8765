"""`estimate`: tokens and dollars before anything is sent, held against what the simulator then bills."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmnb
from llmnb.cache.responses import responses
from llmnb.errors import InvalidRequest, MissingKey
from llmnb.estimate import CacheEstimate, Estimate, KeptAnswer
from llmnb.middleware import placement
from llmnb.middleware.sightings import Sightings
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator
from llmnb.tokens.sampling import start_over
from llmnb.trouble import LlmnbWarning, forget_warnings

GUIDE = "Answer in the house style: short sentences, no adjectives, and the source of every number. " * 120


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated API in the environment, and a memory that knows nothing of it."""
    start_over()
    monkeypatch.setattr(placement, "sightings", Sightings())
    with serve_simulator(environ=True) as simulator:
        yield simulator
        assert simulator.crashes == []


def weather(city: str) -> str:
    """Today's weather in a city."""
    return f"Rain in {city}"


# Without anything known ----------------------------------------------------------------------------------------------


def test_offline_without_a_key() -> None:
    """Nothing is sent and no key needed: the input and the most it can cost are told."""
    found = llmnb.LLM("claude-sonnet-5-5", max_tokens=1_000).estimate("Explain write-ahead logging in SQLite")
    assert 10 < found.input_tokens < 40
    assert (found.counted_by, found.calibrated_on, found.error) == ("characters", 0, 0.25)
    assert (found.output_tokens, found.output_low, found.output_high, found.history_calls) == (None, None, None, 0)
    assert found.cost_usd is None
    # $2 and $10 per million tokens
    assert found.input_cost_usd == Decimal(found.input_tokens) * 2 / 10**6
    assert found.cost_most_usd == Decimal(found.input_tokens_most * 2 + 1_000 * 10) / 10**6
    assert found.cost_low_usd is not None
    assert found.cost_low_usd < found.input_cost_usd < found.cost_most_usd == found.cost_high_usd


def test_it_imports_nothing_heavy() -> None:
    """An estimate takes milliseconds, not the seconds that the SDK takes to import."""
    code = "import llmnb, sys; llmnb.LLM('claude-sonnet-5-5').estimate('Hi'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"anthropic", "pandas", "tiktoken", "IPython"} & set(done.stdout.split())


def test_an_unpriced_model_has_tokens_and_no_cost() -> None:
    """Tokens, yes; dollars, None and never 0."""
    found = llmnb.LLM("a-model-nobody-sells").estimate([{"type": "text", "text": GUIDE}, "Why?"])
    assert found.input_tokens > 1_000
    costs = (found.cost_usd, found.cost_low_usd, found.cost_high_usd, found.cost_most_usd, found.input_cost_usd)
    assert costs == (None,) * 5
    assert "unpriced" in repr(found)


def test_conditions_of_price_count() -> None:
    """A tier without a published price is unpriced, and a price of one's own is used."""
    assert llmnb.LLM("claude-sonnet-5-5").estimate("Hi", speed="fast").cost_most_usd is None


def test_a_price_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings win over the published price."""
    monkeypatch.setenv("LLMNB_PRICES", '{"my-model": {"input": 1, "output": 2}}')
    found = llmnb.LLM("my-model", max_tokens=500).estimate("Hi")
    assert found.cost_most_usd == Decimal(found.input_tokens_most + 1_000) / 10**6
    assert found.price_id == "settings:my-model"


# Bad input ------------------------------------------------------------------------------------------------------------


def test_what_ask_refuses_is_refused(tmp_path: Path) -> None:
    """An estimate of a call that cannot work is none."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    for prompt in ("", " ", [], tmp_path / "none.txt", 5):
        with pytest.raises(InvalidRequest):
            llm.estimate(prompt)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidRequest, match="takes no temperature"):
        llm.estimate("Hi", temperature=0.5)
    with pytest.raises(TypeError, match=r"no argument 'max_token'"):
        llm.estimate("Hi", max_token=5)  # pyright: ignore[reportCallIssue]
    with pytest.raises(InvalidRequest, match="a tool is a function"):
        llm.estimate("Hi", tools=[5])
    with pytest.raises(MissingKey):
        llm.estimate("Hi", exact=True)


def test_a_ledger_that_cannot_be_read_is_no_obstacle(llmnb_home: Path) -> None:
    """The estimate goes on without history, and one warning says why."""
    forget_warnings()
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").write_bytes(b"no database" * 1000)
    with pytest.warns(LlmnbWarning, match="looking up earlier calls"):
        found = llmnb.LLM("claude-sonnet-5-5").estimate("Hi")
    assert found.input_tokens > 0


# Tools and other parts ------------------------------------------------------------------------------------------------


def test_tools_count_however_they_are_given() -> None:
    """A function alone or in a list, and the SDK's tool and its dict, are the same; tools add their prompt."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    made = anthropic.beta_tool(weather)
    counts = [
        llm.estimate("Umbrella?", tools=tools).input_tokens for tools in (weather, [weather], [made], [made.to_dict()])
    ]
    assert counts[0] == counts[1] <= counts[2] == counts[3]  # ours has no titles in its schema
    assert counts[0] > llm.estimate("Umbrella?").input_tokens + 400


def test_what_is_only_referred_to_is_said_to_be_missing() -> None:
    """A file by its id makes the count a lower bound."""
    block = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    found = llmnb.LLM("claude-sonnet-5-5").estimate([block, "Summarise"])
    assert not found.complete
    assert "at least" in repr(found)


# Against the bill -----------------------------------------------------------------------------------------------------


def test_exact_is_what_is_billed_then(sim: Simulator) -> None:
    """With `exact` the API counts: the same number that the call is billed."""
    llm = llmnb.LLM("claude-sonnet-5-5", system=GUIDE)
    found = llm.estimate("Explain WAL", exact=True, tools=[weather])
    plain = llm.estimate("Explain WAL", exact=True)
    reply = llm("Explain WAL")
    assert plain.input_tokens == reply.usage.total_input_tokens < found.input_tokens
    assert (plain.counted_by, plain.complete) == ("count_tokens", True)


def test_billed_calls_calibrate(sim: Simulator) -> None:
    """The simulator counts in its own way; after a few calls the estimate is near it, and says so."""
    llm = llmnb.LLM("claude-sonnet-5-5", project="thesis")
    asked = [f"Explain write-ahead logging, {'in detail, with examples, ' * n}please" for n in range(1, 40, 3)]
    question = "Explain write-ahead logging, " + "in detail, with examples, " * 30
    before = llm.estimate(question)
    for text in asked:
        llm(text)
    after, billed = llm.estimate(question), llm.estimate(question, exact=True).input_tokens
    assert (after.calibrated_on, after.error < before.error) == (len(asked), True)
    assert abs(after.input_tokens - billed) < abs(before.input_tokens - billed)
    assert after.input_tokens == pytest.approx(billed, rel=after.error)


def test_typical_answers_come_from_the_project_then_from_all(sim: Simulator) -> None:
    """The ledger says how long answers are: of this model in this project, else in all of them."""
    for project, length in (("long", 300), ("short", 5)):
        for _ in range(5):
            sim.script("word " * length)
            llmnb.LLM("claude-sonnet-5-5", project=project)("Go on", cache=False)
    found = {name: llmnb.LLM("claude-sonnet-5-5", project=name).estimate("Go on") for name in ("long", "short", "new")}
    assert found["long"].output_tokens is not None
    assert found["short"].output_tokens is not None
    assert found["long"].output_tokens > 10 * found["short"].output_tokens
    assert (found["long"].history_calls, found["long"].project) == (5, "long")
    assert (found["new"].history_calls, found["new"].project) == (10, None)
    short = found["short"]
    assert short.cost_usd == Decimal(short.input_tokens * 2 + short.output_tokens * 10) / 10**6
    assert short.cost_low_usd <= short.cost_usd <= short.cost_high_usd < short.cost_most_usd
    assert llmnb.LLM("claude-sonnet-5-5", project="long").estimate("Go on", max_tokens=50).output_tokens == 50
    assert llmnb.LLM("claude-haiku-5-5", project="long").estimate("Go on").output_tokens is None


def test_the_prompt_cache_as_it_is_then_billed(sim: Simulator) -> None:
    """With a breakpoint the first call and the next cost what was said, but for the length of the answer."""
    system: Any = [{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    sim.script("Yes.", "Yes.", "Yes.", "Yes.")
    llm = llmnb.LLM("claude-sonnet-5-5", system=system, cache=False)
    replies = [llm("Explain WAL"), llm("Explain WAL")]
    found = llm.estimate("Explain WAL", exact=True)
    assert found.cache is not None
    assert (found.cache.ttl, found.cache.is_marked) == ("1h", True)
    assert found.cache.tokens == pytest.approx(replies[0].usage.cache_write_1h_tokens, rel=0.01)
    for said, reply in zip((found.cache.written_usd, found.cache.read_usd), replies, strict=True):
        assert float(said or 0) == pytest.approx(float(reply.cost_usd or 0), rel=0.03)


def test_the_breakpoints_are_those_of_the_call_that_follows(sim: Simulator) -> None:
    """What "auto" would set now, for how long, and what should be in the cache by now: as the next reply says it."""
    sim.rule("Yes.")
    llm = llmnb.LLM("claude-sonnet-5-5", system=GUIDE, cache=False)
    for number in range(3):
        found = llm.estimate(f"Question {number}?", exact=True).cache
        reply = llm(f"Question {number}?")
        assert found is not None
        assert found.is_marked == bool(reply.prompt_cache.breakpoints) == (number > 0)
        if found.is_marked:
            assert found.breakpoints == reply.prompt_cache.breakpoints
            assert found.held_tokens == pytest.approx(reply.prompt_cache.read_tokens, rel=0.02)
            assert float(found.now_usd or 0) == pytest.approx(float(reply.cost_usd or 0), rel=0.03)
    assert found.held_tokens > 1_000
    assert "tokens should be in it now" in repr(llm.estimate("Question 4?"))
    assert llm.estimate("Question 4?", prompt_cache="1h").cache.ttl == "1h"
    chat = llmnb.LLM("claude-sonnet-5-5", prompt_cache="5m").chat(system=GUIDE)
    chat(GUIDE)
    points = chat.estimate("And?").cache.breakpoints
    assert {point.place for point in points} == {"system", "messages"}
    assert chat("And?").prompt_cache.breakpoints == points


def test_an_estimate_stakes_nothing(sim: Simulator) -> None:
    """However often it is asked for, the next call is decided as if it had not been."""
    llm = llmnb.LLM("claude-sonnet-5-5", cache=False)
    chats = [llm.chat(system=f"{number}: {GUIDE}") for number in range(12)]
    for chat in chats:
        assert chat.estimate("Hi").cache.is_marked
    assert chats[0]("Hi").prompt_cache.written_tokens > 1_000


@pytest.mark.parametrize(("model", "minimum"), [("claude-sonnet-5-5", 512), ("claude-haiku-4-5", 4_096)])
def test_each_model_has_its_own_minimum(model: str, minimum: int) -> None:
    """A prompt of half as much again is worth a breakpoint, one of half as much is not; what is marked in vain, too."""
    for share, expected in ((0.5, False), (1.5, True)):
        text = "word " * round(minimum * share)
        llm = llmnb.LLM(model, prompt_cache=None)
        assert (llm.estimate("Hi", system=text).cache is not None) == expected
        marked: Any = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        assert (llm.estimate("Hi", system=marked).cache is not None) == expected


def test_what_a_breakpoint_would_do(sim: Simulator) -> None:
    """Without one it is said what it would bring; a short prompt has nothing to keep."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    assert llm.estimate("Hi").cache is None
    found = llm.estimate("Hi", system=GUIDE, exact=True)
    assert found.cache is not None
    assert not found.cache.is_marked
    assert found.cache.read_usd < found.input_cost_usd < found.cache.written_usd


def test_a_chat_counts_all_that_was_said(sim: Simulator) -> None:
    """The next turn reads the ones before; the chat stays as it was."""
    chat = llmnb.LLM("claude-sonnet-5-5").chat(system="Be brief.")
    first = chat.estimate("And now?", exact=True).input_tokens
    chat("Tell me about WAL")
    before = chat.messages
    found = chat.estimate("And now?", exact=True)
    assert found.input_tokens > first + chat.usage.output_tokens
    assert chat.messages == before
    assert chat("And now?").usage.total_input_tokens == found.input_tokens


async def test_the_async_twins(sim: Simulator) -> None:
    """`aestimate` gives what `estimate` gives, also with the API's count."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    assert await llm.aestimate("Explain WAL") == llm.estimate("Explain WAL")
    assert (await llm.aestimate("Explain WAL", exact=True)).counted_by == "count_tokens"
    assert (await llm.chat().aestimate("Explain WAL")).input_tokens > 0


def test_an_estimate_leaves_no_row(sim: Simulator) -> None:
    """Counting costs nothing and is on no books."""
    llmnb.LLM("claude-sonnet-5-5").estimate("Hi", exact=True)
    assert llmnb.calls().empty


# The response cache ---------------------------------------------------------------------------------------------------

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
QUESTIONS: list[tuple[Any, dict[str, Any]]] = [
    ("Plain", {}),
    ("Settings", {"max_tokens": 50, "effort": "low", "thinking": True, "stop_sequences": "END"}),
    ("Blocks", {"system": [{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral"}}]}),
    ("Sampling", {"model": "claude-sonnet-4-6", "temperature": 0.5}),
    ("Headers", {"extra_headers": {"anthropic-beta": "b,a", "x-request-id": "1"}, "extra_query": {"a": 1}}),
    ("More", {"extra_body": {"top_p": 0.5}, "model": "claude-sonnet-4-6", "metadata": {"user_id": "me"}}),
    (["Look", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}], {}),
    ("Long", {"max_tokens": 60_000}),
    ("Sample", {"sample": 3}),
]


@pytest.mark.parametrize(("prompt", "options"), QUESTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_question_that_is_on_disk_costs_nothing(sim: Simulator, prompt: Any, options: dict[str, Any]) -> None:
    """It is named as the call names it, whatever belongs to it; nothing is sent to find out."""
    llm = llmnb.LLM(display="none")
    before = llm.estimate(prompt, **options)
    assert before.kept is None
    assert before.cost_most_usd
    reply = llm(prompt, **options)
    count = len(sim.requests)
    found = llm.estimate(prompt, **options)
    assert found.kept is not None
    assert (found.kept.output_tokens, found.kept.model) == (reply.usage.output_tokens, reply.model)
    costs = (found.cost_usd, found.cost_low_usd, found.cost_high_usd, found.cost_most_usd, found.input_cost_usd)
    assert costs == (0,) * 5
    assert found.fresh == llm.estimate(prompt, fresh=True, **options)
    assert found.fresh.cost_most_usd > 0
    assert "in the response cache since" in repr(found)
    assert len(sim.requests) == count
    assert llm(prompt, **options).source == "cache"


def test_what_is_not_answered_from_disk_is_not_said_to_be(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked afresh, without the cache, by age, as another sample, of another address, or where it is switched off."""
    llm = llmnb.LLM(display="none")
    llm("Hi")
    for options in ({"fresh": True}, {"cache": False}, {"sample": 1}, {"max_tokens": 9}):
        assert llm.estimate("Hi", **options).kept is None, options
    assert llm.estimate("Hi", ttl="7d").kept is not None
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    assert llm.estimate("Hi", tools=[search]).kept is None
    monkeypatch.setenv("LLMNB_CACHE", "off")
    assert llmnb.LLM().estimate("Hi").kept is None
    monkeypatch.setenv("LLMNB_CACHE", "on")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert llm.estimate("Hi").kept is None


async def test_a_client_of_ones_own_and_a_chat(sim: Simulator) -> None:
    """Its address and headers count; the next turn of a chat that went the same way before is found, too."""
    async with sim.async_client(default_headers={"x-gateway-model": "large"}) as client:
        llm = llmnb.LLM(client=client, display="none")
        await llm.aask("Hi")
        assert (await llm.aestimate("Hi")).kept is not None
        assert llmnb.LLM().estimate("Hi").kept is None
    chat = llmnb.LLM(display="none").chat()
    chat("One")
    chat("Two")
    assert chat.undo().estimate("Two").kept is not None
    assert chat.estimate("Three").kept is None


def test_it_is_found_before_the_sdk_is_imported(sim: Simulator) -> None:
    """In a new kernel, by the environment alone."""
    llmnb.LLM(display="none")("Hi")
    responses().settle()
    code = "import llmnb, sys; print(llmnb.LLM().estimate('Hi').cost_usd, 'anthropic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"


# How it is shown ------------------------------------------------------------------------------------------------------


@given(st.builds(
    Estimate,
    model=st.text(min_size=1),
    input_tokens=st.integers(0, 10**7),
    max_tokens=st.integers(1, 10**6),
    counted_by=st.sampled_from(["count_tokens", "cl100k_base", "characters", "<b>new</b>"]),
    error=st.floats(0, 1),
    complete=st.booleans(),
    calibrated_on=st.integers(0, 400),
    output_tokens=st.none(),
    project=st.none() | st.text(),
    cost_most_usd=st.none() | st.decimals(0, 1_000, places=9),
    input_cost_usd=st.decimals(0, 1_000, places=9),
    cache=st.none() | st.builds(
        CacheEstimate, tokens=st.integers(0, 10**7), ttl=st.just("5m"),
        written_usd=st.none() | st.decimals(0, 9, places=9), read_usd=st.none() | st.decimals(0, 9, places=9),
        is_marked=st.booleans(), held_tokens=st.integers(0, 9), now_usd=st.none() | st.decimals(0, 9, places=9),
    ),
    kept=st.none() | st.builds(
        KeptAnswer, st.text(), st.datetimes(), input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)
    ),
))  # fmt: skip
def test_every_estimate_can_be_shown(found: Estimate) -> None:
    """In every form, with nothing of the model's name taken for markup, and no bare dollar sign for math."""
    bundle = found._repr_mimebundle_()
    assert bundle["text/plain"].startswith(found.model)
    assert "<b>" not in bundle["text/html"]
    assert "$" not in bundle["text/html"].replace("<span>$</span>", "")
    assert bundle["text/markdown"].count("\n") == len(found.lines()) + 1


def test_how_it_reads(sim: Simulator) -> None:
    """The table that a person sees, with history."""
    sim.script(*["word " * 100] * 3)
    llm = llmnb.LLM("claude-sonnet-5-5", project="thesis")
    for _ in range(3):
        llm("Explain WAL", cache=False)
    lines = repr(llm.estimate("Explain WAL")).splitlines()
    assert lines[0] == "claude-sonnet-5-5"
    assert [line.split()[0] for line in lines[1:]] == ["input", "output", "cost"]
    assert "corrected with 3 billed calls" in lines[1]
    assert "eight of ten of 3 calls in project thesis; at most 8,192" in lines[2]
    assert "at most $0.08" in lines[3]
