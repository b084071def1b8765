"""Whether a worker can ask the rows of a run, and keeps the same books: the same for those that come late."""

from __future__ import annotations

from dataclasses import dataclass

import llmnb
from llmnb.jobs.cluster.common import Seen
from llmnb.trouble import warn_once

SECRETS = (
    "API keys and the addresses of your services are not sent through the scheduler: set them in the environment of "
    "the workers."
)


@dataclass(frozen=True)
class Report:
    """What a worker says of itself. `trouble` is why it cannot ask."""

    version: str
    server: str = ""
    seen: Seen | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the driver has, and the workers must have, too."""

    server: str
    ledger: str
    has_cache_url: bool
    has_purse: bool
    version: str = llmnb.__version__

    def trouble(self, said: Report | BaseException) -> str | None:
        """Why this worker must not ask, and what to do; None when it may."""
        if isinstance(said, BaseException):
            return f"cannot run llmnb ({type(said).__name__}: {said}): install llmnb[dask] there."
        if said.version != self.version:
            return f"has llmnb {said.version}, and here is {self.version}: install the same."
        if said.seen is None:
            return f"cannot ask: {said.trouble} {SECRETS}"
        if said.server != self.server:
            return f"asks {said.server}, and here is {self.server}: set ANTHROPIC_BASE_URL in its environment."
        return self._trouble_of_books(said.seen)

    def _trouble_of_books(self, seen: Seen) -> str | None:
        if seen.is_file and not seen.same_host:
            return (
                f"is another machine, and the ledger {seen.ledger} is a file: no budget and no rate limit would hold. "
                "Set LLMNB_STORE_URL=postgresql://… here and in the environment of the workers."
            )
        if not seen.in_ledger:
            return (
                f"has another ledger ({seen.ledger}; here it is {self.ledger}): set LLMNB_STORE_URL or LLMNB_HOME in "
                "its environment."
            )
        return None if seen.in_cache else self._trouble_of_cache(seen)

    def _trouble_of_cache(self, seen: Seen) -> str | None:
        if not seen.is_folder or self.has_cache_url:
            return (
                f"has another response cache ({seen.cache}), through which rate limits are shared: set LLMNB_CACHE_URL "
                "here and in the environment of the workers."
            )
        if self.has_purse:
            return (
                "has a response cache of its own, so that nobody would know what a lost worker has spent of "
                "budget_usd: set LLMNB_CACHE_URL=redis://… here and in the environment of the workers, or use "
                "set_budget()."
            )
        warn_once(
            "cluster cache",
            "each worker of the Dask cluster has a response cache of its own: what a worker was answered in the moment "
            "before it was lost is asked again. LLMNB_CACHE_URL=redis://… gives all of them one.",
        )
        return None
