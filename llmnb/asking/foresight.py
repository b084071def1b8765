"""`LooksAhead`: the part of `LLM` for what comes before asking, `estimate` and `prewarm`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from llmnb.asking.asker import Asker
from llmnb.asking.exchange import Exchange
from llmnb.asking.params import Options
from llmnb.asking.prewarming import Prewarmed, prewarming, ttl_for
from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from llmnb.asking.access import Access
    from llmnb.asking.content import Prompt
    from llmnb.estimate import Estimate


class LooksAhead(Asker):
    """An `LLM`'s `estimate`, `prewarm` and their async twins."""

    def estimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """What asking this would read, write and cost; nothing is sent and, unless `exact`, no network is used.

        What is in the response cache costs nothing, and is said to. With the prompt cache: by the breakpoints that this
        call would get now, and without.

        Args:
            prompt: as for `ask`.
            exact: have the API count the input (`count_tokens`: free, and needs a key).
            **options: any setting of `LLM`, for this call; `tools` may be bare definitions, too.

        Raises:
            InvalidRequest: the call could not work.
            MissingKey, anthropic.APIError: with `exact` only.
        """
        from llmnb.asking.estimating import estimated

        return estimated(self._asked(prompt, options, typed=True), self._settings, exact=exact)

    async def aestimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """The async twin of `estimate`."""
        from llmnb.asking.estimating import aestimated

        return await aestimated(self._asked(prompt, options, typed=True), self._settings, exact=exact)

    def prewarm(self, documents: Prompt | None = None, **options: Unpack[Options]) -> Prewarmed:
        """Has the API cache what the next questions begin with, so that the first one reads it already.

        Cached are tools, system prompt and `documents`; a question reads them when it has the same system prompt and
        tools and begins with the same documents: `llm.prewarm(Path("paper.pdf"))`, then
        `llm([Path("paper.pdf"), "What is …?"])`. It costs what writing that prompt to the cache costs, or, where it is
        there already, what reading it does, which renews it. It is a row of the ledger (tag "prewarm", unless you give
        one).

        Args:
            documents: what questions will begin with: a text, a Path, bytes, a content block, or a list of them.
            **options: any setting of `LLM`, for this call, `tools` among them; prompt_cache="1h" keeps it for an hour
                instead of five minutes.

        Returns:
            What it cost, and until when it holds.

        Raises:
            InvalidRequest: there is nothing to cache, it is too short for the model, or the API cannot prewarm with
                these settings; nothing was sent.
            MissingKey: there is no API key; nothing was sent.
            anthropic.APIError: whatever the SDK raises, unchanged.
        """
        exchange, access, asked_at = self._prewarming(documents, options)
        return Prewarmed.of(exchange.ask(access.sync), asked_at)

    async def aprewarm(self, documents: Prompt | None = None, **options: Unpack[Options]) -> Prewarmed:
        """The async twin of `prewarm`."""
        exchange, access, asked_at = self._prewarming(documents, options)
        return Prewarmed.of(await exchange.aask(access.here), asked_at)

    def _prewarming(self, documents: Prompt | None, options: Mapping[str, Any]) -> tuple[Exchange, Access, datetime]:
        planned = self._planned({"prompt_cache": self._prompt_cache, **options}, "prewarm()")
        access = self._accesses.of(planned)
        if access.endpoint is not None:
            raise InvalidRequest(f"{access.provider} cannot be prewarmed: its prompt cache works by itself")
        planned.ledger["prompt_cache"] = ttl_for(planned.ledger["prompt_cache"])
        planned, messages = prewarming(planned, documents)
        exchange = Exchange(planned, messages, limit=self._settings.concurrency)
        return exchange, access, datetime.now().astimezone()
