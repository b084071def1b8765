"""How far a run in batches is."""

from __future__ import annotations

from dataclasses import dataclass

from llmnb.jobs.run import Status


@dataclass(frozen=True, slots=True)
class BatchStatus(Status):
    """`waiting` are the ids of batches that are waited for, `sent` the requests in them, the other counts those of
    batches that have ended; `waited_s` is how long ago the first of those that are waited for was made, `ends_by` when
    the last of them has ended for sure, in seconds since 1970, `usual_s` how long the user's own took at most, and
    `half_nanousd` what the price of a batch saved. `doing` says what is done besides waiting.
    """

    waiting: tuple[str, ...] = ()
    sent: int = 0
    succeeded: int = 0
    errored: int = 0
    expired: int = 0
    canceled: int = 0
    waited_s: float = 0.0
    ends_by: float | None = None
    usual_s: float | None = None
    half_nanousd: int = 0
    doing: str = ""
