"""The errors llmnb raises itself; errors of the SDK pass through unchanged.

    LlmnbError
    ├── UnknownPrice            (also a LookupError) no price is known for a model
    ├── UnknownModel            (also a LookupError) nothing is known under that model name
    ├── IncompleteReply         the stream ended before the message did
    ├── ToolLoopLimit           a loop with tools came to its limit of turns, dollars or time
    ├── ExtractionFailed        no answer was a value of the type that was asked for
    ├── BudgetExceeded          a budget does not allow the call, or the rest of its answer
    ├── StoreError              the ledger cannot be opened or written
    │   ├── StoreBusy           another process keeps the ledger locked
    │   └── StoreReadOnly       the ledger was written by a newer llmnb: it can be read only
    ├── CassetteError           a recording is missing, cannot be written, or is no cassette
    ├── ReplayMiss              (also a LookupError) a request is not in the cassette that is replayed
    ├── SettingsError           (also a ValueError) a setting is misspelled or impossible
    ├── MissingKey              no API key can be found
    ├── MissingExtra            (also an ImportError) a part of llmnb needs an extra that is not installed
    └── InvalidRequest          (also a ValueError) the call cannot work, found before anything was sent
        └── ContextFull         a conversation does not fit into the model's context window

Each carries its facts as attributes and says in its message what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from llmnb.records import Usage


class LlmnbError(Exception):
    """The root of everything llmnb raises itself."""

    def __reduce__(self) -> tuple[object, ...]:
        # an exception is pickled by its message, which the constructors below do not take
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[LlmnbError], args: tuple[object, ...], facts: dict[str, object]) -> LlmnbError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class UnknownPrice(LlmnbError, LookupError):
    """No price is known for `model` at `provider`; costs of it are missing, never 0. `why` is what a price is for."""

    def __init__(self, model: str, provider: str, why: str = "") -> None:
        self.model = model
        self.provider = provider
        super().__init__(
            f"no price is known for model {model!r} at provider {provider!r}. {why and why + ' '}"
            f'Set one in pyproject.toml under [tool.llmnb.prices."{model}"] (dollars per million tokens: '
            "input, output, cache_read, cache_write_5m, cache_write_1h), then run `llmnb prices --reprice`."
        )


class UnknownModel(LlmnbError, LookupError):
    """The API knows no model called `model`; `nearest` holds names that look like it."""

    def __init__(self, model: str, nearest: tuple[str, ...] = (), hint: str = "") -> None:
        self.model = model
        self.nearest = nearest
        if nearest:
            hint = f"Did you mean {' or '.join(map(repr, nearest))}?"
        super().__init__(f"unknown model {model!r}.{hint and ' ' + hint} `llmnb prices` lists the models llmnb knows.")


class Resumable(Protocol):
    """What an `IncompleteReply` goes on with; it gives a `Reply`, which stands on a higher floor than errors do."""

    def ask(self) -> Any: ...

    async def aask(self) -> Any: ...


class IncompleteReply(LlmnbError):
    """The stream ended before the message did; `partial` is the text so far and `usage` what is known of its tokens.

    `reply = error.resume()` has the answer finished.
    """

    def __init__(
        self, message: str, *, partial: str = "", usage: Usage | None = None, resumption: Resumable | None = None
    ) -> None:
        self.partial = partial
        self.usage = usage
        self.resumption = resumption
        super().__init__(message)

    def resume(self) -> Any:
        """Asks the model to go on where the answer broke off; gives the whole `Reply`, in a chat as the turn's answer.

        Models up to 4.5 are given the text so far as the beginning of their answer (prefill), and continue it. Models
        from 4.6 on take none: they are shown it as their answer, and a user turn asks them to go on from the exact
        point. They mostly do, but it is a request and no guarantee: the seam may repeat a word or lose one.
        Where half an answer is of no use (structured output, tools, no text yet), the question is asked anew.

        The reply's text is that of both parts, its usage and cost are those of both calls; each has its own row in the
        ledger, the second with the first as its `parent_uid`.

        Raises:
            IncompleteReply: it broke off again; `.partial` has the text of both parts, and can be resumed.
            InvalidRequest: this error was copied from another process, or the chat has gone on since.
        """
        return self._resumable().ask()

    async def aresume(self) -> Any:
        """The async twin of `resume`."""
        return await self._resumable().aask()

    def _resumable(self) -> Resumable:
        if self.resumption is None:
            raise InvalidRequest("this answer cannot be resumed from here: ask the question again")
        return self.resumption

    def __reduce__(self) -> tuple[object, ...]:
        # what it goes on with holds a client
        return _again, (type(self), self.args, {**self.__dict__, "resumption": None})


class BudgetExceeded(LlmnbError):
    """A budget does not allow the call: nothing was sent. Or not the rest of its answer: it was cut off there.

    `budget` says which one ("budget_usd": the ceiling given with the call), `limit`, `left` and `needed` are Decimal
    dollars or whole tokens, as `unit` says ("usd" or "tokens"); `left` is without what calls under way still hold.
    `resets_at` is when the budget begins anew, None where it never does. Of an answer that was cut off, `partial` is
    the text so far and `usage` what is known of its tokens.
    """

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        unit: str = "usd",
        limit: Decimal | int | None = None,
        left: Decimal | int | None = None,
        needed: Decimal | int | None = None,
        resets_at: datetime | None = None,
        partial: str = "",
        usage: Usage | None = None,
    ) -> None:
        self.budget = budget
        self.unit = unit
        self.limit = limit
        self.left = left
        self.needed = needed
        self.resets_at = resets_at
        self.partial = partial
        self.usage = usage
        super().__init__(message)


class ToolLoopLimit(LlmnbError):
    """A loop with tools came to a limit before the model had its answer; what it cost is in the ledger.

    `limit` is which one: "max_turns", "budget_usd" or "time_limit". `messages` is the conversation so far, as the SDK
    takes it: every tool call in it has its result. `pending` are the calls that were asked for and did not run.
    `replies` are the answers of the turns, `usage` and `cost_usd` those of all of them (None: unpriced).
    """

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        messages: list[Any],
        replies: tuple[Any, ...] = (),
        pending: tuple[Any, ...] = (),
        usage: Usage | None = None,
        cost_usd: Decimal | None = None,
    ) -> None:
        self.limit = limit
        self.messages = messages
        self.replies = replies
        self.pending = pending
        self.usage = usage
        self.cost_usd = cost_usd
        super().__init__(message)


class ExtractionFailed(LlmnbError):
    """No answer was a value of the type asked for, `attempts` times; what they cost is in the ledger.

    `text` is the last answer as it came, `errors` what is wrong with it: a line each, with the field it is about.
    """

    def __init__(self, message: str, *, text: str, errors: tuple[str, ...], attempts: int) -> None:
        self.text = text
        self.errors = errors
        self.attempts = attempts
        super().__init__(message)


class StoreError(LlmnbError):
    """The ledger at `path` cannot be opened or written."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        self.path = path
        super().__init__(message)


class StoreBusy(StoreError):
    """The ledger at `path` is locked by another process, or by this thread's own unfinished work; try again."""


class StoreReadOnly(StoreError):
    """The ledger at `path` was written by a newer llmnb; reading it works, writing to it does not."""


class CassetteError(LlmnbError):
    """The cassette at `path` is missing, cannot be read or written, or is none; `line` is where, when it is known."""

    def __init__(self, message: str, *, path: str | None = None, line: int | None = None) -> None:
        self.path = path
        self.line = line
        super().__init__(message)


class ReplayMiss(LlmnbError, LookupError):
    """A request is not in the cassette that is replayed, and nothing was sent.

    `path` is the cassette's; `request` what was asked, without secrets; `nearest` the recorded interaction that is most
    like it (None where the cassette is empty), and `differences` the fields in which its request differs; each has
    `field`, `recorded` and `asked`. The classes are those of `llmnb.cassette`.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        request: Any = None,
        nearest: Any = None,
        differences: tuple[Any, ...] = (),
    ) -> None:
        self.path = path
        self.request = request
        self.nearest = nearest
        self.differences = differences
        super().__init__(message)


class SettingsError(LlmnbError, ValueError):
    """A setting is misspelled or has an impossible value; `name` is the setting."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        self.name = name
        super().__init__(message)


class MissingKey(LlmnbError):
    """No API key can be found, so nothing can be sent."""

    def __init__(self, provider: str | None = None, variables: tuple[str, ...] = ()) -> None:
        if provider is not None:
            super().__init__(
                f"no API key for {provider!r}: set the environment variable {' or '.join(variables)} (in a notebook: "
                f"%env {variables[0]}=…), or pass client= a client of the openai SDK."
            )
            return
        super().__init__(
            "no API key: set the environment variable ANTHROPIC_API_KEY (in a notebook: "
            '%env ANTHROPIC_API_KEY=sk-ant-…), or pass client=anthropic.Anthropic(api_key="…"). '
            "To look around without a key run `llmnb demo`: it needs none."
        )


class MissingExtra(LlmnbError, ImportError):
    """`what` needs the optional dependencies of llmnb[`extra`], which are not installed."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an extra that is not installed: pip install 'llmnb[{extra}]'")


class InvalidRequest(LlmnbError, ValueError):
    """The call cannot work as asked; found before anything was sent or paid."""


class ContextFull(InvalidRequest):
    """A conversation of about `tokens` does not fit into the context window of `window_tokens`; nothing was sent."""

    def __init__(self, message: str, *, tokens: int, window_tokens: int) -> None:
        self.tokens = tokens
        self.window_tokens = window_tokens
        super().__init__(message)
