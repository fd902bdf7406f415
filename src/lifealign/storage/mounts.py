"""Which filesystem a path is on, because locks do not hold on every one."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from lifealign.storage.home import with_home

MOUNTS = Path("/proc/mounts")
NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
"""Filesystems that several machines share, as Linux names them."""


def network_filesystem(path: Path, mounts: Path = MOUNTS) -> str | None:
    """Name of the network filesystem that a path is on; None if it is on none, or the system does not say.

    Args:
        path: A path; it need not exist.
        mounts: Where Linux lists what is mounted; elsewhere there is no such file.
    """
    place, deepest, kind = with_home(path).resolve(), Path("/"), ""
    with suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").splitlines():
            device_point_kind = line.split()[:3]
            if len(device_point_kind) < 3:
                continue
            point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), device_point_kind[1]))
            if (point == place or point in place.parents) and len(point.parts) >= len(deepest.parts):
                deepest, kind = point, device_point_kind[2]  # of two mounts at one point, the later one is seen
    return kind if kind in NETWORK else None
