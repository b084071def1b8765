"""File systems that other machines share: found in the table of mounts, and no place for a ledger of SQLite's."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmnb import network_files
from llmnb.commands import doctor
from llmnb.errors import StoreError
from llmnb.ledger import Ledger, calls
from llmnb.network_files import filesystem, network_filesystem
from llmnb.settings import load

TABLE = """\
overlay / overlay rw,relatime 0 0
proc /proc proc rw 0 0
/dev/sda1 /home ext4 rw 0 0
server:/homes /home/ann nfs4 rw,vers=4.2 0 0
//nas/share /home/bob/big\\040share cifs rw 0 0
ann@host: /home/bob/remote fuse.sshfs rw 0 0
/dev/mapper/vault /home/bob/vault fuse.gocryptfs rw 0 0
tank /scratch lustre rw 0 0
systemd-1 /auto autofs rw 0 0
server:/auto /auto nfs rw 0 0
broken line
"""


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of mounts."""
    path = tmp_path / "mounts"
    path.write_text(TABLE)
    monkeypatch.setattr(network_files, "MOUNTS", path)
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ann/.llmnb/ledger.db", "nfs4"),
        ("/home/anna/.llmnb/ledger.db", None),
        ("/home/bob/big share/ledger.db", "cifs"),
        ("/home/bob/remote/../.llmnb/ledger.db", None),
        ("/home/bob/remote/ledger.db", "fuse.sshfs"),
        ("/home/bob/vault/ledger.db", None),
        ("/scratch/ann/ledger.db", "lustre"),
        ("/auto/ledger.db", "nfs"),
        ("/ledger.db", None),
    ],
)
def test_the_nearest_mount_counts(path: str, kind: str | None) -> None:
    """Also of a file that is not there yet."""
    assert network_filesystem(Path(path)) == kind


def test_without_a_table_nothing_is_known(mounts: Path) -> None:
    """As on a Mac."""
    mounts.unlink()
    assert filesystem(Path("/home/ann/ledger.db")) is None


def test_a_link_is_followed(tmp_path: Path, mounts: Path) -> None:
    """A home that only looks local."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts.write_text(f"server:/x {tmp_path}/far nfs rw 0 0\n")
    assert network_filesystem(tmp_path / "near" / "ledger.db") == "nfs"


def test_a_ledger_there_is_refused_with_advice(tmp_path: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made; one setting lets it be written all the same, and what is there can always be read."""
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    path = load().ledger_path
    assert isinstance(path, Path)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*LLMNB_STORE_URL.*postgresql://"):
        Ledger(path)
    assert not path.exists()
    ledger_checks = list(doctor._ledger())  # pyright: ignore[reportPrivateUsage]
    assert [check.state for check in ledger_checks] == ["fix"]
    monkeypatch.setenv("LLMNB_NETWORK_STORE", "allow")
    Ledger(path).close()
    monkeypatch.delenv("LLMNB_NETWORK_STORE")
    assert calls(path=path).empty
