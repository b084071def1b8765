"""Makes the project's virtual environment and installs llmnb with everything its development needs into it.

The Makefile calls it with the system's Python. pip installs uv and uv the rest, ten times as fast. uv does not read
pip's configuration, so it is handed over in uv's own words; where a setting has none, or uv fails, pip does the work.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

OLDEST = (3, 11)
PROJECT = Path(__file__).resolve().parent.parent

UV_WORDS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "constraint": "UV_CONSTRAINT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
COMMA_SEPARATED = {"UV_FIND_LINKS"}
HARMLESS = {
    "break-system-packages", "cache-dir", "disable-pip-version-check", "format", "no-cache-dir", "no-color",
    "no-input", "no-python-version-warning", "no-warn-script-location", "prefer-binary", "progress-bar", "quiet",
    "require-virtualenv", "retries", "root-user-action", "upgrade-strategy", "use-deprecated", "use-feature", "verbose",
    "no-compile", "compile", "user",
}  # fmt: skip


def pip_settings(listing: str) -> dict[str, str]:
    """The settings in the output of `pip config list`, merged as pip does for `install`."""
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    return settings


def uv_environment(settings: dict[str, str]) -> dict[str, str] | None:
    """The same settings as environment variables of uv, or None when uv has no word for one of them."""
    if set(settings) - set(UV_WORDS) - HARMLESS:
        return None
    # pip takes the best version of all indexes; uv would stop at the first index that has the package
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name, value in settings.items():
        if name in UV_WORDS:
            variable = UV_WORDS[name]
            found[variable] = ("," if variable in COMMA_SEPARATED else " ").join(value.split())
    return found


def install(python: Path, *what: str, by: Path | None = None) -> None:
    """Installs `what` for `python`: with uv where it can be told everything pip knows, else with pip.

    The two are those of `python` itself, or of the Python `by`.
    """
    pip = [str(by or python), "-m", "pip"]
    listing = subprocess.run([*pip, "config", "list"], check=True, capture_output=True, text=True).stdout
    environment = uv_environment(pip_settings(listing))
    if environment is not None:
        subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
        uv = [str(by or python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
        if subprocess.run([*uv, *what], env={**environment, **os.environ}).returncode == 0:
            return
        print("uv could not install everything; trying again with pip", file=sys.stderr)
    pip += ["--python", str(python)] if by else []
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", *what], check=True)


def main(folder: str) -> None:
    """Makes the virtual environment `folder` unless it is there, and installs the project into it."""
    if sys.version_info < OLDEST:
        sys.exit(f"llmnb needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.12 test")
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv")
    python = Path(folder).absolute() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install(python, "--constraint", str(PROJECT / "tools" / "constraints.txt"), "--editable", f"{PROJECT}[dev]")


if __name__ == "__main__":
    main(sys.argv[1])
