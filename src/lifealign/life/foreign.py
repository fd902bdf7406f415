"""Short-to-long memory consolidation of an adapter that any trainer made, in a memory of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lifealign.data.task import step_name
from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.disk.foreign_memory import Entry, ForeignMemory, opened_memory
from lifealign.life.disk.step_files import Consolidated, as_json
from lifealign.life.foreign_checks import (
    is_there,
    label_of,
    read_before,
    require_apart,
    require_chain,
    require_free,
    require_shares,
)
from lifealign.memory.long_term import consolidate
from lifealign.memory.update import Adapter, add, subtract
from lifealign.model.adapter import adapter_fingerprint
from lifealign.model.peft_folder import (
    DTYPES,
    PeftAdapter,
    read_peft_folder,
    require_kind,
    require_same_kind,
    write_peft_folder,
)
from lifealign.storage.files import write_json
from lifealign.storage.home import with_home
from lifealign.storage.whole_folder import require_room, whole_folder

FIGURES = "consolidation.json"
"""File beside a consolidated adapter: what was done to it."""
BESIDE_ADAPTER = 2**20
"""Bytes set aside for what lies beside the weights."""


@dataclass(frozen=True)
class ConsolidatedAdapter:
    """An adapter that was consolidated, and what that did to it.

    Attributes:
        out: Its folder, which PEFT loads.
        memory: The folder of the memory.
        entry: Number and name of its update in the memory, such as ``02-tone``.
        updates: Number of updates in the memory, with this one.
        figures: What consolidation did, as means over the factors, under the names of
            :class:`~lifealign.memory.long_term.FactorFigures`: rank and share of energy kept by denoising, share of the
            update's energy in the span of earlier ones, norm before and after.
        factors: Number of factors.
        known: Whether the memory had this update already, so that nothing was added to it.
        not_read: Sub-folders of the trained adapter's folder that have adapters of their own.
    """

    out: Path
    memory: Path
    entry: str
    updates: int
    figures: Mapping[str, float]
    factors: int
    known: bool
    not_read: tuple[str, ...]


def consolidate_adapters(
    before: str | Path,
    after: str | Path,
    memory: str | Path,
    out: str | Path,
    *,
    energy_kept: float = 0.9,  # paper, main setting
    overlap_kept: float = 0.5,  # paper, main setting
    name: str | None = None,
) -> ConsolidatedAdapter:
    """Consolidates what a training has done to a LoRA adapter, whichever trainer it was.

    The update, ``after`` minus ``before``, is denoised and projected against the updates that the memory holds, factor
    by factor, as a life does at the end of a task; then it becomes part of the memory, and ``out`` is ``before`` plus
    the refined update, in float32. The next training begins from ``out``.

    The memory takes an update whole or not at all. Calling it again with the same two adapters takes nothing twice: it
    returns what was done, and writes ``out`` again if it is missing.

    Args:
        before: Folder of the adapter that the training began from; of a new adapter too, because its ``lora_A`` is
            drawn at random, and without it nobody knows what the training has changed.
        after: Folder of the adapter that the training ended in.
        memory: Folder of the memory: one that earlier calls have made, or a new one.
        out: Folder of the consolidated adapter; new or empty.
        energy_kept: θ, share of each factor's update that denoising keeps, in (0, 1]; 1 denoises nothing.
        overlap_kept: λ, share of the overlap with earlier updates that is kept, in [0, 1]; 1 projects nothing.
        name: Name of the update in the memory; None for that of ``out``, without a number at its beginning.

    Returns:
        Where everything is, and what was done.

    Raises:
        ConfigError: If an option is out of range, or the name cannot be one.
        ModelError: If an adapter is missing or no plain LoRA, the two cannot be before and after of one training, or
            they are the same.
        LifeError: If ``before`` is not the adapter that the last call has made, a folder is in use or holds something
            else, or a file is damaged or cannot be written. The memory is as it was.

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Short-to-Long Memory Consolidation.
    """
    place, target = with_home(memory), with_home(out)
    require_shares(energy_kept, overlap_kept)
    start, end = read_before(before), read_peft_folder(with_home(after))
    require_same_kind(end, start)
    if end.fingerprint == start.fingerprint:
        raise ModelError(f"{end.folder}: found the same factors as in {start.folder}, expected those after a training")
    label = label_of(name, target)
    require_apart(place, target)
    with opened_memory(place) as kept:
        if kept.kind is not None:
            require_kind(end, kept.kind, str(place))
        last = kept.entries[-1] if kept.entries else None
        if last is not None and (last.before, last.after) == (start.fingerprint, end.fingerprint):
            return _again(kept, last, start, end, target, energy_kept, overlap_kept)
        require_free(target)
        require_chain(kept, start)
        try:
            refined = consolidate(
                subtract(end.factors, start.factors),
                kept.long_term(),
                energy_kept=energy_kept,
                overlap_kept=overlap_kept,
            )
        except (torch.linalg.LinAlgError, ValueError) as error:  # type: ignore[attr-defined]
            raise LifeError(f"{end.folder}: consolidation failed: {error}; the memory is as it was") from error
        update = {factor: tensor.float() for factor, tensor in refined.update.items()}
        adapter = add(start.factors, update)  # of what the memory keeps, so that it can be made again to the last bit
        figures = Consolidated.of(refined)
        fields: dict[str, Any] = {
            "name": step_name(len(kept.entries), [label]),
            "before": start.fingerprint,
            "after": end.fingerprint,
            "consolidated": _in_each_dtype(adapter),
            "energy_kept": float(energy_kept),
            "overlap_kept": float(overlap_kept),
        }
        require_room(target, 2 * sum(factor.nbytes for factor in adapter.values()) + BESIDE_ADAPTER)
        with whole_folder(target) as folder:
            _write(folder, adapter, end, fields, figures)
            taken = kept.take(update, figures, end.kind, folder=os.path.abspath(target), **fields)
        return _result(kept, taken, figures, end, target, known=False)


def _again(
    kept: ForeignMemory,
    last: Entry,
    start: PeftAdapter,
    end: PeftAdapter,
    target: Path,
    energy_kept: float,
    overlap_kept: float,
) -> ConsolidatedAdapter:
    """What was done to these two adapters, which the memory has already; ``target`` is written if it is not there."""
    if (last.energy_kept, last.overlap_kept) != (energy_kept, overlap_kept):
        raise ConfigError(
            f"{kept.path}: found these two adapters taken as {last.name} with energy_kept {last.energy_kept:g} and "
            f"overlap_kept {last.overlap_kept:g}, expected the same here: an update is taken once. For other values go "
            "back to a copy of the memory from before it"
        )
    figures, update = kept.figures(last), kept.update(last)
    if not is_there(target, last):
        require_free(target)
        fields = last.model_dump(mode="json", exclude={"folder", "update", "figures"})
        with whole_folder(target) as folder:
            _write(folder, add(start.factors, update), end, fields, figures)
    return _result(kept, last, figures, end, target, known=True)


def _write(folder: Path, adapter: Adapter, end: PeftAdapter, fields: Mapping[str, Any], figures: Consolidated) -> None:
    """Writes a consolidated adapter, and beside it what was done."""
    write_json(folder / FIGURES, {**fields, **as_json(figures)})
    write_peft_folder(folder, adapter, end.config)


def _result(
    kept: ForeignMemory, entry: Entry, figures: Consolidated, end: PeftAdapter, target: Path, *, known: bool
) -> ConsolidatedAdapter:
    mean = {} if figures.mean is None else figures.mean.model_dump()
    return ConsolidatedAdapter(
        target, kept.path, entry.name, len(kept.entries), mean, len(figures.factors), known, end.not_read
    )


def _in_each_dtype(adapter: Adapter) -> dict[str, str]:
    """Fingerprint of an adapter as a trainer has it after loading it in a dtype (QLoRA keeps adapters in bfloat16)."""
    return {
        name: adapter_fingerprint({factor: tensor.to(dtype).float() for factor, tensor in adapter.items()})
        for name, dtype in DTYPES.items()
    }
