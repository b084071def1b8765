"""The only reader of LLMNB_* variables and of [tool.llmnb] in the nearest pyproject.toml.

Order, first wins: what is passed in code, the environment, pyproject.toml, the defaults. An unknown name is refused,
with the nearest known one, so that a misspelled setting cannot be lost in silence. The variables of the SDK
(ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, …) stay the SDK's own.
"""

from __future__ import annotations

import difflib
import json
import os
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from llmnb.errors import SettingsError
from llmnb.places import Place, PostgresPlace, place_of

PREFIX = "LLMNB_"
TEST_PREFIX = "LLMNB_TEST_"
"""Variables with this prefix belong to llmnb's own test-suite and are no settings."""


class PriceOverride(BaseModel):
    """A price of the user's own for one model, in dollars per million tokens; it wins over genai-prices.

    `cache_read`, `cache_write_5m` and `cache_write_1h` default to `input`: without a published discount the plain input
    price is what a provider that does not know caching bills. `web_search` is dollars per thousand requests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cache_read: Decimal | None = Field(default=None, ge=0)
    cache_write_5m: Decimal | None = Field(default=None, ge=0)
    cache_write_1h: Decimal | None = Field(default=None, ge=0)
    web_search: Decimal = Field(default=Decimal(0), ge=0)


class Settings(BaseSettings):
    """Everything that can be set, with its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, pyproject_toml_table_header=("tool", "llmnb")
    )

    home: Path = Path("~/.llmnb")
    """Folder of the ledger, the caches and the spool; created with mode 0700."""
    store_url: str | None = Field(default=None, repr=False)
    """Where the ledger lives: sqlite:///absolute/path.db, or postgresql://user@host/database for a team; unset:
    ledger.db in `home`."""
    network_store: Literal["refuse", "allow"] = "refuse"
    """Whether a ledger file on a network file system is written: SQLite can lose rows there, or damage it."""
    model: str = "claude-sonnet-5-5"
    """The model used where none is named."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Default max_tokens; unset: the smaller of the model's limit and 8,192."""
    project: str | None = None
    """Project written on every ledger row that names none."""
    user: str | None = None
    """User written on every ledger row; unset: JUPYTERHUB_USER, else the login."""
    notebook: str | None = None
    """Notebook written on every ledger row; unset: found out from Jupyter."""
    display: str | None = None
    """How answers are shown: widget, html, terminal, static, print, none; unset: what fits where the code runs."""
    concurrency: int = Field(default=16, ge=1)
    """How many requests of one process may be under way at once."""
    timeout_s: float | None = Field(default=None, gt=0)
    """The longest silence of the API, in seconds: until it answers, and between two events of a stream, which may take
    any time in all; unset: the SDK's own, ten minutes."""
    transport: Literal["auto", "httpx"] = "auto"
    """The connections of async clients: aiohttp's where it is installed and there is no proxy, or the SDK's own."""
    pacing: Literal["on", "off"] = "on"
    """Whether calls are held back when the API says that an account's limits are near, instead of running into 429s."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The most requests a minute with one model, of all processes on this store; unset: what the API says."""
    input_tokens_per_minute: int | None = Field(default=None, ge=1)
    """The most input tokens a minute with one model, without those read from the prompt cache."""
    output_tokens_per_minute: int | None = Field(default=None, ge=1)
    """The most output tokens a minute with one model."""
    longest_retry_wait_s: float = Field(default=60.0, gt=0)
    """The longest wait, in seconds, before the SDK repeats a failed request; the API may ask for hours."""
    cache: Literal["on", "off", "all"] = "on"
    """The response cache of `LLM` and `Chat`: on, off (also for what code asks for), or all, which keeps the answers of
    server tools such as web search, too."""
    cache_url: str | None = None
    """Where the response cache lives: redis://host:6379/0, rediss:// or unix://; unset: the folder cache in `home`."""
    cache_limit: ByteSize = Field(default=ByteSize(2**30), ge=2**20)
    """How large the folder may grow before what was used least recently goes, such as 500MB or 2GiB."""
    prompt_cache: Literal["5m", "1h", "auto", "off"] = "auto"
    """How `LLM` and `Chat` use the API's prompt cache: five minutes, an hour, where it is likely to pay, or not."""
    log_content: bool = False
    """Write prompts and answers into the ledger, too."""
    timezone: str | None = None
    """IANA name of the timezone in which days, weeks and months are cut; unset: the machine's own."""
    budgets: Literal["on", "off"] = "on"
    """Whether budgets are kept; off lets every call pass, for when the ledger is broken and a deadline is near."""
    budget_webhook: str | None = None
    """An http(s) address that is sent a POST when 50, 80 or 100 % of a budget is spent; unset: none is."""
    dashboard_password: str | None = Field(default=None, repr=False)
    """What the dashboard asks for, as it is (in the environment only) or as the hash that `llmnb dashboard
    --hash-password` prints; unset: nothing, and it can be reached from this machine only."""
    dashboard_users: str | None = None
    """Who may see the dashboard after `st.login` (OIDC): addresses such as ann@example.org, or @example.org for all of
    them, with commas between them."""
    prices: dict[str, PriceOverride] = Field(default_factory=dict)
    """Prices of your own by model name; they win over genai-prices, and over those of the file prices.json in `home`,
    which `llmnb.pricing.own` writes."""

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("timezone", mode="after")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except Exception:
                raise ValueError(f"{value!r} is no IANA timezone, such as 'Europe/Oslo' or 'UTC'") from None
        return value

    @field_validator("cache", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        words = {"true": "on", "1": "on", "yes": "on", "false": "off", "0": "off", "no": "off"}
        return words.get(str(value).lower(), str(value).lower())

    @field_validator("cache_url", mode="after")
    @classmethod
    def _known_cache(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://; unset it for the folder")
        return value

    @field_validator("store_url", mode="after")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is not None:
            place_of(value)
        return value

    @field_validator("budget_webhook", mode="after")
    @classmethod
    def _known_webhook(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with https:// or http://")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls, find_pyproject())

    @property
    def ledger_path(self) -> Place:
        """Where the ledger is: its file, or the database of a team."""
        return self.home / "ledger.db" if self.store_url is None else place_of(self.store_url)

    @property
    def prices_path(self) -> Path:
        """The file of the prices that were set by command or in the dashboard."""
        return self.home / "prices.json"

    @property
    def cache_folder(self) -> Path:
        """The folder of the response cache."""
        return self.home / "cache"

    @property
    def zone(self) -> ZoneInfo | None:
        """The timezone in which days are cut; None is the machine's own."""
        return ZoneInfo(self.timezone) if self.timezone else None


def find_pyproject(start: Path | None = None) -> Path | None:
    """The nearest pyproject.toml at or above `start` (default: the working directory), or None."""
    try:
        folder = (start or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was deleted
        return None
    for candidate in (folder, *folder.parents):
        if (candidate / "pyproject.toml").is_file():
            return candidate / "pyproject.toml"
    return None


def load(**overrides: Any) -> Settings:
    """The settings in force here and now, read anew: a changed environment counts from the next call on.

    Raises:
        SettingsError: a name is unknown or a value impossible.
    """
    if overrides:
        return _with_own_prices(_read(overrides))
    read_from = _read_from()
    known = _last.get(read_from)
    if known is None:
        known = _read({})
        _last.clear()
        _last[read_from] = known
    return _with_own_prices(known)


_last: dict[tuple[object, ...], Settings] = {}
"""The settings read last, by all that they were read from: to read them takes milliseconds, and to compare a tenth."""


def _read_from() -> tuple[object, ...]:
    """All that the settings come from."""
    found = find_pyproject()
    try:
        text = None if found is None else found.read_bytes()
    except OSError as error:
        raise SettingsError(f"the settings cannot be read: {error}") from None
    mine = [pair for pair in os.environ.items() if pair[0].upper().startswith((PREFIX, "HOME", "USERPROFILE"))]
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was deleted
        folder = None
    return (tuple(sorted(mine)), folder, text)


def _read(overrides: dict[str, Any]) -> Settings:
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise _explained(error) from None
    except (OSError, ValueError) as error:  # pyproject.toml that cannot be read, or JSON that is none
        raise SettingsError(f"the settings cannot be read: {error}") from None


def own_prices(path: Path) -> dict[str, PriceOverride]:
    """The prices of a prices.json; none where there is no file.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        if not os.access(path.parent, os.X_OK):
            return {}  # a home that may not be entered is told of where it is written to, and holds no call up
        raise SettingsError(f"the prices in {path} cannot be read ({error})") from None
    return _prices_in(text, path)


@lru_cache(maxsize=8)
def _prices_in(text: bytes, path: Path) -> dict[str, PriceOverride]:
    try:
        return {name: PriceOverride.model_validate(price) for name, price in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise SettingsError(f"the prices in {path} cannot be read ({error}): mend or delete the file") from None


def _with_own_prices(settings: Settings) -> Settings:
    own = own_prices(settings.prices_path)
    return settings.model_copy(update={"prices": {**own, **settings.prices}}) if own else settings


def variables() -> list[str]:
    """The names of all environment variables llmnb reads."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def _refuse_unknown_variables() -> None:
    known = set(variables())
    for name in os.environ:
        # LLMNB_PRICES holds JSON; nested variables (LLMNB_PRICES__…) are not offered
        if name.upper().startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name.upper() not in known:
            raise SettingsError(_unknown(f"environment variable {name}", name.upper(), sorted(known)), name=name)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."
    return f"unknown {what}: {hint}"


def _explained(error: ValidationError) -> SettingsError:
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        message = _unknown(f"setting {name!r} in [tool.llmnb]", name, sorted(Settings.model_fields))
        return SettingsError(message, name=name)
    given = first["input"]
    if isinstance(given, str) and "://" in given:
        given = str(PostgresPlace(given))  # without its password
    said = first["msg"].removeprefix("Value error, ")  # which pydantic writes before the words of our own checks
    return SettingsError(f"setting {name!r} ({PREFIX}{name.upper()} or [tool.llmnb]): {said}, not {given!r}", name=name)
