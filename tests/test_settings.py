"""Where a setting comes from, and what happens to one that is misspelled or impossible."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

import llmnb
from llmnb import settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory two levels below a folder that may hold a pyproject.toml; gives that folder."""
    below = tmp_path / "project" / "notebooks" / "week1"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path / "project"


def write_table(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(f"[tool.llmnb]\n{text}\n")


def test_defaults_need_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a variable and without a file every setting has a value, and home is the user's."""
    monkeypatch.delenv("LLMNB_HOME")
    found = settings.load()
    assert found.home == Path("~/.llmnb").expanduser()
    assert found.ledger_path == found.home / "ledger.db"
    assert found.project is None
    assert found.log_content is False


def test_code_wins_over_environment_over_file_over_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source is covered by the one before it, and uncovered again when that one goes."""
    default = settings.load().project
    write_table(project, 'project = "from-file"')
    from_file = settings.load().project
    monkeypatch.setenv("LLMNB_PROJECT", "from-environment")
    from_environment = settings.load().project
    from_code = settings.load(project="from-code").project
    assert (default, from_file, from_environment, from_code) == (None, "from-file", "from-environment", "from-code")


def test_the_nearest_pyproject_counts(project: Path) -> None:
    """A pyproject.toml further up is not looked at when there is one below it."""
    write_table(project, 'project = "far"')
    (project / "notebooks" / "pyproject.toml").write_text('[project]\nname = "near"\n')
    assert settings.find_pyproject() == project / "notebooks" / "pyproject.toml"
    assert settings.load().project is None


def test_misspelled_variable_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMNB_MODLE is an error that names LLMNB_MODEL, not a setting lost in silence."""
    monkeypatch.setenv("LLMNB_MODLE", "claude-opus-5-5")
    with pytest.raises(llmnb.SettingsError, match=r"LLMNB_MODLE: did you mean LLMNB_MODEL\?") as caught:
        settings.load()
    assert caught.value.name == "LLMNB_MODLE"


def test_unknown_variable_far_from_all_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is near, the message lists every variable there is."""
    monkeypatch.setenv("LLMNB_XYZZY_QUUX", "1")
    with pytest.raises(llmnb.SettingsError) as caught:
        settings.load()
    assert all(name in str(caught.value) for name in settings.variables())


def test_misspelled_key_in_pyproject_is_refused_with_the_nearest(project: Path) -> None:
    """The table in pyproject.toml is held to the same spelling as the environment."""
    write_table(project, 'modle = "claude-opus-5-5"')
    with pytest.raises(llmnb.SettingsError, match=r"'modle' in \[tool.llmnb\]: did you mean model\?"):
        settings.load()


def test_misspelled_override_in_code_is_refused() -> None:
    """A keyword of load() that is no setting fails, too."""
    with pytest.raises(llmnb.SettingsError, match="did you mean project"):
        settings.load(projekt="thesis")


def test_variables_of_the_test_suite_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMNB_TEST_* is left to the tests."""
    monkeypatch.setenv("LLMNB_TEST_RECORDINGS", "/somewhere")
    settings.load()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LLMNB_MAX_TOKENS", "0", "greater than or equal to 1"),
        ("LLMNB_MAX_TOKENS", "many", "valid integer"),
        ("LLMNB_CONCURRENCY", "0", "greater than or equal to 1"),
        ("LLMNB_TIMEZONE", "Mars/Olympus", "no IANA timezone"),
        ("LLMNB_STORE_URL", "mysql://localhost/x", "must start with sqlite:///"),
        ("LLMNB_LOG_CONTENT", "perhaps", "valid boolean"),
    ],
)
def test_impossible_value_names_setting_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """The message holds the variable to change, what is wrong, and the value that was given."""
    monkeypatch.setenv(name, value)
    with pytest.raises(llmnb.SettingsError, match=re.escape(says)) as caught:
        settings.load()
    assert name in str(caught.value)
    assert value in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_prices_that_are_no_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMNB_PRICES is JSON; anything else is an error of ours and not a traceback of a parser."""
    monkeypatch.setenv("LLMNB_PRICES", "cheap")
    with pytest.raises(llmnb.SettingsError, match="cannot be read"):
        settings.load()


def test_broken_pyproject_is_refused(project: Path) -> None:
    """A pyproject.toml that is no TOML is a settings error."""
    (project / "pyproject.toml").write_text("[tool.llmnb\n")
    with pytest.raises(llmnb.SettingsError, match="cannot be read"):
        settings.load()


def test_prices_in_pyproject_are_exact_decimals(project: Path) -> None:
    """A price of one's own is read to the digit, keyed by model name."""
    (project / "pyproject.toml").write_text('[tool.llmnb.prices."my-model"]\ninput = "0.1"\noutput = "0.3"\n')
    price = settings.load().prices["my-model"]
    assert (price.input, price.output, price.cache_read) == (Decimal("0.1"), Decimal("0.3"), None)


def test_misspelled_price_is_refused(project: Path) -> None:
    """A price table with a word it does not know would bill wrongly, so it is refused."""
    (project / "pyproject.toml").write_text('[tool.llmnb.prices."m"]\ninput = 1\noutput = 2\ncache_reed = 3\n')
    with pytest.raises(llmnb.SettingsError, match="cache_reed"):
        settings.load()


def test_store_url_moves_the_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """sqlite:/// and an absolute path is where the ledger is, whatever home says."""
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/books.db")
    assert settings.load().ledger_path == tmp_path / "books.db"


def test_home_is_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative home is taken from the working directory once, a tilde from the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMNB_HOME", "books")
    assert settings.load().home == tmp_path / "books"
    monkeypatch.setenv("LLMNB_HOME", "~/books")
    assert settings.load().home == Path("~/books").expanduser()


def test_timezone_is_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named timezone comes back as one; without a name it is the machine's own."""
    assert settings.load().zone is None
    monkeypatch.setenv("LLMNB_TIMEZONE", "Europe/Oslo")
    assert str(settings.load().zone) == "Europe/Oslo"


def test_settings_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed environment counts from the next load on: a kernel lives for days."""
    monkeypatch.setenv("LLMNB_MODEL", "one")
    first = settings.load()
    monkeypatch.setenv("LLMNB_MODEL", "two")
    assert (first.model, settings.load().model) == ("one", "two")


def test_every_variable_is_its_setting_in_capitals() -> None:
    """The list that messages quote is made of the fields themselves."""
    assert settings.variables() == [f"LLMNB_{name.upper()}" for name in settings.Settings.model_fields]


def test_every_variable_is_in_the_readme() -> None:
    """A setting that the README does not name cannot be found."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert [name for name in settings.variables() if f"`{name}`" not in readme] == []


def test_the_readme_names_no_other_variable() -> None:
    """One that is gone would be refused by its name."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert set(re.findall(r"`(LLMNB_[A-Z_]+)`", readme)) == set(settings.variables())
