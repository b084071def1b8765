"""Copies: whole, exact and repeatable, from a file into a team's database and back."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from llmnb.budgeting import set_budget, statuses
from llmnb.commands.main import app
from llmnb.errors import InvalidRequest, StoreError
from llmnb.ledger import Store, calls, copying, new_ledger, usage
from llmnb.ledger.copying import Copied, copy
from llmnb.ledger.fold import Folder, prune
from llmnb.ledger.zones import start_of_day_us
from llmnb.places import Place, PostgresPlace
from llmnb.records import Call

from .test_rollups import DAY_US, FIRST_US, random_calls

UTC = ZoneInfo("UTC")


@pytest.fixture(autouse=True)
def portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, so that there are several."""
    monkeypatch.setattr(copying, "ROWS", 20)
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")


def copied(source: Place, target: Place) -> Copied:
    """What the whole copy came to."""
    *_, last = copy(source, target)
    return last


def figures(place: Place) -> list[list[dict[str, Any]]]:
    """What can be asked of a ledger, exactly."""
    asked = [[], ["model"], ["day", "project"], ["user", "tag"], ["hour"]]
    return [
        json.loads(usage(by=by, path=place, percentiles=False).to_json(orient="records", date_format="iso"))
        for by in asked
    ]


def filled(store: Store, seed: int = 1) -> list[Call]:
    """Many kinds of calls, some with children, and a text that only SQLite can hold."""
    rows = {call.uid: replace(call, is_call=True) for call in random_calls(seed, 120) if call.status != "running"}
    for call in rows.values():
        store.write(call)
    parent = next(iter(rows.values()))
    store.write(parent, [replace(parent, uid="child", parent_uid=parent.uid, is_call=False, cost_nanousd=7)])
    store.write(replace(parent, uid="odd", content='{"prompt": "🙂 \\u0000"}', template="a\tb'c\\d%s"))
    return list(rows.values())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here" / "ledger.db"


def test_there_and_back(here: Path, postgres: PostgresPlace, tmp_path: Path) -> None:
    """A file into a database and that into another file: all rows, fields and sums are the same."""
    with closing(new_ledger(here)) as ledger:
        filled(ledger)
    last = copied(here, postgres)
    assert last.rows == last.written == len(calls(path=here, children=True))
    back = tmp_path / "back.db"
    copied(postgres, back)
    assert figures(here) == figures(postgres) == figures(back)
    first, second = (
        calls(path=path, children=True, content=True).sort_values("uid", ignore_index=True) for path in (here, back)
    )
    assert first.equals(second)
    assert last.cost_nanousd == figures(here)[0][0]["cost_nanousd"]


def test_again_writes_only_what_is_new(here: Path, postgres: PostgresPlace, make_call) -> None:
    """As a copy that was interrupted goes on."""
    with closing(new_ledger(here)) as ledger:
        rows = filled(ledger)
        steps = copy(here, postgres)
        assert next(steps).written == 20
        assert next(steps).written == 40
        steps.close()
        whole = copied(here, postgres)
        assert whole.written == whole.rows - 40
        assert copied(here, postgres) == replace(whole, written=0)
        ledger.write(make_call(uid="new"))
        ledger.write(replace(rows[3], cost_nanousd=5, status="ok", attempts=9))
        assert copied(here, postgres).written == 2
    assert figures(here) == figures(postgres)


def test_what_the_target_has_beside_it_and_what_it_knows_better_stay(
    here: Path, postgres: PostgresPlace, make_call
) -> None:
    """Two ledgers of a team can go into one."""
    with closing(new_ledger(here)) as ledger, closing(new_ledger(postgres)) as team:
        ledger.write(make_call(uid="mine", status="running", cost_nanousd=None))
        team.write(make_call(uid="theirs"))
        team.write(make_call(uid="mine"))
        assert copied(here, postgres) == Copied(rows=1, written=0, newer=1)
    assert sorted(calls(path=postgres)["status"]) == ["ok", "ok"]


@pytest.mark.parametrize("folds", [True, False])
def test_what_was_pruned_keeps_its_sums(here: Path, postgres: PostgresPlace, folds: bool) -> None:
    """Also with late rows for the time that was pruned, whether they were folded or not."""
    with closing(new_ledger(here)) as ledger:
        filled(ledger)
        with ledger.upkeep() as connection:
            folder = Folder(connection, UTC)
            folder.fold_all()
            for _ in prune(connection, start_of_day_us(FIRST_US + 5 * DAY_US, UTC)):
                pass
            late = [replace(call, uid=f"late-{call.uid}", status="ok") for call in random_calls(2, 30)]
            ledger.write_all([(call, ()) for call in late])
            if folds:
                folder.fold_all()
    wanted = figures(here)
    for target in (postgres, here.with_name("second.db")):
        last = copied(here, target)
        assert last.pruned > 0
        assert figures(target) == wanted
        assert copied(here, target) == replace(last, written=0, pruned=0)
        with closing(new_ledger(target)) as ledger, ledger.upkeep() as connection:
            Folder(connection, UTC).fold_all()
        assert figures(target) == wanted
    copied(postgres, here.with_name("third.db"))
    assert figures(here.with_name("third.db")) == wanted


def test_budgets_come_with_what_was_spent(
    here: Path, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch, make_call
) -> None:
    """Once; and what is written afterwards counts."""
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{here}")
    with closing(new_ledger(here)) as ledger:
        ledger.write(make_call(project="thesis"))
        set_budget(usd=5, per="total", project="thesis")
        set_budget(tokens=500, per="total", action="warn")
    before = [status.row()[1:] for status in statuses()]
    assert copied(here, postgres).budgets == 2
    assert copied(here, postgres).budgets == 0
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    assert [status.row()[1:] for status in statuses()] == before
    with closing(new_ledger(postgres)) as team:
        team.write(make_call(project="thesis"))
    assert statuses()[0].spent_amount == 440_000


def test_the_command_says_what_it_did(here: Path, postgres: PostgresPlace, make_call) -> None:
    """With the sum, to the nano-dollar, and without a password."""
    with closing(new_ledger(here)) as ledger:
        ledger.write(make_call(cost_nanousd=1_234_567_891))
    url = postgres.url.replace("postgres@", "postgres:sesame@")
    said = CliRunner().invoke(app, ["ledger", "copy", "--from", f"sqlite:///{here}", "--to", url]).output
    assert "1 rows of" in said
    assert "All sums are equal, to the token and the nano-dollar: $1.234567891." in said
    assert "sesame" not in said
    again = CliRunner().invoke(app, ["ledger", "copy", "--from", f"sqlite:///{here}", "--to", url, "--json"])
    assert json.loads(again.output)["written"] == 0


def test_what_cannot_be_copied_is_said(here: Path, tmp_path: Path) -> None:
    """The same ledger, none, and one of something else."""
    with pytest.raises(InvalidRequest, match="into itself"):
        next(copy(here, here))
    with pytest.raises(InvalidRequest, match="no ledger at"):
        next(copy(here, tmp_path / "b.db"))
    (tmp_path / "text.db").write_text("hello, this is no database at all, but rather long" * 20)
    with pytest.raises(StoreError):
        next(copy(tmp_path / "text.db", here))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_large_ledger(here: Path, postgres: PostgresPlace, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand rows, in portions of the usual size."""
    monkeypatch.undo()
    dice = random.Random(3)
    with closing(new_ledger(here)) as ledger:
        for _ in range(50):
            ledger.write_all([(make_call(cost_nanousd=dice.randrange(10**9)), ()) for _ in range(2_000)])
    assert copied(here, postgres).written == 100_000
    assert figures(here) == figures(postgres)
