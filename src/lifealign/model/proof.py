"""Proves on the loaded model itself which shortcuts are exact, and what has to run the plain way.

Scoring many answers at once, sharing one prompt between two answers, computing logits at a few positions only,
generating answers side by side: each of these is a shortcut around what the model does by itself, and each is silently
wrong on some families of models. So whenever a model is loaded, every shortcut is compared with the plain way on a few
rows of random tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lifealign.errors import ModelError
from lifealign.model.batch import Layout
from lifealign.model.causal import CANNOT_RUN, in_one_line
from lifealign.model.logps import CompletionLogps
from lifealign.model.packing import packed_attention_installed
from lifealign.model.probes import (
    Probes,
    Reading,
    in_plain_order,
    lay_out,
    probes_for,
    read,
    tokens_of,
    tolerance,
    typical,
)
from lifealign.model.proof_of_answers import rows_leave, unpadded_because
from lifealign.model.rounding import distance, float32_fits, in_float32
from lifealign.model.sharing import Sharing, candidates, other_kinds
from lifealign.model.tokens import TokenizedPair


@dataclass(frozen=True)
class Proof:
    """Which shortcuts are exact on a model.

    Attributes:
        sharing: The form in which prompts can be shared; None if every completion has to be a row of its own.
        plain_because: Why prompts cannot be shared, in words; empty if they can.
        unpacked_because: Why pairs cannot stand side by side in a row, in words; empty if they can, or if not even
            prompts can be shared.
        padded: Whether prompts of different lengths can be answered side by side, padded on the left.
        unpadded_because: Why they cannot be answered side by side, in words; empty if they can.
        rows_leave: Whether an answer that has ended can be taken out of the batch while the others go on.
    """

    sharing: Sharing | None
    plain_because: str = ""
    padded: bool = True
    unpadded_because: str = ""
    unpacked_because: str = ""
    rows_leave: bool = False

    def as_record(self) -> dict[str, str]:
        """The proof in words, as a life records it."""
        packed = "pairs side by side" if self.sharing is not None and self.sharing.packed else "one pair a row"
        return {
            "shared_prompts": str(self.sharing) if self.sharing is not None else f"plain rows: {self.plain_because}",
            "packing": packed + (f": {self.unpacked_because}" if self.unpacked_because else ""),
            "generation": "padded on the left" if self.padded else f"equal lengths together: {self.unpadded_because}",
        }


def prove(model: PeftModel, vocabulary: Sequence[int], max_length: int, pad_token_id: int) -> Proof:
    """Compares every shortcut with the plain way on a model as it is now.

    A model in lower precision than float32 is proven twice: in float32, where even a small fault stands out from
    rounding, and in its own precision, which uses other kernels.

    Args:
        model: The base with a LoRA adapter in any state; left as it was.
        vocabulary: Ids of the tokens for ordinary text.
        max_length: Length of the longest rows that will be used, in tokens; windows wider than that play no role.
        pad_token_id: The token that will pad rows; its embedding may be zero, which can make gradients NaN.

    Raises:
        ModelError: If the model cannot be run, or even plain rows differ from what the model itself computes, so that
            its scores could not be trusted.
    """
    causal: Any = model.get_base_model()
    forms = candidates(causal.config.get_text_config(decoder=True))
    was_training = model.training
    model.eval()
    try:
        probes = Probes(probes_for(causal, vocabulary, max_length), pad_token_id)
        proof = None
        if causal.dtype != torch.float32:
            if not float32_fits(causal):
                return _prove_or_refuse(model, probes, [], plain_because="memory is too short to prove it in float32")
            with in_float32(causal):
                proof = _prove_or_refuse(model, probes, forms)
            forms = [] if proof.sharing is None else [proof.sharing]
        native = _prove_or_refuse(model, probes, forms, plain_because="" if proof is None else proof.plain_because)
    finally:
        model.train(was_training)
    if proof is None:
        return native
    if native.sharing is not None and proof.unpacked_because:
        native = replace(native, unpacked_because=proof.unpacked_because)
    native = replace(native, rows_leave=native.rows_leave and proof.rows_leave)
    return native if proof.padded else replace(native, padded=False, unpadded_because=proof.unpadded_because)


def _prove_or_refuse(model: PeftModel, probes: Probes, forms: Sequence[Sharing], plain_because: str = "") -> Proof:
    """Makes one proof in the model's present precision; refuses a model that cannot be run at all in one line."""
    causal: Any = model.get_base_model()
    try:
        plain = _plain(model, probes)
        _require_same_in_training(model, probes, plain)
        sharing, reason = _shared(model, probes, plain, forms)
        unpacked = ""
        if sharing is not None and sharing.packed:
            unpacked = _unpacked_because(model, probes, plain, sharing)
            sharing = replace(sharing, packed=not unpacked)
        packs = sharing is not None and sharing.packed
        with packed_attention_installed(causal) if packs else nullcontext():  # as it will be when it answers
            unpadded = unpadded_because(model, probes)
            leave = not unpadded and rows_leave(model, probes)
    except CANNOT_RUN as error:
        raise ModelError(
            f"model: {type(causal).__name__} with a LoRA adapter cannot be run in {str(causal.dtype)[6:]} "
            f"({in_one_line(error)}); try model.dtype=float32 or other lora.lora_target_modules"
        ) from error
    plain_because = plain_because or reason if sharing is None else ""
    return Proof(sharing, plain_because, not unpadded, unpadded, unpacked, leave)


def _plain(model: PeftModel, probes: Probes) -> Reading:
    """Reads plain rows; refuses a model for which a row depends on the other rows of its batch."""
    together = read(model, lay_out(model, probes.pairs, probes.pad_token_id, "plain"), None)
    alone = [read(model, lay_out(model, [pair], probes.pad_token_id, "plain"), None) for pair in probes.pairs]
    chosen = [reading.hidden[: len(pair.chosen)] for reading, pair in zip(alone, probes.pairs, strict=True)]
    rejected = [reading.hidden[len(pair.chosen) :] for reading, pair in zip(alone, probes.pairs, strict=True)]
    if typical(distance(together.hidden, torch.cat([*chosen, *rejected])), model) > tolerance(model):
        raise ModelError(
            f"model: {type(model.get_base_model()).__name__} reads a row differently when its batch has a longer one, "
            "expected padding on the right to change nothing"
        )
    return together


def _require_same_in_training(model: PeftModel, probes: Probes, plain: Reading) -> None:
    """Refuses a model that computes something else in training than in scoring: the reference would be another model.

    Some mixtures of experts draw their experts at random in training. The adapter's own dropout is exempt, because the
    settings ask for it.
    """
    model.train()
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            training = read(model, lay_out(model, probes.pairs, probes.pad_token_id, "plain"), None)
    finally:
        model.eval()
    if typical(distance(training.hidden, plain.hidden), model) > tolerance(model):
        raise ModelError(
            f"model: {type(model.get_base_model()).__name__} computes something else in training than in scoring (some "
            "models draw experts at random), expected the same"
        )


def _shared(model: PeftModel, probes: Probes, plain: Reading, forms: Sequence[Sharing]) -> tuple[Sharing | None, str]:
    """The first form of shared prompts that is exact, or None and the reason."""
    causal: Any = model.get_base_model()
    others = other_kinds(causal.config.get_text_config(decoder=True))
    reasons = []
    for form in forms:
        try:
            reason = _differs(model, probes, plain, form, "shared")
        except Exception as error:  # a model may raise anything for a form of mask that it does not know
            reason = f"it cannot take their masks ({type(error).__name__})"
        if not reason:
            return form, ""
        reasons.append(reason)
    if reasons:
        return None, reasons[0]  # the reason against the most likely form
    kinds = f"in layers of the kind {', '.join(others)}" if others else "on this model"
    return None, f"no mask parts two answers {kinds}"


def _unpacked_because(model: PeftModel, probes: Probes, plain: Reading, form: Sharing) -> str:
    """Why pairs cannot stand side by side in a row, in words; empty if they can."""
    causal: Any = model.get_base_model()
    if causal.config._attn_implementation != "sdpa":
        return f"{causal.config._attn_implementation} attention has no form for them"
    with packed_attention_installed(causal):
        try:
            again = read(model, lay_out(model, probes.pairs, probes.pad_token_id, "plain"), None)
            if typical(distance(again.hidden, plain.hidden), model) > tolerance(model):
                return "with attention for packed rows it would read plain rows differently"
            return _differs(model, probes, plain, form, "packed")
        except Exception as error:  # a model may raise anything for an attention that it does not know
            return f"it cannot read them ({type(error).__name__})"


def _differs(model: PeftModel, probes: Probes, plain: Reading, form: Sharing, layout: Layout) -> str:
    """How a layout with shared prompts differs from plain rows, in words; empty if it does not."""
    batch = lay_out(model, probes.pairs, probes.pad_token_id, layout)
    shared = read(model, batch, form)
    order = in_plain_order(batch, probes.pairs)
    if typical(distance(shared.hidden[order], plain.hidden), model) > tolerance(model):
        return f"log-probabilities would be off by {_order_of((shared.logps - plain.logps).abs().max())} nats"
    gradients = distance(shared.gradient.flatten()[None], plain.gradient.flatten()[None])
    if not shared.gradient.isfinite().all():
        return "gradients would be no numbers"
    if float(gradients) > 4 * tolerance(model):
        return f"gradients would be off by {_order_of(gradients)} of their length"
    # The text of the chosen answer must not affect the rejected one. The shapes are equal, so rounding hides little.
    swapped = [
        TokenizedPair(pair.key, "", pair.prompt, tuple(reversed(pair.chosen)), pair.rejected) for pair in probes.pairs
    ]
    with torch.no_grad():
        other = CompletionLogps(model, form).predicting(lay_out(model, swapped, probes.pad_token_id, layout)).float()
    kept = torch.cat([tokens_of(batch, len(probes.pairs) + number) for number in range(len(probes.pairs))])
    if typical(distance(other[kept], shared.hidden[kept]), model) > tolerance(model) / 10:
        return "the chosen answer would be read into the rejected one"
    return ""


def _order_of(value: Tensor) -> str:
    """The size of a fault in words that do not depend on a processor's rounding: ``more than 0.1``."""
    return f"more than {10.0 ** math.floor(math.log10(max(float(value), 1e-9))):g}" if value.isfinite() else "no number"
