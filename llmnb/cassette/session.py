"""`record` and `replay`: a cassette in use."""

from __future__ import annotations

import os
import threading
from contextvars import Token
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from llmnb import origin, settings
from llmnb.cassette import scope, tape
from llmnb.cassette.interaction import Failure, Interaction, Request, Response
from llmnb.cassette.library import NOWHERE, Library, Place
from llmnb.cassette.nearest import nearest_to
from llmnb.cassette.redaction import Redact, Redaction
from llmnb.cassette.telling import told
from llmnb.errors import CassetteError, InvalidRequest, ReplayMiss
from llmnb.trouble import warn_once

Mode = Literal["replay", "record", "new", "auto"]
Pace = Literal["at once", "recorded"]

SUFFIX = ".cassette.jsonl"
_MOST_DIFFERENCES = 8


def record(path: str | os.PathLike[str] | None = None, *, redact: Redact = ()) -> Cassette:
    """Writes every request and its response into a cassette, which is begun anew. Calls go out as ever.

    Use it as `with llmnb.record("a.cassette.jsonl"):`, or without `with` at the top of a notebook, where it holds until
    `.stop()`, or until the next cassette is opened that way. It holds for every client of `LLM` and `wrap`, sync or
    async, also for those made before. What was in the file stays there until the first response is written.

    Args:
        path: the file; default: next to the notebook or script and named like it, `analysis.cassette.jsonl`.
        redact: names of JSON fields, headers and query parameters whose values are not to be written, and compiled
            patterns of text that is not. API keys, tokens, passwords and cookies never are.

    Raises:
        CassetteError: the file cannot be written there.
    """
    return Cassette(_path(path, "record"), "record", redact=redact)


def replay(
    path: str | os.PathLike[str] | None = None,
    *,
    mode: Mode = "replay",
    pace: Pace = "at once",
    repeat: bool = True,
    redact: Redact = (),
) -> Cassette:
    """Answers every request from a cassette. No key is needed, nothing reaches the network, and it costs nothing.

    Use it as `with llmnb.replay("a.cassette.jsonl"):`, or without `with` at the top of a notebook, as `record`. Equal
    requests are answered in the order in which they were recorded, errors, retries and broken streams included.

    Args:
        path: the cassette; default: the one next to the notebook or script, named like it.
        mode: what becomes of a request that is not in the cassette. "replay": it fails with `ReplayMiss`. "new": it is
            sent, and added to the cassette; so is one of which only failures were recorded. "auto": like "replay"
            when the cassette exists, else like "record". "record": all are sent, as by `record`.
        pace: "at once", or "recorded": streams and waits take as long as they took.
        repeat: a request that is asked more often than it was recorded is given its last answer again; with False it
            fails with `ReplayMiss`.
        redact: as for `record`; give the same names to both.

    Raises:
        CassetteError: there is no cassette there, or it cannot be read.
    """
    return Cassette(_path(path, mode), mode, pace=pace, repeat=repeat, redact=redact)


class Cassette:
    """A cassette in use: what `record` and `replay` give. It is in force at once, and until its block ends or `stop()`.

    Attributes:
        path: its file.
        mode: replay, record or new; "auto" has become one of them.
        pace: at what pace streams are replayed.
        redaction: what is not written.
        way_out: what the message of a `ReplayMiss` advises.
    """

    way_out = 'To ask for what is missing: llmnb.replay(mode="new"). To record all anew: llmnb.record().'

    def __init__(
        self, path: Path, mode: Mode, *, pace: Pace = "at once", repeat: bool = True, redact: Redact = ()
    ) -> None:
        _check("mode", mode, ("replay", "record", "new", "auto"))
        _check("pace", pace, ("at once", "recorded"))
        self.path = path
        self.mode = _resolved(mode, path)
        self.pace: Pace = pace
        self.redaction = Redaction(redact)
        self.is_open = True
        self.in_block = False
        self._replayed = self._recorded = 0
        self._lock = threading.Lock()
        self._token: Token[scope.Scoped | None] | None = None
        known = () if self.mode == "record" else _read(path, must_exist=self.mode == "replay")
        self._library = Library(known, repeat=repeat, only_whole=self.mode == "new")
        self._count = max((interaction.number for interaction in known), default=0)
        self._recorder = None if self.mode == "replay" else _recorder(path, anew=self.mode == "record")
        scope.opened(self)

    # Its life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if not self.is_open:
            raise InvalidRequest(f"the cassette {self.path.name} was stopped: open it again, by `llmnb.{self._verb}()`")
        self.in_block = True
        self._token = scope.entered(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            scope.left(self._token)
            self._token = None
        self.stop()

    def stop(self) -> None:
        """Ends it: requests made from now on go where they went before. What was recorded is in the file."""
        self.is_open = False
        scope.closed(self)
        if self._recorder is not None:
            try:
                self._recorder.finish()
            except OSError as error:
                self._not_written(error)

    @property
    def _verb(self) -> str:
        return "record" if self.mode == "record" else "replay"

    @property
    def needs_no_key(self) -> bool:
        """Whether nothing is sent while it is in force."""
        return self.mode == "replay"

    # What is in it ----------------------------------------------------------------------------------------------------

    @property
    def interactions(self) -> tuple[Interaction, ...]:
        """What was in the cassette when it was opened, in the order in which it was asked."""
        return self._library.interactions

    @property
    def unused(self) -> tuple[Interaction, ...]:
        """What was in it and was not asked for so far."""
        return self._library.unused

    @property
    def replayed(self) -> int:
        """How many requests it answered."""
        return self._replayed

    @property
    def recorded(self) -> int:
        """How many interactions it took in."""
        return self._recorded

    def __repr__(self) -> str:
        known = len(self._library.interactions)
        told = {
            "replay": f"replaying {self.path.name}: {known} recorded, {self._replayed} replayed, nothing is sent",
            "record": f"recording to {self.path.name}: {self._recorded} so far",
            "new": f"replaying {self.path.name}: {known} recorded, {self._replayed} replayed, {self._recorded} added",
        }[self.mode]
        return f"<llmnb cassette {told}{'' if self.is_open else ', stopped'}>"

    # For the pipeline -------------------------------------------------------------------------------------------------

    def find(self, request: Request) -> Interaction | None:
        """The recorded interaction that answers a request; None when it is to be sent.

        Raises:
            ReplayMiss: there is none, and nothing is to be sent.
        """
        if self.mode == "record":
            return None
        found = self._library.find(request, here())
        if found is None and self.mode == "replay":
            raise self._miss(request)
        if found is not None:
            with self._lock:
                self._replayed += 1
        return found

    def begin(self) -> int:
        """The number of a request that is sent now."""
        with self._lock:
            self._count += 1
            return self._count

    def take(
        self,
        number: int,
        request: Request,
        outcome: Response | Failure,
        *,
        place: Place = NOWHERE,
        source: str = "live",
        retry: bool = False,
    ) -> None:
        """Records what came of a request. Never raises; a file that cannot be written is said once."""
        if self._recorder is None:
            return
        instead = self.mode == "new" and not retry and self._library.times(request) > 0
        one = Interaction(
            number, request, outcome, cell=place.cell, run=place.run, instead=instead, source=source
        )  # fmt: skip
        try:
            self._recorder.add(told(one, self.redaction))  # what was sent has told more of what is secret
            with self._lock:
                self._recorded += 1
        except OSError as error:
            self._not_written(error)

    def _not_written(self, error: OSError) -> None:
        warn_once(
            f"cassette {self.path}",
            f"the cassette {self.path} cannot be written ({error.strerror or error}); your calls go on, but are not "
            "recorded. Free the disk or choose another path, and record again.",
        )

    def _miss(self, request: Request) -> ReplayMiss:
        what = f"{request.method} {request.url}" + (f", {request.model}" if request.model else "")
        times = self._library.times(request)
        if times:
            how_often = "once" if times == 1 else f"{times} times"
            return ReplayMiss(
                f"{self.path} has no more answers to this request ({what}): it was recorded {how_often}, and is asked "
                f"again. {self.way_out}",
                path=str(self.path),
                request=request,
            )
        near = nearest_to(request, self._library.interactions)
        what = f"{self.path} holds no answer to this request ({what})."
        if near is None:
            return ReplayMiss(f"{what} It is empty. {self.way_out}", path=str(self.path), request=request)
        nearest, differences = near
        lines = [f"  {difference}" for difference in differences[:_MOST_DIFFERENCES]]
        if len(differences) > _MOST_DIFFERENCES:
            lines.append(f"  … and {len(differences) - _MOST_DIFFERENCES} more")
        place = f"number {nearest.number} (line {nearest.line}), which differs in"
        message = "\n".join([f"{what} Nearest is {place}:", *lines, self.way_out])
        return ReplayMiss(
            message, path=str(self.path), request=request, nearest=nearest, differences=differences
        )  # fmt: skip


def here() -> Place:
    """The notebook cell that runs, where its id is known."""
    run = origin.cell_run()
    return NOWHERE if run is None else Place(*run)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidRequest(f"{name}={value!r} is none of {', '.join(map(repr, known))}")


def _resolved(mode: Mode, path: Path) -> Literal["replay", "record", "new"]:
    if mode == "auto":
        return "replay" if path.exists() else "record"
    return mode


def _read(path: Path, *, must_exist: bool) -> tuple[Interaction, ...]:
    if not path.exists():
        if not must_exist:
            return ()
        raise CassetteError(
            f"there is no cassette {path}. Record one: `llmnb.record()` in place of `llmnb.replay()`, or "
            '`llmnb.replay(mode="auto")`, which records when there is none.',
            path=str(path),
        )
    known = tape.read(path)
    if known.damaged:
        line, why = next(iter(known.damaged.items()))
        more = f", and {len(known.damaged) - 1} more" if len(known.damaged) > 1 else ""
        warn_once(
            f"cassette {path} is damaged",
            f"line {line} of the cassette {path} cannot be read ({why}){more}; what it held is left out.",
        )
    return known.interactions


def _recorder(path: Path, *, anew: bool) -> tape.Recorder:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path if path.exists() else path.parent, os.W_OK) and not path.is_dir()
    except OSError:
        writable = False
    if not writable:
        raise CassetteError(f"the cassette {path} cannot be written: choose another path", path=str(path))
    if path.exists():
        tape.check(path)  # what somebody meant to be something else is not touched
    return tape.Recorder(path, anew=anew)


# Where it is ----------------------------------------------------------------------------------------------------------


def _path(path: str | os.PathLike[str] | None, mode: str) -> Path:
    if path is not None:
        return Path(path).expanduser().absolute()
    notebook = origin.notebook_path(settings.load())
    if notebook is not None:
        return notebook.with_name(notebook.stem + SUFFIX)
    # a notebook that runs without a front end is told no name
    found = sorted(Path.cwd().glob(f"*{SUFFIX}"))
    if mode in ("replay", "auto", "new") and len(found) == 1:
        return found[0]
    names = f" There are several here: {', '.join(path.name for path in found)}." if len(found) > 1 else ""
    raise InvalidRequest(
        f"which cassette? The name of this notebook is not known here.{names} Give one: "
        f'llmnb.{"record" if mode == "record" else "replay"}("analysis{SUFFIX}").'
    )
