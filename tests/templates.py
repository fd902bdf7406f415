"""Chat templates of every kind that tests try, written by hand after families that are in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == 'user' and not ns.found is defined %}
        {%- set ns.last = index %}{%- set ns.found = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
"""A switch ``enable_thinking``, an empty block before the last answer, and none of the earlier answers' reasoning."""

R1 = """{{ bos_token }}{% for message in messages %}
{%- if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'user' %}{{ '<\uff5cUser\uff5c>' + message.content }}
{%- else %}{% set content = message.content %}{% if '</think>' in content %}
{%- set content = content.split('</think>')[-1] %}
{%- endif %}{{ '<\uff5cAssistant\uff5c>' + content + eos_token }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\\n' }}{% endif %}"""
"""Opens a block in its generation prompt, and drops what is before ``</think>`` from answers."""

LLAMA3 = """{{- bos_token }}{% for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
"""Trims, and ends its turns with a token that is not the end of text."""

DATED = """{%- set date = strftime_now('%d %b %Y') %}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday: '
+ date + '<|eot_id|>' }}""" + LLAMA3.removeprefix("{{- bos_token }}")

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

LLAMA2 = """{%- for message in messages %}{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{- ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
"""No generation prompt: the question's own end leads into the answer. Drops system messages in silence."""

HARMONY = """{%- for message in messages %}{% if message.role == 'assistant' %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + ('<|return|>' if loop.last else '<|end|>') }}
{%- else %}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""

GLM = """[gMASK]<sop>{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
"""Nothing ends a turn but the beginning of the next."""

LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
GEMMA_TOKENS = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>")
HARMONY_TOKENS = (
    "<|startoftext|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|return|>",
    "<|endoftext|>",
)


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the template of a family; tests only read it."""
    match name:
        case "qwen3":
            tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
            return byte_tokenizer(QWEN3, tokens, ("<think>", "</think>"))
        case "r1":
            return byte_tokenizer(
                R1, ("<bos>", "<eos>"), ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<think>", "</think>")
            )
        case "llama3":
            return byte_tokenizer(LLAMA3, LLAMA3_TOKENS)
        case "dated":
            return byte_tokenizer(DATED, LLAMA3_TOKENS)
        case "gemma":
            return metaspace_tokenizer(GEMMA, GEMMA_TOKENS, "never")
        case "llama2":
            return metaspace_tokenizer(LLAMA2, ("<s>", "</s>"), "first")
        case "llama2-always":
            return metaspace_tokenizer(LLAMA2, ("<s>", "</s>"), "always", kind="bpe")
        case "harmony":
            return byte_tokenizer(HARMONY, HARMONY_TOKENS)
        case "glm":
            return byte_tokenizer(GLM, ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"))
    raise KeyError(name)


FAMILIES = ("qwen3", "r1", "llama3", "dated", "gemma", "llama2", "llama2-always", "harmony", "glm")


def byte_tokenizer(template: str, special: Sequence[str], plain: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token per byte and a few merges; the first special token is the beginning, the last the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "s"), ("h", "i"), ("Ġ", "a"), ("<", "|"), ("|", ">"), ("Ċ", "Ċ"), ("Ġ", "Ġ")]
    pieces = [*alphabet, *("".join(both) for both in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, template, special, plain)


def metaspace_tokenizer(
    template: str, special: Sequence[str], prepend_scheme: str = "first", kind: str = "unigram"
) -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind: ``▁`` for spaces, put before the first word, bytes for what it lacks."""
    letters = [chr(code) for code in range(33, 127)] + ["▁", "▁a", "▁an", "an", "hi", "▁▁", "\n"]
    pieces = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    pieces = list(dict.fromkeys(pieces))
    if kind == "unigram":
        scored = [(piece, 0.0 if piece in special else -float(3 - len(piece)) - 3) for piece in pieces]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    else:
        merges = [("▁", "a"), ("▁a", "n"), ("a", "n"), ("h", "i"), ("▁", "▁")]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(
            models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _fast(tokenizer, template, special, ())


def _fast(tokenizer: Tokenizer, template: str, special: Sequence[str], plain: Sequence[str]) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[-1], pad_token=special[-1]
    )
    fast.add_tokens([AddedToken(one, special=True, normalized=False) for one in special], special_tokens=True)
    fast.add_tokens([AddedToken(one, special=False, normalized=False) for one in plain])
    fast.chat_template = template
    return fast
