"""A path is on the filesystem that is mounted deepest above it, the later one of two at the same point."""

from pathlib import Path

import pytest

from lifealign.storage.mounts import network_filesystem

MOUNTS = r"""/dev/vda / ext4 rw 0 0
/dev/vdb /home/local ext4 rw 0 0
server:/home /home nfs4 rw 0 0
//server/share /mnt/two\040words cifs rw 0 0
cluster:/scratch /scratch lustre rw 0 0
tmpfs /scratch/hidden tmpfs rw 0 0
cluster:/hidden /scratch/hidden lustre rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("/var/cache", None),
        ("/home", "nfs4"),
        ("/home/ann/.cache", "nfs4"),
        ("/homes", None),
        ("/home/local/x", None),
        ("/home/local/../ann", "nfs4"),
        ("/mnt/two words/life", "cifs"),
        ("/mnt/two", None),
        ("/scratch/life", "lustre"),
        ("/scratch/hidden/life", "lustre"),
    ],
)
def test_the_deepest_mount_decides(tmp_path: Path, path: str, kind: str | None) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert network_filesystem(Path(path), mounts) == kind


def test_a_system_that_does_not_say_is_not_accused(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "nowhere") is None
