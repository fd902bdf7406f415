"""Elastic weight consolidation: parameters that mattered for earlier tasks are held near their old values."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from lifealign.memory.update import Adapter, subtract
from lifealign.methods.base import Method, Paper, StepContext
from lifealign.model.adapter import read_adapter, trainable_parameters
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import MethodState, StageContext
from lifealign.training.objectives import BatchOutcome, Objective


class EWC(Method):
    r"""Elastic weight consolidation, in its online form: one anchor, one accumulated diagonal Fisher information.

    After task t the Fisher information :math:`F_t` of its answers and preferences is estimated at the task's final
    parameters :math:`\theta^*_t`, normalised, and accumulated, :math:`F \leftarrow \gamma F + \hat F_t`. In both stages
    of later tasks the loss is increased by

    .. math::  \frac{\text{strength}}{2} \sum_i F_i (\theta_i - \theta^*_i)^2, \qquad
               \hat F_t = F_t \Big/ \sum_i F_{t,i}\, (\theta^*_{t,i} - \theta^*_{t-1,i})^2

    The normalisation gives ``strength`` the same meaning across models, ranks and learning rates: a task that moves as
    far as its predecessor did, measured by the predecessor's own Fisher information, costs ``strength / 2`` nats.

    Attributes:
        strength: Weight of the penalty, in nats, at least 0; 0 is SeqFT.
        decay: γ, share of the earlier Fisher information that is kept when a task is added, in [0, 1].
        fisher: ``true``: expected over the model's own predictions (sampled tokens for answers,
            :math:`\sigma(1-\sigma)` for preferences). ``empirical``: the gradients of the data as they are.
        fisher_examples: Pairs of the task from which the Fisher information is estimated, one gradient each; all of
            them if there are fewer.
    """

    key: ClassVar[str] = "ewc"
    title: ClassVar[str] = "EWC"
    paper: ClassVar[Paper | None] = Paper(
        "Overcoming catastrophic forgetting in neural networks", "PNAS 2017", "https://arxiv.org/abs/1612.00796"
    )

    strength: float = Field(2.0, ge=0)  # ours: of 2, 10 and 100 the best on dev pairs (docs/log.md)
    decay: float = Field(1.0, ge=0, le=1)  # ours; 1 weighs all tasks alike (Schwarz et al. 2018 tune it below 1)
    fisher: Literal["true", "empirical"] = "true"  # the paper's definition; the released code has the empirical one
    fisher_examples: int = Field(256, ge=1)  # ours

    _fisher: Adapter = PrivateAttr(default_factory=dict)
    _anchor: Adapter = PrivateAttr(default_factory=dict)
    _start: Adapter = PrivateAttr(default_factory=dict)

    def attach(self, context: StepContext) -> None:
        """Stores the parameters with which the task begins."""
        self._start = read_adapter(context.runtime.model)

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """The quadratic penalty around the final parameters of the last task."""
        if not self._fisher or self.strength == 0:
            return None
        terms = [
            (self._fisher[name].to(parameter.device) * (parameter - self._anchor[name].to(parameter.device)) ** 2).sum()
            for name, parameter in context.parameters.items()
        ]
        return 0.5 * self.strength * torch.stack(terms).sum()

    def remember(self, context: StepContext) -> None:
        """Adds the Fisher information of the finished task, and moves the anchor to its final parameters."""
        self._anchor = read_adapter(context.runtime.model)
        if self.strength == 0:
            return
        own = context.own_pairs
        drawn = random.Random(context.seed).sample(own, min(self.fisher_examples, len(own)))
        update = subtract(self._anchor, self._start)
        estimates = [
            relative_to_update(fisher_information(context.runtime, objective, drawn, self.fisher, context.seed), update)
            for objective in context.objectives.values()
        ]
        for name in self._anchor:
            new = torch.stack([estimate[name] for estimate in estimates]).mean(dim=0) if estimates else torch.zeros(())
            self._fisher[name] = self.decay * self._fisher.get(name, torch.zeros(())) + new

    def state(self) -> MethodState:
        """Fisher information and anchor, each of the adapter's size."""
        parts = {"fisher": self._fisher, "anchor": self._anchor if self._fisher else {}}
        return MethodState(
            {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        )

    def load_state(self, state: MethodState) -> None:
        """Restores Fisher information and anchor."""
        for label, tensor in state.tensors.items():
            part, name = label.split("/", 1)
            (self._fisher if part == "fisher" else self._anchor)[name] = tensor


def fisher_information(
    runtime: Runtime,
    objective: Objective,
    pairs: Sequence[TokenizedPair],
    kind: Literal["true", "empirical"],
    seed: int,
) -> dict[str, Float[Tensor, "rows cols"]]:
    r"""Diagonal Fisher information of one stage's likelihood: the mean over pairs of each pair's squared gradient.

    For a preference, :math:`\log\sigma(r)` with margin r, the score is :math:`(1-\sigma)\nabla r`. Its square is the
    empirical information; its mean over both outcomes, with the model's own probabilities, is the true one,
    :math:`\sigma(1-\sigma)(\nabla r)^2`. For an answer the score is :math:`\nabla\log\pi(y|x)`: with the tokens of the
    data it is empirical, with tokens drawn from the model at each position true.

    Args:
        runtime: Model and device.
        objective: The stage whose likelihood is differentiated.
        pairs: Pairs to average over, at least one.
        kind: ``true`` or ``empirical``.
        seed: Seed of the drawn tokens.

    Returns:
        Information by factor, 1/weight², float32 on the CPU.

    Reference:
        Kunstner et al., Limitations of the empirical Fisher approximation, NeurIPS 2019 (arXiv:1905.12558).
    """
    parameters = trainable_parameters(runtime.model)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for value, weight in _log_likelihoods(runtime, objective, pairs, kind, seed):
        gradients = torch.autograd.grad(value, list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            sums[name] += weight * gradient**2
    return {name: (total / len(pairs)).cpu() for name, total in sums.items()}


def relative_to_update(information: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Scales a diagonal information so that an update costs 1: :math:`F / \sum_i F_i u_i^2`; 0 if it costs nothing.

    Example:
        >>> relative_to_update({"w": torch.tensor([[2.0, 6.0]])}, {"w": torch.tensor([[2.0, 0.0]])})["w"]
        tensor([[0.2500, 0.7500]])
    """
    cost = sum(float((tensor.double() * update[name].double() ** 2).sum()) for name, tensor in information.items())
    return {name: tensor / cost if cost > 0 else torch.zeros_like(tensor) for name, tensor in information.items()}


def _log_likelihoods(
    runtime: Runtime, objective: Objective, pairs: Sequence[TokenizedPair], kind: str, seed: int
) -> Iterator[tuple[Tensor, float]]:
    """For each pair, a scalar to differentiate and the weight of its squared gradient."""
    generator = torch.Generator().manual_seed(seed)
    runtime.model.eval()
    for pair in pairs:
        batch = runtime.batch([pair], objective.completions)
        if objective.stage == "sft" and kind == "true":
            batch = replace(batch, targets=runtime.sample_targets(batch, generator))
        outcome = objective.outcome(runtime.policy(batch), [pair])
        if outcome.margins is None:
            yield outcome.chosen_logps.sum(), 1.0
        else:
            preferred = float(outcome.margins.detach().sigmoid())
            weight = preferred * (1 - preferred) if kind == "true" else (1 - preferred) ** 2
            yield outcome.margins.sum(), weight
