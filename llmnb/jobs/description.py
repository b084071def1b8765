"""What a run is about, beside its rows on disk: `run.json`, written when it begins and again when it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from llmnb.locks import LockFile, share_if_can, try_lock
from llmnb.trouble import quietly

State: TypeAlias = Literal["running", "finished", "stopped"]
"""`finished`: every row was seen to, if only to fail; `stopped`: some were not, by whatever ended it."""

_FILE = "run.json"
LOCK = "lock"
ROWS = "rows.jsonl"
FOLDER = "runs"
_drafts = count()


@dataclass(frozen=True)
class Description:
    """A run as `run.json` has it. `done` are rows that are answered, `failed` those that are not and were asked.

    `prompt` is the template's text, or the name of the function. The times are seconds since 1970, `cost_nanousd` is
    that of all times.
    """

    run_id: str
    prompt: str
    model: str
    template: str | None = None
    schema: str | None = None
    project: str | None = None
    server: str = ""
    began: float = 0.0
    changed: float = 0.0
    state: State = "running"
    rows: int = 0
    done: int = 0
    failed: int = 0
    cost_nanousd: int = 0

    def at(self, state: State, *, rows: int, done: int, failed: int, cost_nanousd: int) -> Description:
        """The same run, further on."""
        return replace(
            self, state=state, rows=rows, done=done, failed=failed, cost_nanousd=cost_nanousd, changed=_now()
        )

    def write(self, folder: Path) -> None:
        """Puts it in the place of an earlier one, whole or not at all; the run goes on where that fails."""
        began = (earlier := read(folder)) and earlier.began
        told = asdict(replace(self, began=began or self.began or _now(), changed=self.changed or _now()))
        draft = folder / f"{_FILE}.{os.getpid()}.{next(_drafts)}"  # several comparisons may be at one run
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(told, file)
            os.replace(draft, folder / _FILE)
        except (OSError, ValueError) as trouble:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            quietly("describing a run", trouble, but="llmnb.runs() will know less of it")


def read(folder: Path) -> Description | None:
    """What a run's folder says; None where it says nothing that can be read."""
    try:
        told = json.loads((folder / _FILE).read_text("utf-8"))
        known = {field.name for field in fields(Description)}
        return Description(**{name: value for name, value in cast("dict[str, Any]", told).items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


@contextmanager
def at_work(folder: Path) -> Generator[None]:
    """Says to other processes, as long as this one lives, that the run is being worked at."""
    file = None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = LockFile(folder / LOCK)
        if file.descriptor is not None:
            share_if_can(file.descriptor)  # others may work at the same
    try:
        yield
    finally:
        if file is not None:
            file.close()


def is_at_work(folder: Path) -> bool:
    """Whether a living process works at the run."""
    if not (folder / LOCK).exists():
        return False
    try:
        file = LockFile(folder / LOCK)
    except OSError:
        return False
    try:
        return file.descriptor is not None and not try_lock(file.descriptor)
    finally:
        file.close()


def _now() -> float:
    return datetime.now(timezone.utc).timestamp()  # noqa: UP017
