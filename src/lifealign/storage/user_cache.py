"""The user's cache folder: what is expensive to compute on this machine and can always be computed again."""

from __future__ import annotations

import os
from pathlib import Path

from lifealign.storage.home import with_home

CACHE_VARIABLE = "LIFEALIGN_CACHE"
"""Environment variable that names another folder."""


def user_cache() -> Path:
    """Folder of the user's cache; it need not exist, and deleting it costs time and nothing else.

    ``LIFEALIGN_CACHE``, else ``lifealign`` in ``XDG_CACHE_HOME``, else ``~/.cache/lifealign``.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return with_home(named).absolute()
    return with_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache").absolute() / "lifealign"
