"""Continual proximal policy optimization, for DPO: each pair has its own weights for learning and for retention."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from lifealign.methods.base import Method, Paper, StepContext
from lifealign.training.moments import MethodState, StageContext
from lifealign.training.objectives import BatchOutcome, Logps

CLASSES = ("high_probability_high_reward", "high_probability_low_reward", "low_probability_high_reward",
           "low_probability_low_reward", "ordinary")  # fmt: skip
LEARN = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0])
"""Paper, Table 1: whether pairs of each class are learnt more (1) or less (-1) strongly than ordinary ones."""
RETAIN = torch.tensor([1.0, -1.0, -1.0, -1.0, 0.0])
"""The same for how strongly they are held at the previous policy."""
FEWEST = 8
"""Number of pairs that a window needs before its mean and deviation are used; until then every pair is ordinary."""


class CPPO(Method):
    r"""CPPO's two ideas around DPO's loss: sample-wise weights, and retention of the previous task's policy.

    In the preference stage a pair is classified by the probability of its chosen answer (mean token log-probability)
    and its reward (preference margin), each compared with mean ± ``threshold`` standard deviations of the last
    ``window`` pairs. Pairs beyond both thresholds get a weight for learning, which multiplies DPO's loss, and one for
    retention; how far beyond they are, up to one deviation, decides how much of ``[lowest, highest]`` is used, so the
    weights are continuous. In both stages of every task but the first, the loss is increased by

    .. math::  \text{retention} \cdot \text{mean}\; b(x) \left(
               \frac{\log\pi_\theta(y|x) - \log\pi_{t-1}(y|x)}{|y|} \right)^2

    over the answers that the stage scores, where :math:`\pi_{t-1}` is the policy at the end of the previous task; its
    log-probabilities are looked up once per pair and task. No weight carries gradient.

    Attributes:
        retention: Weight of the retention penalty, at least 0, per nat².
        threshold: Where ``high`` and ``low`` begin, in standard deviations from the mean, at least 0.
        window: Number of pairs over which mean and deviation are taken.
        lowest: Lowest weight, in [0, 1].
        highest: Highest weight, at least 1.
    """

    key: ClassVar[str] = "cppo"
    title: ClassVar[str] = "CPPO"
    paper: ClassVar[Paper | None] = Paper(
        "CPPO: Continual Learning for Reinforcement Learning with Human Feedback",
        "ICLR 2024",
        "https://openreview.net/forum?id=86zAUE80pP",
    )

    retention: float = Field(0.1, ge=0)  # released LifeAlign code (there on sums, not means)
    threshold: float = Field(0.5, ge=0)  # ours: at 1, as in the released code, hardly a pair in twenty has a class
    window: int = Field(64, ge=FEWEST)  # ours
    lowest: float = Field(0.5, ge=0, le=1)  # released LifeAlign code
    highest: float = Field(1.5, ge=1)  # a summary of the paper; the released LifeAlign code has 2

    _previous: Logps = PrivateAttr(default_factory=dict)
    _seen: Any = PrivateAttr(None)
    _counts: dict[str, int] = PrivateAttr(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    _retained: Tensor | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _make_window(self) -> Self:
        self._seen = deque(maxlen=self.window)
        return self

    def attach(self, context: StepContext) -> None:
        """Looks up the previous policy's log-probabilities; windows and class counts start afresh with every task."""
        self._seen.clear()
        self._counts = dict.fromkeys(CLASSES, 0)
        self._retained = None
        self._previous = context.policy_logps(context.pairs) if context.step.index and self.retention else {}

    def example_weights(self, outcome: BatchOutcome) -> Float[Tensor, " pairs"] | None:
        """The weights for learning, in the preference stage; the weights for retention are kept for the penalty."""
        self._retained = None
        if outcome.margins is None:
            return None
        lengths = torch.tensor([len(pair.chosen) for pair in outcome.pairs], device=outcome.margins.device)
        probability, reward = (outcome.chosen_logps / lengths).detach().cpu(), outcome.margins.detach().cpu()
        self._seen.extend(zip(probability.tolist(), reward.tolist(), strict=True))
        if len(self._seen) < FEWEST:
            self._counts["ordinary"] += len(outcome.pairs)
            return None
        kinds, amounts = classify(probability, reward, list(self._seen), self.threshold)
        for kind in kinds.tolist():
            self._counts[CLASSES[kind]] += 1
        learn, retain = (self._weights(signs[kinds] * amounts).to(outcome.margins) for signs in (LEARN, RETAIN))
        self._retained = retain
        return learn

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """How far the policy has moved from the previous task's, on the answers of the batch."""
        if not self._previous:
            return None
        gaps = [self._gap(outcome, outcome.chosen_logps, 0)]
        if outcome.rejected_logps is not None:
            gaps.append(self._gap(outcome, outcome.rejected_logps, 1))
        squares = torch.stack(gaps).square().mean(dim=0)
        return self.retention * (squares if self._retained is None else self._retained * squares).mean()

    def progress(self) -> MethodState:
        """The window of recent pairs, and the number of pairs in each class so far."""
        return MethodState(values={"window": [list(pair) for pair in self._seen], "classes": dict(self._counts)})

    def load_progress(self, state: MethodState) -> None:
        """Restores them."""
        self._seen.clear()
        self._seen.extend((probability, reward) for probability, reward in state.values["window"])
        self._counts = dict(state.values["classes"])

    def state(self) -> MethodState:
        """Number of pairs in each class in the last preference stage; the previous policy is the adapter itself."""
        return MethodState(values={"classes": dict(self._counts)})

    def load_state(self, state: MethodState) -> None:
        """Restores the counts."""
        self._counts = dict(state.values["classes"])

    def _weights(self, amounts: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """1 at 0, ``highest`` at 1, ``lowest`` at -1."""
        return 1 + amounts.clamp(min=0) * (self.highest - 1) + amounts.clamp(max=0) * (1 - self.lowest)

    def _gap(self, outcome: BatchOutcome, logps: Float[Tensor, " pairs"], completion: int) -> Float[Tensor, " pairs"]:
        """Mean token log-probability now, minus that of the previous policy."""
        lengths = [len((pair.chosen, pair.rejected)[completion]) for pair in outcome.pairs]
        previous = [self._previous[pair.key][completion] for pair in outcome.pairs]
        return (logps - logps.new_tensor(previous)) / logps.new_tensor(lengths)


def classify(
    probability: Float[Tensor, " pairs"],
    reward: Float[Tensor, " pairs"],
    window: Sequence[tuple[float, float]],
    threshold: float,
) -> tuple[Tensor, Float[Tensor, " pairs"]]:
    """Assigns pairs to the four classes of CPPO or to the ordinary ones, and says how far into its class each is.

    Args:
        probability: Mean token log-probability of each chosen answer, nats.
        reward: Preference margin of each pair, nats.
        window: Probabilities and rewards of recent pairs, at least two.
        threshold: Distance from the mean, in standard deviations, at which ``high`` and ``low`` begin.

    Returns:
        The index of each pair's class in :data:`CLASSES`, and how far the pair is beyond the nearer threshold, in
        standard deviations, limited to [0, 1].

    Example:
        >>> window = [(-1.0, -1.0), (1.0, 1.0)]                         # means 0, deviations 1
        >>> kinds, amounts = classify(torch.tensor([1.5, 0.2]), torch.tensor([-3.0, 3.0]), window, threshold=1.0)
        >>> [CLASSES[kind] for kind in kinds], amounts
        (['high_probability_low_reward', 'ordinary'], tensor([0.5000, 0.0000]))

    Reference:
        Zhang et al., CPPO, ICLR 2024, Table 1 (classes and directions); the ramps are ours.
    """
    seen = torch.tensor(window, dtype=torch.float64)
    mean, deviation = seen.mean(dim=0), seen.std(dim=0, correction=0).clamp(min=1e-12)
    scores = (torch.stack((probability, reward), dim=1).double() - mean) / deviation
    beyond = scores.abs() - threshold
    kinds = 2 * (scores[:, 0] < 0).long() + (scores[:, 1] < 0).long()
    kinds[(beyond <= 0).any(dim=1)] = CLASSES.index("ordinary")
    return kinds, beyond.min(dim=1).values.clamp(0, 1).float()
