"""A hub without a network: models in its cache, laid out as `huggingface_hub` does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import huggingface_hub.constants
import pytest


class Hub:
    """The commits of the model ``org/tiny``, and the names that point at them.

    Args:
        folder: Where to make the cache.
        commits: The folder of each commit.
        monkeypatch: Makes it the hub of this process.
    """

    name = "org/tiny"

    def __init__(self, folder: Path, commits: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "models--org--tiny"
        for part in ("refs", "snapshots"):
            (self.folder / part).mkdir(parents=True)
        for commit, model in commits.items():
            (self.folder / "snapshots" / commit).symlink_to(model, target_is_directory=True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def point(self, name: str, commit: str) -> None:
        """Points a tag or branch at a commit."""
        (self.folder / "refs" / name).write_text(commit)
