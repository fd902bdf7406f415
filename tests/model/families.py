"""Every family of causal language models that transformers knows, tiny: what can be done with it, and why not.

``python -m tests.model.families`` writes the table of ``docs/models.md``; the tests hold it against the code.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pytest import MonkeyPatch
from tests.tiny import pair, tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lifealign.errors import ModelError
from lifealign.memory.update import Adapter
from lifealign.model import generate
from lifealign.model.adapter import attach_lora, read_adapter, usual_targets, write_adapter
from lifealign.model.base_model import Base, load_base
from lifealign.model.completeness import require_text_decoder
from lifealign.model.generate import generate_answers
from lifealign.model.packing import PACKED_ATTENTION
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import TokenizedPair, tokenize_pair

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WINDOW = 16
LARGEST = 20_000_000
"""Parameters; a family that this file does not know how to make small is left out, by name."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "feed_forward_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"), 512),
    **dict.fromkeys(("sliding_window", "attention_window", "attention_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "mamba_d_state", "state_size"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim", "head_dim"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("linear_num_key_heads", "num_key_value_heads", "n_mamba_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups", "n_shared_experts"), 1),
    "vocab_size": 300,
    "mamba_d_head": 32,
    "moe_intermediate_size": 32,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
"""Small values of whatever a configuration calls its sizes; windows and chunks shorter than the rows of the proof."""

MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}
LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}
RECIPES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": LINEAR,
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": MIXED,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3_text": MIXED,
    "gemma3n_text": MIXED
    | {
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "altup_num_inputs": 2,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [96] * 4,
    },
    "gemma4_text": MIXED | {"vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "kimi_linear": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "llama4_text": {
        "layer_types": ["chunked_attention", "full_attention"] * 2,
        "attention_chunk_size": WINDOW,
        "intermediate_size_mlp": 96,
    },
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"head_dim": 32, "expand": 2},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 2},
    "recurrent_gemma": {"lru_width": 64, "block_types": ["recurrent", "attention"]},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": (16, 48), "axial_pos_shape": (16, 32)},
    "smollm3": MIXED | {"use_sliding_window": True},
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 2, "mamba_dt_rank": 8},
    "zaya": {"num_experts_per_tok": 1},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "num_mem_blocks": 1,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 32,
        "adapter_rank": 8,
        "attention_head_dim": 32,
    },
}
"""What a family needs beside that: both kinds of layers where it has two, and numbers that fit each other."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what the base, its adapter and its proof came to."""

    family: str
    attention: str
    targets: str
    prompts: str
    packing: str
    generation: str


def tiny_config(family: str) -> PreTrainedConfig:
    """A configuration of a family with sizes that make a model of some thousand parameters."""
    kind = CONFIG_MAPPING[family]
    known = {*kind().to_dict(), *getattr(kind, "attribute_map", {})}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if "qk_rope_head_dim" in known:  # latent attention: as many keys as queries, and a width that is a sum of two
        sizes["num_key_value_heads"] = 4
        sizes.pop("head_dim", None)
    return kind(**(sizes | RECIPES.get(family, {})))


def save_family(family: str, folder: Path) -> PreTrainedModel:
    """Writes a tiny model of a family, with weights large enough to tell one token from another, and a tokenizer."""
    config = tiny_config(family)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise NotSmall(f"{size:,} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.generation_config.eos_token_id = 257
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


class NotSmall(Exception):
    """A family that has no recipe here."""


def try_family(family: str, folder: Path) -> tuple[Row, Runtime | None]:
    """What becomes of a family: its row, and a runtime on it unless it is refused."""
    try:
        require_text_decoder(family, CONFIG_MAPPING[family]())
    except ModelError as error:
        return _refused(family, error), None
    except Exception as error:
        return _unproven(family, f"not tried: no default configuration ({type(error).__name__})"), None
    try:
        save_family(family, folder)
    except Exception as error:  # these are faults of the recipe, not of the package
        said = str(error) if isinstance(error, NotSmall) else type(error).__name__
        return _unproven(family, f"not tried: no tiny model of it here ({said})"), None
    try:
        runtime = family_runtime(folder)
    except ModelError as error:
        return _refused(family, error), None
    record = runtime.proof.as_record()
    attention = str(runtime.model.get_base_model().config._attn_implementation).replace(PACKED_ATTENTION, "sdpa")
    targets = ", ".join(sorted(runtime.model.peft_config["default"].target_modules))
    packing = record["packing"] if runtime.share_prefix else ""
    return Row(family, attention, targets, record["shared_prompts"], packing, record["generation"]), runtime


def family_runtime(folder: Path) -> Runtime:
    """A runtime in float32 on a saved model, with an adapter in which no factor is zero."""
    base = load_base(ModelConfig(model_name_or_path=str(folder), dtype="float32"))
    return Runtime.prepare(*_adapted(base))


def _adapted(base: Base) -> tuple[Any, ...]:
    model = attach_lora(base, AdapterConfig(lora_r=4, lora_alpha=8, lora_target_modules=usual_targets(base)), 0)
    generator = torch.Generator().manual_seed(0)
    write_adapter(
        model,
        {name: torch.randn(factor.shape, generator=generator) * 0.1 for name, factor in read_adapter(model).items()},
    )
    return model, base.tokenizer, base.proven(model, 200)


def _refused(family: str, error: ModelError) -> Row:
    reason = re.sub(r"^model '[^']*': |^model: ", "", str(error))
    return _unproven(family, f"refused: {reason}")


def _unproven(family: str, why: str) -> Row:
    return Row(family, "", "", why, "", "")


# -- what the proof claims, looked at without it ----------------------------------------------------------------------


def long_pairs() -> list[TokenizedPair]:
    """Pairs of text of different lengths whose prompts are longer than every window."""
    raw = [
        pair("Which of the two is the longer one?", "The second.", "Neither of them, I think."),
        pair("And why should that be so, of all things?", "Because of the first.", "No."),
    ]
    found = [tokenize_pair(tiny_tokenizer(), one, 200) for one in raw]
    return [one for one in found if one is not None]


def logps_by_hand(runtime: Runtime, pairs: list[TokenizedPair]) -> torch.Tensor:
    """Log-probabilities of all chosen, then all rejected answers from the model's own logits, one row at a time."""
    causal: Any = runtime.model.get_base_model()
    sums = []
    for part in ("chosen", "rejected"):
        for one in pairs:
            answer = getattr(one, part)
            ids = torch.tensor([[*one.prompt, *answer]])
            logps = causal(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            rows = torch.arange(len(one.prompt) - 1, ids.shape[1] - 1)
            sums.append(logps[rows, torch.tensor(answer)].sum())
    return torch.stack(sums)


def gradients(runtime: Runtime, logps: torch.Tensor) -> Adapter:
    """Gradient of chosen minus rejected in every factor of the adapter."""
    chosen, rejected = logps.chunk(2)
    runtime.model.zero_grad()
    (chosen - rejected).sum().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in runtime.model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


def answers_alone_and_together(runtime: Runtime) -> tuple[list[str], list[str]]:
    """Answers to prompts of different lengths, one by one and side by side."""
    prompts = [one.prompt for one in (pair("a", "b", "c"), pair("a longer question than that", "b", "c"))]
    alone = [generate_answers(runtime, [one], max_new_tokens=5, batch_size=1)[0] for one in prompts]
    return alone, generate_answers(runtime, prompts, max_new_tokens=5, batch_size=2)


def answers_whole_and_leaving(runtime: Runtime) -> tuple[list[str], list[str]]:
    """Answers of one batch, from beginning to end and with a look at every token for those that have ended.

    A tiny model hardly ever ends: here a quarter of all tokens do.
    """
    prompts = [one.prompt for one in (pair("a" * length, "b", "c") for length in (1, 9, 17, 4, 30, 2))]
    answers = []
    with MonkeyPatch.context() as patch:
        patch.setattr(generate, "stop_token_ids", lambda _: tuple(range(0, 400, 4)))
        patch.setattr(generate, "LOOK_EVERY", 1)
        for leave in (False, runtime.proof.rows_leave):
            now = Runtime.prepare(runtime.model, runtime.tokenizer, replace(runtime.proof, rows_leave=leave))
            answers.append(generate_answers(now, prompts, max_new_tokens=6, batch_size=6))
    return answers[0], answers[1]


def reloaded_by_peft(runtime: Runtime, folder: Path, adapter: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the model here, and of its adapter loaded by plain PEFT onto the base as transformers loads it."""
    runtime.model.save_pretrained(adapter)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    plain = PeftModel.from_pretrained(base, adapter).eval()
    ids = torch.tensor([long_pairs()[0].prompt])
    with torch.no_grad():
        return runtime.model(input_ids=ids, use_cache=False).logits, plain(input_ids=ids, use_cache=False).logits


# -- the table --------------------------------------------------------------------------------------------------------

HEADER = "| family | attention | adapter on | prompts | packing | answers |\n| --- | --- | --- | --- | --- | --- |\n"


def line_of(row: Row) -> str:
    """A row as Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in astuple(row)) + " |"


def written_rows() -> dict[str, str]:
    """The lines of the document, by family."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    table = lines[lines.index(HEADER.splitlines()[1]) + 1 :]
    return {line.split("|")[1].strip(): line for line in table if line.startswith("|")}


def main() -> None:
    """Tries every family and writes the table."""
    warnings.filterwarnings("ignore")
    rows = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            row, _ = try_family(family, Path(folder))
        print(line_of(row), flush=True)
        rows.append(line_of(row))
    text = DOCUMENT.read_text(encoding="utf-8")
    before = text[: text.index(HEADER)] if HEADER in text else text.rstrip() + "\n\n"
    DOCUMENT.write_text(before + HEADER + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
