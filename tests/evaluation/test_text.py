"""BLEU and ROUGE: values worked out by hand, and the paper's own against libraries that computed them there."""

import builtins
import logging
import math
import random
import string
from typing import Any

import jieba
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from lifealign.errors import ConfigError
from lifealign.evaluation.text import (
    _longest_common,
    bleu,
    bleu_signature,
    paper_bleu,
    paper_rouge_l,
    paper_tokens,
    rouge_l,
)

jieba.setLogLevel(60)
SMALL = st.text(alphabet="ab c", max_size=14)
ENGLISH = st.lists(
    st.sampled_from(
        "the It's a well-known 3.14 50% v1.2 1,000 U.S. e.g. AT&T C# c# C++ c++ C+ #tag a_b -- ... , . ! ' &".split()  # noqa: SIM905
    ),
    max_size=12,
)
MIXED = st.text(alphabet=string.printable + "éßñ€😀—\u3000\u00a0", max_size=40)


def test_bleu_of_a_corpus_by_hand() -> None:
    # Answer 1: "a b c d e", reference "a b c d f": matches 4/5, 3/4, 2/3, 1/2. Answer 2 equals its reference
    # "g h i j": 4/4, 3/3, 2/2, 1/1. Together 8/9, 6/7, 4/5, 2/3; lengths 9 and 9, so no brevity penalty.
    expected = 100 * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25
    assert bleu(["a b c d e", "g h i j"], ["a b c d f", "g h i j"]) == pytest.approx(expected)


def test_a_short_answer_pays_for_its_brevity() -> None:
    # All n-grams match; 4 tokens against 8: exp(1 - 8/4).
    assert bleu(["a b c d"], ["a b c d e f g h"]) == pytest.approx(100 * math.exp(-1))


def test_bleu_is_of_the_corpus_and_not_a_mean_over_answers() -> None:
    answers, references = ["a b c d e", "x"], ["a b c d e", "y z"]
    mean = (bleu(answers[:1], references[:1]) + bleu(answers[1:], references[1:])) / 2
    assert abs(bleu(answers, references) - mean) > 1


def test_the_signature_says_what_was_computed() -> None:
    assert bleu_signature() == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_rouge_l_by_hand() -> None:
    # "the cat sat on the mat" and "the cat is on the mat" share "the cat on the mat": 5 of 6 on both sides.
    assert rouge_l("The cat is on the mat!", "the cat sat on the mat") == pytest.approx(100 * 5 / 6)
    # 2 of 2 tokens of the answer, 2 of 4 of the reference: F = 2 · 1 · 1/2 / (3/2).
    assert rouge_l("cat mat", "the cat the mat") == pytest.approx(100 * 2 / 3)
    assert rouge_l("mat cat", "cat mat") == pytest.approx(50)  # order counts


def test_paper_bleu_by_hand() -> None:
    # "abcde" against "abcdx": 4/5, 3/4, 2/3, 1/2 of characters.
    assert paper_bleu("abcde", "abcdx") == round(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, 4)
    # "abc" against "abd": 2/3, 1/2, none of one trigram, and no fourgram at all, which counts as one:
    # 1/(2·1) for the first order without a match, 1/(4·1) for the second.
    assert paper_bleu("abc", "abd") == round(100 * (2 / 3 * 1 / 2 * 1 / 2 * 1 / 4) ** 0.25, 4)
    # A space is a character; the penalty for brevity is that of characters: exp(1 - 9/4).
    assert paper_bleu("ab c", "ab c defg") == round(100 * math.exp(1 - 9 / 4), 4)
    assert paper_bleu("xyz", "abc") == 0.0


@given(SMALL, SMALL)
def test_paper_bleu_is_that_of_nltk(answer: str, reference: str) -> None:
    smoothing = SmoothingFunction().method3
    theirs = sentence_bleu([list(reference)], list(answer), smoothing_function=smoothing) if answer else 0.0
    assert paper_bleu(answer, reference) == pytest.approx(round(100 * theirs, 4), abs=1e-9)


def test_paper_bleu_of_long_texts_is_that_of_nltk() -> None:
    words = "the refund of your order was sent to you on Monday and arrives in five days".split()  # noqa: SIM905
    draw = random.Random(0)
    for _ in range(20):
        answer, reference = (" ".join(draw.choices(words, k=draw.randint(5, 60))) for _ in range(2))
        theirs = sentence_bleu([list(reference)], list(answer), smoothing_function=SmoothingFunction().method3)
        assert paper_bleu(answer, reference) == pytest.approx(round(100 * theirs, 4), abs=1e-9)


@given(MIXED)
def test_tokens_without_chinese_are_those_of_jieba(text: str) -> None:
    assert paper_tokens(text) == " ".join(jieba.cut(text)).split()


@given(ENGLISH, st.sampled_from(["", " ", "\n\n", "\r\n"]))
def test_tokens_of_english_are_those_of_jieba(words: list[str], between: str) -> None:
    text = between.join(words)  # joined by nothing, dictionary words touch other letters: "aC++"
    assert paper_tokens(text) == " ".join(jieba.cut(text)).split()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's 3.14, or 50%!", ["It", "'", "s", "3.14", ",", "or", "50%", "!"]),
        ("AT&T wrote C++ and c# code", ["AT&T", "wrote", "C++", "and", "c#", "code"]),
        ("C# or c++", ["C#", "or", "c++"]),
        ("state-of-the-art", ["state", "-", "of", "-", "the", "-", "art"]),
        ("a--b ...", ["a", "--", "b", "..."]),
        (" \n\t ", []),
    ],
)
def test_tokens_of_known_texts(text: str, tokens: list[str]) -> None:
    assert paper_tokens(text) == tokens == " ".join(jieba.cut(text)).split()


def test_chinese_is_cut_by_jieba_and_scored() -> None:
    assert paper_tokens("我来到北京清华大学, OK") == " ".join(jieba.cut("我来到北京清华大学, OK")).split()
    assert paper_rouge_l("我来到北京", "我来到北京") == pytest.approx(100, abs=1e-4)


def test_jieba_loads_its_dictionary_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jieba.setLogLevel(logging.DEBUG)  # as it is after import
    monkeypatch.setattr(jieba.dt, "initialized", False)
    try:
        paper_tokens("北京")
    finally:
        jieba.setLogLevel(60)
    assert not caplog.records


def test_chinese_without_jieba_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jieba":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert paper_tokens("no Chinese here") == ["no", "Chinese", "here"]
    with pytest.raises(ConfigError, match=r"pip install 'lifealign\[jieba\]'"):
        paper_rouge_l("北京", "ok")


def test_paper_rouge_l_by_hand() -> None:
    # Tokens "The cat sat ." and "the cat ran .": case counts, so "cat ." is common, 2 of 4 on both sides.
    assert paper_rouge_l("The cat sat.", "the cat ran.") == pytest.approx(50, abs=1e-4)
    # 2 of 2 and 2 of 5 tokens: F = 2 · 1 · 0.4 / 1.4.
    assert paper_rouge_l("b d", "a b c d e") == pytest.approx(100 * 0.8 / 1.4, abs=1e-4)


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12))
def test_the_longest_common_subsequence_is_that_of_the_table(ours: list[int], theirs: list[int]) -> None:
    table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, one in enumerate(ours, start=1):
        for j, other in enumerate(theirs, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if one == other else max(table[i - 1][j], table[i][j - 1])
    assert _longest_common(ours, theirs) == table[-1][-1]


@given(st.text(alphabet=string.ascii_letters + " .", min_size=4, max_size=60).filter(lambda text: text.strip(" .")))
def test_a_text_against_itself_is_perfect(text: str) -> None:
    assert paper_bleu(text, text) == pytest.approx(100)
    assert paper_rouge_l(text, text) == pytest.approx(100, abs=1e-3)
    assert rouge_l(text, text) == pytest.approx(100)


@pytest.mark.parametrize("metric", [rouge_l, paper_bleu, paper_rouge_l])
def test_nothing_in_common_is_zero(metric: Any) -> None:
    assert metric("abc", "xyz") == metric("", "xyz") == metric("abc", "") == metric("", "") == 0.0


def test_answers_and_references_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="found 2 answers and 1 references, expected one reference per answer"):
        bleu(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="found 0 answers"):
        bleu([], [])
    assert bleu([""], ["a b"]) == 0.0  # an empty answer is an answer
