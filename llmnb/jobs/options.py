"""What `llm.map` can be told besides rows and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmnb.asking.params import KNOWN, Options, check_names
from llmnb.durations import seconds
from llmnb.errors import InvalidRequest
from llmnb.plain_numbers import count

Errors: TypeAlias = Literal["keep", "raise"]
Via: TypeAlias = Literal["live", "batch", "auto"]
VIAS = ("live", "batch", "auto")

if TYPE_CHECKING:
    from decimal import Decimal

    from llmnb.durations import Duration

RETRIES = 2
"""How often a model is told what was wrong with a value: one that fails three times fails on."""


class MapOptions(Options, total=False):
    """What `llm.map` takes besides rows and prompt: its own arguments, and any setting of `LLM` for all rows.

    `dry_run` and `out` are apart: what is given back depends on them.
    """

    schema: Any
    concurrency: int | None
    retries: int
    errors: Errors
    progress: bool
    confirm: bool
    via: Via
    within: Duration | None
    executor: Any


@dataclass(frozen=True)
class Given:
    """The arguments of `map` itself, checked; the settings of its questions are apart.

    `budget_usd` is of the run, and not of each row.
    """

    schema: Any = None
    concurrency: int | None = None
    retries: int = RETRIES
    errors: str = "keep"
    progress: bool = True
    confirm: bool = False
    executor: Any = None
    out: str | PathLike[str] | None = None
    budget_usd: Decimal | float | str | None = None
    via: str = "live"
    within: Duration | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None:
            object.__setattr__(self, "concurrency", count(self.concurrency, "concurrency"))
        object.__setattr__(self, "retries", count(self.retries, "retries", 0))
        if self.errors not in ("keep", "raise"):
            raise InvalidRequest(f'errors must be "keep" or "raise", not {self.errors!r}')
        if self.via not in VIAS:
            raise InvalidRequest(f'via must be "live", "batch" or "auto", not {self.via!r}')
        if (self.via == "auto") != (self.within is not None):
            raise InvalidRequest('via="auto" goes with within=: when the rows are needed, such as within="2h"')
        if self.executor is not None and self.via != "live":
            raise InvalidRequest(
                'executor= has the workers of a cluster ask row by row, which goes with via="live" only'
            )

    @property
    def within_s(self) -> float | None:
        """When the rows are needed, in seconds from now."""
        return None if self.within is None else seconds(self.within, "within")


def parted(options: dict[str, Any]) -> tuple[Given, dict[str, Any]]:
    """What is the map's own, and what is for its questions.

    Raises:
        InvalidRequest: an argument cannot be what it is.
        TypeError: there is none of that name.
    """
    check_names(options, tuple(dict.fromkeys([*KNOWN, *Given.__dataclass_fields__, "dry_run"])), "a call")
    own = {name: options[name] for name in Given.__dataclass_fields__ if name in options}
    return Given(**own), {name: value for name, value in options.items() if name not in own}
