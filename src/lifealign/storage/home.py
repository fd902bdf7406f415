"""The home folder in a path that somebody wrote."""

from __future__ import annotations

import os.path
from pathlib import Path


def with_home(path: str | Path) -> Path:
    """A path with ``~`` or ``~name`` at its beginning replaced, as a shell does it.

    A user that does not exist, or a home that cannot be found, leaves the path as it is; ``Path.expanduser`` raises a
    ``RuntimeError``. What reads the path then says that there is no such file.

    Example:
        >>> with_home("~no-such-user/file").as_posix()
        '~no-such-user/file'
    """
    return Path(os.path.expanduser(path))
