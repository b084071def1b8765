"""The books of this process: one set for each ledger, with its place for what waits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llmnb import forks
from llmnb.ledger.bookkeeping import Books
from llmnb.ledger.upkeep import Upkeep
from llmnb.ledger.writer import open_ledger
from llmnb.places import Place
from llmnb.settings import Settings, load

_shelf: forks.OnePerPlace[tuple[Place, Path], Books] = forks.OnePerPlace()


def books(settings: Settings | None = None) -> Books:
    """The books of this process for the ledger of the settings; nothing is opened before the first record."""
    chosen = settings or load()
    place, folder = chosen.ledger_path, spool_folder(chosen)

    def new() -> Books:
        upkeep = Upkeep(lambda: open_ledger(place), chosen)
        return Books(
            lambda: open_ledger(place),
            folder,
            prices=chosen.prices,
            behind=True,
            remote=not isinstance(place, Path),
            wrote=upkeep.wrote,
        )

    return _shelf.at((place, folder), new)


def spool_folder(settings: Settings) -> Path:
    """Where rows wait. Each ledger has a spool of its own: what waits for one must not be written into another."""
    folder, path = settings.home / "spool", settings.ledger_path
    if path == settings.home / "ledger.db":
        return folder
    return folder / hashlib.sha256(str(path).encode()).hexdigest()[:16]


def settle(path: Place) -> None:
    """Writes into the ledger at `path` what is still to be written, so that it can be read there.

    That is what this process has not written yet, and what processes left that have died, such as the workers of a
    pool: they end without any farewell.
    """
    chosen = load()
    if chosen.ledger_path == path and spool_folder(chosen).exists():
        books(chosen)
    for (ledger_path, _), found in list(_shelf.known.items()):
        if ledger_path == path:
            if found.has_work:
                found.settle()
            found.adopt()
