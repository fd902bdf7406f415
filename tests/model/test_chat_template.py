"""Chat templates of many kinds: what each turns out to do, which cannot be used, and that init would say so."""

from __future__ import annotations

import copy
from datetime import datetime

import pytest
from tests.templates import FAMILIES, GEMMA, LLAMA3, LLAMA3_TOKENS, byte_tokenizer, metaspace_tokenizer, tokenizer_of
from tests.tiny import CHAT_TEMPLATE, pair, tiny_tokenizer

from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError, ModelError
from lifealign.model.chat_codec import chat_codec_of
from lifealign.model.chat_template import chat_template_of, template_fingerprint
from lifealign.model.template_check import require_usable_template
from lifealign.model.tokens import prompt_ids, tokenize_pairs

ENDS = {
    "qwen3": ("<|im_end|>", {"<|im_end|>"}),
    "r1": ("<eos>", {"<eos>"}),
    "llama3": ("<|eot_id|>", {"<|eot_id|>", "<|end_of_text|>"}),
    "dated": ("<|eot_id|>", {"<|eot_id|>", "<|end_of_text|>"}),
    "gemma": ("<end_of_turn>", {"<end_of_turn>", "<eos>"}),
    "llama2": ("</s>", {"</s>"}),
    "llama2-always": ("</s>", {"</s>"}),
    "harmony": ("<|return|>", {"<|return|>", "<|endoftext|>"}),  # not <|end|>, which ends the analysis too
    "glm": ("<|endoftext|>", {"<|endoftext|>", "<|user|>"}),  # the beginning of the next turn is all that ends one
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_of_a_turn_is_the_templates_own(name: str) -> None:
    tokenizer = tokenizer_of(name)
    facts = require_usable_template(tokenizer, name, len(tokenizer))
    end, stops = ENDS[name]
    assert tokenizer.convert_ids_to_tokens(facts.end_token_id) == end
    assert set(tokenizer.convert_ids_to_tokens(list(facts.stop_token_ids))) == stops


def test_a_template_that_leaves_the_last_turn_open_ends_turns_as_it_does_before_a_question() -> None:
    still_open = "('' if loop.last and message['role'] == 'assistant' else '<|eot_id|>')"
    source = LLAMA3.replace("+ '<|eot_id|>' }}", f"+ {still_open} }}}}")
    facts = require_usable_template(byte_tokenizer(source, LLAMA3_TOKENS), "open")
    assert facts.end_token_id == require_usable_template(tokenizer_of("llama3"), "closed").end_token_id


def test_what_a_template_does_is_told() -> None:
    facts = {name: require_usable_template(tokenizer_of(name), name) for name in FAMILIES}
    assert {name for name in FAMILIES if facts[name].reasons} == {"qwen3", "r1", "harmony"}
    assert {name for name in FAMILIES if facts[name].writes_date} == {"dated"}
    assert {name: facts[name].refuses_system for name in FAMILIES if facts[name].refuses_system} == {
        "gemma": "System role not supported",
        "llama2": "it loses or rewrites what the system says",
        "llama2-always": "it loses or rewrites what the system says",
    }
    assert facts["dated"].notes() == ("The chat template writes today's date; here it is always 26 July 2024.",)
    assert facts["llama3"].notes() == ()


FAULTS = {
    "{% if %}": "line 1: Expected an expression, got 'end of statement block'",
    "{{ messages[0].content | shout }}": "line 1: No filter named 'shout'.",
    "{{ raise_exception('no chat') }}": "no chat",
    "{% for m in messages %}{{ 1 + m.content }}{% endfor %}": "unsupported operand type(s) for +: 'int' and 'str'",
    "{% if messages[0].role != 'system' %}{{ raise_exception('needs one') }}{% endif %}" + CHAT_TEMPLATE: (
        "it requires a system message (needs one), expected it to accept a question alone"
    ),
    CHAT_TEMPLATE.partition("{% if add")[0]: (
        "it has no generation prompt, expected '<|im_end|>\\n<|im_start|>assistant' where an answer is asked for"
    ),
    CHAT_TEMPLATE.replace("<|im_start|>assistant", "<|im_start|>user"): (
        "its generation prompt is '<|im_end|>\\n<|im_start|>user', expected one that begins an answer as "
        "'<|im_end|>\\n<|im_start|>assistant' does"
    ),
    CHAT_TEMPLATE.replace(
        "message['content']", "message['content'] | upper"
    ): "it loses or rewrites what the user says",
    CHAT_TEMPLATE.replace("message['content']", "message['content'] | e"): "it loses or rewrites what the user says",
    CHAT_TEMPLATE.replace("message['content']", "message['content'][:9]"): "it loses or rewrites what the user says",
    CHAT_TEMPLATE.replace("in messages", "in messages[-1:]"): "it loses or rewrites what the user says",
    CHAT_TEMPLATE.replace("in messages", "in messages[-2:]"): "it loses or rewrites earlier turns of the user",
    CHAT_TEMPLATE + "{% for i in range(10**9) %}x{% endfor %}": (
        "it asks for a width or count above 1,000,000, as if it never ended"
    ),
    CHAT_TEMPLATE + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": (
        "it takes more than 200,000 steps, as if it never ended"
    ),
    CHAT_TEMPLATE.replace(
        "<|im_end|>", "<|eot|>"
    ): "it ends turns with '<|eot|>', expected a token that its tokenizer knows",
    CHAT_TEMPLATE + "{{ [1, 2] | random }}": "line 4: No filter named 'random'.",
}


@pytest.mark.parametrize(("source", "reason"), FAULTS.items(), ids=range(len(FAULTS)))
def test_a_template_that_cannot_be_used_is_refused_in_one_line(source: str, reason: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    with pytest.raises(ModelError) as caught:
        require_usable_template(tokenizer, "tiny", 259)
    assert str(caught.value) == f"model 'tiny': its chat template cannot be used: {reason}"


def test_a_model_without_a_template_or_with_too_few_rows_is_refused(tokenizer) -> None:
    require_usable_template(tokenizer, "tiny", 259)
    with pytest.raises(ModelError, match=r"token '<\|pad\|>' has the id 258, expected one below the 258 rows"):
        require_usable_template(tokenizer, "tiny", 258)
    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(ModelError, match="found none, expected that of an instruction-tuned model"):
        require_usable_template(bare, "tiny")


def test_a_template_that_transformers_renders_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(tokenizer, "apply_chat_template", lambda *_, **__: "<|im_start|>User")
    with pytest.raises(ModelError, match="transformers writes 'User' where we write 'user"):
        require_usable_template(tokenizer, "tiny")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "dated"])
def test_a_conversation_is_rendered_as_transformers_does(name: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [Message("user", " one "), Message("assistant", "two\n"), Message("user", "three <b>")]
    rows = [message._asdict() for message in messages]
    expected = tokenizer.apply_chat_template(rows, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert prompt_ids(tokenizer, messages, "keep") == expected


def test_a_dated_template_writes_the_same_date_on_every_day() -> None:
    template = chat_template_of(tokenizer_of("dated"))
    assert "Today: 26 Jul 2024" in template.prompt([Message("user", "Hi")])
    assert "Today: 02 Nov 2031" in template.render([Message("user", "Hi")], ask=True, now=datetime(2031, 11, 2))


@pytest.mark.parametrize("name", ["gemma", "llama2"])
def test_a_row_with_a_system_message_that_the_template_refuses_or_drops_is_named(name: str) -> None:
    row = Pair((Message("system", "Be brief."), Message("user", "q")), "a", "b", "rows.jsonl:7")
    with pytest.raises(
        DataError, match=r"^rows.jsonl:7: prompt: found a prompt that the model's chat template refuses"
    ):
        tokenize_pairs(tokenizer_of(name), [pair("q", "a", "b"), row], 512)


def test_a_template_is_told_from_an_edited_one_and_from_one_with_other_tokens() -> None:
    first, edited, other = tiny_tokenizer(), tiny_tokenizer(), tiny_tokenizer()
    assert template_fingerprint(first) == template_fingerprint(tiny_tokenizer())
    edited.chat_template += " "
    other.bos_token = "<|pad|>"
    assert len({template_fingerprint(one) for one in (first, edited, other)}) == 3


def test_a_tokenizer_that_is_changed_is_looked_at_again() -> None:
    tokenizer = tiny_tokenizer()
    before = prompt_ids(tokenizer, [Message("user", "q")])
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<|im_start|>", "")
    assert prompt_ids(tokenizer, [Message("user", "q")]) == [one for one in before if one != 256]
    copied = copy.deepcopy(tokenizer)
    assert prompt_ids(copied, [Message("user", "q")]) == prompt_ids(tokenizer, [Message("user", "q")])


def test_turn_tokens_are_control_tokens_even_if_they_are_not_special_and_tags_of_reasoning_are_none() -> None:
    assert chat_codec_of(tokenizer_of("r1")).control.controls == {
        "<bos>",
        "<eos>",
        "<\uff5cUser\uff5c>",
        "<\uff5cAssistant\uff5c>",
    }
    gemma = metaspace_tokenizer(GEMMA, ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>"))
    assert "<start_of_turn>" in chat_codec_of(gemma).control.controls
