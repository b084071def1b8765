"""`llmnb cache`: the response cache from a shell."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmnb import terminals
from llmnb.commands import console

app = typer.Typer(help="Answers that were kept, and cost nothing when they are asked again.", no_args_is_help=True)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Older = Annotated[str | None, typer.Option("--older", help="Only answers older than that: 30d, 12h.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only answers of this model.")]


@app.callback()
def group() -> None:
    """Answers that were kept, and cost nothing when they are asked again."""


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Where it is, how many answers it holds, and how much room they take."""
    from llmnb.cache import browse

    found = browse.stats()
    if as_json:
        console.as_json(asdict(found))
        return
    limit = "" if found.limit_bytes is None else f" of {found.limit_bytes / 2**20:,.0f} MiB"
    print(f"{_count(found.answers)}, {found.bytes / 2**20:,.1f} MiB{limit}, in {found.where}")


@app.command("list")
def list_(older: Older = None, model: Model = None, as_json: AsJson = False) -> None:
    """The answers, newest first, one a line with the beginning of its question."""
    from llmnb.cache import browse

    found = browse.entries(model=model, older=older)
    if as_json:
        console.as_json([asdict(entry) | _times(entry) for entry in found])
        return
    for entry in found:
        tokens = f"{entry.input_tokens:,} in, {entry.output_tokens:,} out"
        until = "" if entry.expires is None else f"  until {entry.expires:%Y-%m-%d %H:%M}"
        sample = f"  sample {entry.sample}" if entry.sample else ""
        about = f"{entry.created:%Y-%m-%d %H:%M}  {entry.model}  {tokens}{until}{sample}"
        print(f"{entry.key[:12]}  {about}  {entry.question}".rstrip())


@app.command()
def show(key: Annotated[str, typer.Argument(help="Its key, or the beginning of it.")]) -> None:
    """One answer with its question, as JSON."""
    from llmnb.cache import browse

    found = browse.show(key)
    console.as_json({"request": found.request, "message": found.message})


@app.command()
def clear(
    key: Annotated[str | None, typer.Argument(help="Only this answer, by its key or the beginning of it.")] = None,
    older: Older = None,
    model: Model = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before everything is forgotten.")] = False,
) -> None:
    """Forget all answers, or some: they are paid again when they are asked again."""
    from llmnb.cache import browse

    if key is None and older is None and model is None and not yes and is_terminal():
        typer.confirm(f"Forget all {browse.stats().answers:,} answers?", abort=True)
    print(_count(browse.clear(key, model=model, older=older), "forgotten"))


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
    print(_count(count, f"{'is' if count == 1 else 'are'} in {path}"))


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Cassettes: exported ones, or what llmnb.record wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the cassette's answer where another is in the cache.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the answers of cassettes into the cache: what was asked there costs nothing here.

    An answer that is there already gives way to one that came later, and to
    any other with --replace:  llmnb cache import thesis.cassette.jsonl
    """
    from llmnb.cassette.into_cache import import_ as put

    done = put(*paths, replace=replace, dry_run=dry_run)
    if as_json:
        console.as_json(asdict(done))
        return
    print(f"{done} (nothing was done)" if dry_run else done)
    for where, why in [*done.damaged.items(), *done.refused.items()]:
        print(f"  {where}: {why}")


def is_terminal() -> bool:
    """Whether somebody sits there who can be asked."""
    return terminals.is_terminal(sys.stdin)


def _count(answers: int, what: str = "") -> str:
    return f"{answers:,} answer{'' if answers == 1 else 's'} {what}".rstrip()


def _times(entry: object) -> dict[str, str | None]:
    return {name: None if (at := getattr(entry, name)) is None else at.isoformat() for name in ("created", "expires")}
