"""A life that begins with an adapter from another trainer: its tasks are declared, measured and remembered."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.commit import commit
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.manifest import Version
from lifealign.life.disk.step_files import Adopted, read_record
from lifealign.life.free_place import life_with, require_free
from lifealign.life.gate import gate
from lifealign.life.hold_back import hold_back
from lifealign.life.keys import make_keys, tell_apart
from lifealign.life.mix import mix
from lifealign.life.score import hold_out, score
from lifealign.life.settings import LifeConfig
from lifealign.life.step import attach, remember
from lifealign.life.workspace import Workspace
from lifealign.memory.long_term import Consolidation, LongTermMemory, consolidate
from lifealign.memory.update import Adapter, subtract
from lifealign.methods.base import Step
from lifealign.model.adapter import adapter_fingerprint, install_adapter, plain_adapter, read_adapter
from lifealign.model.base_model import Base, load_base
from lifealign.model.peft_folder import PeftAdapter, require_same_kind
from lifealign.settings.section import build_config
from lifealign.training.listeners import Listener
from lifealign.training.peak_memory import reset_peak_memory

logger = logging.getLogger(__name__)


def adopt_life(
    path: Path,
    config: LifeConfig,
    adapter: PeftAdapter,
    tasks: Sequence[Task],
    *,
    before: PeftAdapter | None = None,
    base: Base | None = None,
    listener: Listener | None = None,
) -> Workspace:
    """Begins a life with an adapter; see :meth:`lifealign.life.life.Life.adopt`."""
    if not tasks:
        raise ConfigError("adopt: found no task, expected what the adapter was taught, one task or several")
    if before is not None:
        require_same_kind(before, adapter)
        if before.fingerprint == adapter.fingerprint:
            raise ModelError(f"{before.folder}: found the same factors as in {adapter.folder}, expected those before")
    named = adapter.kind.base_model_name_or_path
    if named not in (None, config.model.model_name_or_path):
        logger.warning(
            "%s: says that it was trained on %s; it is taken to belong to %s, which its shapes alone can confirm",
            adapter.folder,
            named,
            config.model.model_name_or_path,
        )
    config = _with_lora(config.of_a_new_life(), adapter)
    if why := config.method.indivisible:
        raise ConfigError(f"method: found {config.method.key}, expected one whose versions are sums of updates: {why}")
    there = life_with(path, config)
    if there is not None and _has_adopted(there, adapter, tasks):
        work = Workspace(
            there, build_config(LifeConfig, there.manifest.config), None if base is None else base.copied()
        )
        with work.writing():  # an interrupted call may have left something to finish
            return work
    start = _start(adapter.factors) if before is None else before.factors
    base = load_base(config.model) if base is None else base.copied()
    if there is not None and not there.steps:  # what an interrupted call has left
        if adapter_fingerprint(read_adapter_of(there)) != adapter_fingerprint(start):
            raise LifeError(f"{path}: found another life, begun and without anything learnt, expected a new directory")
        work = Workspace(there, config.settled(base.dtype), base)
    else:
        require_free(path, config)
        work = _created(path, config.settled(base.dtype), start, adapter, base)
    with work.writing():
        adopt_step(work, Step(0, tuple(tasks)), adapter, given_start=before is not None, listener=listener)
    return work


def adopt_step(
    work: Workspace, step: Step, adapter: PeftAdapter, *, given_start: bool, listener: Listener | None = None
) -> Version:
    """The first step of a life, as :func:`~lifealign.life.learn.learn_step` makes it, but with nothing to train.

    The update is remembered as it is: nothing came before it that it could be projected against, and what it does was
    settled by whoever trained it.

    Args:
        work: The life, locked, with nothing learnt.
        step: The tasks that the adapter was taught.
        adapter: The adapter.
        given_start: Whether the untrained adapter is the one that the training began from, not one made up for it.
        listener: Follows what happens, or None.

    Raises:
        DataError: If the pairs of a task cannot be used.
        LifeError: If a file cannot be written; nothing was learnt.
    """
    started = time.monotonic()
    reset_peak_memory()
    if listener is not None:
        listener.begin(step.name)
    say: Callable[[str], None] = logger.warning if listener is None else lambda text: listener.say(f"  {text}")
    model = work.runtime.model
    try:
        held_back = hold_back(work, step)
        step = held_back.step
        held_out = hold_out(work, step, say)
        examples = mix(work, step, say, held_back.prompts)
        for note in held_back.notes:
            say(note)
        if held_back.new and (unseen := [task.name for task in held_back.given if not task.gate]):
            say(
                f"gate prompts of {', '.join(unseen)} are some that the adapter may have been trained on; "
                "give a gate file"
            )
        context = attach(work, step, examples)
        before = read_adapter(model)
        install_adapter(model, adapter.factors)
        install_adapter(model, plain_adapter(model))
        segment, consolidated = work.method.segments[-1], dict[str, Consolidation]()
        if segment.consolidated:
            update = subtract(read_adapter(model), before)
            consolidated[segment.label] = consolidate(update, LongTermMemory(), energy_kept=1, overlap_kept=1)
        gated = gate(work, held_back, consolidated, say)
        learnt = remember(work, context, consolidated, time.monotonic() - started - gated.seconds)
        keys = make_keys(work, step, examples, say)
        apart = tell_apart(work, step, keys, say)
        measured = score(work, step, held_out, learnt, say)
        version = commit(
            work,
            held_back,
            held_out,
            examples,
            {},
            gated,
            learnt,
            keys,
            apart,
            measured,
            started,
            say,
            adopted=Adopted(adapter=adapter.fingerprint, dtype=adapter.dtype, start_known=given_start),
        )
        if listener is not None:
            listener.scored(measured.scores.values)
        if measured.interruption is not None:
            raise measured.interruption
        return version
    except BaseException:
        work.forget_loaded()
        raise


def _created(path: Path, config: LifeConfig, start: Adapter, adapter: PeftAdapter, base: Base) -> Workspace:
    """A new life whose untrained adapter is ``start``.

    Raises:
        ModelError: If the adapter does not fit the base; nothing is made then.
    """
    try:
        return Workspace.create(path, config, base, start)
    except ValueError as error:  # names or shapes of its factors
        targets = ", ".join(_targets(adapter.factors))
        raise ModelError(
            f"{adapter.folder}: does not fit {base.name} with the target modules {targets}: {error}"
        ) from error


def _has_adopted(directory: LifeDirectory, adapter: PeftAdapter, tasks: Sequence[Task]) -> bool:
    """Whether a life began with this adapter and these tasks: the same call was made before, and came to its end."""
    if directory.adopted is None:
        return False
    step = directory.steps[0]
    same = read_record(directory, names.adopted(step.name), Adopted).adapter == adapter.fingerprint
    return same and {task.name: task.data_hash for task in step.tasks} == {task.name: task.data_hash for task in tasks}


def _with_lora(config: LifeConfig, adapter: PeftAdapter) -> LifeConfig:
    """The settings, with rank, scaling and target modules of the adapter.

    Raises:
        ConfigError: If the settings say otherwise.
        ModelError: If its scaling cannot be said in the settings.
    """
    kind = adapter.kind
    alpha = kind.lora_alpha * (math.sqrt(kind.r) if kind.use_rslora else 1)  # over the rank, either way
    if kind.use_rslora or alpha != int(alpha):
        whole = max(1, round(alpha))
        raise ModelError(
            f"{adapter.folder}: found factors scaled by {alpha:.6g} / {kind.r}, expected a whole number over the rank, "
            f"without use_rslora: multiply every lora_B by {alpha / whole:.9g} and write lora_alpha {whole}"
        )
    known: dict[str, int | list[str]] = {
        "lora_r": kind.r,
        "lora_alpha": int(alpha),
        "lora_target_modules": _targets(adapter.factors),
    }
    for key in sorted(config.lora.model_fields_set & known.keys()):
        given, expected = getattr(config.lora, key), known[key]
        if (sorted(given) if isinstance(given, tuple) else given) != expected:
            raise ConfigError(f"lora.{key}: found {given}, expected {expected}, as the adapter has it, or nothing")
    targets = tuple(_targets(adapter.factors))
    return config.model_copy(update={"lora": config.lora.model_copy(update=known | {"lora_target_modules": targets})})


def _targets(factors: Adapter) -> list[str]:
    """Last parts of the names of the modules that an adapter adds to."""
    return sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in factors})


def _start(factors: Adapter) -> Adapter:
    """An untrained adapter from which the training may have begun: the same ``lora_A``, and ``lora_B`` zero."""
    return {name: torch.zeros_like(factor) if ".lora_B." in name else factor for name, factor in factors.items()}
