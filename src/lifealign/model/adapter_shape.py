"""What a model adds to its base: how it is built, and all its numbers as one vector, which a copy can take over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn import Parameter

from lifealign.model.adapter import ACTIVE, FROZEN, freeze_adapter, install_adapter, read_adapter
from lifealign.model.prompt_pool import PREFIX


@dataclass(frozen=True)
class AdapterShape:
    """How an adapter is built.

    Attributes:
        rank: Rank of the trained adapter.
        frozen: Rank of a frozen one beside it; 0 if there is none.
        trained: Names of the parameters that require gradient, in the order of the model.
    """

    rank: int
    frozen: int
    trained: tuple[str, ...]


def shape_of(model: PeftModel) -> AdapterShape:
    """How the adapter of a model is built."""
    ranks = {name: config.r for name, config in model.peft_config.items()}  # type: ignore[attr-defined]
    trained = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return AdapterShape(ranks[ACTIVE], ranks.get(FROZEN, 0), trained)


def take_shape(model: PeftModel, shape: AdapterShape) -> None:
    """Builds the adapter of a model as another one's is; its numbers are then still to be put in.

    Raises:
        ValueError: If the two models have different parameters.
    """
    own = shape_of(model)
    if (own.rank, own.frozen) != (shape.rank, shape.frozen):
        install_adapter(model, _zeros(model, shape.frozen or shape.rank))
        if shape.frozen:
            freeze_adapter(model, shape.rank, seed=0)
    trained = set(shape.trained)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    if shape_of(model) != shape:
        raise ValueError(f"adapter: found {shape_of(model)}, expected {shape}")


def flat(model: PeftModel) -> Float[Tensor, " numbers"]:
    """All numbers that a model adds to its base, trained or frozen, float32 on the CPU."""
    return torch.cat([parameter.detach().flatten().float().cpu() for parameter in _added(model)])


def put_flat(model: PeftModel, numbers: Float[Tensor, " numbers"]) -> None:
    """Overwrites, in place, all numbers that a model adds to its base; the inverse of :func:`flat`."""
    added = _added(model)
    for parameter, part in zip(added, numbers.split([one.numel() for one in added]), strict=True):
        parameter.data.copy_(part.reshape(parameter.shape))


def _added(model: PeftModel) -> list[Parameter]:
    return [one for name, one in model.named_parameters() if ".lora_" in name or name.startswith(PREFIX)]


def _zeros(model: PeftModel, rank: int) -> dict[str, Tensor]:
    """An adapter of a model's kind with another rank."""
    return {
        name: torch.zeros(rank, tensor.shape[1]) if ".lora_A." in name else torch.zeros(tensor.shape[0], rank)
        for name, tensor in read_adapter(model).items()
    }
