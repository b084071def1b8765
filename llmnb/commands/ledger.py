"""`llmnb ledger`: how the ledger is, its sums made anew, old rows deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from llmnb import settings
from llmnb.commands import console
from llmnb.errors import InvalidRequest
from llmnb.places import Place, place_of
from llmnb.terminals import is_terminal

app = typer.Typer(help="Look after the ledger: its state, its roll-ups, its size.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Where the ledger is, how many calls it holds, and how far its roll-ups are."""
    from llmnb.ledger import upkeep

    chosen = settings.load()
    found = upkeep.status(chosen.ledger_path, chosen)
    if as_json:
        console.as_json(None if found is None else asdict(found))
    elif found is None:
        print(f"There is no ledger at {chosen.ledger_path} yet; the first call makes it.")
    else:
        console.out().print(console.facts_table(asdict(found)))


@app.command()
def rebuild() -> None:
    """Make all sums anew from the calls, in days of the timezone of the settings.

    Until they are whole, everything is read from the sums that are there. May be
    interrupted: it goes on by itself with the next calls.
    """
    from llmnb.ledger import open_ledger, upkeep

    rows = _counted(upkeep.rebuild(open_ledger(), settings.load()), "folded")
    print(f"{rows:,} rows folded.")


@app.command()
def prune(
    older: Annotated[str, typer.Option(help="Delete the rows of calls older than this: 400d, 52w, 2025-12-31.")],
    vacuum: Annotated[bool, typer.Option("--vacuum", help="Give the disk space back; locks the ledger.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete old calls and keep their totals.

    By day, project, user, provider, model and tag the sums stay exact; single
    calls, notebooks, sessions and percentiles by them are gone.
    """
    from llmnb.ledger import open_ledger, upkeep

    chosen = settings.load()
    before = upkeep.midnight(chosen, older)
    if not yes:
        typer.confirm(f"Delete the rows of all calls from before {before:%Y-%m-%d}?", abort=True)
    deleted = _counted(upkeep.prune_older(open_ledger(), chosen, older, vacuum=vacuum), "deleted")
    print(f"{deleted:,} rows from before {before:%Y-%m-%d} deleted; their totals are kept.")


@app.command()
def copy(
    source: Annotated[str | None, typer.Option("--from", help="URL of the ledger that is read.", metavar="URL")] = None,
    target: Annotated[str | None, typer.Option("--to", help="URL of the one that is written.", metavar="URL")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a ledger into another: from a file into a team's database, or back.

    Without --from or --to it is the ledger of the settings. Nothing is deleted
    on either side, and what is there already is not written again: interrupted,
    the same command goes on. A URL is sqlite:/// and an absolute path, or
    postgresql://user@host/name; a password is better kept in ~/.pgpass.
    """
    from llmnb.ledger import open_ledger, upkeep
    from llmnb.ledger.copying import Copied, copy

    places = [_place(source, "--from"), _place(target, "--to")]
    last = Copied()
    for last in copy(*places):
        if is_terminal(sys.stderr):
            print(f"\r{last.rows:,} rows", end="", file=sys.stderr, flush=True)
    upkeep.fold(open_ledger(places[1]), settings.load())
    if as_json:
        console.as_json(asdict(last))
        return
    print(f"{last.rows:,} rows of {places[0]} are in {places[1]}; {last.written:,} of them were written now.")
    if last.pruned:
        print(f"Of {last.pruned:,} calls that were pruned the sums were taken over.")
    if last.budgets:
        print(f"{last.budgets:,} budgets were taken over.")
    if last.newer:
        print(f"Of {last.newer:,} rows the target knew more, and kept it.")
    else:
        print(f"All sums are equal, to the token and the nano-dollar: ${last.cost_nanousd / 10**9:,.9f}.")


def _place(url: str | None, option: str) -> Place:
    try:
        return settings.load().ledger_path if url is None else place_of(url)
    except ValueError as error:
        raise InvalidRequest(f"{option}: {error}.") from None


def _counted(steps: Iterable[int], verb: str) -> int:
    """The last number of a work in steps, shown as it grows where somebody looks."""
    number = 0
    for number in steps:
        if is_terminal(sys.stderr):
            print(f"\r{number:,} rows {verb}", end="", file=sys.stderr, flush=True)
    if is_terminal(sys.stderr):
        print(file=sys.stderr)
    return number
