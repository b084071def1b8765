"""`SoFar`: how the contestants stand while many prompts are being answered or judged, and the rows finished last.

It follows the runs from outside: what is finished is read from them once, and of much that comes at once only so many
rows at a time, so that a comparison of a million prompts is watched at the price of one of twenty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from llmnb.jobs.comparing.judging import TIE, Pair, ruled
from llmnb.jobs.run import Run, Status

if TYPE_CHECKING:
    import pandas as pd

Facts = Mapping[str, Any]
ROWS = 6
"""So many of the rows finished last are shown."""
_READ_AT_ONCE = 100
_LATENCIES = 500


@dataclass(frozen=True, slots=True)
class Line:
    """How one contestant stands. `output_tokens` and `seconds` are of an answer: the mean, and the median of the last
    ones that did not come from the cache; `games` are pairs won, tied and lost."""

    label: str
    status: Status
    output_tokens: float | None = None
    seconds: float | None = None
    score: float | None = None
    games: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class SoFar:
    """How all of them stand, and the last rows: of each its number, and by contestant what became of it, and its score.

    `prompts` are the rows that are asked.
    """

    lines: Sequence[Line]
    prompts: pd.DataFrame
    rows: Sequence[tuple[int, list[Facts | None], list[float | None]]]
    judging: Status | None = None


class Follower:
    """What one run has come to so far."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next = 0
        self._open: list[int] = []
        self._tokens = self._answers = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self.found = 0
        self.last: deque[int] = deque(maxlen=ROWS)

    def look(self) -> list[tuple[int, Facts]]:
        """The rows that are finished and were not seen before."""
        keys, found, still = self._run.keys, list[tuple[int, Facts]](), list[int]()
        end = min(len(keys), self._next + _READ_AT_ONCE)
        for row in [*self._open, *range(self._next, end)]:
            facts = self._run.finished(keys[row])
            if facts is None:
                still.append(row)
            else:
                found.append((row, facts))
                self._count(row, facts)
        self._next, self._open = end, still
        return found

    def at(self, row: int) -> Facts | None:
        """What became of a row; None while it is not finished."""
        keys = self._run.keys
        return self._run.finished(keys[row]) if row < len(keys) else None

    @property
    def output_tokens(self) -> float | None:
        """Of an answer, on average."""
        return self._tokens / self._answers if self._answers else None

    @property
    def seconds(self) -> float | None:
        """The median of the last answers that did not come from the cache."""
        return median(self._latencies) / 1000 if self._latencies else None

    def _count(self, row: int, facts: Facts) -> None:
        self.found += 1
        self.last.append(row)
        if "error" in facts:
            return
        self._answers += 1
        self._tokens += facts["output_tokens"] or 0
        if facts.get("source") == "live" and facts.get("latency_ms"):
            self._latencies.append(facts["latency_ms"])


class Watch:
    """Makes a `SoFar` of the runs, again and again. `scored` are the scores of a function, as far as they are known."""

    def __init__(self, labels: Sequence[str], prompts: pd.DataFrame) -> None:
        self.scored: dict[tuple[str, int], float | None] = {}
        self._labels, self._prompts = labels, prompts
        self._followers: list[Follower] = []
        self._lines: list[Line] = []
        self._sums = {label: [0.0, 0] for label in labels}
        self._games = {label: [0, 0, 0] for label in labels}
        self._points: dict[tuple[str, int], list[float]] = {}
        self._judged: dict[int, dict[int, Facts]] = {}
        self._rows: list[tuple[int, list[Facts | None]]] = []

    def answering(self, runs: Sequence[Run], statuses: Sequence[Status]) -> list[tuple[str, int, Facts]]:
        """What is new in the runs: the label, the row and what became of it."""
        if not self._followers:
            self._followers = [Follower(run) for run in runs]
        new = [
            (label, row, facts)
            for label, one in zip(self._labels, self._followers, strict=True)
            for row, facts in one.look()
        ]
        self._lines = [
            Line(label, status, one.output_tokens, one.seconds)
            for label, one, status in zip(self._labels, self._followers, statuses, strict=True)
        ]
        self._rows = [(row, [one.at(row) for one in self._followers]) for row in self._last_rows()]
        return new

    def judging(
        self, judge: Follower, status: Status, pairs: Sequence[Pair], facts: Mapping[str, Sequence[Facts]]
    ) -> SoFar:
        """How they stand by what the judge has said so far of these pairs; `facts` are what became of all rows."""
        for number, verdict in judge.look():
            orders = self._judged.setdefault(number // 2, {})
            orders[number % 2] = verdict
            if len(orders) == 2:
                [pair] = ruled([pairs[number // 2]], [orders[0], orders[1]])
                del self._judged[number // 2]
                self.won(pair)
        if judged := sorted({pairs[number // 2].row for number in judge.last}):
            self._rows = [(row, [facts[label][row] for label in self._labels]) for row in judged]
        return self.so_far(status)

    def won(self, pair: Pair) -> None:
        """One more pair is judged."""
        if pair.winner is None:
            return
        for label in (pair.first, pair.second):
            point = 0.5 if pair.winner == TIE else float(pair.winner == label)
            self._games[label][{1.0: 0, 0.5: 1, 0.0: 2}[point]] += 1
            self._points.setdefault((label, pair.row), []).append(point)

    def scores(self, label: str, row: int, score: float | None) -> None:
        """One more answer was scored by a function."""
        self.scored[label, row] = score
        if score is not None:
            self._sums[label][0] += score
            self._sums[label][1] += 1

    def so_far(self, judging: Status | None = None) -> SoFar:
        """How they stand now."""
        rows = [(row, said, [self._score(label, row) for label in self._labels]) for row, said in self._rows]
        return SoFar([self._stands(line) for line in self._lines], self._prompts, rows, judging)

    def _last_rows(self) -> list[int]:
        """The last rows of whom all others wait for, so that as much as can be stands next to each other."""
        going = [
            one
            for one, line in zip(self._followers, self._lines, strict=True)
            if one.found and line.status.left and not line.status.is_over
        ]
        slowest = min(going or self._followers, key=lambda one: one.found)
        return sorted(slowest.last)

    def _score(self, label: str, row: int) -> float | None:
        points = self._points.get((label, row))
        return sum(points) / len(points) if points else self.scored.get((label, row))

    def _stands(self, line: Line) -> Line:
        games = self._games[line.label]
        if any(games):
            won, tied, lost = games
            return replace(line, score=(won + tied / 2) / sum(games), games=(won, tied, lost))
        total, count = self._sums[line.label]
        return replace(line, score=total / count) if count else line
