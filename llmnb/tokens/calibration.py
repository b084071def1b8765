"""From offline counts to what a model really bills: a line fitted to calls whose offline count is on the books.

The fit withstands outliers (a compaction, a tool loop of the server, an image whose size nobody knew), up to about a
quarter of the calls. Tried are the count as it is, a factor (the median ratio) and a line: its slope is the median of
the slopes between pairs of calls (Theil and Sen), weighted towards pairs that lie far apart, and its base the median of
what is left. The simplest that does not fit clearly worse than the others is taken, so that learning does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import mean, median

from llmnb.records import Calibration

Pair = tuple[float, float]
"""An offline count, and the input tokens that were billed."""

LEAST_CALLS = 3
CALLS_FOR_A_LINE = 10
SPREAD_FOR_A_LINE = 3.0
"""With fewer calls, or calls all of about the same length, only a factor is fitted."""
MOST_CALLS = 400
CLEARLY = 1.1
"""A fit with one number more must be better by this."""
EPSILON = 0.001
_MOST_IN_PAIRS = 120
_SLOPES = (0.25, 4.0)
SHARE_WITHIN = 0.9
"""The share of calls that lies within `Calibration.error`."""

UNCALIBRATED_ERROR = {"characters": 0.25, "cl100k_base": 0.15}
"""What nine of ten of the recorded requests lie within, with a reserve for languages and models that were not."""
COUNTED_ERROR = 0.02
"""count_tokens says of itself that it is an estimate and may differ by a small amount."""


def uncalibrated(model: str, counter: str) -> Calibration:
    """What is assumed of a model without calls on the books."""
    return Calibration(model, counter, error=UNCALIBRATED_ERROR.get(counter, COUNTED_ERROR))


def fitted(model: str, counter: str, pairs: Sequence[Pair]) -> Calibration:
    """The calibration that the newest calls of a model give; `pairs` come newest first.

    With fewer than three calls nothing can be said, and it is `uncalibrated`.
    """
    used = [(counted, billed) for counted, billed in pairs if counted > 0 and billed > 0][:MOST_CALLS]
    if len(used) < LEAST_CALLS:
        return uncalibrated(model, counter)
    candidates = [(1.0, 0.0), _factor(used), *([_line(used)] if _is_spread(used) else [])]
    slope, base = min(candidates, key=lambda fit: (_misfit(fit, used) + EPSILON) * CLEARLY ** candidates.index(fit))
    errors = sorted(_errors((slope, base), used))
    # of a few calls even the largest error is a small sample's: more of them would show a larger one
    error = errors[min(len(errors) - 1, ceil(SHARE_WITHIN * len(errors)))]
    return Calibration(model, counter, slope, base, max(0.01, error * (1 + 3 / len(used))), len(used))


def _errors(fit: tuple[float, float], pairs: Sequence[Pair]) -> list[float]:
    return [abs(billed - fit[0] * counted - fit[1]) / billed for counted, billed in pairs]


def _misfit(fit: tuple[float, float], pairs: Sequence[Pair]) -> float:
    """The mean relative error, in which no call counts for more than a half: an outlier is one, however far out."""
    return mean(min(error, 0.5) for error in _errors(fit, pairs))


def _is_spread(pairs: Sequence[Pair]) -> bool:
    counts = sorted(counted for counted, _ in pairs)
    low, high = counts[len(counts) // 8], counts[-1 - len(counts) // 8]
    return len(pairs) >= CALLS_FOR_A_LINE and high >= SPREAD_FOR_A_LINE * low


def _factor(pairs: Sequence[Pair]) -> tuple[float, float]:
    ratio = median(billed / counted for counted, billed in pairs)
    slope = _clamped(ratio)
    # far from any tokeniser's: it is something added to short prompts, such as tools that were not seen
    return slope, 0.0 if slope == ratio else median(billed - slope * counted for counted, billed in pairs)


def _line(pairs: Sequence[Pair]) -> tuple[float, float]:
    few = pairs[:_MOST_IN_PAIRS]
    slopes = [
        ((b1 - b0) / (c1 - c0), abs(c1 - c0)) for at, (c0, b0) in enumerate(few) for c1, b1 in few[at + 1 :] if c1 != c0
    ]
    slope = _clamped(_weighted_median(slopes))
    return slope, median(billed - slope * counted for counted, billed in pairs)


def _weighted_median(values: list[tuple[float, float]]) -> float:
    values.sort()
    half, passed = sum(weight for _, weight in values) / 2, 0.0
    for value, weight in values:
        passed += weight
        if passed >= half:
            return value
    return 1.0


def _clamped(slope: float) -> float:
    return min(max(slope, _SLOPES[0]), _SLOPES[1])
