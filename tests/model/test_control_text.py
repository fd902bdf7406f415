"""Text that looks like a control token: all else becomes the tokens of the common way, and it stays text itself."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.templates import FAMILIES, LLAMA3, LLAMA3_TOKENS, QWEN3, byte_tokenizer, metaspace_tokenizer, tokenizer_of
from transformers import PreTrainedTokenizerFast

from lifealign.data.pair import Message, Pair
from lifealign.model.chat_codec import chat_codec_of
from lifealign.model.control_text import CannotEncode
from lifealign.model.tokens import prompt_ids, tokenize_pair

SENTENCEPIECE = {
    f"{kind}-{scheme}": metaspace_tokenizer(LLAMA3, LLAMA3_TOKENS, scheme, kind=kind)
    for kind in ("unigram", "bpe")
    for scheme in ("first", "always", "never")
}
TOKENIZERS = {name: tokenizer_of(name) for name in FAMILIES} | SENTENCEPIECE
some_tokenizer = st.sampled_from(sorted(TOKENIZERS))
letters = st.text(st.sampled_from("an hi<|>\n\t.é漢🙂\u2581\U000f0000\U0010fffd"), max_size=12)
ordinary = st.one_of(letters, st.text(max_size=12)).filter(lambda text: not set("\r\x85") & set(text))


def conversation(*texts: str) -> list[Message]:
    return [Message(role, text) for role, text in zip(("user", "assistant", "user"), texts, strict=True)]


def hidden_way(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> list[int]:
    """Ids on the way that is taken for control tokens in texts, whether there are any or not."""
    codec = chat_codec_of(tokenizer)
    return codec.control.encode(codec.template.prompt(messages), {"\U000ffffd": "never there"})


@given(some_tokenizer, ordinary, ordinary, ordinary)
@example("unigram-first", " an", "hi ", "\n an")
@example("llama2-always", "an", " hi", "an ")
@settings(max_examples=150)
def test_without_control_tokens_both_ways_are_one(name: str, first: str, second: str, third: str) -> None:
    tokenizer = TOKENIZERS[name]
    messages = conversation(first, second, third)
    codec = chat_codec_of(tokenizer)
    if codec.hide(messages)[2] is None and not {"\U000f0000", "\U0010fffd"} & set(first + second + third):
        assert hidden_way(tokenizer, messages) == prompt_ids(tokenizer, messages)


@given(some_tokenizer, st.data())
@settings(max_examples=150)
def test_with_control_tokens_the_text_comes_back_and_only_the_template_writes_controls(
    name: str, data: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[name]
    control = chat_codec_of(tokenizer).control
    piece = st.one_of(letters, st.sampled_from(sorted(control.controls)))
    texts = ["x" + "".join(data.draw(st.lists(piece, max_size=4))) + "x" for _ in range(3)]
    plain = prompt_ids(tokenizer, conversation("x", "x", "x"))
    found = prompt_ids(tokenizer, conversation(*texts))
    ids = {tokenizer.convert_tokens_to_ids(one) for one in control.controls}
    assert [one for one in found if one in ids] == [one for one in plain if one in ids]
    if "unigram" not in name and name not in ("gemma", "llama2"):  # whose unknown characters do not come back
        expected = chat_codec_of(tokenizer).template.prompt(conversation(*texts))  # spaces are the other test's
        written = [re.sub("[ \u2581]", "", text) for text in (tokenizer.decode(found), expected)]
        assert written[0] == written[1]


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_around_the_control_text_all_is_as_around_other_text(name: str) -> None:
    """Trimmed, without reasoning in history, and with one space before a word: as with a word in its place."""
    tokenizer = TOKENIZERS[name]
    control = sorted(chat_codec_of(tokenizer).control.controls)[0]

    def around(word: str) -> list[int]:
        return prompt_ids(
            tokenizer,
            conversation(
                f" an hi\n{word}\n an ", f"<think>\nno {word}\n</think>\n\n yes an {word} hi ", f"hi\n{word} "
            ),
        )

    word = "".join(reversed(control))  # the same characters, and no control token
    found, expected = (tokenizer.decode(around(one), skip_special_tokens=False) for one in (control, word))
    assert found == expected.replace(word, control)
    assert "no " not in found


def test_a_control_text_is_as_long_to_the_template_as_it_is_and_may_be_cut() -> None:
    control = chat_codec_of(tokenizer_of("llama3")).control
    (text,), hidden = control.hide(["12345<|eot_id|>"])
    assert hidden is not None and len(text) == 15
    for end in range(16):
        assert tokenizer_of("llama3").decode(control.encode(text[:end], hidden)) == "12345<|eot_id|>"[:end]
    with pytest.raises(CannotEncode, match="cuts a text within a control token"):
        control.encode(text[8:], hidden)


@pytest.mark.parametrize("first", ["<|im_end|>", "fine"])
def test_chosen_and_rejected_end_alike_whichever_way_they_take(first: str) -> None:
    for name in FAMILIES:
        tokenizer = tokenizer_of(name)
        control = sorted(chat_codec_of(tokenizer).control.controls)[-1]
        tokenized = tokenize_pair(tokenizer, Pair((Message("user", "q"),), f"{first} {control}", "no"), 512)
        assert tokenized is not None
        end = chat_codec_of(tokenizer).end_token_id
        for completion in (tokenized.chosen, tokenized.rejected):
            assert completion.index(end) == len(completion) - 1, name


def test_a_vocabulary_that_holds_a_control_token_as_a_piece_does_not_give_it_to_a_text() -> None:
    tokenizer = SENTENCEPIECE["unigram-first"]  # "<|eot_id|>" is a piece of the model's own, and the likeliest one
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert end in tokenizer.encode("a <|eot_id|> b", add_special_tokens=False, split_special_tokens=True)
    found = prompt_ids(tokenizer, [Message("user", "a <|eot_id|> b")])
    assert found.count(end) == 1


def test_qwen3s_history_is_without_reasoning_on_both_ways() -> None:
    tokenizer = byte_tokenizer(QWEN3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<think>", "</think>"))
    text = "<think>\nsecret\n</think>\n\nyes"
    for question in ("plain", "with <|im_end|>"):
        ids = prompt_ids(tokenizer, conversation(question, text, question), "keep")
        assert tokenizer.decode(ids).endswith(
            f"<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
