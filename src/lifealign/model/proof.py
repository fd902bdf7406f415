"""A base proves itself: what may be done on this very model, in this process, and what has to run the plain way.

Scoring many answers at once, two of them behind one prompt, logits at a few positions only, answers generated side by
side: each is a short cut past what the model does by itself, and each is wrong on some families of models, silently. So
every short cut is compared with the plain way on a few rows of random tokens whenever a model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lifealign.errors import ModelError
from lifealign.model.batch import Batch, collate
from lifealign.model.head import backbone, output_head
from lifealign.model.logps import CompletionLogps
from lifealign.model.sharing import Sharing, candidates, longest_reach, other_kinds
from lifealign.model.tokens import TokenizedPair

EXACT = 1e-3
"""Relative difference of two float32 computations of one hidden state that is rounding; measured below 1e-5 on nearly
every family, and what is wrong is off by 1e-2 to 1."""
ROUNDED = 0.1
"""The same in bfloat16 and float16, for the typical token: one rounding is 4e-3, and a state is the sum of many."""

BOTH = ("chosen", "rejected")


@dataclass(frozen=True)
class Proof:
    """What was found on a model.

    Attributes:
        sharing: The form in which prompts can be shared; None where every completion has to be a row of its own.
        plain_because: Why they cannot be shared, in words; empty where they can.
        padded: Whether prompts of different lengths can be answered side by side, padded on the left.
        unpadded_because: Why they cannot, in words; empty where they can.
    """

    sharing: Sharing | None
    plain_because: str = ""
    padded: bool = True
    unpadded_because: str = ""

    def as_record(self) -> dict[str, str]:
        """What a life keeps of it, in words."""
        return {
            "shared_prompts": str(self.sharing) if self.sharing is not None else f"plain rows: {self.plain_because}",
            "generation": "padded on the left" if self.padded else f"equal lengths together: {self.unpadded_because}",
        }


@dataclass(frozen=True)
class _Probes:
    """Rows of random tokens, and the token that they are filled up with."""

    pairs: Sequence[TokenizedPair]
    pad_token_id: int


@dataclass(frozen=True)
class _Reading:
    """What one forward and backward pass gives, in the order of the completions' tokens."""

    hidden: Tensor
    logps: Tensor
    gradient: Tensor


def prove(model: PeftModel, vocabulary: Sequence[int], max_length: int, pad_token_id: int) -> Proof:
    """Compares every short cut with the plain way on a model as it is now.

    A model of less than float32 is proven twice: in float32, where the least fault stands out from the rounding, and as
    it is, for what its own kernels do.

    Args:
        model: The base with a LoRA adapter of any state on it; left as it was.
        vocabulary: Token ids that stand for ordinary text.
        max_length: The longest rows that will be used, in tokens; windows wider than that are never met.
        pad_token_id: The token that rows will be filled up with; its embedding may be zero, and gradients with it NaN.

    Raises:
        ModelError: If even plain rows are not what the model itself computes: its scores could not be trusted.
    """
    causal: Any = model.get_base_model()
    forms = candidates(causal.config.get_text_config(decoder=True))
    was_training = model.training
    model.eval()
    try:
        probes = _Probes(_probes(causal, vocabulary, max_length), pad_token_id)
        proof = None
        if causal.dtype != torch.float32:
            if not _float32_fits(causal):
                return _prove_or_say(model, probes, [], plain_because="memory is too short to prove it in float32")
            with in_float32(causal):
                proof = _prove_or_say(model, probes, forms)
            forms = [] if proof.sharing is None else [proof.sharing]
        native = _prove_or_say(model, probes, forms, plain_because="" if proof is None else proof.plain_because)
    finally:
        model.train(was_training)
    if proof is None or proof.padded:
        return native
    return Proof(native.sharing, native.plain_because, False, proof.unpadded_because)


def _prove_or_say(model: PeftModel, probes: _Probes, forms: Sequence[Sharing], plain_because: str = "") -> Proof:
    """One proof at the model's present precision; what it cannot compute at all is said in one line."""
    causal: Any = model.get_base_model()
    try:
        plain = _plain(model, probes)
        _require_same_in_training(model, probes, plain)
        sharing, reason = _shared(model, probes, plain, forms)
        unpadded = _unpadded_because(model, probes)
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError, ValueError, NotImplementedError) as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"model: {type(causal).__name__} with a LoRA adapter cannot be run in {str(causal.dtype)[6:]} "
            f"({type(error).__name__}: {said}); model.dtype=float32 or other lora.lora_target_modules may do"
        ) from error
    return Proof(sharing, plain_because or reason if sharing is None else "", not unpadded, unpadded)


@torch.no_grad()
def require_causal(name: str, causal: Any, vocabulary: Sequence[int]) -> None:
    """Refuses a model whose answers look ahead, or whose logits are not hidden states times a head that is known.

    Raises:
        ModelError: If it is one; the message says which of the two.
    """
    kind = type(causal).__name__
    ids = torch.tensor([list(vocabulary)[: 4 * 13 : 4][:12]], device=causal.device)
    other = ids.clone()
    other[0, -1] = int(vocabulary[-1])
    try:
        with in_float32(causal) if _float32_fits(causal) else nullcontext():
            first, second = (causal(input_ids=one, use_cache=False).logits.float() for one in (ids, other))
            head = output_head(causal)
            hidden = backbone(causal)(input_ids=ids, use_cache=False).last_hidden_state
            logits = None if head is None else head.logits(hidden[0])
            tolerance = EXACT if causal.dtype == torch.float32 else ROUNDED
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError, ValueError, NotImplementedError) as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"model {name!r}: {kind} cannot read a dozen tokens ({type(error).__name__}: {said}), expected a causal "
            "language model"
        ) from error
    if float(_distance(first[0, :-1], second[0, :-1]).max()) > tolerance:
        raise ModelError(
            f"model {name!r}: {kind} reads what comes after a token when it predicts that token, expected a causal "
            "language model"
        )
    if logits is None:
        raise ModelError(f"model {name!r}: found no output head that is one matrix, expected such a head")
    if logits.shape != first[0].shape or float(_distance(logits, first[0]).max()) > tolerance:
        raise ModelError(
            f"model {name!r}: the logits of {kind} are not its last hidden states times its output head, with bias, "
            "constant scale or soft cap, expected such a model"
        )


@contextmanager
def in_float32(causal: Any) -> Iterator[None]:
    """Computes in float32 while the context lasts; weights of less are widened, and narrowed again without loss."""
    narrow = [
        (tensor, tensor.dtype)
        for tensor in (*causal.parameters(), *causal.buffers())
        if tensor.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for tensor, _ in narrow:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in narrow:
            tensor.data = tensor.data.to(dtype)


def _float32_fits(causal: Any) -> bool:
    """Whether there is memory for every weight at four bytes, with some to spare; where it cannot be told, there is."""
    needed = 1.2 * sum(2 * tensor.nbytes for tensor in causal.parameters() if tensor.dtype != torch.float32)
    if causal.device.type == "cuda":
        return bool(torch.cuda.mem_get_info(causal.device)[0] > needed)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration, ValueError):
        return True
    return bool(available > needed)


def _probes(causal: Any, vocabulary: Sequence[int], max_length: int) -> list[TokenizedPair]:
    """Two pairs of random tokens, of different lengths; every answer of the first lies beyond every window."""
    config = causal.config.get_text_config(decoder=True)
    reach = longest_reach(config, max_length)
    positions = getattr(config, "max_position_embeddings", None)
    most = positions if reach and isinstance(positions, int) else max_length  # a window is shown by rows beyond it
    longest = min(reach + 9, max(most - 17, 1))
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        drawn = torch.randint(len(vocabulary), (count,), generator=generator)
        return tuple(vocabulary[index] for index in drawn.tolist())

    pairs: list[TokenizedPair] = []
    for prompt, chosen, rejected in ((longest, 11, 16), (min(6, longest), 13, 5)):
        room = max(most - prompt, 1)
        parts = tokens(prompt), tokens(min(chosen, room)), tokens(min(rejected, room))
        pairs.append(TokenizedPair(f"probe {len(pairs)}", "", *parts))
    return pairs


def _plain(model: PeftModel, probes: _Probes) -> _Reading:
    """A reading of plain rows, once it is found not to depend on what stands beside a row."""
    together = _read(model, _batch(model, probes.pairs, probes.pad_token_id, shared=False), None)
    alone = [_read(model, _batch(model, [pair], probes.pad_token_id, shared=False), None) for pair in probes.pairs]
    chosen = [reading.hidden[: len(pair.chosen)] for reading, pair in zip(alone, probes.pairs, strict=True)]
    rejected = [reading.hidden[len(pair.chosen) :] for reading, pair in zip(alone, probes.pairs, strict=True)]
    if _typical(_distance(together.hidden, torch.cat([*chosen, *rejected])), model) > _tolerance(model):
        raise ModelError(
            f"model: {type(model.get_base_model()).__name__} reads a row differently when a longer one stands beside "
            "it, expected padding on the right to change nothing"
        )
    return together


def _require_same_in_training(model: PeftModel, probes: _Probes, plain: _Reading) -> None:
    """Refuses a model that is trained on something else than it is scored by: the reference would be of another model.

    Some mixtures draw their experts at random while they train. The adapter's own dropout is left out: it is asked for.
    """
    model.train()
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            training = _read(model, _batch(model, probes.pairs, probes.pad_token_id, shared=False), None)
    finally:
        model.eval()
    if _typical(_distance(training.hidden, plain.hidden), model) > _tolerance(model):
        raise ModelError(
            f"model: {type(model.get_base_model()).__name__} computes something else in training than when it is "
            "scored, such as experts drawn at random, expected the same"
        )


def _shared(model: PeftModel, probes: _Probes, plain: _Reading, forms: Sequence[Sharing]) -> tuple[Sharing | None, str]:
    """The first form of shared prompts that is exact, or None and why there is none."""
    causal: Any = model.get_base_model()
    others = other_kinds(causal.config.get_text_config(decoder=True))
    reasons = []
    for form in forms:
        try:
            reason = _differs(model, probes, plain, form)
        except Exception as error:  # whatever a model does with a mask that it does not know
            reason = f"it cannot take their masks ({type(error).__name__})"
        if not reason:
            return form, ""
        reasons.append(reason)
    if reasons:
        return None, reasons[0]  # of the likeliest form
    kinds = f"in layers of the kind {', '.join(others)}" if others else "on this model"
    return None, f"no mask parts two answers {kinds}"


def _differs(model: PeftModel, probes: _Probes, plain: _Reading, form: Sharing) -> str:
    """How shared prompts differ from plain rows, in words; empty if they do not."""
    batch = _batch(model, probes.pairs, probes.pad_token_id, shared=True)
    shared = _read(model, batch, form)
    order = _order(batch, probes.pairs)
    if _typical(_distance(shared.hidden[order], plain.hidden), model) > _tolerance(model):
        return f"log-probabilities would be off by {_order_of((shared.logps - plain.logps).abs().max())} nats"
    gradients = _distance(shared.gradient.flatten()[None], plain.gradient.flatten()[None])
    if not shared.gradient.isfinite().all():
        return "gradients would be no numbers"
    if float(gradients) > 4 * _tolerance(model):
        return f"gradients would be off by {_order_of(gradients)} of their length"
    # What the chosen answer says must not reach the rejected one. Rounding hides little of that: the shapes are equal.
    swapped = [
        TokenizedPair(pair.key, "", pair.prompt, tuple(reversed(pair.chosen)), pair.rejected) for pair in probes.pairs
    ]
    with torch.no_grad():
        other = (
            CompletionLogps(model, form).predicting(_batch(model, swapped, probes.pad_token_id, shared=True)).float()
        )
    kept = torch.cat([_tokens_of(batch, len(probes.pairs) + number) for number in range(len(probes.pairs))])
    if _typical(_distance(other[kept], shared.hidden[kept]), model) > _tolerance(model) / 10:
        return "the chosen answer would be read into the rejected one"
    return ""


def _unpadded_because(model: PeftModel, probes: _Probes, steps: int = 3) -> str:
    """How answers generated side by side differ from answers generated alone, in words; empty if they do not."""
    causal: Any = model.get_base_model()
    prompts = [pair.prompt for pair in probes.pairs]
    pad = probes.pad_token_id
    length = max(map(len, prompts))
    rows = torch.tensor([[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=causal.device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=causal.device)

    def generate(ids: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            output: Any = model.generate(
                input_ids=ids,
                attention_mask=seen,
                max_new_tokens=steps,
                min_new_tokens=steps,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                return_dict_in_generate=True,
                output_logits=True,
            )
        return output.sequences[:, ids.shape[1] :], torch.stack(output.logits, dim=1).float()

    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=causal.device)
        alone.append(generate(ids, torch.ones_like(ids)))
    _require_answers_are_scored(model, probes, alone)
    try:
        tokens, logits = generate(rows, mask)
    except Exception as error:  # a family of its own kind of cache, or of mask
        return f"it cannot answer padded prompts ({type(error).__name__})"
    for number, (own_tokens, own_logits) in enumerate(alone):
        for step in range(steps):
            if float(_distance(logits[number, step][None], own_logits[0, step][None])) > 2 * _tolerance(model):
                return "its answer to a prompt would depend on the prompt beside it"
            if tokens[number, step] != own_tokens[0, step]:
                break  # two tokens as likely as each other; what follows cannot be compared
    return ""


def _require_answers_are_scored(model: PeftModel, probes: _Probes, answers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Refuses a model that predicts, answering token by token, something else than it is scored by."""
    for pair, (tokens, logits) in zip(probes.pairs, answers, strict=True):
        answer = tuple(tokens[0].tolist())
        batch = _batch(model, [TokenizedPair("", "", pair.prompt, answer, answer)], probes.pad_token_id, shared=False)
        policy = CompletionLogps(model, None)
        with torch.no_grad():
            scored = policy.head().logits(policy.predicting(batch)[: len(answer)])
        if _typical(_distance(logits[0], scored), model) > 2 * _tolerance(model):
            raise ModelError(
                f"model: {type(model.get_base_model()).__name__} predicts other tokens when it answers than when its "
                "answer is scored, expected the same logits with and without its cache"
            )


def _read(model: PeftModel, batch: Batch, form: Sharing | None) -> _Reading:
    """Hidden states, log-probabilities, and their gradient in the adapter's first factor that has one."""
    policy = CompletionLogps(model, form)
    factor = next(parameter for name, parameter in model.named_parameters() if ".lora_B." in name)
    needed = factor.requires_grad
    factor.requires_grad_(True)
    try:
        with torch.enable_grad():
            hidden = policy.predicting(batch)
            logps = policy.summed(hidden, batch)
            signs = torch.tensor([1.0, -1.0], device=logps.device).repeat_interleave(batch.sequences // 2)
            (gradient,) = torch.autograd.grad((signs * logps).sum(), factor)
    finally:
        factor.requires_grad_(needed)
    return _Reading(hidden.detach().float(), logps.detach(), gradient.detach().float())


def _batch(model: PeftModel, pairs: Sequence[TokenizedPair], pad: int, *, shared: bool) -> Batch:
    causal: Any = model.get_base_model()
    return collate(pairs, BOTH, pad_token_id=pad, share_prefix=shared).to(causal.device)


def _order(batch: Batch, pairs: Sequence[TokenizedPair]) -> Tensor:
    """Places of a shared batch's tokens in the order of plain rows: all chosen answers, then all rejected ones."""
    return torch.cat([_tokens_of(batch, number) for number in range(2 * len(pairs))])


def _tokens_of(batch: Batch, sequence: int) -> Tensor:
    return (batch.sequence == sequence).nonzero().squeeze(1)


def _distance(found: Tensor, expected: Tensor) -> Tensor:
    """Length of the difference in units of the expected vector's length, row by row; infinite where it is no number."""
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)
    return torch.where(distance.isfinite(), distance, torch.inf)


def _order_of(value: Tensor) -> str:
    """How great a fault is, in words that no other processor's rounding changes: ``more than 0.1``."""
    return f"more than {10.0 ** math.floor(math.log10(max(float(value), 1e-9))):g}" if value.isfinite() else "no number"


def _typical(distances: Tensor, model: PeftModel) -> float:
    """The greatest distance in float32; the median in less, where a near tie of two experts may fall either way."""
    return float(distances.max() if _dtype(model) == torch.float32 else distances.median())


def _tolerance(model: PeftModel) -> float:
    return EXACT if _dtype(model) == torch.float32 else ROUNDED


def _dtype(model: PeftModel) -> torch.dtype:
    dtype = model.get_base_model().dtype
    assert isinstance(dtype, torch.dtype)
    return dtype
