"""What there is to choose from, at whatever stage of being folded."""

from __future__ import annotations

from contextlib import closing
from zoneinfo import ZoneInfo

import pytest

from llmnb.errors import InvalidRequest
from llmnb.ledger import Ledger, choices, is_empty
from llmnb.ledger.connection import open_writer
from llmnb.ledger.fold import Folder, prune

OSLO = ZoneInfo("Europe/Oslo")


def test_folded_changed_and_new_values(ledger: Ledger, make_call) -> None:
    """Values of folded calls, of their changes since, and of calls that came later, each once; None is the last."""
    first = make_call(project="a", user="ann", notebook="n.ipynb", model=None)
    ledger.write(first)
    ledger.write(make_call(project="b", user="ann", notebook="m.ipynb"))
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        ledger.write(make_call(uid=first.uid, project="c", user="ann", notebook="n.ipynb"))
        ledger.write(make_call(user="bob", notebook=None))
        expected = {
            "project": ["a", "b", "c", None],
            "user": ["ann", "bob"],
            "notebook": ["m.ipynb", "n.ipynb", None],
            "tag": [None],
            "provider": ["anthropic"],
            "model": ["claude-sonnet-5-5", None],
        }
        assert choices(path=ledger.path) == expected
        Folder(connection, OSLO).fold_all()
        assert choices(path=ledger.path) == expected


def test_a_change_tells_no_notebook(ledger: Ledger, make_call) -> None:
    """A call with a notebook that is changed does not make it look as if there were one without."""
    ledger.write(call := make_call(notebook="n.ipynb"))
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        ledger.write(make_call(uid=call.uid, notebook="n.ipynb", output_tokens=1))
        Folder(connection, OSLO).fold_all()
    assert choices(["notebook"], path=ledger.path) == {"notebook": ["n.ipynb"]}


def test_nothing_there(tmp_path, ledger: Ledger, make_call) -> None:
    """No ledger, one without calls, one whose calls were pruned: that one is not empty, its sums are there."""
    assert choices(["tag"], path=tmp_path / "none.db") == {"tag": []}
    assert is_empty(tmp_path / "none.db")
    assert is_empty(ledger.path)
    ledger.write(make_call(ts=1, tag="x"))
    assert not is_empty(ledger.path)
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        list(prune(connection, 10**15))
    assert not is_empty(ledger.path)
    assert choices(["tag"], path=ledger.path) == {"tag": ["x"]}


def test_only_what_is_noted_can_be_asked() -> None:
    """A name that would need a look at all rows is refused, with the nearest that does not."""
    with pytest.raises(InvalidRequest, match="did you mean 'model'"):
        choices(["modell"])
