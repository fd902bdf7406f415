"""A small world for tests: a two-layer model, a byte tokenizer with a chat template, and tasks it can learn."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task
from lifealign.model.batch import Layout

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and three special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """Llama with two layers, 32 wide, grouped-query attention, vocabulary of the byte tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
    )
    return LlamaForCausalLM(config)


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Writes model and tokenizer where ``from_pretrained`` finds them."""
    tokenizer = tiny_tokenizer()
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [256, 257, 258]
    tiny_model(seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pair(prompt: str, chosen: str, rejected: str, source: str = "") -> Pair:
    """A pair with one user message."""
    return Pair((Message("user", prompt),), chosen, rejected, source)


def letter_task(name: str, good: str, bad: str, train: int = 8, test: int = 4) -> Task:
    """A task any model can learn: answer with one letter, not with another."""
    rows = [
        pair(f"{name} {number}", good * 3 + str(number % 3), bad * 3 + str(number % 3), f"{name}:{number}")
        for number in range(train + test)
    ]
    return Task(name, tuple(rows[:train]), tuple(rows[train:]))
