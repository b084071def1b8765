"""The `llmnb` command: each subcommand parses, calls one function of the library, and prints what it gives.

Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

import llmnb
from llmnb import settings
from llmnb.commands import batches as cli_batches
from llmnb.commands import budget as cli_budget
from llmnb.commands import cache as cli_cache
from llmnb.commands import console
from llmnb.commands import ledger as cli_ledger
from llmnb.commands import tokens as cli_tokens
from llmnb.events import Done, Retry, Text, Throttled
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.llm import LLM

app = typer.Typer(
    help="Claude in a notebook, with the books kept. Start with [bold]llmnb demo[/bold]: it needs no API key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # errors for the user are one line (see main); bugs are plain tracebacks
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cli_batches.app, name="batches")
app.add_typer(cli_budget.app, name="budget")
app.add_typer(cli_cache.app, name="cache")
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_tokens.app, name="tokens")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"llmnb {llmnb.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def demo(
    check: Annotated[bool, typer.Option("--check", help="Verify that everything works, then exit.")] = False,
) -> None:
    """See everything work, without an API key and without spending anything.

    A simulator on this machine plays the API. A notebook is run against it,
    and the dashboard shows what that cost. All of it lives in a temporary
    folder; Ctrl-C ends it and leaves nothing behind.
    """
    from llmnb import demo
    from llmnb.demo.signals import Ended, ignore

    try:
        demo.run(check=check)
    except Ended as ended:
        raise typer.Exit(128 + ended.number) from None
    finally:
        ignore()  # a second Ctrl-C does not disturb the way out


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="The question; what is piped in goes before it.")] = "",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model, such as openai:gpt-5.2; default: the setting LLMNB_MODEL."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project to book the call on.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again, also what was asked before.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print as it arrives, or all at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Ask one question, and print the answer.

    Pipes work both ways:  cat notes.md | llmnb ask "Summarise this" > summary.md
    """
    text = _with_piped(prompt)
    if not text:
        raise typer.BadParameter('give a question, as in: llmnb ask "What is WAL?"', param_hint="PROMPT")
    live = stream and not as_json
    shown = live and is_terminal(sys.stdout)
    llm = llmnb.LLM(
        model,
        system=system,
        max_tokens=max_tokens,
        project=project,
        fresh=fresh or None,
        display="terminal" if shown else "none",
    )
    if live and not shown:
        _print_stream(llm, text)
        return
    reply = llm.ask(text)
    if as_json:
        console.reply_as_json(reply)
    elif not shown:
        print(reply.text)
        _warn_if_cut(reply.stop_reason)


@app.command()
def usage(
    since: Annotated[str | None, typer.Option(help="From when: 7d, 24h, 2w, 2026-11-01; default: ever.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when (not included), written the same way.")] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Group by: model, project, day, notebook, tag, …; more than one is fine.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was used and what it cost, from the ledger on this machine."""
    dimensions = [name for given in by or ["model"] for name in given.split(",") if name]
    where = {"project": project} if project else None
    found = llmnb.usage(since, until, by=dimensions, where=where)
    if as_json:
        console.frame_as_json(found)
    elif found.empty:
        print(
            "No calls" + (f" since {since}." if since else " yet: `llmnb demo` shows what this looks like with some.")
        )
    else:
        total = llmnb.usage(since, until, by=[], where=where)
        console.out().print(console.usage_table(found, total, dimensions))


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write: .csv, .jsonl, .parquet, or any with --format otel.")],
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="csv, json (lines), parquet, otel; default: from the name.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From when: 7d, 24h, 2w, 2026-11-01; default: ever.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when (not included), written the same way.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
) -> None:
    """Write the calls of the ledger to a file: CSV, JSON lines, Parquet or OpenTelemetry spans."""
    from llmnb.ledger.export import export as write

    where = {"project": project} if project else None
    rows = write(path, cast("Any", format), since=since, until=until, where=where)
    print(f"{rows:,} calls written to {path}.")


@app.command()
def dashboard(
    port: Annotated[int | None, typer.Option(help="Port; default: 8520, or a free one.")] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine only with a password or OIDC.")
    ] = "127.0.0.1",
    ledger: Annotated[Path | None, typer.Option(help="Ledger file; default: the one of the settings.")] = None,
    open_browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in a browser of this machine.")
    ] = True,
    hash_password: Annotated[
        bool, typer.Option("--hash-password", help="Ask for a password, print its hash for the settings, and exit.")
    ] = False,
) -> None:
    """Open the dashboard of what was spent, until Ctrl-C.

    It listens to this machine only. For others, set a password first:

    LLMNB_DASHBOARD_PASSWORD=… llmnb dashboard --host 0.0.0.0
    """
    from llmnb.commands.dashboard_access import new_hash
    from llmnb.commands.dashboard_launcher import launch

    if hash_password:
        print(new_hash(typer.prompt("Password", hide_input=True, confirmation_prompt=True)))
        return
    with launch(port=port, host=host, ledger=ledger, open_browser=open_browser) as running:
        print(f"The dashboard is at {running.url} (Ctrl-C ends it)", flush=True)
        running.wait()


@app.command()
def prices(
    model: Annotated[
        str, typer.Argument(help="Only models with this in their name; with --reprice: exactly this one.")
    ] = "",
    provider: Annotated[str, typer.Option(help="Provider, as OpenTelemetry or genai-prices name it.")] = "anthropic",
    reprice: Annotated[bool, typer.Option("--reprice", help="Price the calls in the ledger anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --reprice: only say what would change.")] = False,
    input: Annotated[str | None, typer.Option(help="Set a price of your own: dollars per million tokens.")] = None,
    output: Annotated[str | None, typer.Option(help="The same for output.")] = None,
    cache_read: Annotated[str | None, typer.Option(help="The same for cache reads; default: as input.")] = None,
    cache_write: Annotated[str | None, typer.Option(help="The same for cache writes; default: as input.")] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget the price of your own of this model.")] = False,
    as_json: AsJson = False,
) -> None:
    """The prices llmnb knows, in dollars per million tokens, your own first.

    llmnb prices my-model --input 0.5 --output 2 --reprice

    After a price became known or was corrected, --reprice brings the calls in
    the ledger up to date.
    """
    if dry_run and not reprice:
        raise typer.BadParameter("it belongs to --reprice", param_hint="--dry-run")
    if forget or input is not None or output is not None:
        _own_price(model, input, output, cache_read, cache_write, forget=forget)
        if not reprice:
            return
    if reprice:
        _reprice(model, dry_run=dry_run, as_json=as_json)
        return
    from llmnb.pricing import price_table

    rows = price_table(match=model or None, provider=provider, overrides=settings.load().prices)
    if as_json:
        console.as_json([asdict(row) for row in rows])
    elif rows:
        console.out().print(console.price_table(rows))
    else:
        print(f"No price is known for a model called {model!r} at {provider!r}.")


def _own_price(
    model: str,
    input: str | None,
    output: str | None,
    cache_read: str | None,
    cache_write: str | None,
    *,
    forget: bool,
) -> None:
    """Sets the user's own price of a model, or forgets it."""
    from llmnb.pricing import remove_price, set_price

    if not model:
        raise typer.BadParameter("name the model, as it stands in the ledger", param_hint="MODEL")
    if forget:
        remove_price(model)
        print(f"The price of {model} is forgotten.")
        return
    if input is None or output is None:
        raise typer.BadParameter("give both --input and --output", param_hint="--input")
    set_price(model, input=input, output=output, cache_read=cache_read, cache_write_5m=cache_write)
    print(f"{model} costs ${input} and ${output} a million tokens from now on.")


def _reprice(model: str, *, dry_run: bool, as_json: bool) -> None:
    from llmnb.ledger import open_ledger
    from llmnb.pricing import reprice

    done = reprice(open_ledger(), model=model or None, dry_run=dry_run)
    if as_json:
        console.as_json(asdict(done))
    else:
        print(console.repriced(done))


@app.command()
def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also ask the API for its models, which is free.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that everything llmnb needs is in place; exit code 1 when something needs doing."""
    from llmnb.commands import doctor

    checks = doctor.examine(online=online)
    if as_json:
        console.as_json([asdict(check) for check in checks])
    else:
        console.out().print(console.check_table(checks))
    if not doctor.healthy(checks):
        raise typer.Exit(1)


# Answers ------------------------------------------------------------------------------------------------------------


def _with_piped(prompt: str) -> str:
    piped = "" if is_terminal(sys.stdin) else sys.stdin.read()
    return "\n\n".join(part for part in (piped.strip(), prompt.strip()) if part)


def _print_stream(llm: LLM, text: str) -> None:
    """Plain text as it comes, for a pipe or a file; what is no answer goes to standard error."""
    is_told = False
    for event in llm.stream(text):
        if isinstance(event, Throttled) and not is_told:
            is_told = True
            print(f"llmnb: waiting {event.wait_s:.0f} s for {event.reason}", file=sys.stderr)
        elif isinstance(event, Text):
            print(event.text, end="", flush=True)
        elif isinstance(event, Retry):
            print(f"llmnb: {event.reason}; trying again in {math.ceil(event.wait_s)} s", file=sys.stderr)
        elif isinstance(event, Done):
            print()
            _warn_if_cut(event.stop_reason)


def _warn_if_cut(stop_reason: str | None) -> None:
    if stop_reason not in ("end_turn", "stop_sequence"):
        print(f"llmnb: the answer may not be complete: stop_reason is {stop_reason}", file=sys.stderr)


# Errors ---------------------------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Runs the command line; an error that the user can do something about is one line."""
    warnings.formatwarning = console.warning_line
    try:
        app(prog_name="llmnb")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `llmnb usage | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = console.explained(error)
        if message is None:
            raise
        print(f"llmnb: {message}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
