"""What a step has learnt, as it is stored on disk: adapter, the method's state, replayed pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft import PeftModel

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Pair
from lifealign.data.replay import ReplayBuffer
from lifealign.data.task import Task
from lifealign.errors import LifeError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import BaseRecord, Version
from lifealign.life.disk.pair_files import read_stored_pairs
from lifealign.life.disk.step_files import saved_method
from lifealign.memory.update import Adapter
from lifealign.model.prompt_pool import prompt_pool
from lifealign.settings.faults import differences
from lifealign.training.moments import MethodState


def adapter_files(version: str, model: PeftModel, adapter: Adapter, base: BaseRecord) -> dict[str, Any]:
    """Content of a version's folder, by path inside the life: a plain PEFT adapter, or a prompt pool.

    Args:
        version: Name of the version.
        model: The model that the adapter belongs to.
        adapter: Its tensors.
        base: The base that ``adapter_config.json`` names.
    """
    if (pool := prompt_pool(model)) is not None:  # PEFT cannot load a pool, so no file has a name that PEFT looks for
        return {names.pool_weights(version): adapter, names.pool_shape(version): pool.shape()}
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base.model_name_or_path, "revision": base.revision, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return {names.adapter_config(version): plain, names.adapter_weights(version): adapter}


def read_adapter_of(directory: LifeDirectory, version: str | None = None) -> Adapter:
    """The adapter of a version, by default the last one; for L2P, its prompt pool.

    Raises:
        LifeError: If there is no such version, or its file is damaged.
    """
    chosen = directory.versions[-1 if version is None else directory.index(version)]
    adapter, pool = names.adapter_weights(chosen.name), names.pool_weights(chosen.name)
    return directory.tensors(pool if pool in chosen.files else adapter)


def replay_rows(drawn: Mapping[str, Sequence[Pair]]) -> list[dict[str, Any]]:
    """Rows of a step's remembered pairs with the names of their tasks, as :func:`read_replay` expects."""
    return [pair.as_row() | {"task": name} for name, pairs in drawn.items() for pair in pairs]


def taught_rows(task: Task) -> list[dict[str, Any]]:
    """Every pair of a task with what it is for, as :func:`read_taught` expects."""
    splits = {"train": task.train, "test": task.test, "gate": task.gate}
    return [pair.as_row() | {"split": split} for split, pairs in splits.items() for pair in pairs]


def read_taught(directory: LifeDirectory, version: Version) -> list[Task]:
    """The tasks of a step as they were given, but for the loss that is allowed of them, as far as they were kept.

    Raises:
        LifeError: If a file is damaged, or is not what the step was taught with.
    """
    found = []
    for record in version.tasks:
        file = names.taught(version.name, record.name)
        if file not in version.files:
            continue
        rows = read_stored_pairs(directory, file)
        train, test, gate = (
            tuple(row.as_pair() for row in rows if row.split == split) for split in ("train", "test", "gate")
        )
        check = AnswerCheck(**record.check) if record.check else None
        task = Task(record.name, train, test, check, tuple(record.supersedes), gate)
        if task.data_hash != record.data_hash:
            raise LifeError(f"{directory.path / file}: found other pairs than {record.name} was taught with")
        found.append(task)
    return found


def read_replay(directory: LifeDirectory, capacity: int) -> ReplayBuffer:
    """The remembered pairs of the tasks of all steps, without those that a later task supersedes.

    Args:
        directory: The life's files.
        capacity: Maximum number of pairs in total.
    """
    buffer = ReplayBuffer(capacity)
    for version in directory.steps:
        rows = read_stored_pairs(directory, names.remembered_pairs(version.name))
        for task in version.tasks:
            buffer.release(task.supersedes)
            buffer.tasks[task.name] = tuple(row.as_pair() for row in rows if row.task == task.name)
    return buffer


def read_method_state(directory: LifeDirectory, step: str, method: Mapping[str, Any]) -> MethodState:
    """The state that a method had after a step.

    Args:
        directory: The life's files.
        step: Name of the step.
        method: The method's settings, as in the life's settings.

    Raises:
        LifeError: If the state was written under another configuration of the method, or a file is damaged.
    """
    tensors, saved = directory.tensors(names.method_tensors(step)), saved_method(directory, step)
    if saved.method != method:
        shown = "; ".join(differences(saved.method, dict(method)))
        raise LifeError(
            f"{directory.path}: found the method's state of step {step} saved under another configuration "
            f"({shown}), expected that of life.json, because the settings of a life do not change"
        )
    return MethodState(tensors, saved.values)
