"""What is known of a run's batches, on disk beside its rows: written before anything depends on it.

`batches.jsonl` has a line for everything that happened to a batch, `batches/NAME.jsonl` its requests. Before a batch is
sent, its requests and the intent to send it are on disk; the API's id is added when it is known. So at any moment at
most one batch may be at the API whose id is not here, and its intent says what to look for. A line before its last byte
is sent says that it may be there; without that line it is not.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from llmnb.errors import InvalidRequest, StoreError
from llmnb.jobs.description import FOLDER
from llmnb.settings import Settings

FILE = "batches.jsonl"
REQUESTS = "batches"

Stage = Literal["intended", "sent", "ended", "read", "dropped"]
"""`intended`: it may be at the API, under an id that is not known; `read`: every row has what became of it;
`dropped`: it never was at the API."""


@dataclass(frozen=True)
class Note:
    """One batch. Times are seconds since 1970; `counts` are the API's, once it has ended.

    `before` is the account's newest batch when this one was about to be sent: it comes after that one in the list.
    `strangers` are batches at the API that looked like this one and were not.
    """

    name: str
    folder: Path
    intended: float
    requests: int
    model: str
    server: str
    before: str = ""
    stage: Stage = "intended"
    project: str | None = None
    id: str | None = None
    created: float | None = None
    expires: float | None = None
    ended: float | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])
    most_nanousd: int | None = None
    """What it can cost at most; None where nobody counted."""
    is_certain: bool = True
    """Whether the API itself said the id, and not only a look at its list."""
    strangers: tuple[str, ...] = ()
    is_whole: bool = True
    """Whether the last byte of it may have been sent; without that it cannot have arrived."""
    cut_off: str = ""
    """What was heard instead of the API's answer to its sending."""

    @property
    def run_id(self) -> str:
        """The run it is of."""
        return self.folder.name

    @property
    def is_open(self) -> bool:
        """Whether there are rows that wait for it."""
        return self.stage in ("intended", "sent", "ended")

    @property
    def requests_path(self) -> Path:
        """Where its requests are."""
        return self.folder / REQUESTS / f"{self.name}.jsonl"


class Notes:
    """The batches of one run, as they are on disk; `read` again to see what other processes have noted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self.all: dict[str, Note] = {}
        self.read()

    def read(self) -> None:
        """Reads what is there now."""
        found: dict[str, Note] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            lines = []
        for line in lines:
            told = _parsed(line)
            if told is None:
                continue
            name = str(told.pop("name"))
            told["strangers"] = tuple(told.get("strangers") or ())
            if name in found:
                if not found[name].is_open:  # for good, whatever another process was about to note
                    told.pop("stage", None)
                told["strangers"] = (*found[name].strangers, *told["strangers"])
                found[name] = replace(found[name], **told)
            elif "intended" in told:
                found[name] = Note(name=name, folder=self._folder, **told)
        self.all = found

    @property
    def open(self) -> list[Note]:
        """Those that rows wait for, in the order in which they were made."""
        return [note for note in self.all.values() if note.is_open]

    def intend(self, lines: Iterable[bytes], **facts: Any) -> Note:
        """Notes that a batch of these requests will be sent.

        Raises:
            StoreError: it cannot be noted, so that it must not be sent: it might be sent, and paid, again.
        """
        name = uuid.uuid4().hex[:12]
        note = Note(name=name, folder=self._folder, **facts)
        try:
            note.requests_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(note.requests_path, lines)
            self._append(name, facts)
        except OSError as trouble:
            raise self._refusal(trouble) from None
        self.all[name] = note
        return note

    def tell(self, note: Note, **facts: Any) -> Note:
        """Notes something more of a batch.

        Raises:
            OSError: it is not on disk; in memory it is noted all the same.
        """
        strangers = (*note.strangers, *facts.get("strangers", ()))
        self.all[note.name] = replace(self.all.get(note.name, note), **{**facts, "strangers": strangers})
        self._append(note.name, facts)
        return self.all[note.name]

    def is_whole(self, note: Note) -> None:
        """Notes that a batch will be whole in a moment.

        Raises:
            StoreError: it cannot be noted, so that it must not be.
        """
        try:
            self.tell(note, is_whole=True)
        except OSError as trouble:
            raise self._refusal(trouble) from None

    def _refusal(self, trouble: OSError) -> StoreError:
        return StoreError(
            f"the batch cannot be noted in {self._path} ({trouble}), and without that it might be paid twice. "
            "Nothing was sent.",
            path=str(self._path),
        )

    def _append(self, name: str, facts: dict[str, Any]) -> None:
        line = json.dumps({"name": name, **facts}, separators=(",", ":")).encode()
        torn = self._path.exists() and self._path.read_bytes()[-1:] not in (b"\n", b"")
        _write(self._path, (b"\n" if torn else b"") + line + b"\n", append=True)


def noted(settings: Settings) -> Iterator[Note]:
    """The batches of all runs that are kept here."""
    folder = settings.home / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / FILE).is_file():
            yield from Notes(path).all.values()


def check_none_open(folder: Path) -> None:
    """Refuses to ask rows of a run live that may be in a batch: they would be paid twice.

    Raises:
        InvalidRequest: there is a batch whose results have not been read.
    """
    if not (folder / FILE).is_file() or not (found := Notes(folder).open):
        return
    ids = " ".join(str(note.id) for note in found if note.id)
    raise InvalidRequest(
        f"rows of this run are in a batch ({ids or 'its id is not known yet'}), and asked live they might be paid "
        f'twice. The same call with via="batch" waits for it, or, after `llmnb batches cancel {ids}`, takes what was '
        "processed; then the rest can be asked live. Nothing was sent."
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:  # torn by a kill
        return None
    return cast("dict[str, Any]", told) if isinstance(told, dict) and "name" in told else None


def _write(path: Path, data: bytes | Iterable[bytes], *, append: bool = False) -> None:
    """Writes, and waits until it would outlive the machine."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb", buffering=2**20) as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        file.flush()
        os.fsync(descriptor)
