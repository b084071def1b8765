"""`llmnb budget`: how much may be spent, set and seen from a shell."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from llmnb.commands import console

app = typer.Typer(help="How much may be spent, by every kernel and script on this ledger.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command("set")
def set_(
    per: Annotated[str, typer.Option(help="hour, day, week, month, 'rolling 24h' or total.")],
    usd: Annotated[str | None, typer.Option(help="The limit in dollars, such as 5 or 0.25.")] = None,
    tokens: Annotated[
        int | None, typer.Option(help="The limit in tokens instead: all that is read and written.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only calls of this project.")] = None,
    user: Annotated[str | None, typer.Option(help="Only calls of this user.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only calls of this model; * stands for anything.")
    ] = None,
    notebook: Annotated[str | None, typer.Option(help="Only calls of this notebook.")] = None,
    action: Annotated[str, typer.Option(help="stop: refuse what does not fit; warn: only warn.")] = "stop",
    allow_unpriced: Annotated[
        list[str] | None, typer.Option(help="A model that may be asked though it has no price; more than one is fine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set a budget, or change the one of the same period and scope.

    llmnb budget set --usd 5 --per day --project thesis
    """
    import llmnb

    given: dict[str, Any] = {"project": project, "user": user, "model": model, "notebook": notebook}
    status = llmnb.set_budget(
        usd=usd,
        tokens=tokens,
        per=cast(Any, per),
        action=cast(Any, action),
        allow_unpriced=allow_unpriced or (),
        **given,
    )
    if as_json:
        console.budgets_as_json([status])
    else:
        print(status)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All budgets: what is spent, held by calls under way, and left."""
    from llmnb.budgeting import statuses

    found = statuses()
    if as_json:
        console.budgets_as_json(found)
    elif found:
        console.out().print(console.budget_table(found))
    else:
        print("No budget is set. Set one with: llmnb budget set --usd 5 --per day")


@app.command()
def remove(
    budget_id: Annotated[int, typer.Argument(help="The id of the budget, as `llmnb budget list` shows it.")],
) -> None:
    """Remove a budget; the books keep what was spent."""
    import llmnb

    llmnb.remove_budget(budget_id)
    print(f"Budget {budget_id} is removed.")
