"""Everything that a training stage needs to go on after an optimizer step as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from lifealign.model.seeded import device_state, set_device_state
from lifealign.training.mastery import Mastery
from lifealign.training.moments import MethodState, Moments

LogRow = dict[str, float]
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of each parameter."""


@dataclass(frozen=True)
class StageState:
    """A stage after some of its optimizer steps.

    Attributes:
        log: The rows of the steps so far; their number is the place in the plan of batches, which is made again from
            the seed, and in the schedule.
        tensors: ``parameter/NAME``, what AdamW keeps under ``exp_avg/NAME``, ``exp_avg_sq/NAME`` and ``step/NAME``, and
            the states of the random generators, ``random/cpu`` and ``random/device``.
        looks: What was last seen of each pair, where mastered pairs are skipped: margin, whether it was mastered, and
            visits since.
        method: What the method needs to go on within the stage.
    """

    log: tuple[LogRow, ...]
    tensors: Mapping[str, Tensor]
    looks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    method: MethodState = field(default_factory=MethodState)


class Keeper(Protocol):
    """Keeps the state of a stage while it runs."""

    @property
    def resumed(self) -> StageState | None:
        """The state to go on from; None begins the stage."""

    def running(self) -> AbstractContextManager[None]:
        """Held while the stage takes its steps."""

    def keep(self, state: Callable[[], StageState]) -> None:
        """Called after each optimizer step.

        Args:
            state: Returns the state as it is now, copied.
        """


def stage_state(
    log: Sequence[LogRow],
    parameters: Mapping[str, Parameter],
    optimizer: Optimizer,
    mastery: Mastery | None,
    method: Moments,
    device: torch.device,
) -> StageState:
    """The state of a running stage, copied to the CPU."""
    tensors = {f"parameter/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        kept = optimizer.state.get(parameter, {})  # nothing before the first step
        tensors |= {f"{moment}/{name}": kept[moment] for moment in MOMENTS if moment in kept}
    tensors["random/cpu"] = torch.get_rng_state()
    if device.type != "cpu":
        tensors["random/device"] = device_state(device)
    return StageState(
        tuple(dict(row) for row in log),
        {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()},
        {} if mastery is None else mastery.looks(),
        method.progress(),
    )


def restore(
    state: StageState,
    parameters: Mapping[str, Parameter],
    optimizer: Optimizer,
    mastery: Mastery | None,
    method: Moments,
    device: torch.device,
) -> list[LogRow]:
    """Puts everything back where :func:`stage_state` found it; returns the log.

    Raises:
        KeyError: If the state is of other parameters.
    """
    tensors = state.tensors
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            if f"step/{name}" in tensors:
                on_device = {"exp_avg": device, "exp_avg_sq": device, "step": torch.device("cpu")}
                optimizer.state[parameter] = {
                    moment: tensors[f"{moment}/{name}"].to(on_device[moment], copy=True) for moment in MOMENTS
                }
    torch.set_rng_state(tensors["random/cpu"])
    if device.type != "cpu":
        set_device_state(device, tensors["random/device"])
    if mastery is not None:
        mastery.restore(state.looks)
    method.load_progress(state.method)
    return [dict(row) for row in state.log]


def copied(state: MethodState) -> MethodState:
    """A copy that later steps of the method do not change."""
    tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.tensors.items()}
    values: dict[str, Any] = dict(state.values)
    return MethodState(tensors, values)
