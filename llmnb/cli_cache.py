"""`llmnb cache`: the response cache from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Answers that were kept, and cost nothing when they are asked again.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Answers that were kept, and cost nothing when they are asked again."""


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The cassette to write, such as thesis.cassette.jsonl.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only answers of this model.")] = None,
    redact: Annotated[
        list[str] | None, typer.Option("--redact", help="Field whose values are not written; can be repeated.")
    ] = None,
) -> None:
    """Write the kept answers into a cassette, from which `llmnb.replay` answers offline and without a key.

    Keys, tokens and cookies are never written:  llmnb cache export thesis.cassette.jsonl
    """
    from llmnb.cassette import export as written

    count = written(path, model=model, redact=redact or ())
    print(f"{count} answers are in {path}")
