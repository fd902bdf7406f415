"""The checkpoint of a step that is being learnt: one JSON file, and beside it the tensors that it names.

The tensors are written first, under a name of their own; then the JSON file, which carries its own hash and that of the
tensors, takes the place of the last one. So a checkpoint is there whole or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import JsonValue, StringConstraints

from lifealign.errors import LifeError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.typed_json import Count, Number, Record, validated
from lifealign.storage.files import file_record, read_sealed_json, verify_file, write_sealed_json
from lifealign.storage.inside import below, remove, remove_tree

if TYPE_CHECKING:  # so that looking at a life does not import torch
    from torch import Tensor

    from lifealign.memory.long_term import Consolidation, FactorFigures
    from lifealign.memory.update import Adapter
    from lifealign.training.moments import MethodState
    from lifealign.training.stage_state import LogRow, StageState

logger = logging.getLogger(__name__)

STATE = "state.json"


class _Tensors(Record):
    """A file of tensors beside ``state.json``."""

    name: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9]{8,}\.safetensors$")]
    size: Count
    sha256: str


class _Stored(Record):
    """``state.json``: what is no tensor, and the file of tensors with its size and SHA-256."""

    step: str
    content: str
    machine: str
    segment: Count
    stage: Count
    seconds: Number
    logs: dict[str, list[dict[str, Number]]]
    figures: dict[str, dict[str, dict[str, Number]]]
    began: dict[str, JsonValue]
    log: list[dict[str, Number]]
    looks: dict[str, list[Number]]
    method: dict[str, JsonValue]
    tensors: _Tensors


@dataclass(frozen=True)
class Checkpoint:
    """How far the training of a step has come.

    Attributes:
        step: Name of the step.
        content: Hash of what is learnt and from what: a checkpoint of something else is of no use.
        machine: Hash of what decides how numbers round.
        segment: Place of the segment that is being trained.
        stage: Place of the stage in it.
        before: The adapter at the beginning of the segment.
        start: The adapter at the beginning of the stage.
        began: The method's progress then, before it chose the stage's pairs.
        within: The stage as it is.
        logs: Rows of the stages that are finished.
        consolidated: Results of the segments that are finished.
        seconds: Time spent on the step so far.
    """

    step: str
    content: str
    machine: str
    segment: int
    stage: int
    before: Adapter
    start: Adapter
    began: MethodState
    within: StageState
    logs: Mapping[str, Sequence[LogRow]] = field(default_factory=dict)
    consolidated: Mapping[str, Consolidation] = field(default_factory=dict)
    seconds: float = 0.0


def write_checkpoint(directory: LifeDirectory, kept: Checkpoint) -> None:
    """Writes a checkpoint in place of the last one.

    Raises:
        LifeError: If it cannot be written; the last one is there as it was.
    """
    from lifealign.storage.tensors import write_tensors

    tensors: dict[str, Tensor] = {}
    groups: dict[str, Mapping[str, Tensor]] = {
        "before": kept.before,
        "start": kept.start,
        "began": kept.began.tensors,
        "within": kept.within.tensors,
        "method": kept.within.method.tensors,
        **{f"refined {label}": result.update for label, result in kept.consolidated.items()},
    }
    for group, members in groups.items():
        tensors |= {f"{group}/{name}": tensor.clone() for name, tensor in members.items()}
    folder, state = directory.inside(names.LEARNING), directory.inside(f"{names.LEARNING}/{STATE}")
    steps = sum(map(len, kept.logs.values())) + len(kept.within.log)
    file = directory.inside(f"{names.LEARNING}/{kept.content[:8]}-{steps:08d}.safetensors")
    write_tensors(file, tensors)
    stored = _Stored(
        step=kept.step,
        content=kept.content,
        machine=kept.machine,
        segment=kept.segment,
        stage=kept.stage,
        seconds=kept.seconds,
        logs={stage: list(rows) for stage, rows in kept.logs.items()},
        figures={
            label: {name: asdict(figures) for name, figures in result.figures.items()}
            for label, result in kept.consolidated.items()
        },
        began=dict(kept.began.values),
        log=list(kept.within.log),
        looks={key: list(look) for key, look in kept.within.looks.items()},
        method=dict(kept.within.method.values),
        tensors=_Tensors(name=file.name, **file_record(file)),
    )
    write_sealed_json(state, stored.model_dump(mode="json"))
    for path in below(folder):
        if path not in (file, state):
            remove(directory.path, path)


def read_checkpoint(directory: LifeDirectory) -> Checkpoint | None:
    """The checkpoint of an interrupted step; None if there is none, or it is damaged, which is logged."""
    state = directory.inside(f"{names.LEARNING}/{STATE}")
    if not state.exists():
        return None
    from lifealign.storage.tensors import read_tensors

    try:
        stored = validated(state, read_sealed_json(state), _Stored)
        file = directory.inside(f"{names.LEARNING}/{stored.tensors.name}")
        verify_file(file, stored.tensors.model_dump(exclude={"name"}))
        return _checkpoint(stored, read_tensors(file))
    except (LifeError, KeyError, TypeError) as error:
        logger.warning("%s; what an interrupted run had learnt is learnt again", error)
        return None


def interrupted(directory: LifeDirectory) -> tuple[str, int] | None:
    """Name of the step that was interrupted, and how many optimizer steps of it are kept; None if there is none."""
    state = directory.path / names.LEARNING / STATE
    with suppress(LifeError):
        stored = validated(state, read_sealed_json(state), _Stored)
        if stored.step not in {version.name for version in directory.versions}:
            return stored.step, sum(map(len, stored.logs.values())) + len(stored.log)
    return None


def remove_finished_checkpoint(directory: LifeDirectory) -> None:
    """Removes the checkpoint of a step that was committed after all, or one that was never whole."""
    state = directory.inside(f"{names.LEARNING}/{STATE}")
    with suppress(LifeError):  # what is damaged is named by whoever would go on from it
        if state.exists() and validated(state, read_sealed_json(state), _Stored).step not in {
            version.name for version in directory.versions
        }:
            return
        remove_checkpoint(directory)


def remove_checkpoint(directory: LifeDirectory) -> None:
    """Removes the checkpoint, whatever is in its folder; a failure is only a warning."""
    try:
        remove_tree(directory.path, directory.inside(names.LEARNING))
    except LifeError as error:
        logger.warning("%s; it does no harm, and the next step removes it", error)


def _checkpoint(stored: _Stored, tensors: Mapping[str, Tensor]) -> Checkpoint:
    from lifealign.memory.long_term import Consolidation
    from lifealign.training.moments import MethodState
    from lifealign.training.stage_state import StageState

    def group(name: str) -> dict[str, Tensor]:
        start = f"{name}/"
        return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}

    return Checkpoint(
        step=stored.step,
        content=stored.content,
        machine=stored.machine,
        segment=stored.segment,
        stage=stored.stage,
        before=group("before"),
        start=group("start"),
        began=MethodState(group("began"), dict(stored.began)),
        within=StageState(
            tuple(stored.log), group("within"), stored.looks, MethodState(group("method"), dict(stored.method))
        ),
        logs=stored.logs,
        consolidated={
            label: Consolidation(
                group(f"refined {label}"), {name: _figures(figures) for name, figures in factors.items()}
            )
            for label, factors in stored.figures.items()
        },
        seconds=stored.seconds,
    )


def _figures(stored: Mapping[str, float]) -> FactorFigures:
    from lifealign.memory.long_term import FactorFigures

    return FactorFigures(**{**stored, "rank_kept": int(stored["rank_kept"])})  # type: ignore[arg-type]
