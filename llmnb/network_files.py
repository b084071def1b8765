"""Tells whether a file lies on a file system that other machines share, where SQLite's locks and its log cannot hold.

SQLite's write-ahead log is shared memory, which two machines do not have, and many servers only pretend to lock
(https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
"""Linux's table of what is mounted where; on other systems nothing is known."""

NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "vmhgfs", "wekafs",
    *(f"fuse.{name}" for name in (
        "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "davfs", "davfs2", "gcsfuse", "glusterfs", "goofys", "juicefs",
        "mount-s3", "rclone", "s3fs", "sshfs", "vmhgfs-fuse",
    )),
})  # fmt: skip
"""The types of such file systems, as the table names them."""


def network_filesystem(path: Path) -> str | None:
    """The type of the network file system that a file lies on or would lie on; None where it lies on none."""
    kind = filesystem(path)
    return kind if kind in NETWORK else None


def filesystem(path: Path) -> str | None:
    """The type of the file system that a file lies on or would lie on; None where that cannot be told."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    where, found = path.resolve(), None
    longest = -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        at = Path(_unescaped(fields[1]))
        # of two at the same place the later one lies above
        if (at == where or at in where.parents) and len(at.parts) >= longest:
            longest, found = len(at.parts), fields[2]
    return found


def _unescaped(text: str) -> str:
    """A blank is written \\040, as are others that would break the table."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
