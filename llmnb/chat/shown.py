"""`Shown`: how a chat is looked at: in a notebook, as Markdown and HTML, in one line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmnb.chat import file
from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from llmnb.asking.turns import Turn
    from llmnb.chat.spent import Spent
    from llmnb.llm import LLM


class ChatUI(Protocol):
    """What `Chat.ui` gives: show it by making it a cell's last value."""

    def close(self) -> None:
        """Puts the transcript in the box's place; the conversation goes on in cells."""
        ...


class Shown(ABC):
    """A chat, as far as showing it goes."""

    name: str | None
    llm: LLM
    _turns: tuple[Turn, ...]

    @abstractmethod
    def _spent(self) -> Spent: ...

    def to_markdown(self) -> str:
        """The whole conversation as Markdown: questions quoted, tools with what they gave, no HTML of the model's."""
        module: Any = import_module("llmnb.display.transcript")
        return module.whole_markdown(self._turns, self._headline())

    def to_html(self) -> str:
        """The whole conversation as an HTML document that needs nothing else, and in which nothing of it runs."""
        module: Any = import_module("llmnb.display.transcript")
        return module.document(self._turns, self._headline())

    def export(self, path: str | PathLike[str]) -> Path:
        """Writes the conversation to be read: `.md` as Markdown, `.html` as a document (mode 0600); returns its path.

        Raises:
            InvalidRequest: the name ends otherwise; `save` writes a file to go on from.
            OSError: the file cannot be written.
        """
        target = Path(path).expanduser()
        forms = {".md": self.to_markdown, ".markdown": self.to_markdown, ".html": self.to_html, ".htm": self.to_html}
        form = forms.get(target.suffix.lower())
        if form is None:
            raise InvalidRequest(
                f"export writes .md or .html, not {target.name!r}; chat.save(path) writes JSON to load"
            )
        return file.write_text(target, form())

    def ui(self) -> ChatUI:
        """An input box under the live transcript, in a notebook: type there, stop, regenerate, edit and send again.

        Answers come through this chat like those of `chat("…")`, and the kernel stays usable while one comes. What is
        asked in cells appears in the box, too. `close()` leaves the transcript in its place, which stays in the file.

        Raises:
            InvalidRequest: this is no notebook with widgets, or the model is asked through a client that cannot be
                used in the background.
        """
        module: Any = import_module("llmnb.display.chat_ui")  # the display room stands above this one
        return module.open_ui(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        del include, exclude  # IPython filters the bundle itself
        module: Any = import_module("llmnb.display.transcript")
        return module.bundle(self._turns, self._headline())

    def _headline(self) -> str:
        """Name, model, turns, tokens and cost in one line."""
        spent = self._spent()
        about = "≈ " if spent.usage.estimated else ""
        cost = "unpriced" if spent.cost_usd is None else f"{about}${spent.cost_usd:f}"
        if spent.cost_usd is not None and spent.unpriced_calls:
            cost += f" and {spent.unpriced_calls} unpriced"
        tokens = f"{spent.usage.total_input_tokens:,} in · {about}{spent.usage.output_tokens:,} out"
        named = f"{self.name} · " if self.name else ""
        return f"{named}{self.llm.model} · {_count(self._turns)} · {tokens} · {cost}"

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        spent = self._spent()
        cost = "unpriced" if spent.cost_usd is None else f"${spent.cost_usd:.6f}"
        return f"<Chat{name} with {self.llm.model}: {_count(self._turns)}, {cost}>"


def _count(turns: Sequence[Turn]) -> str:
    return f"{len(turns)} turn{'' if len(turns) == 1 else 's'}"
