"""The arithmetic of an account's minute: what may go, when the rest may, and how the API's word puts it right."""

from __future__ import annotations

import json

import pytest

from llmnb.pacing.allowance import HELD_S, MARGIN, Allowance, Need

ONE = Need(1, 100, 50)
SPARE_S = 60 * MARGIN
"""How long it takes until what is left alone is there."""


def told(requests: float = 50, inputs: float = 10_000, outputs: float = 5_000) -> dict[str, tuple[float, float]]:
    """What the API says is left, of 50 requests, 10,000 input and 5,000 output tokens."""
    return {"requests": (50, requests), "input-tokens": (10_000, inputs), "output-tokens": (5_000, outputs)}


def known(**left: float) -> Allowance:
    """An allowance that has heard of its limits at second 1,000."""
    allowance = Allowance(at=1_000)
    allowance.told("", told(**left), 1_000, is_whole=True)
    return allowance


def test_what_is_unknown_is_not_limited() -> None:
    """Before the first answer everything may go."""
    allowance = Allowance()
    assert allowance.wait_s(Need(1, 1e9, 1e9), 0) == 0
    assert allowance.share_left() == 1


def test_the_scarcest_kind_decides_and_refills() -> None:
    """Half a request comes in 0.6 s, 100 tokens of 10,000 a minute in 0.6 s, too."""
    assert known(requests=0.5).wait_s(ONE, 1_000) == pytest.approx(0.6 + SPARE_S)
    assert known(inputs=0).wait_s(ONE, 1_000) == pytest.approx(0.6 + SPARE_S)
    assert known(inputs=0).wait_s(ONE, 1_001) == pytest.approx(0.6 + SPARE_S - 1)
    assert known(outputs=0).wait_s(ONE, 1_000) == pytest.approx(0.6 + SPARE_S)


def test_one_limit_for_all_tokens_is_kept() -> None:
    """Other providers count input and the longest answer together, and what was not written comes back."""
    allowance = Allowance(at=1_000)
    allowance.told("", {"total-tokens": (30_000, 10_000)}, 1_000, is_whole=True)
    need = Need(1, 1_000, 256, 9_000)
    assert allowance.wait_s(need, 1_000) == 0
    allowance.take("a", need, 1_000)
    assert allowance.wait_s(need, 1_000) == pytest.approx((9_000 + 30_000 * MARGIN - 1_000) * 60 / 30_000)
    allowance.ended("a", Need(1, 1_000, 500, 1_500), 1_000, is_ok=True)
    assert allowance.levels["total-tokens"] == 8_500


def test_what_another_version_held_is_left() -> None:
    """Kept in the shared store by an llmnb that knew fewer kinds."""
    kept = Allowance(held={"old": [1_000.0, 1, 0, 0, 7]}).written()
    assert Allowance.read(kept).held == {}


def test_what_is_larger_than_a_minute_goes_alone() -> None:
    """It waits for a full bucket, and not for ever."""
    assert known(inputs=9_000).wait_s(Need(1, 50_000, 1), 1_000) == 6


def test_calls_under_way_are_not_given_away_twice() -> None:
    """What the API says is left does not know of the call that it has not seen."""
    allowance = known()
    allowance.take("a", ONE, 1_000)
    allowance.take("b", ONE, 1_001)
    allowance.told("a", told(requests=49, inputs=9_800, outputs=4_970), 1_002, is_whole=True)
    assert allowance.levels == {"requests": 48, "input-tokens": 9_700, "output-tokens": 4_920}


def test_an_older_answer_does_not_raise_what_a_newer_one_said() -> None:
    """Answers overtake each other."""
    allowance = known()
    allowance.take("a", ONE, 1_000)
    allowance.take("b", ONE, 1_001)
    allowance.told("b", told(requests=10), 1_002, is_whole=True)
    low = allowance.levels["requests"]
    allowance.told("a", told(requests=40), 1_002, is_whole=True)
    assert allowance.levels["requests"] == low
    allowance.told("a", told(requests=3), 1_002, is_whole=True)
    assert allowance.levels["requests"] == 3


def test_what_was_taken_gives_way_to_what_was_used() -> None:
    """Where the API tells nothing, the estimate is put right when the call has ended; once."""
    allowance = Allowance(at=1_000)
    allowance.cap({"input-tokens": 1_000, "output-tokens": 500})
    allowance.take("a", ONE, 1_000)
    assert allowance.levels == {"input-tokens": 900, "output-tokens": 450}
    for _ in range(2):
        allowance.ended("a", Need(1, 300, 20), 1_000, is_ok=True)
    assert allowance.levels == {"input-tokens": 700, "output-tokens": 480}
    assert not allowance.held


def test_a_cap_of_the_users_own_holds_under_what_the_api_allows() -> None:
    """The smaller one counts, and a full minute is there at the beginning."""
    allowance = known()
    allowance.cap({"requests": 10})
    assert (allowance.limits["requests"], allowance.levels["requests"]) == (10, 10)


def test_a_429_without_limits_narrows_the_window_and_success_widens_it() -> None:
    """Half as many at once after each refusal, one more after as many answers as go at once."""
    allowance = Allowance(at=1_000)
    for name in "abcdefgh":
        allowance.take(name, ONE, 1_000)
    allowance.refused(2.0, 1_000, tells_limits=False)
    assert allowance.window == 4
    assert allowance.wait_s(ONE, 1_000) == 2
    for name in "abcde":
        allowance.ended(name, ONE, 1_003, is_ok=True)
    assert allowance.window > 5
    assert allowance.wait_s(ONE, 1_003) == 0


def test_the_dead_let_go() -> None:
    """A call whose process was killed is forgotten after ten minutes."""
    allowance = known()
    allowance.take("a", ONE, 1_000)
    allowance.wait_s(ONE, 1_001 + HELD_S)
    assert not allowance.held


def test_a_clock_that_is_put_back_holds_nobody_up() -> None:
    """What is left comes back, and a 429 is waited for, as if it had gone on; a second's difference changes nothing."""
    allowance = known(requests=0.5)
    allowance.refused(5.0, 1_000, tells_limits=True)
    allowance.take("a", ONE, 1_000)
    assert allowance.wait_s(Need(), 999) == pytest.approx(6.0)
    assert allowance.wait_s(Need(), 400) == pytest.approx(5.0)
    assert allowance.wait_s(Need(), 405) == 0
    assert allowance.held["a"][0] == 400


def test_two_machines_whose_clocks_differ_gain_no_time() -> None:
    """In whatever turns they ask, nothing comes back for the minutes between them, and nobody is taken for dead."""
    allowance = known(requests=0.0)
    allowance.take("a", ONE, 1_000)
    for second in range(4):
        allowance.wait_s(Need(), 1_000 - 2 * HELD_S + second)
        allowance.wait_s(Need(), 1_000 + second)
    assert allowance.levels["requests"] == pytest.approx(3 / 60 * allowance.limits["requests"] - 1, abs=0.01)
    assert allowance.held


def test_it_can_be_written_down() -> None:
    """As JSON and back."""
    allowance = known()
    allowance.take("a", ONE, 1_000)
    assert Allowance.read(json.loads(json.dumps(allowance.written()))) == allowance
