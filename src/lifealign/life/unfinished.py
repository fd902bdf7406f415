"""What an interrupted command has left to be done, done by the next one that writes to the life."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lifealign.life.decisions import decisions_of
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import Manifest
from lifealign.life.disk.measurements import update_scores
from lifealign.life.disk.progress_files import remove_finished_checkpoint
from lifealign.storage.files import write_sealed_json
from lifealign.storage.inside import below, remove, remove_tree


@contextmanager
def locked(directory: LifeDirectory) -> Iterator[None]:
    """Holds a life for writing, after finishing what an interrupted command has begun.

    Raises:
        LifeError: For the reasons given in :meth:`LifeDirectory.lock`, or if what quotes a forgotten task cannot be
            deleted.
    """
    with directory.lock():
        finish_forgetting(directory)
        remove_finished_checkpoint(directory)
        yield


def finish_forgetting(directory: LifeDirectory) -> None:
    """Deletes what holds or quotes a task once the life is the one that never learnt it; nothing before that.

    The life inside goes last, its manifest first: as long as that is there, the rest may not have been deleted.

    Raises:
        LifeError: If something cannot be deleted; the next call goes on.
    """
    inside = directory.inside(names.REBUILDING)
    manifest = inside / names.MANIFEST
    if manifest.exists():
        rebuilt = LifeDirectory(inside, Manifest.read(inside))
        if rebuilt.versions != directory.versions:  # it is still being learnt
            return
        _clear(directory, decisions_of(rebuilt))
        remove(directory.path, manifest)
    remove_tree(directory.path, inside)


def _clear(directory: LifeDirectory, decisions: list[str]) -> None:
    """Deletes caches, refusals and views, and counts no decisions that were made with the task."""
    if decisions:
        write_sealed_json(directory.inside(names.DECISIONS), {"candidates": decisions})
    else:
        remove(directory.path, directory.inside(names.DECISIONS))
    for path in below(directory.path / names.RETENTION):
        if path.name != names.DECISIONS.rsplit("/", 1)[-1]:
            remove(directory.path, path)
    remove(directory.path, directory.path / names.RETENTION)  # unless decisions are left in it
    for folder in (names.CACHE, names.LEARNING):
        remove_tree(directory.path, directory.path / folder)
    for view in (names.RESULT, names.PAGE):
        remove(directory.path, directory.path / view)
    update_scores(directory)
