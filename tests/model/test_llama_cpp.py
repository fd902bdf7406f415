"""The GGUF file on llama.cpp itself: base and adapter there give the log-probabilities that they give here.

Needs ``pip install xllamacpp``, a wheel with llama.cpp in it, which the package does not depend on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.embedded import needs_embedded
from tests.model.gguf_files import TOKENS, add_to_file, tiny_family, write_base
from tests.model.test_gguf_lora import ALPHA, LINEAR, RANK
from tests.model.test_merge import random_adapter

from lifealign.model.base_model import load_base
from lifealign.model.embedded import embedded_file
from lifealign.model.gguf_lora import FAMILIES, write_gguf_lora
from lifealign.model.merge import merged_model
from lifealign.model.settings import EMBEDDED, ModelConfig

llama_cpp = pytest.importorskip("xllamacpp", reason="needs a wheel with llama.cpp: pip install xllamacpp")

PROMPT = [3, 41, 59, 26, 53, 58, 97, 9, 32, 38]
"""Shorter than any window of the tiny models."""
SENTENCE = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
"""A question and the beginning of an answer, in the tokens of the embedded model."""


def next_token(base: Path, prompt: list[int], adapter: Path | None = None) -> torch.Tensor:
    """Log-probabilities of the token after a prompt, from llama.cpp."""
    params = llama_cpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 256, 1, False, -1
    params.cache_type_k = params.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if adapter is not None:
        params.lora_adapters = [llama_cpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    size = len(TOKENS) if base.name == "tiny.gguf" else 49152
    # The token that is drawn has to be a whole character, or nothing is sent; log-probabilities are from before that.
    asked = {"prompt": prompt, "max_tokens": 1, "temperature": 0.0, "logprobs": size, "logit_bias": {"32": 100.0}}
    answer = llama_cpp.Server(params).handle_completions(asked)
    found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    logps = torch.full((size,), float("nan"))
    for one in found:
        logps[one["id"]] = one["logprob"]
    return logps


def expected(model: Any, prompt: list[int]) -> torch.Tensor:
    """The same, from transformers."""
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1].log_softmax(-1)


def divergence(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of one prediction from the other, in nats."""
    return float((one.exp() * (one - other)).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_what_transformers_does(family: str, tmp_path: Path) -> None:
    model = tiny_family(family)
    adapter = random_adapter(model, LINEAR)
    write_base(tmp_path / "tiny.gguf", model)
    merged = merged_model(model, adapter, ALPHA / RANK, torch.float32)
    plain, adapted = expected(model, PROMPT), expected(merged, PROMPT)
    # llama.cpp looks the activation of Gemma up in a table in half precision; without it, all digits agree.
    exact = 5e-3 if family.startswith("gemma") else 1e-5
    torch.testing.assert_close(next_token(tmp_path / "tiny.gguf", PROMPT), plain, rtol=0, atol=exact)
    assert (adapted - plain).abs().max() > 1
    for dtype, atol in (torch.float32, exact), (torch.float16, 0.1), (torch.bfloat16, 0.3):
        file = tmp_path / f"{dtype}.gguf"
        write_gguf_lora(file, adapter, ALPHA, model.config, name="one", base="base", dtype=dtype)
        torch.testing.assert_close(next_token(tmp_path / "tiny.gguf", PROMPT, file), adapted, rtol=0, atol=atol)


@needs_embedded
@pytest.mark.slow
def test_on_the_embedded_model_llama_cpp_predicts_what_transformers_does(tmp_path: Path) -> None:
    base = load_base(ModelConfig(model_name_or_path=EMBEDDED, dtype="float32")).model
    adapter = {name: 0.4 * factor for name, factor in random_adapter(base, ("q_proj", "k_proj", "v_proj")).items()}
    write_gguf_lora(tmp_path / "adapter.gguf", adapter, ALPHA, base.config, name="one", base="base")
    plain = expected(base, SENTENCE)
    adapted = expected(merged_model(base, adapter, ALPHA / RANK, torch.float32), SENTENCE)
    assert divergence(adapted, plain) > 0.1
    add_to_file(embedded_file(), tmp_path / "plain.gguf", {}, plain=True)
    torch.testing.assert_close(next_token(tmp_path / "plain.gguf", SENTENCE), plain, rtol=0, atol=1e-3)
    found = next_token(tmp_path / "plain.gguf", SENTENCE, tmp_path / "adapter.gguf")
    torch.testing.assert_close(found, adapted, rtol=0, atol=1e-3)
    # On the 4-bit file llama.cpp rounds activations to 8 bits, with and without the adapter.
    assert divergence(plain, next_token(embedded_file(), SENTENCE)) < 0.02
    assert divergence(adapted, next_token(embedded_file(), SENTENCE, tmp_path / "adapter.gguf")) < 0.02
