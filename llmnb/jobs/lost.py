"""What calls of a run cost that left no row: those under way when a process was killed are asked again."""

from __future__ import annotations

from llmnb.ledger import settle
from llmnb.ledger.connection import reading
from llmnb.pricing import cost_of
from llmnb.records import Usage
from llmnb.settings import Settings

_INPUT_TIMES = 2
"""Of what input costs, what it costs at most: writing it to the prompt cache for an hour."""


def on_the_books(run_id: str, began: float, most_output_tokens: int, settings: Settings) -> tuple[int, int]:
    """What calls of a run cost whose end is known, and what the others cost at most, in nano-dollars.

    Args:
        run_id: the run's.
        began: when it was begun, in seconds since 1970.
        most_output_tokens: how long an answer may get.
        settings: whose ledger, and whose prices.

    Raises:
        StoreError: the ledger cannot be read.
    """
    settle(settings.ledger_path)
    with reading(settings.ledger_path) as connection:
        if connection is None:
            return 0, 0
        named = (int(began * 1e6), run_id)
        (known,) = connection.execute(_KNOWN, named).fetchone()
        lost = connection.execute(_LOST, named).fetchall()
    most = (
        calls * (cost_of(usage, model, provider=provider, overrides=settings.prices).nanousd or 0)
        for provider, model, tokens, calls in lost
        for usage in (Usage(tokens * _INPUT_TIMES), Usage(output_tokens=most_output_tokens))
    )
    return int(known or 0), sum(most)


_OF_THE_RUN = "FROM calls WHERE ts >= ? AND run_id = ? AND source = 'live'"
_KNOWN = f"SELECT sum(cost_nanousd) {_OF_THE_RUN} AND status NOT IN ('running', 'interrupted')"
_LOST = f"""
    SELECT provider, model_requested, input_tokens, count(*) {_OF_THE_RUN} AND status = 'interrupted' AND is_call
    GROUP BY provider, model_requested, input_tokens
"""
