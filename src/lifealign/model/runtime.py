"""What every pass over the model needs: the scoring module on its device, the tokenizer, the layout of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lifealign.errors import ModelError
from lifealign.model.batch import Batch, Layout, collate, positions
from lifealign.model.device import current_device
from lifealign.model.logps import CompletionLogps
from lifealign.model.packing import install_packed_attention
from lifealign.model.prompt_pool import active_pool, without_prompts
from lifealign.model.proof import Proof
from lifealign.model.ranks import Ranks, Shares
from lifealign.model.reasoning import Reasoning
from lifealign.model.tokens import TokenizedPair


@dataclass(frozen=True)
class Runtime:
    """A model on its device, ready to be scored and trained.

    Uses plain torch: an ``Accelerator`` sets up process-wide singletons, and those belong to the calling program.

    Attributes:
        device: Where the model is, and where batches go.
        policy: :class:`~lifealign.model.logps.CompletionLogps` over the model.
        model: The PEFT model inside.
        tokenizer: Its tokenizer, with a chat template.
        proof: What was proven exact on the model.
        share_prefix: Whether chosen and rejected share one copy of their prompt in a batch.
        reasoning: What to do with reasoning in prompts and generated answers.
        max_tokens: Most tokens in one forward pass, padding included; None counts pairs instead.
        ranks: The other processes of this run, which compute their share of a training step; None if there are none.
        sharded: Whether several processes hold the base together, each a part of it.
    """

    device: torch.device
    policy: CompletionLogps
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    proof: Proof
    share_prefix: bool
    reasoning: Reasoning = "strip"
    max_tokens: int | None = None
    ranks: Ranks | None = None
    sharded: bool = False

    @classmethod
    def prepare(
        cls,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        proof: Proof,
        *,
        share_prefix: bool | Literal["auto"] = "auto",
        reasoning: Reasoning = "strip",
        max_tokens: int | None = None,
    ) -> Runtime:
        """Puts a model on the current accelerator, such as ``cuda:0``, or on the CPU if there is none.

        Nothing is cast: the model's own dtype decides, and LoRA factors stay float32.

        Args:
            model: The base with a LoRA adapter.
            tokenizer: Its tokenizer.
            proof: What was proven exact on the model.
            share_prefix: Whether prompts are shared; ``auto`` shares them if that is exact.
            reasoning: What to do with reasoning in prompts and generated answers.
            max_tokens: Most tokens in one forward pass, padding included; None counts pairs instead.

        Raises:
            ModelError: If ``share_prefix`` is true and sharing is not exact on the model.
        """
        if share_prefix is True and proof.sharing is None:
            raise ModelError(
                f"data.share_prefix: found true, expected auto or false, because shared prompts are not exact on "
                f"{type(model.get_base_model()).__name__}: {proof.plain_because}"
            )
        shared = share_prefix is not False and proof.sharing is not None
        if proof.sharing is not None and proof.sharing.packed:
            install_packed_attention(model.get_base_model())
        device = current_device()
        policy = CompletionLogps(model, proof.sharing).to(device)
        return cls(device, policy, model, tokenizer, proof, shared, reasoning, max_tokens)

    @contextmanager
    def base_policy(self) -> Iterator[None]:
        """Turns the model into its frozen base within the context: every adapter off, no soft prompt in front.

        When PEFT switches adapters on again it makes all of them trainable, even frozen ones; here each parameter
        requires gradient after the context exactly if it did before.
        """
        trainable = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        try:
            with self.model.disable_adapter(), without_prompts(self.model):
                yield
        finally:
            for parameter, required in trainable:
                parameter.requires_grad_(required)

    def batch(self, pairs: Sequence[TokenizedPair], completions: Sequence[str]) -> Batch:
        """Lays pairs out on the model's device, in the layout that does the least work and is exact on the model."""
        pad = self.tokenizer.pad_token_id
        assert isinstance(pad, int)
        return collate(pairs, completions, pad_token_id=pad, layout=self.layout).to(self.device)

    @property
    def layout(self) -> Layout:
        """The layout of a batch for the model as it is now."""
        sharing = self.proof.sharing
        if not self.share_prefix or sharing is None:
            return "plain"
        return "packed" if sharing.packed and active_pool(self.model) is None else "shared"

    def micro_batches(
        self, pairs: Sequence[TokenizedPair], completions: Sequence[str], count: int
    ) -> list[list[TokenizedPair]]:
        """Cuts pairs, in their order, into the micro-batches of single forward passes.

        Args:
            pairs: The pairs, those of similar length together.
            completions: The completions that will be scored.
            count: Pairs in a micro-batch where ``max_tokens`` is None; else each takes as many as fit.
        """
        if self.max_tokens is None:
            return [list(pairs[start : start + count]) for start in range(0, len(pairs), count)]
        parts: list[list[TokenizedPair]] = []
        for pair in pairs:
            if parts and positions([*parts[-1], pair], completions, self.layout) <= self.max_tokens:
                parts[-1].append(pair)
            else:
                parts.append([pair])
        return parts

    @property
    def processes(self) -> int:
        """Number of processes that compute a training step."""
        return 1 if self.ranks is None else self.ranks.size

    def rounds(self, pairs: Sequence[TokenizedPair], completions: Sequence[str], count: int) -> list[Shares]:
        """Cuts pairs, in their order, into rounds, and each round into a micro-batch for every process of this run.

        Args:
            pairs: The pairs, those of similar length together.
            completions: The completions that will be scored.
            count: As :meth:`micro_batches` takes it; less where processes would otherwise have nothing to do.
        """
        if self.processes == 1:
            return [[part] for part in self.micro_batches(pairs, completions, count)]
        size = self.processes
        parts = self.micro_batches(pairs, completions, max(1, min(count, math.ceil(len(pairs) / size))))
        if len(parts) < size:
            return [self.shares(pairs)] if pairs else []
        return [parts[start : start + size] for start in range(0, len(parts), size)]

    def shares(self, pairs: Sequence[TokenizedPair]) -> Shares:
        """Cuts pairs, in their order, into one share for every process of this run, as equal as can be."""
        number = min(len(pairs), self.processes)
        ends = [len(pairs) * place // number for place in range(number + 1)]
        return [pairs[start:end] for start, end in pairwise(ends)]

    def logps(self, shares: Shares, completions: Sequence[str]) -> Tensor:
        """Log-probabilities of completions, with gradient if it is on: each share by a process of its own.

        Args:
            shares: A share of a round, or several; the first is this process's.
            completions: The completions that are scored.

        Returns:
            All chosen completions in the order of the shares, then all rejected ones; nats, float32.

        Raises:
            LostProcess: If another process of this run has ended.
        """
        if self.ranks is None:
            (pairs,) = shares
            return self.policy(self.batch(pairs, completions))  # type: ignore[no-any-return]
        return self.ranks.logps(
            self.model, shares, completions, lambda pairs: self.policy(self.batch(pairs, completions))
        )

    def sample_targets(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draws tokens from the model's own predictions; see :meth:`~lifealign.model.logps.CompletionLogps`."""
        return self.policy.sample_targets(batch, generator)

    def score(self, pairs: Sequence[TokenizedPair], batch_size: int | None) -> list[tuple[float, float]]:
        """Log-probabilities ``(chosen, rejected)`` of pairs under the model as it is now, without gradient.

        Args:
            pairs: Pairs to score.
            batch_size: Pairs in one forward pass, unless tokens are counted (see :meth:`micro_batches`); None scores
                every pair alone, and its log-probabilities then depend on nothing else.

        Returns:
            Sums over completion tokens in nats, in the order of ``pairs``.
        """
        completions = ("chosen", "rejected")
        by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index]))  # similar lengths, little padding
        found: list[tuple[float, float]] = []
        self.model.eval()
        with torch.no_grad():
            ordered = [pairs[index] for index in by_length]
            alone = [[pair] for pair in ordered]
            for part in alone if batch_size is None else self.micro_batches(ordered, completions, batch_size):
                chosen, rejected = self.policy(self.batch(part, completions)).chunk(2)
                found += zip(chosen.tolist(), rejected.tolist(), strict=True)
        in_order = dict(zip(by_length, found, strict=True))
        return [in_order[index] for index in range(len(pairs))]
