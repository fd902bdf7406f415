"""Whole models as GGUF files, for tests: a tiny one of each family, and a copy of a file with changes added to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, GGUFWriter, TokenType, dequantize, get_tensor_name_map
from tests.model.families import tiny_config
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from lifealign.model.gguf_lora import FAMILIES, neighbouring

TOKENS = [*sorted(tiny_tokenizer().get_vocab(), key=tiny_tokenizer().get_vocab().__getitem__), "ab", "<|endoftext|>"]
"""Those of the byte tokenizer, one that is merged of two, because a file without any merge is not read, and one that
transformers adds to every tokenizer of a GGUF file that lacks it."""


def write_base(path: Path, model: PreTrainedModel, positions: int = 512) -> None:
    """A tiny model as a whole GGUF file, unquantised."""
    config, family = model.config, FAMILIES[model.config.model_type]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = GGUFWriter(path, family.architecture)
    writer.add_context_length(positions)
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(width)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if family.architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if family.architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 3 + [TokenType.NORMAL, TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(258)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = get_tensor_name_map(
        next(number for number, name in MODEL_ARCH_NAMES.items() if name == family.architecture),
        config.num_hidden_layers,
    )
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float()
        module, last = name.split(".")[-2], name.rsplit(".", 1)[-1]
        if module in family.rotated:
            weight = neighbouring(weight, heads[module])
        if family.architecture.startswith("gemma") and "norm" in module:
            weight = weight + 1
        known = names.get_name(name, (".weight", ".bias"))
        assert known is not None and last in ("weight", "bias"), name
        writer.add_tensor(known, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_family(family: str) -> PreTrainedModel:
    """A tiny model of a family, with attention scaled by its own width, which is all that llama.cpp knows."""
    config = tiny_config(family)
    config.vocab_size = len(TOKENS)
    if hasattr(config, "query_pre_attn_scalar"):
        config.query_pre_attn_scalar = config.head_dim
    if family == "gemma3_text":
        # There, every sixth layer sees everything; here, every other one would.
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def add_to_file(original: Path, out: Path, changes: dict[str, np.ndarray], *, plain: bool = False) -> None:
    """Copies a GGUF file, with changes added to some weights, in its own layout; they, or all, are then unquantised."""
    reader = GGUFReader(original)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=kind)
    left = dict(changes)
    for tensor in reader.tensors:
        if tensor.name in left or plain:
            writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type) + left.pop(tensor.name, 0.0))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    assert not left
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
