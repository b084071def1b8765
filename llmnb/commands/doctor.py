"""What `llmnb doctor` looks at: each check answers for itself whether something needs doing, and what.

Nothing here changes anything, prints a key, or goes on the network unless asked to.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import llmnb
from llmnb import cache, connections, settings
from llmnb.cache.browse import ADVICE
from llmnb.errors import InvalidRequest, LlmnbError, MissingExtra, SettingsError
from llmnb.ledger import settle
from llmnb.ledger.connection import why_not_there
from llmnb.network_files import network_filesystem
from llmnb.places import Place, PostgresPlace
from llmnb.providers.known import PROVIDERS, Provider, endpoint, split

if TYPE_CHECKING:
    import anthropic

State = Literal["ok", "note", "fix"]

LEAST_FREE_BYTES = 5_000_000
"""A ledger that is begun, its write-ahead log and the spool take some 0.5 MB before the first checkpoint."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found; `do` is the next step, given when `state` is "fix" or worth a note."""

    name: str
    state: State
    found: str
    do: str | None = None


def examine(*, online: bool = False) -> list[Check]:
    """Looks at everything a working llmnb needs, in the order in which it needs it.

    Args:
        online: also ask the API for its list of models, which costs nothing but goes on the network.
    """
    return [check for room in (*_ROOMS, *([_api] if online else [])) for check in room()]


def healthy(checks: list[Check]) -> bool:
    """Whether nothing needs doing."""
    return all(check.state != "fix" for check in checks)


def _versions() -> Iterator[Check]:
    sdk = importlib.metadata.version("anthropic")
    found = f"llmnb {llmnb.__version__}, anthropic {sdk}, Python {platform.python_version()}"
    yield Check("versions", "ok", found)


def _settings() -> Iterator[Check]:
    try:
        settings.load()
    except SettingsError as error:
        yield Check("settings", "fix", str(error), "correct the name or the value")
    else:
        named = [name for name in settings.variables() if name in os.environ]
        yield Check("settings", "ok", ", ".join([*named, *_table_in_pyproject()]) or "defaults only")


def _table_in_pyproject() -> list[str]:
    file = settings.find_pyproject()
    if file is None or "llmnb" not in tomllib.loads(file.read_text()).get("tool", {}):
        return []
    return [f"[tool.llmnb] of {file}"]


def _credentials() -> Iterator[Check]:
    import anthropic

    try:
        client = anthropic.Anthropic()
    except (anthropic.AnthropicError, ValueError, OSError) as error:
        yield Check("API key", "fix", f"the SDK refuses its configuration: {error}", "correct it, see the message")
        return
    others = [_key_of(provider) for provider in PROVIDERS if any(map(os.environ.get, provider.key_variables))]
    key = _key(client)
    # whoever asks others only needs no key of Anthropic's
    yield replace(key, state="note") if key.state == "fix" and (others or _asks_others()) else key
    yield _base_url(client)
    yield from others


def _key(client: anthropic.Anthropic) -> Check:
    if client.api_key:
        return Check("API key", "ok", "set by ANTHROPIC_API_KEY (not shown)")
    if client.auth_token:
        return Check("API key", "ok", "a token is set by ANTHROPIC_AUTH_TOKEN (not shown)")
    if client.credentials is not None:
        return Check("API key", "ok", "credentials come from a profile of the SDK")
    do = "export ANTHROPIC_API_KEY=sk-ant-…   (`llmnb demo` needs none)"
    return Check("API key", "fix", "none can be found", do)


def _key_of(provider: Provider) -> Check:
    variable = next(name for name in provider.key_variables if os.environ.get(name))
    try:
        address = endpoint(provider, None).base_url
    except InvalidRequest:
        name = provider.base_url_variable
        do = f"set {name} to https://…, or unset it"
        return Check(f"{provider.prefix}: models", "fix", f"{name} is no web address", do)
    return Check(f"{provider.prefix}: models", "ok", f"key set by {variable} (not shown), asked at {address}")


def _asks_others() -> bool:
    try:
        return split(settings.load().model)[0] is not None
    except LlmnbError:  # told elsewhere
        return False


def _base_url(client: anthropic.Anthropic) -> Check:
    url = client.base_url
    if url.scheme not in ("http", "https") or not url.host:
        do = "set ANTHROPIC_BASE_URL to https://…, or unset it"
        return Check("base URL", "fix", f"{str(url)!r} is no web address", do)
    # a password in the address is a secret, too
    shown = str(url.copy_with(userinfo=b"")).rstrip("/")
    return Check("base URL", "ok", shown + (" (ANTHROPIC_BASE_URL)" if os.environ.get("ANTHROPIC_BASE_URL") else ""))


def _ledger() -> Iterator[Check]:
    try:
        path = settings.load().ledger_path
    except SettingsError:
        return  # told above
    settle(path)
    try:
        if not isinstance(path, Path):
            yield _ledger_of_a_team(path)
        elif (kind := network_filesystem(path)) is not None and settings.load().network_store == "refuse":
            yield Check("ledger", "fix", f"{path} lies on a network file system ({kind})", why_not_there(path, kind))
        elif not path.exists():
            yield _ledger_to_be(path)
        else:
            yield _ledger_that_is(path)
    except LlmnbError as error:
        yield Check("ledger", "fix", str(error), "see the message; LLMNB_HOME moves the ledger elsewhere")


def _ledger_to_be(path: Path) -> Check:
    folder = next(parent for parent in path.parents if parent.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return _with_room(Check("ledger", "ok", f"{path} is made with the first call"), folder)
    return Check(
        "ledger", "fix", f"{path} cannot be made: {folder} is not writable", "set LLMNB_HOME to a folder of yours"
    )


def _ledger_of_a_team(place: PostgresPlace) -> Check:
    from llmnb.ledger import migrations

    version, calls = _version_and_calls(place)
    found = f"{place}: {_counted(calls)}, schema {version}"
    if version > migrations.LATEST:
        return Check("ledger", "fix", f"{found} of a newer llmnb", "pip install -U llmnb; until then it is only read")
    return Check("ledger", "ok", found if version else f"{place}: is made with the first call")


def _version_and_calls(place: Place) -> tuple[int, int]:
    from llmnb.ledger import migrations
    from llmnb.ledger.connection import reading

    with reading(place) as connection:
        if connection is None:
            return 0, 0
        return migrations.version(connection), connection.execute("SELECT sum(is_call) FROM calls").fetchone()[0] or 0


def _ledger_that_is(path: Path) -> Check:
    from llmnb.ledger import migrations

    version, calls = _version_and_calls(path)
    found = f"{path}: {_counted(calls)}, {path.stat().st_size / 1e6:,.1f} MB, schema {version}"
    if version > migrations.LATEST:
        return Check("ledger", "fix", f"{found} of a newer llmnb", "pip install -U llmnb; until then it is only read")
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return Check(
            "ledger", "fix", f"{found}, not writable", "make it writable, or set LLMNB_HOME to a folder of yours"
        )
    if path.stat().st_mode & 0o077:
        return Check("ledger", "note", f"{found}, readable by others", f"chmod 600 {path}")
    return _with_room(Check("ledger", "ok", found), path.parent)


def _counted(calls: int) -> str:
    return f"{calls:,} call{'' if calls == 1 else 's'}"


def _with_room(check: Check, folder: Path) -> Check:
    """The check, or what to do where the disk is about to be full."""
    free = shutil.disk_usage(folder).free
    if free >= LEAST_FREE_BYTES:
        return check
    found = f"{check.found}, and the disk is full: {free / 1e6:,.1f} MB are free"
    return replace(check, state="fix", found=found, do="free some disk space, or set LLMNB_HOME to another disk")


def _cache() -> Iterator[Check]:
    try:
        chosen = settings.load()
    except SettingsError:
        return  # told above
    try:
        found = cache.stats(settings=chosen)
    except LlmnbError as error:
        yield _cache_out_of_reach(chosen, error)
        return
    limit = "no limit of ours" if found.limit_bytes is None else f"of {found.limit_bytes / 2**20:,.0f} MiB"
    plural = "" if found.answers == 1 else "s"
    told = f"{found.where}: {found.answers:,} answer{plural}, {found.bytes / 2**20:,.1f} MiB, {limit}"
    if chosen.cache == "off":
        do = "to have what was asked before for nothing: unset it, or set it to on"
        yield Check("cache", "note", f"off (LLMNB_CACHE); {told}", do)
    elif chosen.cache_url is not None:
        yield Check("cache", "ok", told)
    else:
        yield _cache_folder(chosen.cache_folder, told)


def _cache_out_of_reach(chosen: settings.Settings, error: LlmnbError) -> Check:
    said = str(error).removesuffix(f" {ADVICE}")
    if isinstance(error, MissingExtra):
        return Check("cache", "fix", str(error), "pip install 'llmnb[redis]', or unset LLMNB_CACHE_URL")
    if chosen.cache_url is not None:
        do = "start the server or correct LLMNB_CACHE_URL; until then calls go on, and are paid again"
        return Check("cache", "fix", said, do)
    do = f"delete {chosen.cache_folder}, or make it yours; until then calls go on, and are paid again"
    return Check("cache", "fix", said, do)


def _cache_folder(folder: Path, told: str) -> Check:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        do = "make it writable, or set LLMNB_HOME to a folder of yours; until then nothing new is kept"
        return Check("cache", "fix", f"{told}, and {there} is not writable", do)
    if there != folder:
        return Check("cache", "ok", f"{folder} is made with the first answer")
    if folder.stat().st_mode & 0o077 and os.name == "posix":
        return Check("cache", "note", f"{told}, readable by others", f"chmod 700 {folder}")
    return Check("cache", "ok", told)


def _prices() -> Iterator[Check]:
    yield Check("prices", "ok", f"genai-prices {importlib.metadata.version('genai-prices')}")


def _notebook() -> Iterator[Check]:
    if importlib.util.find_spec("jupyter_core") is None:
        yield Check("Jupyter", "note", "not installed here", "pip install 'llmnb[notebook]', or any Jupyter of yours")
        return
    from jupyter_core.paths import jupyter_path

    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    missing = [name for name in ("@jupyter-widgets/jupyterlab-manager", "anywidget") if not _any(folders, name)]
    if missing:
        found = f"front-end extension missing: {', '.join(missing)}"
        do = "pip install ipywidgets anywidget in the environment that runs JupyterLab"
        yield Check("live view", "fix", found, do)
    else:
        yield Check("live view", "ok", "the front-end extensions for JupyterLab are installed")


def _any(folders: list[Path], name: str) -> bool:
    return any((folder / name / "package.json").is_file() for folder in folders)


EXTRAS = {
    "openai": ("openai",),
    "dashboard": ("streamlit", "altair"),
    "notebook": ("jupyterlab", "ipykernel", "nbclient", "nbformat"),
}
"""What each extra brings, by the names it is imported under."""


def _connections() -> Iterator[Check]:
    try:
        known = settings.load()
    except SettingsError:  # told above
        return
    yield Check(
        "connections", "ok", f"those of async clients, such as a run's over many rows: {connections.described(known)}"
    )


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            found = f"not installed: {', '.join(missing)}"
            yield Check(f"extra {extra}", "note", found, f"pip install 'llmnb[{extra}]'")
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _api() -> Iterator[Check]:
    import anthropic

    try:
        models = anthropic.Anthropic(max_retries=1, timeout=10).models.list(limit=1)
    except (anthropic.AnthropicError, TypeError) as error:  # the SDK raises TypeError without any key
        yield Check("API", "fix", f"it does not answer as it should: {error}", "check key, base URL and network")
    else:
        found = f"answers, and lists {models.data[0].id}" if models.data else "answers, and lists no model"
        yield Check("API", "ok", found)


_ROOMS: tuple[Callable[[], Iterator[Check]], ...] = (
    _versions,
    _settings,
    _credentials,
    _connections,
    _ledger,
    _cache,
    _prices,
    _notebook,
    _extras,
)
