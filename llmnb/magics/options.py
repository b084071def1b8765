"""What can stand behind `%%llm`, `%llm_model` and `%llm_cost`: options, their help, and how they are read."""

from __future__ import annotations

import argparse
import shlex
from typing import NoReturn

from IPython.core.error import UsageError

EFFORTS = ("low", "medium", "high", "xhigh", "max")


class Parser(argparse.ArgumentParser):
    """Raises a one-line UsageError instead of ending the program."""

    def __init__(self, name: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=name,
            description=description,
            epilog=epilog,
            add_help=False,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. {self.prog}? tells the options.")

    def read(self, line: str) -> argparse.Namespace:
        """The options on a line.

        Raises:
            UsageError: an option is unknown, or a value missing or impossible.
        """
        try:
            return self.parse_args(_words(line))
        except ValueError as error:  # a quote that is not closed
            self.error(str(error).lower())

    def options(self) -> dict[str, argparse.Action]:
        """The options by their names."""
        return dict(self._option_string_actions)

    def help(self) -> str:
        """What `?` shows; the width is fixed, as it is made before anybody's terminal is known."""
        return self.format_help().strip()


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=79)


def _words(line: str) -> list[str]:
    """The line's words; quotes group and go away, a backslash is a character (Windows has paths)."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    return list(lexer)


def llm_parser() -> Parser:
    """The parser of `%%llm`."""
    parser = Parser("%%llm", _LLM, _LLM_END)
    add = parser.add_argument
    add("-m", "--model", help="the model that answers; default: %%llm_model, LLMNB_MODEL, or the chat's own")
    add("-c", "--chat", metavar="NAME", help="go on with the chat of that name, or begin it: llm.chat(name=NAME)")
    add("-s", "--system", metavar="VAR", help="the variable that holds the system prompt")
    add("-o", "--output", metavar="VAR", help="the variable that gets the Reply, or the value of --schema")
    add("-t", "--template", metavar="FILE", help="a file, or a variable, with the template that {{ body }} goes into")
    add(
        "--schema",
        metavar="NAME",
        help="the type of the value that the cell gives in place of a Reply: a class, list[class]",
    )
    add("-i", "--image", metavar="PATH", action="append", default=[], help="an image, PDF or text file; repeatable")
    add("--tools", metavar="NAME,…", help="functions that the model may call: variables, with commas between them")
    add("--approve", action="store_true", help="be asked before a tool runs")
    add("--max-turns", metavar="N", type=_count, help="the most answers that calling tools may take; default: 10")
    add("--fresh", action="store_true", help="ask again, also what was asked before")
    add("--max-tokens", metavar="N", type=_count, help="the longest answer, in tokens")
    add("--effort", choices=EFFORTS, help=f"how much work the model puts in: {', '.join(EFFORTS)}", metavar="LEVEL")
    add("--display", metavar="NAME", help="how the answer is shown: widget, html, terminal, static, print, none")
    add("--project", help="written on the ledger row")
    add("--tag", help="written on the ledger row")
    add("--raw", action="store_true", help="send the body as it is: {{ }} means nothing")
    return parser


def model_parser() -> Parser:
    """The parser of `%llm_model`."""
    parser = Parser("%llm_model", _MODEL, "")
    parser.add_argument("model", nargs="?", help="its name, such as claude-sonnet-5-5")
    return parser


def cost_parser() -> Parser:
    """The parser of `%llm_cost`."""
    return Parser("%llm_cost", _COST, "")


def _count(text: str) -> int:
    try:
        count = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return count


_LLM = """Ask a model; the body of the cell is the prompt, the answer streams in below.

{{ name }} in the body is replaced by the variable of that name: a str as it is,
anything else as str() gives it. {{ row["title"] }}, {{ paper.year }} and
{{ rows[0] }} work, too. All else is sent as it is: single braces, %, $, quotes,
and double braces around anything but a name; only empty lines at the end are
dropped. When a name is missing, nothing is sent.

--template takes a llmnb.Template or a file with one: its front matter says how
it is asked, its fields are variables, and {{ body }} is the body of the cell.
%llm --template FILE asks one that has no {{ body }}."""

_LLM_END = """examples:
  %%llm                   ask the default model
  %%llm -o reply          …and keep the Reply: reply.text, reply.cost_usd
  %%llm --chat review     a conversation that the next cell can go on with
  %%llm -m claude-opus-5-5 -i plot.png --max-tokens 500
  %%llm --schema list[Person] -o people
  %%llm --tools weather,news --approve
  %%llm -t summarise.md   with {{ body }} in it

The answer is the cell's value, so _ holds it; llmnb.last() brings back the last
one, even when it was stopped or its view was lost. %llm_cost tells what was
spent."""

_MODEL = """Show the model that is asked where none is named, or choose another one for
this session.

It also counts for llmnb.LLM() objects made from then on (it sets LLMNB_MODEL in
this process)."""

_COST = """What was spent: by the last cell that asked, in this notebook, in this session,
and today.

The sums are the ledger's, exact to the nano-dollar. llmnb.usage() answers other
questions."""
