"""Forgetting on purpose: a life becomes, byte for byte, the one that never learnt a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.life.decisions import decisions_of
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.learnt import read_taught
from lifealign.life.disk.manifest import Manifest, Version
from lifealign.life.learn import learn_step
from lifealign.life.unfinished import finish_forgetting
from lifealign.life.workspace import Workspace
from lifealign.settings.faults import nearest
from lifealign.storage.files import write_sealed_json, write_text
from lifealign.storage.inside import remove_tree
from lifealign.training.listeners import Listener


def forget_task(
    work: Workspace, name: str, given: Mapping[str, Task], listener: Listener | None = None, *, force: bool = False
) -> list[Version]:
    """Learns everything after a task again without it; see :meth:`lifealign.life.life.Life.forget`.

    The new versions are learnt in a life of their own inside this one, which stays as it is until they are all there;
    then one rename of its manifest makes them its own.
    """
    directory = work.directory
    with work.writing():
        learnt = {task.name: place for place, version in enumerate(work.steps) for task in version.tasks}
        if name not in learnt:
            known = ", ".join(learnt) or "none"
            raise ConfigError(f"found {name!r}, expected a task that was learnt: {known}{nearest(name, learnt)}")
        if work.steps[learnt[name]].name == directory.adopted:
            raise LifeError(
                f"{directory.path}: {name} was not learnt here but came with the adapter that the life began with, and "
                "nobody can tell what of that is its; begin another life"
            )
        kept = [_without_later_comparisons(directory, version) for version in directory.versions[: learnt[name] + 1]]
        groups = _taught(directory, work.steps[learnt[name] :], name, given)
        there = _begun(work, kept, groups)
        with there.writing():
            for group in groups[_progress(there, kept, groups) :]:
                for step in there.method.plan(list(group), first_index=len(there.steps)):
                    learn_step(there, step, listener, force=force)
        versions = there.directory.versions
        there.directory.copy_files(versions[len(kept) :], directory)
        directory.replace(versions)  # from here on the life is the new one
        work.forget_loaded()
        try:
            finish_forgetting(directory)
        except LifeError as error:
            raise LifeError(
                f"{error}. {name} is forgotten, but not all that quotes it could be deleted; the next command that "
                "writes to this life does that first"
            ) from error
        return versions


def _without_later_comparisons(directory: LifeDirectory, version: Version) -> Version:
    """A version before the task, without a judge's comparisons of it with versions that go."""
    staying = {one.name for one in directory.versions[: directory.index(version.name) + 1]}
    files = {
        file: record
        for file, record in version.files.items()
        if "/against-" not in file or file.rsplit("/against-", 1)[1].removesuffix(".json") in staying
    }
    return version.model_copy(update={"files": files})


def _taught(
    directory: LifeDirectory, steps: Sequence[Version], name: str, given: Mapping[str, Task]
) -> list[tuple[Task, ...]]:
    """What the steps from the forgotten task on were taught with, step by step, without it.

    Raises:
        LifeError: If the pairs of a task were not kept and are not given, or are given otherwise.
    """
    groups, missing = [], []
    for version in steps:
        kept = {task.name: task for task in read_taught(directory, version)}
        evidence = retention_of(directory, version)
        group = []
        for record in version.tasks:
            if record.name == name:
                continue
            task = kept.get(record.name) or given.get(record.name)
            if task is None:
                missing.append(f"{record.name} ({record.train_pairs} pairs, data hash {record.data_hash})")
                continue
            if task.data_hash != record.data_hash:
                raise LifeError(
                    f"{directory.path}: found other pairs for {record.name} (data hash {task.data_hash}), expected "
                    f"those that it was taught with ({record.data_hash}): the same files, check and superseded tasks"
                )
            kept_rules = tuple(one for one in task.supersedes if one != name)
            limit = evidence.held[record.name].max_loss if evidence is not None else None
            group.append(replace(task, supersedes=kept_rules, max_loss=limit))
        if group:
            groups.append(tuple(group))
    if missing:
        raise LifeError(
            f"{directory.path}: found no training pairs kept of {'; '.join(missing)}, expected their files, because "
            "what was learnt after the task has to be learnt again: --data NAME=TRAIN[,TEST[,GATE]]"
        )
    return groups


def _begun(work: Workspace, kept: Sequence[Version], groups: Sequence[tuple[Task, ...]]) -> Workspace:
    """The life inside the life: new, or as far as an interrupted call has come with the same."""
    path = work.directory.inside(names.REBUILDING)
    if (path / names.MANIFEST).exists():
        there = Workspace(LifeDirectory(path, Manifest.read(path)), work.config)
        if _progress(there, kept, groups) is not None:
            return there
    remove_tree(work.directory.path, path)
    directory = LifeDirectory(path, work.directory.manifest.model_copy(update={"versions": list(kept)}))
    work.directory.copy_files(kept, directory)
    write_text(path / names.CONFIG, (work.directory.inside(names.CONFIG)).read_text(encoding="utf-8"))
    if decided := decisions_of(work.directory):
        last = max((one.decision for version in kept if (one := retention_of(work.directory, version))), default=0)
        write_sealed_json(path / names.DECISIONS, {"candidates": decided[:last]})
    directory.manifest.save(path)
    return Workspace(directory, work.config)


def _progress(there: Workspace, kept: Sequence[Version], groups: Sequence[tuple[Task, ...]]) -> int | None:
    """How many of the groups the life inside has learnt; None if it is not on the way to them."""
    if there.directory.versions[: len(kept)] != list(kept):
        return None
    wanted = [[(task.name, task.data_hash) for task in group] for group in groups]
    have = [
        [(task.name, task.data_hash) for task in version.tasks] for version in there.directory.versions[len(kept) :]
    ]
    return len(have) if have == wanted[: len(have)] else None
