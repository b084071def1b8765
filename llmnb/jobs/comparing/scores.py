"""How contestants are scored and ranked: from verdicts on pairs, or from numbers that a function gave.

A pair that is won counts 1, a tie ½ for both, and the score of an answer is the mean over its pairs; a contestant's is
the mean over the prompts. With a judge that is the win rate. A Bradley-Terry model would rank them the same: where
everybody meets everybody equally often, its maximum likelihood has the order of the wins (Ford 1957, Amer. Math.
Monthly 64:28-33). So there is none here.

How sure that is: where all scores lie between 0 and 1, as win rates and shares of right answers do, the Wilson score
interval (Wilson 1927, JASA 22:209-212) of 95 % with n prompts, and not n pairs, as those of one prompt hang together;
scores between 0 and 1 vary less than that allows for, so that it is wider than it had to be. For other numbers the mean
± 1.96 standard errors, which for less than some 30 prompts is too narrow.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from llmnb.errors import InvalidRequest
from llmnb.jobs.comparing.judging import TIE, Pair

if TYPE_CHECKING:
    import pandas as pd

Z = 1.959964
"""The normal distribution's 97.5th percentile."""
Scores = dict[str, list[float | None]]
Scored = dict[tuple[str, int], tuple[float | None, str | None]]
"""What a function said of the answers, by label and row: a number, or what went wrong."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant has reached: the mean score with its 95 % interval over `n` prompts, None where unknown."""

    score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


def standing(scores: Sequence[float | None], *, are_rates: bool) -> Standing:
    """The standing that follows from the scores of the prompts; those that have none are left out."""
    known = [score for score in scores if score is not None]
    if not known:
        return Standing()
    average, n = mean(known), len(known)
    if are_rates:
        return Standing(average, *wilson(average, n), n)
    if n < 2:
        return Standing(average, None, None, n)
    error = Z * stdev(known) / math.sqrt(n)
    return Standing(average, average - error, average + error, n)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate that was seen in n trials."""
    middle = (rate + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(rate * (1 - rate) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def by_pairs(pairs: Sequence[Pair], labels: Sequence[str], rows: int) -> Scores:
    """The score of each answer: the mean over its pairs of 1, ½ or 0."""
    points: dict[tuple[str, int], list[float]] = {}
    for pair in pairs:
        if pair.winner is None:
            continue
        for label in (pair.first, pair.second):
            won = 0.5 if pair.winner == TIE else float(pair.winner == label)
            points.setdefault((label, pair.row), []).append(won)
    known = {at: mean(won) for at, won in points.items()}
    return {label: [known.get((label, row)) for row in range(rows)] for label in labels}


def counted(pairs: Sequence[Pair], label: str) -> dict[str, int]:
    """How many pairs of a contestant were won, lost, tied, and in how many of these the judge contradicted itself."""
    mine = [pair for pair in pairs if label in (pair.first, pair.second) and pair.winner is not None]
    ties = [pair for pair in mine if pair.winner == TIE]
    wins = sum(pair.winner == label for pair in mine)
    split = sum(not pair.agreed for pair in ties)
    return {"wins": wins, "losses": len(mine) - wins - len(ties), "ties": len(ties), "disagreed": split}


# By a function --------------------------------------------------------------------------------------------------------


def checked(score: Any) -> Callable[[Any, pd.Series[Any]], Any]:
    """The function with two arguments, whether it takes the row or not.

    Raises:
        InvalidRequest: it is no function of an answer, or of an answer and a row.
    """
    if not callable(score):
        raise InvalidRequest(f"score= is a function of an answer, or of an answer and its row, not {score!r}")
    try:
        signature = inspect.signature(score)
    except (TypeError, ValueError):  # a builtin that does not say
        return lambda answer, row: score(answer)
    for arguments in (1, 2):
        try:
            signature.bind(*range(arguments))
        except TypeError:
            continue
        takes_row = arguments == 2 or _wants_two(signature)
        return (lambda answer, row: score(answer, row)) if takes_row else (lambda answer, row: score(answer))
    raise InvalidRequest(
        f"score= takes an answer, or an answer and its row; {getattr(score, '__name__', 'it')}{signature} does not"
    )


def by_function(
    score: Callable[[Any, Any], Any], answers: Mapping[str, Sequence[Any]], frame: pd.DataFrame, known: Scored
) -> tuple[Scores, dict[tuple[str, int], str]]:
    """The number that the function gives each answer, and what went wrong, by label and row; `known` are those that it
    was asked about already."""
    scores: Scores = {label: [None] * len(frame) for label in answers}
    errors: dict[tuple[str, int], str] = {}
    for number in range(len(frame)):
        for label, column in answers.items():
            if column[number] is None:
                continue
            said = known.get((label, number)) or score_of(score, column[number], frame.iloc[number])
            scores[label][number], error = said
            if error is not None:
                errors[label, number] = error
    return scores, errors


def score_of(score: Callable[[Any, Any], Any], answer: Any, row: Any) -> tuple[float | None, str | None]:
    """What the function says of one answer."""
    try:
        return _number(score(answer, row)), None
    except Exception as error:
        return None, f"score: {type(error).__name__}: {error}"


def _wants_two(signature: inspect.Signature) -> bool:
    """Whether a second argument that may be left out is one for the row."""
    second = list(signature.parameters.values())[1:2]
    return any(one.name == "row" for one in second)


def _number(said: Any) -> float | None:
    if said is None:
        return None
    value = float(said)  # numbers of NumPy, booleans and Decimals, too
    return None if math.isnan(value) else value
