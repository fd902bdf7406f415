"""The part of a model's proof that is about answers: side by side, and leaving the batch one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lifealign.errors import ModelError
from lifealign.model.decoding import by_logits_alone, continued
from lifealign.model.logps import CompletionLogps
from lifealign.model.probes import Probes, lay_out, tolerance, typical
from lifealign.model.rounding import distance
from lifealign.model.tokens import TokenizedPair


def unpadded_because(model: PeftModel, probes: Probes, steps: int = 3) -> str:
    """How answers generated side by side differ from answers generated alone, in words; empty if they do not."""
    causal: Any = model.get_base_model()
    rows, mask = _padded(probes, causal.device)

    def generate(ids: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        output = _generate(model, probes, steps, input_ids=ids, attention_mask=seen)
        return output.sequences[:, ids.shape[1] :], torch.stack(output.logits, dim=1).float()

    alone = []
    for pair in probes.pairs:
        ids = torch.tensor([pair.prompt], device=causal.device)
        alone.append(generate(ids, torch.ones_like(ids)))
    _require_answers_are_scored(model, probes, alone)
    try:
        tokens, logits = generate(rows, mask)
    except Exception as error:  # some families have their own kind of cache or mask
        return f"it cannot answer padded prompts ({type(error).__name__})"
    for number, (own_tokens, own_logits) in enumerate(alone):
        for step in range(steps):
            if float(distance(logits[number, step][None], own_logits[0, step][None])) > 2 * tolerance(model):
                return "its answer to a prompt would depend on the prompt beside it"
            if tokens[number, step] != own_tokens[0, step]:
                break  # two tokens are equally likely; what follows cannot be compared
    return ""


def rows_leave(model: PeftModel, probes: Probes, steps: int = 2) -> bool:
    """Whether answers are the same if one leaves the batch after some steps and the others go on from their cache."""
    rows, mask = _padded(probes, model.device)
    whole = _generate(model, probes, 2 * steps, input_ids=rows, attention_mask=mask)
    try:
        first = _generate(model, probes, steps, input_ids=rows, attention_mask=mask)
        going = list(range(len(rows)))[1:]
        rest = _generate(model, probes, steps, **continued(first, mask, going))
    except Exception:  # families with a cache of their own, or none
        return False
    for place, row in enumerate(going):
        for step in range(steps):
            expected, found = whole.logits[steps + step][row], rest.logits[step][place]
            if float(distance(found[None].float(), expected[None].float())) > 2 * tolerance(model):
                return False
            at = rows.shape[1] + steps + step
            if rest.sequences[place, at] != whole.sequences[row, at]:
                break  # two tokens are equally likely; what follows cannot be compared
    return True


def _padded(probes: Probes, device: torch.device) -> tuple[Tensor, Tensor]:
    """The prompts of the probes, padded on the left, and their attention mask."""
    prompts = [pair.prompt for pair in probes.pairs]
    length = max(map(len, prompts))
    rows = [[probes.pad_token_id] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


def _generate(model: PeftModel, probes: Probes, steps: int, **given: Any) -> Any:
    """Exactly so many greedy tokens, with the logits of each."""
    with torch.no_grad(), by_logits_alone(model.get_base_model()):  # without a stop token nothing ends earlier
        return model.generate(
            **given,
            max_new_tokens=steps,
            do_sample=False,
            pad_token_id=probes.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )


def _require_answers_are_scored(model: PeftModel, probes: Probes, answers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Refuses a model whose logits differ between answering token by token and scoring the same answer."""
    for pair, (tokens, logits) in zip(probes.pairs, answers, strict=True):
        answer = tuple(tokens[0].tolist())
        batch = lay_out(model, [TokenizedPair("", "", pair.prompt, answer, answer)], probes.pad_token_id, "plain")
        policy = CompletionLogps(model, None)
        with torch.no_grad():
            scored = policy.head().logits(policy.predicting(batch)[: len(answer)])
        if typical(distance(logits[0], scored), model) > 2 * tolerance(model):
            raise ModelError(
                f"model: {type(model.get_base_model()).__name__} has other logits when it answers than when its answer "
                "is scored, expected the same with and without its cache"
            )
