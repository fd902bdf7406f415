"""LoRA merged into the weights of its base: a plain model of transformers, and the folder that it is saved to."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import Module, Parameter
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lifealign.errors import ModelError
from lifealign.model.embedded import no_progress_bar
from lifealign.model.packing import PACKED_ATTENTION
from lifealign.model.quantized import put_together, whole_numbers

PREFIX, MARKS = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
"""What PEFT puts before and after the name of a module in the names of its factors."""


def factors_by_module(adapter: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors ``(lora_A, lora_B)`` of an adapter by the name of the module that they change.

    Raises:
        ModelError: If the adapter has something else in it, or a factor without its other one.

    Example:
        >>> factors = {f"base_model.model.layers.0.q_proj.lora_{one}.weight": torch.zeros(2, 2) for one in "AB"}
        >>> list(factors_by_module(factors))
        ['layers.0.q_proj']
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, factor in adapter.items():
        mark = next((mark for mark in MARKS if name.endswith(mark)), None)
        if mark is None or not name.startswith(PREFIX):
            raise ModelError(f"adapter: found {name!r}, expected factors of LoRA and nothing else")
        found.setdefault(name.removeprefix(PREFIX).removesuffix(mark), {})[mark] = factor
    if alone := [module for module, factors in found.items() if len(factors) < len(MARKS)]:
        raise ModelError(f"adapter: found one factor of {alone[0]}, expected lora_A and lora_B")
    return {module: (factors[MARKS[0]], factors[MARKS[1]]) for module, factors in found.items()}


def merged_model(
    base: PreTrainedModel, adapter: Mapping[str, Tensor], scaling: float, dtype: torch.dtype
) -> PreTrainedModel:
    r"""A copy of a base with :math:`W + s B A` in place of each adapted weight, as if there had never been an adapter.

    The sum is computed in float32 and rounded once, to the dtype of the result. Weights that the adapter does not touch
    are the base's own, not copies of them, unless they are cast; tied weights stay tied. A base in 4 bits is taken as
    it computes: its weights are the levels, not those that were quantised.

    Args:
        base: The base model, also if PEFT has put layers of its own into it; it is not changed.
        adapter: Factors by PEFT's names.
        scaling: ``lora_alpha`` divided by the rank.
        dtype: Of the weights. A weight that the base has in another dtype than most (a router in float32, say) keeps
            its own.

    Returns:
        The model, on the CPU, frozen, in evaluation mode.

    Raises:
        ModelError: If the adapter does not fit, a weight is shared by several modules, so that it cannot be changed for
            one of them alone, or a weight is not finite in ``dtype``.
    """
    base = put_together(base)
    modules = dict(base.named_modules(remove_duplicate=False))
    uses = Counter(id(one) for module in base.modules() for one in module._parameters.values() if one is not None)
    usual = base.dtype
    copies: dict[int, Any] = {}  # what deepcopy finds here it takes instead of copying
    for name, factors in factors_by_module(adapter).items():
        module = _without_lora(modules[name]) if name in modules else None
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Parameter):
            raise ModelError(f"adapter: found factors of {name}, expected a linear module of {type(base).__name__}")
        if uses[id(weight)] > 1:
            raise ModelError(
                f"{name}: shares its weight with another module of {type(base).__name__}, so nothing can be merged "
                "into it; use the adapter as it is"
            )
        change = _change(name, factors, weight, transposed=type(module).__name__ == "Conv1D")
        total = weight.detach().to("cpu", torch.float32) + scaling * change
        copies[id(weight)] = _frozen(name, total, dtype if weight.dtype == usual else weight.dtype)
    for name, weight in base.named_parameters():
        if id(weight) not in copies:
            wanted = dtype if weight.dtype == usual else weight.dtype
            copies[id(weight)] = _frozen(name, weight.detach().to("cpu"), wanted)
    model = copy.deepcopy(base, copies)
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(module, LoraLayer):
            model.set_submodule(name, _without_lora(module))
    return _plain(model)


def save_merged(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Saves a model with its tokenizer as transformers does, reads it again and compares every weight.

    Args:
        model: A model that :func:`merged_model` returned.
        tokenizer: The base's tokenizer, with its chat template.
        folder: An empty folder.

    Raises:
        OSError: If the system refuses.
        ModelError: If transformers cannot save it, or what it reads back is not the same model.
    """
    try:
        with no_progress_bar():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)
    except OSError:
        raise
    except Exception as error:  # safetensors' own error for a full disk, settings that transformers does not accept
        raise ModelError(
            f"{type(model).__name__}: the merged model could not be saved ({' '.join(str(error).split())[:300]})"
        ) from error
    for path in folder.glob("*.safetensors"):  # safetensors lets nobody but its owner read a file
        path.chmod((folder / "config.json").stat().st_mode)
    expected, found = model.state_dict(), again.state_dict()
    wrong = sorted(expected.keys() ^ found.keys()) or [
        name for name, weight in expected.items() if not torch.equal(weight.cpu().float(), found[name].float())
    ]
    if wrong:
        raise ModelError(
            f"{type(model).__name__}: found another {wrong[0]} in the merged model when it was read back, expected "
            "what was saved; use the adapter as it is"
        )


def merged_bytes(base: PreTrainedModel, dtype: torch.dtype) -> int:
    """Bytes of the weights of a base in a dtype; a weight that is tied counts once."""
    weights = [weight for name, weight in base.named_parameters() if ".lora_" not in name]
    return sum(
        whole_numbers(weight) * (dtype.itemsize if weight.dtype in (base.dtype, torch.uint8) else weight.element_size())
        for weight in weights
    )


def _change(name: str, factors: tuple[Tensor, Tensor], weight: Tensor, *, transposed: bool) -> Tensor:
    """What an adapter adds to a weight, but for its scaling, in float32; ``transposed`` weights are (in, out)."""
    lora_a, lora_b = (factor.to("cpu", torch.float32) for factor in factors)
    change = lora_b @ lora_a
    change = change.T if transposed else change
    if change.shape != weight.shape:
        raise ModelError(
            f"{name}: found factors for a weight of shape {tuple(change.shape)}, expected {tuple(weight.shape)}"
        )
    return change


def _frozen(name: str, weight: Tensor, dtype: torch.dtype) -> Parameter:
    """A weight in its dtype, after checking that it can hold it."""
    cast = weight.to(dtype) if weight.is_floating_point() else weight
    if cast.is_floating_point() and not torch.isfinite(cast).all():
        largest = weight.abs().max().item()
        raise ModelError(
            f"{name}: found a weight of {largest:g}, which is not finite in {str(dtype).removeprefix('torch.')}, "
            "expected finite numbers only; choose another dtype"
        )
    return Parameter(cast, requires_grad=False)


def _without_lora(module: Any) -> Module:
    """The layer of the base inside PEFT's, or the module itself."""
    layer: Module = module.get_base_layer() if isinstance(module, LoraLayer) else module
    return layer


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Takes everything off a copied model that says that it was adapted, quantised or made to read packed rows."""
    for name in ("peft_config", "hf_quantizer", "quantization_method", "is_quantized"):
        model.__dict__.pop(name, None)
    model.config.__dict__.pop("quantization_config", None)
    model.config.dtype = model.dtype
    if model.config._attn_implementation == PACKED_ATTENTION:
        model.config._attn_implementation = "sdpa"
    model.requires_grad_(False)
    model.eval()
    Module.to(model, "cpu")  # its buffers: the weights are there
    return model
