"""Metrics of generated text against a reference: BLEU-4 and ROUGE-L, standard and as in the paper."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from lifealign.errors import ConfigError

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

HAN = "\u4e00-\u9fd5"
_HAS_HAN = re.compile(f"[{HAN}]")
_BLOCK = re.compile(r"([a-zA-Z0-9+#&._%-]+)")
"""Runs of characters that jieba treats as one; every other character is a token of its own."""
_DICTIONARY = re.compile(r"(AT&T|[cC]#|[cC]\+\+)")
"""The five entries in the dictionary of jieba 0.42 without a Han character."""
_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """BLEU-4 of a corpus, as sacrebleu computes it by default (Papineni et al., 2002; Post, 2018).

    Args:
        answers: Generated answers, at least one.
        references: One reference per answer.

    Returns:
        BLEU in [0, 100], of the whole corpus, not a mean over answers.

    Raises:
        ValueError: If there are no answers, or a different number of references.

    Example:
        >>> bleu(["the cat is on the mat", "hello"], ["the cat is on the mat", "hello"])
        100.0
    """
    _require_pairs(answers, references)
    return min(100.0, float(_bleu().corpus_score(list(answers), [list(references)]).score))


def bleu_signature() -> str:
    """What decides :func:`bleu`, in sacrebleu's notation: tokenizer, smoothing and version."""
    metric = _bleu()
    metric.corpus_score(["a"], [["a"]])  # it knows the number of references only after this
    return str(metric.get_signature())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L (F-measure; Lin, 2004) as computed by rouge-score, without stemming.

    Tokens are runs of ASCII letters and digits in lower case, so text in other scripts has none and scores 0.

    Returns:
        ROUGE-L in [0, 100]; 0 if either text has no token.

    Example:
        >>> round(rouge_l("the cat is on the mat", "The cat sat on the mat."), 1)  # 5 of 6 tokens in common
        83.3
    """
    return 100 * float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def paper_bleu(answer: str, reference: str) -> float:
    """BLEU-4 of characters, with NLTK's third smoothing, as in the LifeAlign paper's evaluation.

    An order without a match counts as 1 / (2^k · n-grams of the answer), k = 1 for the first such order, 2 for the
    next. Characters overlap by chance, so unrelated English texts reach 5 to 15; not comparable with BLEU of words.
    Source: released code (LLaMA-Factory's metric), as described in ``docs/paper_map.md``.

    Returns:
        BLEU in [0, 100], rounded to 4 places; 0 if no character is in common.

    Example:
        >>> paper_bleu("abcd", "abcd"), paper_bleu("abc", "abd"), paper_bleu("", "abcd")
        (100.0, 45.1801, 0.0)
    """
    precisions = []
    missing = 0
    for order in range(1, 5):
        ours, theirs = _ngrams(answer, order), _ngrams(reference, order)
        found, total = sum((ours & theirs).values()), max(1, ours.total())
        if order == 1 and not found:
            return 0.0
        if not found:
            missing += 1
            precisions.append(1 / (2**missing * total))
        else:
            precisions.append(found / total)
    brevity = 1.0 if len(answer) > len(reference) else math.exp(1 - len(reference) / len(answer))
    return round(100 * brevity * math.exp(math.fsum(0.25 * math.log(each) for each in precisions)), 4)


def paper_rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L (F-measure) of the paper's tokens: jieba's words, including punctuation, case kept.

    Source: released code (LLaMA-Factory's metric with rouge-chinese 1.0.3, whose ROUGE-L is of the whole token list).
    One difference: rouge-chinese counts an empty token for a blank line, and for a question mark (or a Chinese full
    stop or exclamation mark) at the end of a line, and cuts a run of seven dots or more after the sixth; here
    whitespace is never a token. For texts of several paragraphs, the difference is mostly a few tenths of a point.

    Returns:
        ROUGE-L in [0, 100], rounded to 4 places; 0 if either text has no token.

    Raises:
        ConfigError: If a text has Chinese characters and jieba is not installed.

    Example:
        >>> paper_rouge_l("The cat sat.", "The cat ran."), paper_rouge_l("", "The cat ran.")
        (75.0, 0.0)
    """
    ours, theirs = paper_tokens(answer), paper_tokens(reference)
    if not ours or not theirs:
        return 0.0
    common = _longest_common(ours, theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return round(100 * 2 * precision * recall / (precision + recall + 1e-8), 4)


def paper_tokens(text: str) -> list[str]:
    """Words as segmented by jieba's default mode, without whitespace.

    Text without Chinese characters is split here, by the same rules; other text needs jieba and its dictionary.

    Raises:
        ConfigError: If the text has Chinese characters and jieba is not installed.

    Example:
        >>> paper_tokens("It's 50% off: v1.2, C++!")
        ['It', "'", 's', '50%', 'off', ':', 'v1.2', ',', 'C++', '!']
    """
    if needs_jieba(text):
        return " ".join(_cut_chinese(text)).split()
    tokens: list[str] = []
    for number, block in enumerate(_BLOCK.split(text)):  # blocks are at odd places
        if number % 2 == 0:
            tokens += [character for character in block if not character.isspace()]
            continue
        for place, part in enumerate(_DICTIONARY.split(block)):
            tokens += [part] if place % 2 else [word for word in _WORD.split(part) if word]
    return " ".join(tokens).split()


def needs_jieba(text: str) -> bool:
    """Whether :func:`paper_tokens` needs jieba for a text: whether it has Chinese characters."""
    return _HAS_HAN.search(text) is not None


def require_jieba() -> None:
    """Refuses Chinese text if jieba is not installed.

    Raises:
        ConfigError: It says how to install it.
    """
    _jieba()


def _cut_chinese(text: str) -> list[str]:
    jieba = _jieba()
    jieba.setLogLevel(logging.WARNING)  # it writes to stderr how long it took to load
    return list(jieba.cut(text))


def _jieba() -> Any:
    try:
        import jieba
    except ImportError as error:
        raise ConfigError(
            "paper_rouge_l needs jieba to split Chinese text into words; `pip install 'lifealign[jieba]'`, or leave "
            "the metric out"
        ) from error
    return jieba


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _longest_common(ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a whole row of the table at a time.

    Neighbours in a row of the usual table differ by 0 or 1, so a row fits into the bits of one integer, and addition
    carries a run of ones as the recursion would (Crochemore et al., 2001): 1000 by 1000 tokens take milliseconds.
    """
    places: dict[Hashable, int] = {}
    for place, token in enumerate(ours):
        places[token] = places.get(token, 0) | 1 << place
    everything = (1 << len(ours)) - 1
    row = everything
    for token in theirs:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(ours) - row.bit_count()


# Both packages import much (nltk, scipy) and are needed only where a life measures these metrics.
def _bleu() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU()


@cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def _require_pairs(answers: Sequence[str], references: Sequence[str]) -> None:
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"found {len(answers)} answers and {len(references)} references, expected one reference per answer, "
            "at least one"
        )
