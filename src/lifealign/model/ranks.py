r"""Data parallel over an optimizer batch: the leader leads, the other processes compute their share of each pass.

All that a loss asks of the model is log-probabilities of completions, :math:`\ell(\theta)`. The leader cuts pairs into
shares; every process computes the log-probabilities of its own, and the leader, who has them all, computes everything
else as a single process does: weights, penalties, denominators, figures. In the backward pass each process gets the
slopes of its own, :math:`\partial L / \partial \ell`, and the gradients :math:`J^\top \partial L / \partial \ell` are
added up. So a method, and whatever it differentiates, does not know how many processes there are.

The others keep nothing but the frozen base and, from a forward pass to its backward pass, its graph: the leader sends
the adapter with every pass. It alone holds the life, scores and consolidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.autograd.function import once_differentiable

from lifealign.errors import ModelError
from lifealign.model.adapter_shape import AdapterShape, flat, shape_of
from lifealign.model.channel import Channel
from lifealign.model.sharded import Attended
from lifealign.model.tokens import TokenizedPair

Shares = Sequence[Sequence[TokenizedPair]]
"""Pairs of each process, the leader's first; there may be fewer than processes."""
Policy = Callable[[Sequence[TokenizedPair]], Tensor]
"""Log-probabilities of all chosen completions of some pairs, then of all rejected ones, with gradient."""


@dataclass(eq=False)
class Ranks:
    """The other processes, as the leader of a run sees them.

    Attributes:
        channel: To all of them.
        model: What they have to load, as the callback of :func:`follow` takes it.
        attended: How the others attend the leader's own passes, if they hold the base together; else None.
    """

    channel: Channel
    model: Mapping[str, Any]
    attended: Attended | None = None
    _shape: AdapterShape | None = None
    _ended: list[int] = field(default_factory=list)
    _passes: int = 0

    @property
    def size(self) -> int:
        """Number of processes, the leader included."""
        return self.channel.size

    def logps(
        self, model: PeftModel, shares: Shares, completions: Sequence[str], policy: Policy
    ) -> Float[Tensor, " sequences"]:
        """Log-probabilities of the completions of all shares, each computed by a process of its own.

        Args:
            model: The leader's model, whose adapter the others take over.
            shares: At least the leader's, at most one for each process.
            completions: The completions that are scored.
            policy: How the leader computes its own share.

        Returns:
            All chosen completions in the order of the shares, then all rejected ones, with gradient if it is on.

        Raises:
            LostProcess: If another process has ended.
            ModelError: If another process has loaded another base.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        asked = _Asked(self, model, shares, completions, policy, torch.is_grad_enabled(), self._passes)
        self._passes += 1
        found: Tensor = _Spread.apply(asked, *parameters)  # type: ignore[no-untyped-call]
        return found

    def begin(self, model: PeftModel, asked: _Asked) -> None:
        """Tells the others what to compute; they begin while the leader computes its own."""
        self.meet()
        shape = shape_of(model)
        if shape != self._shape:
            self.channel.tell({"do": "shape", "shape": asdict(shape)})
            self._shape = shape
        dropout = torch.randint(2**31, ()).item() if asked.training and asked.drops_out else None
        ended, self._ended = self._ended, []
        self.channel.tell(
            {
                "do": "forward",
                "pass": asked.number,
                "shares": [[[pair.prompt, pair.chosen, pair.rejected] for pair in share] for share in asked.shares],
                "completions": list(asked.completions),
                "gradient": asked.gradient,
                "training": asked.training,
                "checkpointing": asked.checkpointing,
                "dropout": dropout,
                "ended": ended,
            }
        )
        self.channel.share(flat(model))

    def forget(self, number: int) -> None:
        """Lets the others drop the graph of a pass, with the next word."""
        self._ended.append(number)

    def meet(self) -> None:
        """Makes sure that the others have this model: another one may have been led in between.

        Raises:
            LostProcess: If another process has ended.
            ModelError: If another process cannot load this base, or the base that they hold together is another one.
        """
        if self.channel.led is self:
            return
        if self.attended is not None:
            raise ModelError("device.sharding: found another life in use since, expected one at a time with base")
        self.channel.tell({"do": "load", "model": dict(self.model)})
        for rank, said in enumerate(self.channel.answers(), start=1):
            if said:
                raise ModelError(f"process {rank} of this run: {said}")
        self.channel.led = self
        self._shape = None

    def round(self) -> AbstractContextManager[None]:
        """Within the context, passes are those of a round, which every process makes."""
        return nullcontext() if self.attended is None else self.attended.round()


@dataclass(eq=False)
class _Asked:
    """One pass; when nobody can ask for its gradient any more, the others drop their part of the graph."""

    ranks: Ranks
    model: PeftModel
    shares: Shares
    completions: Sequence[str]
    policy: Policy
    gradient: bool
    number: int

    @property
    def training(self) -> bool:
        return self.model.training

    @property
    def checkpointing(self) -> bool:
        base: Any = self.model.get_base_model()
        return bool(base.is_gradient_checkpointing)

    @property
    def drops_out(self) -> bool:
        return any(config.lora_dropout for config in self.model.peft_config.values())  # type: ignore[attr-defined]

    @property
    def sizes(self) -> list[int]:
        """Pairs of each process."""
        return [len(share) for share in self.shares] + [0] * (self.ranks.size - len(self.shares))

    def together(self, found: Sequence[Tensor]) -> Tensor:
        """From log-probabilities share by share to all chosen, then all rejected."""
        count = len(self.completions)
        return torch.cat([part.chunk(count)[number] for number in range(count) for part in found if len(part)])

    def apart(self, slopes: Tensor) -> list[Tensor]:
        """The inverse of :meth:`together`."""
        split = [part.split(self.sizes) for part in slopes.chunk(len(self.completions))]
        return [torch.cat(of_share) for of_share in zip(*split, strict=True)]

    def __del__(self) -> None:
        if self.gradient:
            self.ranks.forget(self.number)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, asked: _Asked, *parameters: Tensor) -> Tensor:
        ranks, device = asked.ranks, asked.model.device
        ranks.begin(asked.model, asked)
        with torch.set_grad_enabled(asked.gradient), ranks.round():
            own = asked.policy(asked.shares[0])
        others = ranks.channel.collect([size * len(asked.completions) for size in asked.sizes[1:]])
        if asked.gradient:
            ctx.asked, ctx.own, ctx.parameters = asked, own, parameters
        return asked.together([own.detach(), *(other.to(device) for other in others)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        asked: _Asked = ctx.asked
        mine, *theirs = asked.apart(slopes)
        channel = asked.ranks.channel
        channel.tell({"do": "backward", "pass": asked.number, "slopes": [part.tolist() for part in theirs]})
        gradient = channel.add_up(gradient_of(ctx.own, ctx.parameters, mine))
        sizes = [parameter.numel() for parameter in ctx.parameters]
        parts = zip(gradient.split(sizes), ctx.parameters, strict=True)
        return (None, *(part.reshape(parameter.shape).to(parameter) for part, parameter in parts))


def gradient_of(logps: Tensor, parameters: Sequence[Tensor], slopes: Tensor) -> Float[Tensor, " numbers"]:
    """Gradient of log-probabilities times slopes, for all parameters as one vector, float32 on the CPU."""
    found = torch.autograd.grad(logps, list(parameters), slopes.to(logps), allow_unused=True)
    gradients = zip(parameters, found, strict=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten().float().cpu()
            for parameter, gradient in gradients
        ]
    )
