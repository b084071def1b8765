"""`llmnb tokens`: how many tokens something is and what asking it would cost, and the vocabulary to count with."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmnb.commands import console
from llmnb.terminals import is_terminal

app = typer.Typer(help="Count tokens and dollars before anything is sent.", no_args_is_help=True)


@app.command()
def count(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files: text, images, PDFs; none: what is piped in.", show_default=False)
    ] = None,
    text: Annotated[str, typer.Option("--text", "-t", help="A text to count, after the files.")] = "",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model; default: the setting LLMNB_MODEL.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Project whose earlier answers say how long one is.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Have the API count: free, and needs a key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """What a prompt of these files and this text would read, write and cost.

    Nothing is sent, unless with --exact:  llmnb tokens count paper.pdf -t "Summarise this"
    """
    import llmnb

    parts: list[str | Path] = [*(files or [])]
    if not parts and not text:
        text = "" if is_terminal(sys.stdin) else sys.stdin.read()
    if text:
        parts.append(text)
    if not parts:
        raise typer.BadParameter("give files, --text, or pipe something in", param_hint="FILES")
    llm = llmnb.LLM(model, system=system, max_tokens=max_tokens, project=project)
    estimate = llm.estimate(parts[0] if len(parts) == 1 and text else parts, exact=exact)
    if as_json:
        console.as_json(asdict(estimate))
    else:
        print(estimate)


@app.command()
def fetch(
    again: Annotated[bool, typer.Option("--again", help="Also when it is on disk already.")] = False,
) -> None:
    """Download tiktoken's vocabulary (1.7 MB), with which texts are counted better.

    It is kept in LLMNB_HOME. Without it texts are estimated by their characters;
    nothing else ever downloads it.
    """
    from llmnb.tokens import vocabulary

    print(f"The vocabulary {vocabulary.CL100K_BASE.name} is at {vocabulary.fetch(again=again)}")
