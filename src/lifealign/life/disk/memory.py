"""The long-term memory of a life, read from the refined updates of its steps or from the sketch in their place."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence

import torch
import xxhash
from torch import Tensor

from lifealign.errors import LifeError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.memory.history import SketchedHistory
from lifealign.memory.long_term import LongTermMemory
from lifealign.memory.update import Adapter
from lifealign.methods.base import Segment
from lifealign.storage.tensors import read_tensors, write_tensors

logger = logging.getLogger(__name__)


def memory_tensors(refined: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """Refined updates of a step, with the label of their segment in their names, as :func:`read_memory` expects."""
    return {
        f"{label}/{name}": tensor.detach().float().cpu()
        for label, update in refined.items()
        for name, tensor in update.items()
    }


def read_memory(directory: LifeDirectory, segments: Sequence[Segment], limit: int) -> LongTermMemory:
    """The long-term memory: the refined updates of all steps, and within a step of its segments, in order.

    Where a sketch of exactly these updates is in the cache, it is taken; otherwise every update is read again, which
    gives the same sketch to the last bit.

    Args:
        directory: The life's files.
        segments: Segments of the method, in order.
        limit: Most updates that are kept exactly.
    """
    kept = _read_sketch(directory, segments, limit)
    if kept is not None:
        return kept
    memory = LongTermMemory(limit)
    for version in directory.steps:
        updates: dict[str, dict[str, Tensor]] = {}
        for name, tensor in directory.tensors(names.refined_updates(version.name)).items():
            segment, factor = name.split("/", 1)
            updates.setdefault(segment, {})[factor] = tensor
        for made_by in segments:
            if made_by.label in updates:
                memory.remember(updates[made_by.label])
    return memory


def keep_sketch(directory: LifeDirectory, memory: LongTermMemory, segments: Sequence[Segment]) -> None:
    """Writes the sketch of a life's memory to its cache, if there is one; a failure only costs time later.

    Args:
        directory: The life's files, whose steps the memory has remembered.
        memory: The long-term memory.
        segments: Segments of the method, in order.
    """
    tensors = {}
    for factor, history in memory.histories.items():
        if isinstance(history, SketchedHistory):
            tensors[f"rows/{factor}"] = history.rows
            tensors[f"lost/{factor}"] = torch.tensor(history.lost, dtype=torch.float64)
            tensors[f"shape/{factor}"] = torch.tensor(memory.shapes[factor])
    if not tensors:
        return
    tensors["remembered"] = torch.tensor(memory.remembered)
    tensors["stands_for"] = _stands_for(directory, segments, memory.limit)
    try:
        path = directory.inside(names.MEMORY_SKETCH)
        write_tensors(path, tensors | {"checksum": _checksum(tensors)})
    except LifeError as error:
        logger.warning("%s; the memory is read from its steps when it is needed next", error)


def _read_sketch(directory: LifeDirectory, segments: Sequence[Segment], limit: int) -> LongTermMemory | None:
    if len(directory.steps) * len(segments) <= limit:
        return None
    path = directory.inside(names.MEMORY_SKETCH)
    with contextlib.suppress(LifeError, KeyError):
        tensors = read_tensors(path)
        checksum = tensors.pop("checksum")
        if torch.equal(checksum, _checksum(tensors)) and torch.equal(
            tensors["stands_for"], _stands_for(directory, segments, limit)
        ):
            factors = [name.removeprefix("rows/") for name in tensors if name.startswith("rows/")]
            return LongTermMemory(
                limit,
                remembered=int(tensors["remembered"]),
                histories={
                    name: SketchedHistory(tensors[f"rows/{name}"], float(tensors[f"lost/{name}"])) for name in factors
                },
                shapes={name: tuple(tensors[f"shape/{name}"].tolist()) for name in factors},
            )
    return None


def _stands_for(directory: LifeDirectory, segments: Sequence[Segment], limit: int) -> Tensor:
    """Hash of everything that a sketch depends on: the updates by content, their order, and the limit."""
    files = [names.refined_updates(version.name) for version in directory.steps]
    contents = [version.files[file].sha256 for version, file in zip(directory.steps, files, strict=True)]
    return _digest(repr(([segment.label for segment in segments], limit, contents)).encode())


def _checksum(tensors: Mapping[str, Tensor]) -> Tensor:
    return _digest(b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)))


def _digest(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(xxhash.xxh3_128(content).digest()), dtype=torch.uint8)
