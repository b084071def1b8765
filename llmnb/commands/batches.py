"""`llmnb batches`: the message batches of runs over rows, from a shell."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from llmnb.commands import console
from llmnb.terminals import is_terminal

app = typer.Typer(help="Message batches: rows at half the price, ready within a day.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Id = Annotated[str, typer.Argument(help="The batch's id or name, or a beginning of it that no other has.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of batches, or beginnings of them that no other has.")]


@app.callback()
def group() -> None:
    """Message batches of llm.map(frame, template, via='batch'): rows at half the price, ready within a day."""


@app.command("list")
def list_(
    refresh: Annotated[bool, typer.Option("--refresh", "-r", help="Ask the API about those in progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """The batches that are kept here, newest first, one a line."""
    import llmnb

    found = llmnb.batches(refresh=refresh)
    if as_json:
        console.frame_as_json(found)
        return
    for row in found.astype(object).where(found.notna(), None).to_dict("records"):
        counts = ", ".join(f"{row[name]:,} {name}" for name in _COUNTS if row[name])
        told = f"{row['requests']:,} requests{counts and f': {counts}'}"
        which = f"{row['batch_id'] or row['name']}  {row['created']:%Y-%m-%d %H:%M}"
        print(f"{which}  {row['state']}  {told}  {row['model']}")
    if found.empty:
        print("No batches yet: llm.map(frame, template, via='batch') sends some.")


_COUNTS = ("succeeded", "errored", "expired", "canceled")


@app.command()
def show(batch_id: Id, as_json: AsJson = False) -> None:
    """A batch as it is at the API now."""
    import llmnb

    _tell(llmnb.get_batch(batch_id).look(), as_json=as_json)


@app.command()
def wait(batch_id: Id, as_json: AsJson = False) -> None:
    """Wait until a batch has ended; Ctrl-C ends the waiting, and not the batch."""
    import llmnb

    _tell(llmnb.get_batch(batch_id).wait(progress=not as_json), as_json=as_json)


@app.command()
def cancel(batch_ids: Ids, as_json: AsJson = False) -> None:
    """Cancel batches: what is processed by then is answered and billed, the rest is neither."""
    import llmnb

    for batch_id in batch_ids:
        _tell(llmnb.get_batch(batch_id).cancel(), as_json=as_json)


@app.command()
def results(batch_id: Id) -> None:
    """The results of a batch that has ended, as lines of JSON as they come; each is on the books then, once."""
    import llmnb

    for custom_id, result in llmnb.get_batch(batch_id).results():
        sys.stdout.write(json.dumps({"custom_id": custom_id, "result": result}, ensure_ascii=False) + "\n")


@app.command()
def forget(
    batch_id: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is forgotten.")] = False,
) -> None:
    """Forget a batch here, such as one deleted at the API: its rows are asked, and paid, again."""
    import llmnb

    found = llmnb.get_batch(batch_id)
    if not yes and is_terminal(sys.stdin):
        typer.confirm(f"Forget {found.id}? Its {found.note.requests:,} rows are asked and paid again", abort=True)
    found.forget()
    print(f"{found.id} is forgotten.")


def _tell(batch: Any, *, as_json: bool) -> None:
    if as_json:
        note = batch.note
        facts = {name: getattr(note, name) for name in ("created", "expires", "ended", "requests", "model", "project")}
        console.as_json({"batch_id": batch.id, "run_id": batch.run_id, "state": batch.state, **facts, **batch.counts})
    else:
        print(repr(batch).strip("<>"))
